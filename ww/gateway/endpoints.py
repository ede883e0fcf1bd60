"""What can be asked over HTTP, by method and path, and the right it takes.

Holds one table, which the tokens' check, the metrics and the OpenAPI document share. Must not know how anything is
answered: http.py does, and a test holds the two together.
"""

from dataclasses import dataclass
from typing import Final

from ww.gateway.caller import Scope


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One thing that can be asked."""

    method: str
    template: str
    """Its path, with names in braces for what varies."""
    scope: Scope | None
    """The right it takes; None: none, and no token."""
    summary: str
    is_stream: bool = False
    """Whether its answer goes on for as long as the client listens."""


ENDPOINTS: Final = (
    Endpoint("GET", "/tasks", Scope.READ, "List tasks, newest first"),
    Endpoint("POST", "/tasks", Scope.SUBMIT, "Submit a task; with wait, answered once it has ended"),
    Endpoint("GET", "/tasks/{id}", Scope.READ, "One task; with wait, not before it has ended or that time is over"),
    Endpoint("DELETE", "/tasks/{id}", Scope.SUBMIT, "Cancel a task: what is queued never starts, what runs is stopped"),
    Endpoint("GET", "/tasks/{id}/runs", Scope.READ, "Results of a task, by run number"),
    Endpoint("GET", "/tasks/{id}/runs/{run}", Scope.READ, "One result, or the state of a run that has none"),
    Endpoint("GET", "/tasks/{id}/runs/{run}/artifacts", Scope.READ, "The artifacts of a run, as a zip"),
    Endpoint("GET", "/tasks/{id}/results", Scope.READ, "Results of a task, a line each, as they come", is_stream=True),
    Endpoint("GET", "/tasks/{id}/events", Scope.READ, "What happens to a task, as server-sent events", is_stream=True),
    Endpoint("GET", "/tasks/{id}/grid", Scope.READ, "A task's runs as a grid, as they change", is_stream=True),
    Endpoint("POST", "/modules", Scope.SUBMIT, "Store a module or component"),
    Endpoint("GET", "/modules/{digest}", Scope.READ, "The bytes of a stored module"),
    Endpoint("DELETE", "/modules/{digest}", Scope.ADMIN, "Remove a module that no open task names"),
    Endpoint("GET", "/ws", Scope.READ, "Submit, watch and cancel over one WebSocket", is_stream=True),
    Endpoint("GET", "/peer", None, "Be a peer of the cluster, such as a worker, over a WebSocket", is_stream=True),
    Endpoint("GET", "/events", Scope.READ, "What happens in the cluster, as server-sent events", is_stream=True),
    Endpoint("GET", "/workers", Scope.READ, "The registered workers"),
    Endpoint("GET", "/metrics", Scope.READ, "Numbers for Prometheus"),
    Endpoint("GET", "/openapi.json", Scope.READ, "This interface, described: OpenAPI 3.1"),
    Endpoint("GET", "/healthz", None, "Whether the gateway answers, and how it gets on with other nodes"),
    Endpoint("GET", "/readyz", None, "Whether it can take and run tasks, and what is missing"),
    Endpoint("GET", "/", None, "The cluster, live: a page"),
    Endpoint("GET", "/worker", None, "A page that makes its browser tab a worker"),
    Endpoint("GET", "/api", None, "This interface: a page"),
    Endpoint("GET", "/assets/{file}", None, "What the pages load"),
    Endpoint("GET", "/terminal/{file}", None, "The worker for Deno and Node: worker.mjs, and what it loads"),
)

_Shape = tuple[str | None, ...]


def _shape(template: str) -> _Shape:
    return tuple(None if word.startswith("{") else word for word in template.split("/")[1:])


_TEMPLATES: Final[dict[_Shape, str]] = {_shape(endpoint.template): endpoint.template for endpoint in ENDPOINTS}
_BY_PLACE: Final = {(endpoint.method, endpoint.template): endpoint for endpoint in ENDPOINTS}
_WORDS_MAX: Final = 6


def template_of(path: str) -> str:
    """Return the template that a path is of, or an empty text."""
    words: list[str | None] = list(path.split("/", _WORDS_MAX)[1:])
    # What varies stands second and fourth.
    for place in (1, 3):
        if place < len(words) and words[place]:
            words[place] = None
    return _TEMPLATES.get(tuple(words), "")


def endpoint_of(method: str, template: str) -> Endpoint | None:
    """Return what that method asks of a template's path; HEAD asks what GET does."""
    return _BY_PLACE.get(("GET" if method == "HEAD" else method, template))


def scope_of(method: str, template: str) -> Scope | None:
    """Return the right that a request takes. What nothing answers takes one too: strangers learn nothing of it."""
    endpoint = endpoint_of(method, template)
    if endpoint is not None:
        return endpoint.scope
    return Scope.READ
