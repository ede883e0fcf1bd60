"""What the live page is told of the cluster: each once for all readers, not too often, and the last of it always."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from tests.conftest import until
from tests.gateway.scripted_worker import ScriptedWorker
from tests.gateway.test_events import Stream, Told, worked
from tests.gateway.test_http import ABOUT, BOUND_S, NOOP, TASK_KEYS, WALL, Gateway, form, open_gateway
from tests.gateway.test_owners import BOTH
from tests.gateway.test_owners import added as added_for
from ww import __version__
from ww.clock import SystemClock
from ww.discovery.packet import Survey, Writer
from ww.discovery.sources import DiscoveryConfig
from ww.errors import StoreError
from ww.gateway.caller import Caller, Scope
from ww.gateway.http import HttpConfig
from ww.gateway.live import ClusterReader, Live
from ww.gateway.live import Node as Seen
from ww.gateway.metrics import Metrics
from ww.gateway.perimeter import Perimeter
from ww.gateway.task_news import TOLD_MAX
from ww.identity import Identity
from ww.node import Node, NodeConfig

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

SAMPLE: Final = (
    "t ended failed running queued dispatch_p50_ms dispatch_p95_ms run_p50_ms run_p95_ms workers slots free requests"
)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path) as gateway:
        yield gateway


class Page:
    """What a page shows that follows the cluster."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.tasks: dict[str, dict[str, Any]] = {}
        self.latest: dict[str, Any] = {}
        self.counts: Counter[str] = Counter()
        self.resets = 0

    def take(self, told: list[Told]) -> None:
        self.told += told
        for each in told:
            self.counts[each.kind] += 1
            self.latest[each.kind] = each.data
            if each.kind == "tasks":
                assert len(each.data["tasks"]) <= TOLD_MAX
                if each.data.get("reset"):
                    self.tasks.clear()
                    self.resets += 1
                self.tasks |= {task["id"]: task for task in each.data["tasks"]}

    def is_first(self, *kinds: str) -> bool:
        return [each.kind for each in self.told[: len(kinds)]] == list(kinds)


@contextlib.asynccontextmanager
async def page_of(gateway: Gateway, who: str = "") -> AsyncIterator[tuple[Page, Stream]]:
    """Follow the cluster while the context is open."""
    headers = {"authorization": f"Bearer {who}"} if who else {}
    page = Page()
    async with Stream(gateway, "/events", headers) as stream:
        assert stream.status == 200

        async def follow() -> None:
            while (told := await stream.some()) is not None:
                page.take(told)

        following = asyncio.create_task(follow())
        try:
            yield page, stream
        finally:
            following.cancel()


def nothing_is_left(gateway: Gateway) -> None:
    scheduler = gateway.scheduler
    assert (scheduler.watches.listeners, scheduler.watches.readers, scheduler.on_workers) == ([], {}, [])
    under_way = {getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}
    assert not [name for name in under_way if name.startswith(("Topic.", "Members.", "_Following.", "Board."))]


# Seconds.


async def test_a_sample_says_what_was_done_in_its_second(gateway: Gateway) -> None:
    metrics = Metrics()
    live = Live(
        gateway.scheduler, gateway.store, gateway.clock, metrics, about=lambda: ABOUT, current=_never, summary=_never
    )
    metrics.run_ended("succeeded", "", 0.5)
    metrics.request_ended("GET", "/tasks", 200, 0.1)
    live.sample()
    for wall_s in (0.010, 0.010, 0.010, 4.0):
        metrics.run_ended("succeeded" if wall_s < 1 else "failed", "", wall_s)
    metrics.dispatched(0.002, 99)
    metrics.dispatched(7.0, 1)
    gateway.clock.advance(1)
    live.sample()
    live.sample()
    first, second, third = live.history.samples
    assert first.keys() == second.keys() == set(SAMPLE.split())
    assert (first["ended"], first["requests"], first["dispatch_p50_ms"]) == (1, 1, None)
    assert (second["t"], second["ended"], second["failed"], second["requests"]) == (WALL + 1, 4, 1, 0)
    # Buckets are a quarter wide.
    for name, expected_ms in (("run_p50", 10), ("run_p95", 4000), ("dispatch_p50", 2), ("dispatch_p95", 2)):
        assert 0.75 * expected_ms <= second[f"{name}_ms"] <= 1.25 * expected_ms, name
    assert (third["ended"], third["run_p95_ms"]) == (0, None)
    for _ in range(400):
        live.sample()
    assert len(live.history.samples) == 300
    assert live.history.since(live.history.count - 2) == list(live.history.samples)[-2:]


