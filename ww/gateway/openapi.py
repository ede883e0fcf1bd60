"""The HTTP interface described: OpenAPI 3.1, made of the tables that requests are read by.

Holds the assembly and which status each endpoint may answer. Must not know how anything is answered. Endpoints:
endpoints.py; a form's fields: fields.py; what follows the question mark: query.py; answers: shapes.py.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from ww import __version__
from ww.gateway import fields, query
from ww.gateway.endpoints import ENDPOINTS, Endpoint
from ww.gateway.grants import LIMITS
from ww.gateway.limits import RequestLimits
from ww.gateway.metrics import CONTENT_TYPE as METRICS_TYPE
from ww.gateway.shapes import SCHEMAS

_Json = dict[str, Any]

_MEANINGS: Final = {
    200: "Done.",
    201: "Made, and on disk.",
    204: "Done; there is nothing to say.",
    304: "The client has it.",
    101: "The connection is a WebSocket now: /ws of text messages, each one JSON object; /peer as docs/http.md says.",
    400: "No HTTP, or no body of the type that it says it is.",
    401: "No token, or one that is not known or has expired.",
    403: "Another web page's request, a Host that is not this gateway's, or a token without that right.",
    404: "There is no such thing, or it is another owner's.",
    408: "The body took too long.",
    409: "What is there stands against it.",
    413: "The body is larger than --upload-max.",
    415: "A body of another type.",
    422: "A field, the module or the zip is not as described.",
    429: "A limit or a quota is reached; Retry-After says when to come back.",
    500: "The gateway failed; its log says why.",
    503: "The disk refuses, the gateway is stopping, or too many connections are open.",
}
_BODY: Final = (400, 408, 413, 415, 422, 429)
_PATH: Final[dict[str, _Json]] = {
    "id": {"type": "string", "pattern": f"^{fields.ID_PATTERN}$"},
    "run": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
    "digest": {"type": "string", "pattern": "^(sha256:)?[0-9a-f]{64}$"},
    "file": {"type": "string", "pattern": "^[A-Za-z0-9._-]+$"},
}
_PATH_HELP: Final = {
    "id": "Of a task.",
    "run": "Which of the task's runs, from 0.",
    "digest": "sha256 of the module, in hex.",
    "file": "Its name.",
}


@dataclass(frozen=True, slots=True)
class _Answers:
    """What an endpoint may answer, beside what all do."""

    success: dict[int, _Json] = field(default_factory=dict)
    """Content by status; none where it is empty."""
    problems: tuple[int, ...] = ()
    headers: dict[int, tuple[str, ...]] = field(default_factory=dict)


def _json(schema: _Json) -> _Json:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _json_list(name: str) -> _Json:
    return _json({"type": "array", "items": _ref(name)})


def _bytes(media_type: str) -> _Json:
    return {media_type: {"schema": {"type": "string", "contentMediaType": media_type}}}


LINES_TYPE: Final = "application/x-ndjson"
_LOCATION: Final[dict[int, tuple[str, ...]]] = {201: ("Location",), 200: ("Location",)}
_ETAG: Final[dict[int, tuple[str, ...]]] = {200: ("ETag",), 304: ("ETag",)}
_TASK: Final = _json(_ref("Task"))
_MODULE: Final = _json(_ref("Module"))
_READINESS: Final = _json(_ref("Readiness"))
_LINES_HELP: Final = (
    'A batch, a line of JSON each: first {"parent": {...}}, then for each run an object, as those in tasks of'
    " application/json."
)
_TEXT: Final = {"schema": {"type": "string"}}
_PAGE: Final = _Answers({200: {"text/html": _TEXT}, 304: {}}, (404,), _ETAG)
_ANSWERS: Final[dict[tuple[str, str], _Answers]] = {
    ("GET", "/tasks"): _Answers({200: _json_list("Task")}, (404, 422)),
    ("POST", "/tasks"): _Answers({201: _TASK, 200: _TASK}, (*_BODY, 404, 409), _LOCATION),
    ("GET", "/tasks/{id}"): _Answers({200: _TASK}, (404, 422)),
    ("DELETE", "/tasks/{id}"): _Answers({200: _TASK}, (404,)),
    ("GET", "/tasks/{id}/runs"): _Answers({200: _json_list("Result")}, (404, 422)),
    ("GET", "/tasks/{id}/runs/{run}"): _Answers({200: _json(_ref("Run"))}, (404,)),
    ("GET", "/tasks/{id}/runs/{run}/artifacts"): _Answers({200: _bytes("application/zip")}, (404,)),
    ("GET", "/tasks/{id}/results"): _Answers({200: {LINES_TYPE: {"schema": _ref("Result")}}}, (404, 422, 429)),
    ("GET", "/tasks/{id}/events"): _Answers({200: {"text/event-stream": {}}, 204: {}}, (404, 422, 429)),
    ("GET", "/tasks/{id}/grid"): _Answers({200: {"text/event-stream": {}}}, (404, 429)),
    ("POST", "/modules"): _Answers({201: _MODULE, 200: _MODULE}, _BODY, _LOCATION),
    ("GET", "/modules/{digest}"): _Answers({200: _bytes("application/wasm"), 304: {}}, (404, 422), _ETAG),
    ("DELETE", "/modules/{digest}"): _Answers({204: {}}, (404, 409, 422)),
    ("GET", "/ws"): _Answers({101: {}}, (400, 404, 429)),
    ("GET", "/peer"): _Answers({101: {}}, (400, 403, 429)),
    ("GET", "/events"): _Answers({200: {"text/event-stream": {}}}, (429,)),
    ("GET", "/workers"): _Answers({200: _json_list("Worker")}),
    ("GET", "/metrics"): _Answers({200: {METRICS_TYPE: _TEXT}}),
    ("GET", "/openapi.json"): _Answers({200: _json({"type": "object"})}),
    ("GET", "/healthz"): _Answers({200: _json(_ref("Health"))}),
    ("GET", "/readyz"): _Answers({200: _READINESS}),
    ("GET", "/"): _PAGE,
    ("GET", "/worker"): _PAGE,
    ("GET", "/api"): _PAGE,
    ("GET", "/assets/{file}"): _Answers({200: {"*/*": {}}, 304: {}}, (404,), _ETAG),
    ("GET", "/terminal/{file}"): _Answers({200: {"text/javascript": _TEXT}, 304: {}}, (404,), _ETAG),
}
_HEADERS: Final[_Json] = {
    "X-Request-ID": {"description": "The request's own, or one that was made.", "schema": {"type": "string"}},
    "Location": {"description": "Where what was sent is.", "schema": {"type": "string"}},
    "ETag": {"description": "What it is known by, in quotes: of a module its digest.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds until it is worth trying again.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "Bearer.", "schema": {"type": "string"}},
}


def document(limits: RequestLimits, *, has_tokens: bool) -> _Json:
    """Describe the interface of a gateway with those limits, which asks for tokens or does not."""
    paths: _Json = {}
    for endpoint in ENDPOINTS:
        operations = paths.setdefault(endpoint.template, {})
        operations[endpoint.method.lower()] = _operation(endpoint, limits, has_tokens)
        if endpoint.template == "/modules/{digest}" and endpoint.method == "GET":
            operations["head"] = _without_bodies(_operation(endpoint, limits, has_tokens))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ww gateway",
            "version": __version__,
            "description": "Takes tasks, WebAssembly modules or components, and has their runs done by workers.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "headers": _HEADERS,
            "responses": {f"Problem{status}": _problem(status) for status in _MEANINGS if status >= 400},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of --token-file. Scopes: read, submit, admin.",
                }
            },
        },
    }


def _operation(endpoint: Endpoint, limits: RequestLimits, has_tokens: bool) -> _Json:
    place = (endpoint.method, endpoint.template)
    answers = _ANSWERS[place]
    # What every answer may be: a head that is no HTTP, a page of others, our fault, too many connections.
    problems = {*answers.problems, 400, 403, 500, 503}
    if endpoint.scope is not None and has_tokens:
        problems |= {401, 429}
    responses = {str(status): _success(answers, status) for status in answers.success}
    responses |= {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in sorted(problems)}
    if endpoint.template == "/readyz":
        content = _READINESS | {"application/problem+json": {"schema": _ref("Problem")}}
        responses["503"] = {"description": "Something is missing.", "headers": _headers(), "content": content}
    operation: _Json = {
        "operationId": _name(endpoint),
        "summary": endpoint.summary,
        "parameters": _parameters(endpoint),
        "responses": responses,
        "security": [{"bearer": [str(endpoint.scope)]}] if endpoint.scope is not None and has_tokens else [],
    }
    if endpoint.method == "POST":
        operation["requestBody"] = {"required": True, "content": _request_content(endpoint, limits)}
    return operation


def _name(endpoint: Endpoint) -> str:
    words = [word.strip("{}").replace(".", "_") for word in endpoint.template.split("/")[1:]]
    return "_".join([endpoint.method.lower(), *words])


def _success(answers: _Answers, status: int) -> _Json:
    content = answers.success[status]
    described: _Json = {"description": _MEANINGS[status], "headers": _headers(*answers.headers.get(status, ()))}
    return described | ({"content": content} if content else {})


def _problem(status: int) -> _Json:
    names = {401: ("WWW-Authenticate",), 429: ("Retry-After",)}.get(status, ())
    content = {"application/problem+json": {"schema": _ref("Problem")}}
    return {"description": _MEANINGS[status], "headers": _headers(*names), "content": content}


def _headers(*names: str) -> _Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", *names)}


def _without_bodies(operation: _Json) -> _Json:
    responses = {
        status: {"description": _MEANINGS[int(status)], "headers": answer.get("headers", _headers())}
        for status, answer in operation["responses"].items()
    }
    return operation | {"operationId": "head" + operation["operationId"].removeprefix("get"), "responses": responses}


def _parameters(endpoint: Endpoint) -> list[_Json]:
    found: list[_Json] = [
        {"name": name, "in": "path", "required": True, "description": _PATH_HELP[name], "schema": schema}
        for name, schema in _PATH.items()
        if f"{{{name}}}" in endpoint.template
    ]
    found += [
        {"name": each.name, "in": "query", "required": False, "description": each.help, "schema": each.schema()}
        for each in query.PARAMETERS.get((endpoint.method, endpoint.template), ())
    ]
    if 304 in _ANSWERS[endpoint.method, endpoint.template].success and found:
        found.append(_header("If-None-Match", "ETags of what the client has."))
    if endpoint.template == "/tasks/{id}/events":
        found.append(_header("Last-Event-ID", "The id of the last event that the client got: what came since."))
    return found


def _header(name: str, help: str) -> _Json:
    return {"name": name, "in": "header", "required": False, "description": help, "schema": {"type": "string"}}


def _request_content(endpoint: Endpoint, limits: RequestLimits) -> _Json:
    wasm = {"wasm": fields.ALL["wasm"].schema(limits) | {"description": fields.ALL["wasm"].help}}
    if endpoint.template == "/modules":
        form = {"type": "object", "properties": wasm, "required": ["wasm"], "additionalProperties": False}
        return {"multipart/form-data": {"schema": form}, **_bytes("application/wasm")}
    form = {
        "type": "object",
        "properties": {each.name: _form_field(each, limits) for each in fields.ALL.values()},
        "anyOf": [{"required": ["wasm"]}, {"required": ["module"]}],
        "additionalProperties": False,
    }
    return {
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": _json_task(limits)},
        LINES_TYPE: {"schema": {"type": "string", "description": _LINES_HELP}},
    }


def _json_task(limits: RequestLimits) -> _Json:
    """Describe a submission as JSON: what all runs have in common, and what each has of its own."""
    members = {each.name: _json_field(each, limits) for each in fields.ALL.values() if not each.is_file}
    base64 = {"type": "string", "contentEncoding": "base64"}
    stdin = {"type": "string", "description": "What the guest reads, as text."}
    files = {name: base64 | {"description": f"{name} in base64."} for name in ("stdin", "files")}
    own = {"stdin": stdin} | {f"{name}_base64": schema for name, schema in files.items()}
    parent = members | own | {"wasm_base64": base64 | {"description": "wasm in base64, in place of module."}}
    run = {name: members[name] for name in fields.OF_RUNS if name in members} | own
    run["name"] = {"type": "string", "maxLength": fields.RUN_NAME_CHARACTERS_MAX, "description": "What the run is of."}
    return {
        "type": "object",
        "properties": {
            "parent": _members(parent) | {"anyOf": [{"required": ["wasm_base64"]}, {"required": ["module"]}]},
            "tasks": {
                "type": "array", "items": _members(run), "minItems": 1, "maxItems": limits.runs_max,
                "description": "A batch: what each run has of its own; what it has not is the parent's.",
            },
        },
        "required": ["parent"],
        "additionalProperties": False,
    }  # fmt: skip


def _members(properties: _Json) -> _Json:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _json_field(each: fields.Field, limits: RequestLimits) -> _Json:
    if each.name == "grants":
        return {"type": "array", "items": _grant(limits), "maxItems": fields.GRANTS_MAX, "description": each.help}
    if each.name not in ("env", "labels"):
        return _form_field(each, limits)
    most = getattr(each, "count_max", 0)
    pairs = {"type": "object", "additionalProperties": {"type": "string"}}
    return pairs | ({"maxProperties": most} if most else {}) | {"description": each.help}


def _grant(limits: RequestLimits) -> _Json:
    """Describe a function that may be called: its name, and what a run of it may use, as a task's fields say it."""
    name = {"type": "string", "pattern": f"^{fields.FUNCTION_PATTERN}$", "maxLength": fields.FUNCTION_CHARACTERS_MAX}
    members = {name: _form_field(fields.ALL[name], limits) for name in LIMITS}
    of_these = {"type": "array", "items": {"type": "string"}, "description": "Those of these that it may have called."}
    indirect = {"type": "boolean", "default": False, "description": "Whether only those of these may that name it."}
    named = {"name": name | {"description": "module:qualname."}}
    return _members({**named, **members, "grants": of_these, "indirect": indirect}) | {"required": ["name"]}


def _form_field(each: fields.Field, limits: RequestLimits) -> _Json:
    schema = each.schema(limits)
    if isinstance(each, fields.Value) and each.default is not None:
        schema["default"] = each.filled_in(limits)
        if schema["default"] == 0 and (schema.get("minimum", 0) > 0 or "exclusiveMinimum" in schema):
            del schema["default"]  # what stands for none cannot be given
    if each.is_repeated:
        most = getattr(each, "count_max", 0)
        schema = {"type": "array", "items": schema} | ({"maxItems": most} if most else {})
    return schema | {"description": each.help}
