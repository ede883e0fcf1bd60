"""What happens to a task, told as it happens: nothing twice, nothing left out, however slow the reader is."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import until
from tests.gateway.scripted_worker import ScriptedWorker
from tests.gateway.test_http import TASK_KEYS, Gateway, open_gateway
from ww.gateway.http import HttpConfig
from ww.gateway.server import ABORT
from ww.gateway.task import RunState
from ww.identity import Identity
from ww.net.memory import MemoryTransport, Network
from ww.node import LOOPBACK
from ww.rpc.vat import Vat

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

MANY: Final = 10_000


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path) as gateway:
        yield gateway


@contextlib.asynccontextmanager
async def worked(gateway: Gateway, slots: int = 1, **says: Any) -> AsyncIterator[ScriptedWorker]:
    """Connect a worker to a gateway."""
    network, identity = Network(), Identity.generate()
    async with Vat(identity, MemoryTransport(network, identity)) as vat, ScriptedWorker(network) as worker:
        vat.export("registry", gateway.scheduler.pool.registry_for)
        vat.export("channel", gateway.scheduler.pool.sender_for)
        await worker.connect((await vat.listen(LOOPBACK))[0].of_peer(identity.peer_id))
        for name, value in says.items():
            setattr(worker, name, value)
        await worker.register(slots=slots)
        for _ in range(slots):
            worker.offer()
        ticking = asyncio.create_task(tick(gateway))
        try:
            yield worker
        finally:
            ticking.cancel()


async def tick(gateway: Gateway) -> None:
    """Have time pass: the scheduler waits for it now and then."""
    while True:
        gateway.clock.advance(0.01)
        await asyncio.sleep(0.001)


@dataclass
class Told:
    """One event as it came."""

    kind: str
    position: int
    data: dict[str, Any]


def read(body: str) -> list[Told]:
    """Read a stream's text as a browser does."""
    told = []
    for block in body.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if fields:
            told.append(Told(fields["event"], int(fields.get("id", -1)), json.loads(fields["data"])))
    return told


class Stream:
    """A stream that is read when a test wants: what is not makes the gateway wait, as a full socket does."""

    def __init__(self, gateway: Gateway, path: str, headers: dict[str, str] | None = None) -> None:
        self._gateway = gateway
        raw = {"host": "localhost"} | (headers or {})
        path, _, query = path.partition("?")
        self.scope: dict[str, Any] = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in raw.items()],
            "extensions": {ABORT: self._abort},
        }  # fmt: skip
        self._messages: asyncio.Queue[Any] = asyncio.Queue(1)
        self._gone = asyncio.Event()
        self.is_aborted = False
        self.status = 0
        self._text = ""

    async def __aenter__(self) -> "Stream":
        self._task = asyncio.create_task(self._run())
        start = await self._messages.get()
        self.status = start["status"]
        self.headers = dict(start["headers"])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gone.set()
        with contextlib.suppress(asyncio.QueueEmpty):
            self._messages.get_nowait()
        await self._task

    async def _run(self) -> None:
        await self._gateway.app(self.scope, self._receive, self._messages.put)

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    def _abort(self) -> None:
        self.is_aborted = True
        self._gone.set()

    @property
    def is_over(self) -> bool:
        return self._task.done()

    async def some(self) -> list[Told] | None:
        """Return what comes next, None at the end."""
        message = await self._messages.get()
        return read(message["body"].decode()) if message.get("more_body") else None

    async def all(self) -> list[Told]:
        """Read to the end."""
        told: list[Told] = []
        while (some := await self.some()) is not None:
            told += some
        return told


async def events(gateway: Gateway, path: str, **headers: str) -> list[Told]:
    """Read a stream that ends to its end."""
    async with Stream(gateway, path, headers) as stream:
        assert stream.status == 200
        return await stream.all()


def ended(told: list[Told]) -> list[Told]:
    return [each for each in told if each.kind == "run" and each.data["state"] in ("succeeded", "failed", "cancelled")]