async def test_a_sample_comes_each_second_whether_anybody_listens_or_not(gateway: Gateway) -> None:
    async with gateway.live.running():
        for count in (1, 2):
            await asyncio.sleep(0)
            gateway.clock.advance(1)
            await until(lambda count=count: gateway.live.history.count == count)  # type: ignore[misc]
        async with page_of(gateway) as (page, _):
            await until(lambda: "hello" in page.latest)
            hello = page.latest["hello"]
            assert (hello["gateway"], hello["namespace"]) == (ABOUT["peer"], "ww")
            assert (hello["version"], hello["started"], hello["now"]) == (__version__, WALL, WALL + 2)
            assert [sample["t"] for sample in hello["samples"]] == [WALL + 1, WALL + 2]
            gateway.clock.advance(1)
            await until(lambda: page.counts["sample"] == 1)
            assert page.latest["sample"]["t"] == WALL + 3
    before = gateway.live.history.count
    gateway.clock.advance(1)
    await asyncio.sleep(0)
    assert gateway.live.history.count == before


async def _never(*_: Any) -> Any:
    raise AssertionError("nobody listens")


# Tasks.


async def test_the_newest_tasks_come_first_and_then_each_change(gateway: Gateway) -> None:
    for number in range(TOLD_MAX + 5):
        await gateway.added(id=f"t{number}")
    async with page_of(gateway) as (page, _):
        await until(lambda: page.counts["tasks"] == 1)
        assert page.is_first("hello", "tasks", "workers")
        assert list(page.tasks) == [f"t{number}" for number in range(TOLD_MAX + 4, 4, -1)]
        assert page.tasks["t5"].keys() == set(TASK_KEYS.split()) - {"results"} | {"throughput"}
        expected = await gateway.json("/tasks/t5")
        del expected["results"]
        assert {name: page.tasks["t5"][name] for name in expected if name != "next_run_at"} == {
            name: value for name, value in expected.items() if name != "next_run_at"
        }
        await gateway.added(id="new")
        await until(lambda: "new" in page.tasks)
        # One that was not among the newest, and never ran.
        await gateway.json("/tasks/t0", 200, "DELETE")
        await until(lambda: "t0" in page.tasks and page.tasks["t0"]["status"] == "cancelled")
        assert page.resets == 1
    nothing_is_left(gateway)


async def test_every_task_that_runs_is_told_to_its_end(gateway: Gateway) -> None:
    async with page_of(gateway) as (page, _), worked(gateway, 2, is_quick=True):
        for number in range(30):
            await gateway.added(id=f"t{number}", repeats=5)
        await until(lambda: len(page.tasks) == 30 and all(task["finished_at"] for task in page.tasks.values()))
        for task in page.tasks.values():
            assert (task["status"], task["completions"], task["throughput"]) == ("succeeded", 5, 0.0)
        # A task that is answered when it has ended begins before it is on disk.
        await gateway.json("/tasks?wait=20", 201, "POST", files=[("wasm", ("g", NOOP)), ("id", (None, b"awaited"))])
        await until(lambda: page.tasks.get("awaited", {}).get("status") == "succeeded")


async def test_a_task_that_the_disk_refused_was_never_told(gateway: Gateway) -> None:
    add = gateway.store.add_task

    async def refuse(*_: object) -> int:
        await until(lambda: bool(worker.runs))
        raise StoreError("no space left on device")

    async with page_of(gateway) as (page, _), worked(gateway) as worker:
        gateway.store.add_task = refuse  # type: ignore[method-assign]
        parts = form(id="0199a2b0-0000-7000-8000-000000000000")
        assert (await gateway.client.post("/tasks?wait=20", files=parts)).status_code == 503
        gateway.store.add_task = add  # type: ignore[method-assign]
        await gateway.added(id="next")
        await until(lambda: "next" in page.tasks)
        told = [task["id"] for each in page.told if each.kind == "tasks" for task in each.data["tasks"]]
        assert set(told) == {"next"}


async def test_a_speed_is_told_and_goes_down_when_nothing_ends(gateway: Gateway) -> None:
    await gateway.added(id="t", repeats=1000)
    async with worked(gateway) as worker, page_of(gateway) as (page, _):
        worker.offers_again = True
        while not (page.tasks and page.tasks["t"]["throughput"] > 0):
            await until(lambda: bool(worker.open_runs))
            for run in worker.open_runs:
                run.end()
            await asyncio.sleep(0.01)
        while page.tasks["t"]["throughput"] > 0:
            gateway.clock.advance(1)
            gateway.live.sample()
            await asyncio.sleep(0.05)
        assert page.tasks["t"]["status"] == "running"


