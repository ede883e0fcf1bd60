"""Python functions as tasks: how they are taken, and what a worker is given. What is refused: test_grants.py."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.components import command
from tests.gateway.native import native_gateway
from tests.gateway.scheduling import next_run
from tests.gateway.test_http import open_gateway as open_http
from tests.guests import zipped
from ww.errors import UsageError

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop"), pytest.mark.timeout(30)]

BODY = '(func (export "run") (result i32) (i32.const 0))'
PYTHON = command(BODY, run="ww:python/functions@1.0.0")
CODE = zipped(**{"m.py": b"def f(): pass"})
GRANT = {"name": "m:g", "duration_s": 2.5, "memory_bytes": 64 << 20, "retries": 1, "grants": ["m:h"]}
GRANTS: list[Any] = [GRANT, {"name": "m:h", "indirect": True}]


async def test_a_worker_is_given_sources_names_and_requests(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        worker = await native.gateway.worker()
        task = await client.submit(PYTHON, id="a", args=["m:f"], files=CODE, stdin=b"request", grants=GRANTS)
        assert (task.kind, task.depth, task.parent) == ("python", 0, None)
        g, h = task.grants
        assert (g["name"], g["duration"], g["memory"], g["retries"]) == ("m:g", 2.5, 64 << 20, 1)
        assert (g["grants"], g["indirect"], h["indirect"]) == (["m:h"], False, True)
        run = await next_run(worker)
        assert (run.invocation["code"], run.invocation["stdin"]) == (CODE, b"request")
        assert list(run.invocation["args"]) == ["m:f", "m:g"], "what only another may call, it is not told of"
        assert "files" not in run.invocation
        run.end(stdout=b"null")
        assert (await client.wait("a")).status == "succeeded"
        # Sent again it is the same task; with another grant it is another.
        again = {"id": "a", "args": ["m:f"], "files": CODE, "stdin": b"request"}
        assert (await client.submit(PYTHON, **again, grants=GRANTS)).id == "a"
        with pytest.raises(UsageError, match="'a' is taken by a task with other content"):
            await client.submit(PYTHON, **again)


async def test_a_batch_of_requests_travels_in_groups(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        worker = await native.gateway.worker(slots=2, is_quick=True)
        await client.submit_batch(PYTHON, [b"%d" % n for n in range(2000)], id="b", args=["m:f"], files=CODE)
        assert (await client.wait("b")).status == "succeeded"
        assert {bytes(run.given.stdin or b"") for run in worker.runs} == {b"%d" % n for n in range(2000)}
        assert max(map(len, worker.groups)) == 64
        assert worker.runs[0].invocation["code"] == CODE


@pytest.mark.parametrize(("run", "field"), [({"args": ["m:g"]}, "args"), ({"files": CODE}, "files")])
async def test_a_run_of_a_batch_has_no_function_of_its_own(tmp_path: Path, run: dict[str, Any], field: str) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        says = rf"tasks\[1\].{field}: a run of a Python function has none of its own; expected stdin"
        with pytest.raises(UsageError, match=says):
            await client.submit_batch(PYTHON, [b"", run], id="b", args=["m:f"], files=CODE)


async def test_over_http_grants_are_objects_in_json_and_their_text_in_a_form(tmp_path: Path) -> None:
    async with open_http(tmp_path) as gateway:
        grants = [{"name": "m:g", "duration": 2.5}]
        parent = {
            "id": "j", "args": ["m:f"], "grants": grants,
            "wasm_base64": base64.b64encode(PYTHON).decode(), "files_base64": base64.b64encode(CODE).decode(),
        }  # fmt: skip
        task = await gateway.json("/tasks", 201, "POST", json={"parent": parent})
        assert [(each["name"], each["duration"]) for each in task["grants"]] == [("m:g", 2.5)]
        form = {"id": "j", "args": "m:f", "grants": json.dumps(grants)}
        parts = {"wasm": ("w", PYTHON), "files": ("f", CODE)}
        answer = await gateway.client.post("/tasks", data=form, files=parts)
        assert (answer.status_code, answer.json()["id"]) == (200, "j"), "it is the same task"
        answer = await gateway.client.post("/tasks", data=form | {"id": "k", "entry": "f"}, files=parts)
        assert answer.status_code == 422
        assert answer.json()["detail"] == "entry: a Python component's function is named in args, as module:qualname"