def check_whole(told: list[Told], repeats: int) -> None:
    """Check a stream from its beginning to its end."""
    positions = [each.position for each in told]
    assert positions == sorted(positions)
    runs = ended(told)
    assert sorted(each.data["run"] for each in runs) == list(range(repeats))
    assert len({each.position for each in runs}) == repeats
    last = told[-1]
    assert (last.kind, last.data["status"]) == ("task", "succeeded")
    assert [each.data["status"] for each in told if each.kind == "task"][:-1].count("succeeded") == 0
    state: dict[int, str] = {}
    for each in told:
        if each.kind == "run":
            assert state.get(each.data["run"]) not in ("succeeded", "failed"), "nothing follows an end"
            state[each.data["run"]] = each.data["state"]


async def test_a_task_is_told_from_its_beginning_to_its_end(gateway: Gateway) -> None:
    await gateway.added(id="t", repeats=2)
    async with Stream(gateway, "/tasks/t/events") as stream, worked(gateway) as worker:
        assert stream.headers[b"content-type"] == b"text/event-stream; charset=utf-8"
        assert stream.headers[b"cache-control"] == b"no-store"
        (first,) = await stream.some() or []
        assert (first.kind, first.position, first.data["status"]) == ("task", 0, "queued")
        assert first.data.keys() == set(TASK_KEYS.split()) - {"results"}
        told = []
        for run in range(2):
            await until(lambda: bool(worker.open_runs))
            running = {"run": run, "state": "running", "worker": worker.peer_id, "attempt": 1}
            while running not in [each.data for each in told]:
                told += await stream.some() or []
            worker.open_runs[0].end()
        told += await stream.all()
        results = await gateway.json("/tasks/t/runs")
        assert [each.data for each in ended(told)] == results
        check_whole([first, *told], 2)
        final = await gateway.json("/tasks/t")
        del final["results"]
        assert told[-1].data == final


async def test_an_ended_task_is_told_at_once_and_its_last_event_is_the_end(gateway: Gateway) -> None:
    await gateway.added(id="t", repeats=5)
    async with worked(gateway, is_quick=True):
        await gateway.json("/tasks/t?wait=20")
    told = await events(gateway, "/tasks/t/events")
    assert [each.kind for each in told] == ["run"] * 5 + ["task"]
    check_whole(told, 5)


async def test_who_comes_back_is_told_what_is_missing_and_nothing_twice(gateway: Gateway) -> None:
    await gateway.added(id="t", repeats=100)
    await gateway.added(id="other", repeats=100)
    async with worked(gateway, is_quick=True):
        for id in ("t", "other"):
            await gateway.json(f"/tasks/{id}?wait=20")
    whole = await events(gateway, "/tasks/t/events")
    for place, event in enumerate(whole):
        path = "/tasks/t/events"
        if place == len(whole) - 1:
            answer = await gateway.client.get(path, headers={"last-event-id": str(event.position)})
            assert (answer.status_code, answer.content) == (204, b"")
            assert (await gateway.client.get(f"{path}?after={event.position}")).status_code == 204
        elif place % 10 == 0:
            assert await events(gateway, f"{path}?after={event.position}") == whole[place + 1 :]
            assert (
                await events(gateway, f"{path}?after=0", **{"last-event-id": str(event.position)}) == whole[place + 1 :]
            )
    (only,) = await events(gateway, "/tasks/t/events?after=now")
    assert only == whole[-1]


async def test_who_comes_back_to_a_running_task_is_told_what_runs(gateway: Gateway) -> None:
    await gateway.added(id="t", repeats=3)
    async with worked(gateway) as worker:
        await until(lambda: bool(worker.open_runs))
        worker.open_runs[0].end()
        await until(lambda: bool(worker.open_runs) and gateway.scheduler.task("t").succeeded == 1)  # type: ignore[union-attr]
        position = await gateway.store.last_position(1)
        for query, sees in ((f"?after={position}", [1]), ("?after=now", [1]), ("", [0, 1])):
            async with Stream(gateway, f"/tasks/t/events{query}") as stream:
                told = await stream.some() or []
                assert told[0].kind == "task"
                assert [each.data["run"] for each in told[1:]] == sees


async def test_a_run_that_goes_back_to_the_queue_is_told(gateway: Gateway) -> None:
    await gateway.added(id="t")
    async with worked(gateway) as worker, Stream(gateway, "/tasks/t/events") as stream:
        told: list[Told] = []
        while not any(each.data.get("state") == "running" for each in told):
            told += await stream.some() or []
        worker.disconnect()
        while told[-1].data.get("state") != "queued":
            told += await stream.some() or []
        assert told[-1].data == {"run": 0, "state": "queued", "attempts": 1}