async def test_more_changes_than_are_told_are_told_as_the_newest(gateway: Gateway) -> None:
    for number in range(300):
        await gateway.added(id=f"t{number}")
    async with page_of(gateway) as (page, _):
        await until(lambda: page.resets == 1 and page.counts["workers"] == 1)
        for number in range(300):
            gateway.scheduler.watches.notify(f"t{number}")
        await until(lambda: page.resets == 2)
        assert list(page.tasks) == [f"t{number}" for number in range(299, 299 - TOLD_MAX, -1)]


async def test_a_reader_that_was_away_is_told_the_newest(gateway: Gateway) -> None:
    await gateway.added(id="first")
    async with Stream(gateway, "/events") as stream, page_of(gateway) as (quick, _):
        for number in range(120):
            await gateway.added(id=f"t{number}")
            if number % 40 == 0:
                await until(lambda number=number: f"t{number}" in quick.tasks)  # type: ignore[misc]
        await until(lambda: "t119" in quick.tasks)
        page = Page()
        while "t119" not in page.tasks:
            page.take(await stream.some() or [])
        assert page.resets == 2
        assert list(page.tasks) == [f"t{number}" for number in range(119, 119 - TOLD_MAX, -1)]


# Whose.


class Known:
    def __init__(self) -> None:
        self.callers = {
            b"alice": Caller("alice", BOTH),
            b"bob": Caller("bob", BOTH),
            b"admin": Caller("admin", frozenset({Scope.ADMIN})),
            b"submitter": Caller("submitter", frozenset({Scope.SUBMIT})),
        }

    def caller(self, secret: bytes) -> tuple[Caller | None, str]:
        return self.callers.get(secret), ""


async def test_a_reader_sees_its_own_tasks_and_loses_sight_with_its_rights(tmp_path: Path) -> None:
    known = Known()
    async with open_gateway(tmp_path, perimeter=Perimeter(tokens=known)) as gateway:
        await added_for(gateway, "alice", "a1")
        await added_for(gateway, "bob", "b1")
        async with (
            page_of(gateway, "alice") as (alice, stream),
            page_of(gateway, "bob") as (bob, bobs),
            page_of(gateway, "admin") as (admin, _),
        ):
            await until(lambda: {"a1", "b1"} == admin.tasks.keys())
            await added_for(gateway, "alice", "a2")
            await added_for(gateway, "bob", "b2")
            await until(lambda: {"a1", "a2", "b1", "b2"} == admin.tasks.keys())
            await until(lambda: "a2" in alice.tasks and "b2" in bob.tasks)
            assert alice.tasks.keys() == {"a1", "a2"}
            assert bob.tasks.keys() == {"b1", "b2"}
            del known.callers[b"alice"]
            known.callers[b"bob"] = Caller("bob", frozenset({Scope.SUBMIT}))
            await added_for(gateway, "admin", "more")
            await until(lambda: stream.is_over and bobs.is_over)
            await until(lambda: "more" in admin.tasks)
        for who, status in (("submitter", 403), ("nobody", 401)):
            answer = await gateway.client.get("/events", headers={"Authorization": f"Bearer {who}"})
            assert answer.status_code == status
        nothing_is_left(gateway)


# Workers, members and packets.


async def test_workers_are_told_as_they_come_work_and_go(gateway: Gateway) -> None:
    async with page_of(gateway) as (page, _):
        await until(lambda: page.latest.get("workers") == {"workers": [], "more": 0})

        def shown(**expected: Any) -> Callable[[], bool]:
            def is_shown() -> bool:
                found = page.latest["workers"]["workers"]
                return bool(found) and found[0].items() >= expected.items()

            return is_shown

        async with worked(gateway, 2) as worker:
            await until(shown(peer=worker.peer_id, slots=2, free=2, busy=0, runs_ended=0))
            entry = page.latest["workers"]["workers"][0]
            listed = (await gateway.json("/workers"))[0]
            assert entry.keys() == listed.keys() - {"modules"} | {"busy", "runs_ended", "runs_per_second"}
            await gateway.added(id="t")
            await until(shown(free=1, busy=1))
            await until(lambda: bool(worker.open_runs))
            worker.open_runs[0].end()
            await until(shown(busy=0, runs_ended=1))
            await run_a_second(gateway, worker)
            await until(shown(runs_per_second=1.0))
            gateway.live.sample()
            await until(shown(runs_per_second=0.0))
        await until(lambda: page.latest["workers"]["workers"] == [])
    nothing_is_left(gateway)


