"""Batches as they are sent: what a line says, what is never sent twice, and what is said when it cannot be."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.guests import zipped
from ww.client import AsyncClient, Client, Retry, RunFields
from ww.client.batch import Batch, run_json
from ww.errors import NotAllowed, Overloaded, PeerError, UsageError

pytestmark = pytest.mark.anyio

SMALL = b"\0asm small"
LARGE = b"\0asm" + bytes(100_000)
LARGE_DIGEST = f"sha256:{hashlib.sha256(LARGE).hexdigest()}"
PROBLEM = {"code": "overloaded", "detail": "too much"}


class Gateway:
    """Takes batches as the real one does; first it answers, or breaks off, as a test says."""

    def __init__(self, *first: int | Exception | None) -> None:
        self._first = list(first)
        self.asked: list[str] = []
        self.bodies: list[list[Any]] = []
        self.tasks: dict[str, int] = {}
        self.modules: set[str] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        return self.answer(request, request.read())

    async def later(self, request: httpx.Request) -> httpx.Response:
        return self.answer(request, await request.aread())

    def answer(self, request: httpx.Request, body: bytes) -> httpx.Response:
        path = request.url.path
        self.asked.append(f"{request.method} {path}")
        if path.startswith("/modules"):
            if request.method == "POST":
                self.modules.add(f"sha256:{hashlib.sha256(body).hexdigest()}")
                return httpx.Response(201, json={"module": max(self.modules)})
            return httpx.Response(200 if path.removeprefix("/modules/") in self.modules else 404)
        if request.method == "GET":
            id = path.removeprefix("/tasks/")
            return self.task(id) if id in self.tasks else httpx.Response(404, json={"detail": "no such task"})
        assert request.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in body.splitlines()]
        self.bodies.append(lines)
        first = self._first.pop(0) if self._first else None
        if isinstance(first, int):
            return httpx.Response(first, json=PROBLEM, headers={"Retry-After": "0"})
        module = lines[0]["parent"].get("module")
        if module is not None and module not in self.modules:
            return httpx.Response(404, json={"detail": "no module", "field": "module"})
        self.tasks[lines[0]["parent"]["id"]] = len(lines) - 1
        if first is not None:
            raise first
        return self.task(lines[0]["parent"]["id"])

    def task(self, id: str) -> httpx.Response:
        said = {"id": id, "status": "queued", "repeats": self.tasks[id], "batch": True, "spread": "random"}
        return httpx.Response(200, json=said)


def client(gateway: Gateway) -> Client:
    return Client(transport=httpx.MockTransport(gateway), retry=Retry(retries=2, first_s=0))


LOST = httpx.ReadError("lost")


def test_runs_are_lines_after_what_they_have_in_common(tmp_path: Path) -> None:
    gateway = Gateway()
    content = zipped(a=b"1")
    (tmp_path / "f.zip").write_bytes(content)
    runs: list[RunFields | bytes | str] = [
        b"\xff\0",
        "text\u2028\n",
        {"args": ["a", "b"], "env": {"K": "V"}, "stdin": "x", "name": "one", "input": -1, "difficulty": 2, "seed": 3},
        {"files": tmp_path / "f.zip", "stdin": b"y", "args": None},
        {},
    ]
    with client(gateway) as it:
        task = it.submit_batch(
            SMALL, runs, id="t", args=["p"], env={"P": "1"}, stdin="s", files=content, duration_s=1.5, priority=-3,
            deterministic=True, spread="random",
        )  # fmt: skip
    assert (task.id, task.repeats, task.batch, task.spread) == ("t", 5, True, "random")
    (lines,) = gateway.bodies
    zip64 = base64.b64encode(content).decode()
    assert lines[0] == {
        "parent": {
            "id": "t", "args": ["p"], "env": {"P": "1"}, "stdin_base64": "cw==", "files_base64": zip64,
            "duration": "1.5", "priority": "-3", "deterministic": "true", "spread": "random",
            "wasm_base64": base64.b64encode(SMALL).decode(),
        }
    }  # fmt: skip
    assert lines[1:] == [
        {"stdin_base64": "/wA="},
        {"stdin": "text\u2028\n"},
        {"args": ["a", "b"], "env": {"K": "V"}, "stdin": "x", "name": "one", "input": -1, "difficulty": 2, "seed": 3},
        {"files_base64": zip64, "stdin_base64": "eQ=="},
        {},
    ]


def test_a_large_module_goes_before_it_when_it_is_not_there() -> None:
    gateway = Gateway()
    with client(gateway) as it:
        for _ in range(2):
            it.submit_batch(LARGE, [b""])
        assert gateway.asked == [
            f"HEAD /modules/{LARGE_DIGEST}", "POST /modules", "POST /tasks",
            f"HEAD /modules/{LARGE_DIGEST}", "POST /tasks",
        ]  # fmt: skip
        assert gateway.bodies[0][0]["parent"]["module"] == LARGE_DIGEST


def test_a_list_is_sent_again_as_often_as_it_takes() -> None:
    gateway = Gateway(LOST, 503)
    with client(gateway) as it:
        task = it.submit_batch(SMALL, [b"a", b"b"])
    assert len(gateway.bodies) == 3
    assert gateway.bodies[0] == gateway.bodies[1] == gateway.bodies[2], "the id that was made too"
    assert gateway.tasks == {task.id: 2}


def test_of_an_iterator_it_is_asked_whether_the_task_is_there() -> None:
    gateway = Gateway(LOST)
    with client(gateway) as it:
        task = it.submit_batch(SMALL, iter([b"a", b"b"]))
    assert gateway.asked == ["POST /tasks", f"GET /tasks/{task.id}"]
    assert task.repeats == 2


@pytest.mark.parametrize("status", [502, 504])
def test_an_iterator_that_was_lost_is_not_sent_again(status: int) -> None:
    gateway = Gateway(status)
    with client(gateway) as it, pytest.raises(PeerError, match="cannot be sent again: expected a list"):
        it.submit_batch(SMALL, iter([b"a"]), id="t")
    assert gateway.asked == ["POST /tasks", "GET /tasks/t"]


def test_a_full_gateway_is_said_of_an_iterator_and_waited_for_with_a_list() -> None:
    with client(Gateway(429)) as it, pytest.raises(Overloaded, match="too much"):
        it.submit_batch(SMALL, iter([b"a"]))
    gateway = Gateway(429)
    with client(gateway) as it:
        assert it.submit_batch(SMALL, [b"a"]).repeats == 1
    assert len(gateway.bodies) == 2


def test_an_iterator_from_which_nothing_was_taken_is_sent() -> None:
    class Refusing(httpx.MockTransport):
        tries = 0

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            self.tries += 1
            if self.tries == 1:
                raise httpx.ConnectError("refused")
            return super().handle_request(request)

    with Client(transport=Refusing(Gateway()), retry=Retry(retries=2, first_s=0)) as it:
        assert it.submit_batch(SMALL, iter([b"a"])).repeats == 1


def test_what_breaks_off_while_runs_are_made_is_the_callers() -> None:
    def runs() -> Iterator[bytes]:
        yield b"a"
        raise ZeroDivisionError

    gateway = Gateway()
    with client(gateway) as it, pytest.raises(ZeroDivisionError):
        it.submit_batch(SMALL, runs())
    assert gateway.tasks == {}


@pytest.mark.parametrize(
    ("run", "says"),
    [
        ({"memory": 3}, "tasks[1].memory: no such field of a run"),
        ({"memory_bytes": 3}, "tasks[1].memory_bytes: belongs in what all runs have in common"),
        ({"args": "a b"}, "tasks[1].args: expected a list of texts"),
        ({"env": ["A=1"]}, "tasks[1].env: expected a mapping of names to texts, not list"),
        ({"env": {"A": 1}}, "tasks[1].env: the name and the value of 'A' have to be texts"),
        ({"stdin": 3}, "tasks[1].stdin: expected bytes or text, not int"),
        ({"seed": True}, "tasks[1].seed: expected a whole number, not bool"),
        ({"name": 3}, "tasks[1].name: expected text, not int"),
        ({"files": "none.zip"}, "tasks[1].files: none.zip: No such file or directory"),
        (3, "tasks[1]: expected fields of a run, or its stdin, not int"),
    ],
)
def test_what_is_no_run_is_named(run: Any, says: str) -> None:
    gateway = Gateway()
    with client(gateway) as it, pytest.raises(UsageError) as refused:
        it.submit_batch(SMALL, [b"", run])
    assert str(refused.value) == says
    assert gateway.tasks == {}


@pytest.mark.parametrize("runs", ["text", b"bytes", {"a": 1}, 3])
def test_what_are_no_runs(runs: Any) -> None:
    with client(Gateway()) as it, pytest.raises(UsageError, match="runs: expected a list or an iterator"):
        it.submit_batch(SMALL, runs)


def test_a_batch_has_no_repeats() -> None:
    with client(Gateway()) as it, pytest.raises(UsageError, match="as many runs as it is given"):
        it.submit_batch(SMALL, [b""], repeats=3)


def test_no_more_is_held_than_a_piece() -> None:
    def runs() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(100_000)

    sizes = [len(piece) for piece in Batch(runs()).pieces(b"{}\n")]
    assert len(sizes) > 5
    assert max(sizes) < 600_000
    assert run_json(b"", "x") == {"stdin_base64": ""}


def test_who_may_not() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={"detail": "no token", "code": "unauthorized"})

    with Client(transport=httpx.MockTransport(answer)) as it, pytest.raises(NotAllowed, match="no token"):
        it.submit_batch(SMALL, [b""])


async def test_asyncio_takes_both_kinds_of_iterables() -> None:
    async def runs() -> AsyncIterator[bytes]:
        for n in range(3):
            yield b"%d" % n

    gateway = Gateway(None, LOST, None, LOST)
    retry = Retry(retries=2, first_s=0)
    async with AsyncClient(transport=httpx.MockTransport(gateway.later), retry=retry) as it:  # type: ignore[arg-type]
        assert (await it.submit_batch(SMALL, runs())).repeats == 3
        assert (await it.submit_batch(SMALL, [b"a", "b"])).repeats == 2
        assert (await it.submit_batch(SMALL, runs(), id="t")).repeats == 3
    assert gateway.asked == ["POST /tasks", "POST /tasks", "POST /tasks", "POST /tasks", "GET /tasks/t"]
    assert [line["stdin_base64"] for line in gateway.bodies[0][1:]] == ["MA==", "MQ==", "Mg=="]
    with client(gateway) as sync, pytest.raises(UsageError, match="AsyncClient"):
        sync.submit_batch(SMALL, runs())