async def test_a_cancelled_task_is_told_with_what_was_running(gateway: Gateway) -> None:
    await gateway.added(id="t", repeats=3)
    async with worked(gateway) as worker, Stream(gateway, "/tasks/t/events") as stream:
        await until(lambda: bool(worker.open_runs))
        await gateway.json("/tasks/t", 200, "DELETE")
        told = await stream.all()
        assert [(each.data["run"], each.data["state"]) for each in ended(told)] == [(0, "cancelled")]
        assert [each.data["status"] for each in told if each.kind == "task"].count("cancelled") == 1
        assert (told[-1].kind, told[-1].data["status"]) == ("task", "cancelled")


async def test_a_stream_goes_on_after_a_restart_where_it_was(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        await gateway.added(id="t", repeats=4)
        async with worked(gateway) as worker, Stream(gateway, "/tasks/t/events") as stream:
            told: list[Told] = []
            for run in range(2):
                await until(lambda: bool(worker.open_runs))
                worker.open_runs[0].end()
                while len(ended(told)) <= run:
                    told += await stream.some() or []
    async with open_gateway(tmp_path) as gateway, worked(gateway, is_quick=True):
        told += await events(gateway, "/tasks/t/events", **{"last-event-id": str(told[-1].position)})
    check_whole(told, 4)


async def test_a_reader_that_takes_nothing_costs_nothing_and_gets_all_in_order(gateway: Gateway) -> None:
    await gateway.added(id="t", repeats=MANY)
    async with Stream(gateway, "/tasks/t/events") as slow, worked(gateway, 2, is_quick=True):
        async with Stream(gateway, "/tasks/t/events") as quick:
            check_whole(await quick.all(), MANY)
        assert (await gateway.json("/tasks/t"))["completions"] == MANY, "nobody waited for the slow one"
        assert not slow.is_over
        check_whole(await slow.all(), MANY)


async def test_a_reader_that_takes_nothing_for_too_long_is_cut_off(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, http=HttpConfig(stream_timeout_s=0.05)) as gateway:
        await gateway.added(id="t", repeats=1000)
        async with worked(gateway, is_quick=True), Stream(gateway, "/tasks/t/events") as stream:
            await until(lambda: stream.is_over)
            assert stream.is_aborted
        assert gateway.scheduler.watches.readers == {}


async def test_there_are_so_many_streams_and_no_more(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, http=HttpConfig(streams_max=2)) as gateway:
        await gateway.added(id="t")
        path = "/tasks/t/events"
        async with Stream(gateway, path), Stream(gateway, path):
            answer = await gateway.client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
            assert int(answer.headers["retry-after"]) > 0
            assert (await gateway.client.head(path)).status_code == 200
        async with Stream(gateway, path) as stream:
            assert stream.status == 200
        assert gateway.scheduler.watches.readers == {}


async def test_streams_end_when_the_gateway_stops(gateway: Gateway) -> None:
    await gateway.added(id="t")
    async with Stream(gateway, "/tasks/t/events") as stream:
        await stream.some()
        gateway.scheduler.watches.close()
        assert await stream.all() == []
    (only,) = await events(gateway, "/tasks/t/events")
    assert (only.kind, only.data["status"]) == ("task", "queued")


@pytest.mark.parametrize("after", ["-1", "x", "", "1.5", "9" * 40, "NOW"])
async def test_a_position_that_is_none(gateway: Gateway, after: str) -> None:
    await gateway.added(id="t")
    for request in ({"params": {"after": after}}, {"headers": {"last-event-id": after}}):
        answer = await gateway.client.get("/tasks/t/events", **request)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["field"]) == (422, "after")


async def test_a_task_that_is_not_there_has_no_events(gateway: Gateway) -> None:
    assert (await gateway.client.get("/tasks/t/events")).status_code == 404


async def test_another_reader_is_told_of_its_task_alone(gateway: Gateway) -> None:
    await gateway.added(id="a")
    await gateway.added(id="b")
    async with Stream(gateway, "/tasks/a/events") as stream, worked(gateway, is_quick=True):
        assert {each.data["id"] for each in await stream.all() if each.kind == "task"} == {"a"}
    assert (await gateway.json("/tasks/b?wait=20"))["status"] == RunState.SUCCEEDED