async def run_a_second(gateway: Gateway, worker: ScriptedWorker) -> None:
    gateway.live.sample()
    worker.offer()
    await gateway.added(id="again")
    await until(lambda: bool(worker.open_runs))
    worker.open_runs[0].end()
    await gateway.json("/tasks/again?wait=20")
    gateway.live.sample()


async def test_members_and_packets_are_told_as_they_come(tmp_path: Path) -> None:
    namespace = f"n{Identity.generate().peer_id}"[:40]

    def made(name: str, role: str) -> Node:
        config = NodeConfig(
            state_directory=tmp_path / name, namespace=namespace, role=role, meta={"name": name},
            discovery=DiscoveryConfig(mdns=False),
        )  # fmt: skip
        return Node(config)

    async with asyncio.timeout(BOUND_S), open_gateway(tmp_path) as gateway, made("one", "gateway") as node:
        await node.listen()
        live = Live(
            gateway.scheduler, gateway.store, SystemClock(), Metrics(), about=lambda: ABOUT, current=_never,
            summary=_never, node=Seen(node.heartbeats, node.discovery),
        )  # fmt: skip
        page, plain = Page(), Page()
        following = [
            asyncio.create_task(_follow(live, Caller(), page)),
            asyncio.create_task(_follow(live, Caller("reader", frozenset({Scope.READ})), plain)),
        ]

        def members(of: Page = page) -> dict[str, dict[str, Any]]:
            return {member["peer"]: member for member in of.latest.get("members", {}).get("members", ())}

        await until(lambda: members().keys() == {str(node.peer_id)})
        async with made("two", "worker") as other:
            await other.listen()
            await until(lambda: len(members()) == len(members(plain)) == 2)
            member = members()[str(other.peer_id)]
            assert (member["role"], member["meta"]) == ("worker", {"name": "two"})
            assert member["addresses"] == [str(address) for address in other.addresses]
            assert member.keys() == {
                "peer",
                "role",
                "host",
                "addresses",
                "meta",
                "age_seconds",
                "slots",
                "free",
                "queued",
            }
            for said in (
                Writer(Identity.generate(), namespace, 1).write(Survey(1, 7)),
                Writer(Identity.generate(), "elsewhere", 1).write(Survey(1, 255)),
                b"no packet",
            ):
                other.discovery.send(said)
            expected = {("survey", 7, None), ("survey", 255, "other namespace"), (None, None, "malformed")}
            await until(lambda: _packets(page) >= expected)
        await until(lambda: len(members()) == 1)
        assert "packets" not in plain.latest, "they are for who may admin"
        for each in following:
            each.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        assert node.discovery.tapped is None


def _packets(page: Page) -> set[tuple[Any, ...]]:
    told = [packet for each in page.told if each.kind == "packets" for packet in each.data["packets"]]
    assert all(packet.keys() == {"t", "kind", "size", "namespace", "peer", "distance", "dropped"} for packet in told)
    return {(packet["kind"], packet["distance"], packet["dropped"]) for packet in told}


async def _follow(live: Live, who: Caller, page: Page) -> None:
    async for told in ClusterReader(live, lambda: who).events(idle_s=15.0):
        page.take([Told(kind, -1, orjson.loads(data)) for kind, data in told])


# Readers.


async def test_readers_are_counted_cut_off_and_let_go(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, http=HttpConfig(streams_max=2)) as gateway:
        async with Stream(gateway, "/events"), Stream(gateway, "/events"):
            answer = await gateway.client.get("/events")
            assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
            assert (await gateway.client.head("/events")).status_code == 200
        nothing_is_left(gateway)
    async with open_gateway(tmp_path, http=HttpConfig(stream_timeout_s=0.05)) as gateway:
        async with Stream(gateway, "/events") as slow:
            await until(lambda: slow.is_over)
            assert slow.is_aborted
        nothing_is_left(gateway)


async def test_what_is_told_ends_when_the_gateway_stops(gateway: Gateway) -> None:
    async with page_of(gateway) as (page, stream):
        await until(lambda: page.counts["workers"] == 1)
        gateway.scheduler.watches.close()
        await until(lambda: stream.is_over)
    assert gateway.scheduler.watches.listeners == []
