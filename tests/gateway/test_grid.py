"""A task's runs as a grid: what is shown is what is so, whatever happens to them and however it is read."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import until
from tests.gateway.stored import end, result, spec
from tests.gateway.test_cells import LETTERS, spread
from tests.gateway.test_events import Stream, Told, worked
from tests.gateway.test_http import Gateway, open_gateway
from tests.gateway.test_owners import Known
from tests.gateway.test_owners import added as added_for
from ww.gateway.http import HttpConfig
from ww.gateway.perimeter import Perimeter
from ww.gateway.task import RunState

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path) as gateway:
        yield gateway


class Shown:
    """What a page shows that follows a grid."""

    def __init__(self) -> None:
        self.cells: list[str] = []
        self.kinds: list[str] = []
        self.task: dict[str, Any] = {}
        self.position = -1

    def take(self, told: list[Told]) -> None:
        for each in told:
            self.kinds.append(each.kind)
            if each.kind == "task":
                self.task = each.data
                continue
            assert each.data["position"] >= self.position
            self.position = each.data["position"]
            if each.kind == "grid":
                self.cells = list(spread(each.data["cells"]))
                assert len(self.cells) == each.data["count"] == -(-each.data["repeats"] // each.data["per_cell"])
            else:
                assert self.cells
                for first, text in each.data["cells"]:
                    stretch = spread(text)
                    assert first + len(stretch) <= len(self.cells)
                    self.cells[first : first + len(stretch)] = stretch

    @property
    def text(self) -> str:
        return "".join(self.cells)


async def follow(stream: Stream, shown: Shown) -> None:
    while (told := await stream.some()) is not None:
        shown.take(told)


async def read(gateway: Gateway, id: str) -> Shown:
    """Read the grid of a task that has ended."""
    shown = Shown()
    async with Stream(gateway, f"/tasks/{id}/grid") as stream:
        assert stream.status == 200
        await follow(stream, shown)
    assert shown.kinds == ["grid", "task"]
    return shown


async def truth(gateway: Gateway, id: str, repeats: int) -> str:
    states = [(await gateway.json(f"/tasks/{id}/runs/{run}"))["state"] for run in range(repeats)]
    return "".join(LETTERS[state] for state in states)


# A task's life.


async def test_a_grid_is_true_at_every_rest_of_a_random_life(gateway: Gateway) -> None:
    repeats, rng = 40, random.Random(7)
    await gateway.added(id="t", repeats=repeats, retries=1)
    shown, late = Shown(), Shown()
    async with Stream(gateway, "/tasks/t/grid") as stream, worked(gateway, 3) as worker:
        worker.offers_again = True
        following = asyncio.create_task(follow(stream, shown))
        while gateway.scheduler.task("t") is not None:
            await until(lambda: bool(worker.open_runs) or gateway.scheduler.task("t") is None)
            for run in rng.sample(worker.open_runs, rng.randint(0, len(worker.open_runs))):
                run.end(**({"reason": "trap"} if rng.random() < 0.3 else {}))
            if rng.random() < 0.2 and worker.open_runs:
                # What runs is held still: then both must come to say the same.
                async with asyncio.timeout(10):
                    while shown.text != await truth(gateway, "t", repeats):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
        await following
        assert shown.text == await truth(gateway, "t", repeats)
        assert {"s", "f"} == set(shown.cells)
    assert (shown.kinds[0], shown.kinds[-1]) == ("grid", "task")
    final = await gateway.json("/tasks/t")
    del final["results"]
    assert shown.task == final
    late = await read(gateway, "t")
    assert (late.text, late.position, late.task) == (shown.text, shown.position, final)


async def test_who_comes_back_begins_anew(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        await gateway.added(id="t", repeats=4)
        async with worked(gateway) as worker:
            await until(lambda: bool(worker.open_runs))
            worker.open_runs[0].end()
            for _ in range(2):
                shown = Shown()
                async with Stream(gateway, "/tasks/t/grid") as stream:
                    following = asyncio.create_task(follow(stream, shown))
                    await until(lambda shown=shown: shown.text.startswith("s"))  # type: ignore[misc]
                    following.cancel()
                assert shown.kinds[0] == "grid"
    async with open_gateway(tmp_path) as gateway, Stream(gateway, "/tasks/t/grid") as stream:
        shown = Shown()
        shown.take(await stream.some() or [])
        assert shown.text == "sqqq"
        async with worked(gateway, is_quick=True):
            await follow(stream, shown)
        assert shown.text == "ssss"


async def test_runs_that_come_due_are_shown_though_nobody_begins_them(gateway: Gateway) -> None:
    await gateway.added(id="t", repeats=3, start="5", delay="1")
    shown = Shown()
    async with Stream(gateway, "/tasks/t/grid") as stream:
        following = asyncio.create_task(follow(stream, shown))
        await until(lambda: shown.text == "...")
        for text in ("q..", "qq.", "qqq"):
            # The board hears of time by the loop's clock; what is due it knows by the gateway's.
            gateway.clock.advance(5.0 if text == "q.." else 1.0)
            gateway.scheduler.watches.notify("t")
            await until(lambda text=text: shown.text == text)  # type: ignore[misc]
        await gateway.json("/tasks/t", 200, "DELETE")
        await following
    assert (shown.text, shown.task["status"]) == ("ccc", "cancelled")


async def test_what_never_ran_is_shown_as_the_task_ended(gateway: Gateway) -> None:
    await gateway.added(id="cancelled", repeats=5)
    await gateway.end("cancelled", 1, 3)
    await gateway.json("/tasks/cancelled", 200, "DELETE")
    assert (await read(gateway, "cancelled")).text == "cscsc" == await truth(gateway, "cancelled", 5)
    number = (await gateway.store.add_task(spec("failed", repeats=3), 0.0),)[0]
    await end(gateway.store, number, result(0))
    assert await gateway.store.fail_task(number, 1.0, "unsatisfiable: nobody")
    assert (await read(gateway, "failed")).text == "sff"


async def test_a_run_for_each_worker_is_shown_too(gateway: Gateway) -> None:
    async with worked(gateway) as worker:
        await gateway.added(id="t", spread="everywhere")
        shown = Shown()
        async with Stream(gateway, "/tasks/t/grid") as stream:
            following = asyncio.create_task(follow(stream, shown))
            await until(lambda: shown.text == "r" and bool(worker.open_runs))
            worker.open_runs[0].end()
            await following
        assert shown.text == "s"


async def test_a_run_that_waits_for_another_vote_is_shown_as_it_is(gateway: Gateway) -> None:
    await gateway.added(id="t", repeats=3, deterministic="true", replicas=2, quorum=2)
    shown = Shown()
    async with Stream(gateway, "/tasks/t/grid") as stream:
        following = asyncio.create_task(follow(stream, shown))
        async with worked(gateway, offers_again=True) as one:
            for voted in range(1, 4):
                await until(lambda: bool(one.open_runs))
                for run in one.open_runs:
                    run.end()
                await until(lambda voted=voted: len(one.runs) >= min(3, voted + 1))  # type: ignore[misc]
            await until(lambda: shown.text == "qqq")
            assert await truth(gateway, "t", 3) == "qqq"
            async with worked(gateway, is_quick=True):
                await following
    assert shown.text == "sss"


async def test_a_hundred_thousand_runs_are_few_bytes(gateway: Gateway) -> None:
    number = await gateway.store.add_task(spec("t", repeats=100_000), 0.0)
    for first in (0, 10_000):
        states = {run: RunState.FAILED if run == 12_345 else RunState.SUCCEEDED for run in range(first, first + 10_000)}
        await end(gateway.store, number, *(result(run, state) for run, state in states.items()))
    assert await gateway.store.cancel_task(number, 1.0)
    async with Stream(gateway, "/tasks/t/grid") as stream:
        (grid,) = [each for each in await stream.all() if each.kind == "grid"]
    assert grid.data["cells"] == "12345s1f7654s80000c"
    assert (grid.data["per_cell"], grid.data["position"]) == (1, await gateway.store.last_position(number))


# Readers.


async def test_a_reader_that_takes_nothing_costs_nothing_and_ends_with_the_truth(gateway: Gateway) -> None:
    await gateway.added(id="t", repeats=3000)
    slow, quick = Shown(), Shown()
    async with Stream(gateway, "/tasks/t/grid") as waiting, Stream(gateway, "/tasks/t/grid") as stream:
        async with worked(gateway, 2, is_quick=True):
            await follow(stream, quick)
        assert not waiting.is_over
        assert gateway.boards.count == 1, "all readers of a task share what is read"
        await follow(waiting, slow)
    assert slow.text == quick.text == "s" * 3000
    assert slow.task == quick.task
    assert gateway.boards.count == 0
    assert gateway.scheduler.watches.readers == {}


async def test_a_reader_that_missed_more_than_is_kept_is_told_all(gateway: Gateway) -> None:
    gateway.boards.patches_max = 1
    await gateway.added(id="t", repeats=4)
    slow, quick = Shown(), Shown()
    async with Stream(gateway, "/tasks/t/grid") as waiting, Stream(gateway, "/tasks/t/grid") as stream:
        slow.take(await waiting.some() or [])
        async with worked(gateway) as worker:
            worker.offers_again = True
            following = asyncio.create_task(follow(stream, quick))
            for ended in range(4):
                await until(lambda ended=ended: quick.text[:ended] == "s" * ended and bool(worker.open_runs))  # type: ignore[misc]
                for run in worker.open_runs:
                    run.end()
            await following
        await follow(waiting, slow)
    assert quick.kinds.count("grid") == 1
    assert slow.kinds.count("grid") == 2
    assert slow.text == quick.text == "ssss"


async def test_readers_are_cut_off_counted_and_let_go(tmp_path: Path) -> None:
    path = "/tasks/t/grid"
    async with open_gateway(tmp_path, http=HttpConfig(streams_max=2)) as gateway:
        await gateway.added(id="t", repeats=500)
        async with Stream(gateway, path), Stream(gateway, path):
            answer = await gateway.client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
            assert (await gateway.client.head(path)).status_code == 200
    async with open_gateway(tmp_path, http=HttpConfig(stream_timeout_s=0.05)) as gateway:
        # Its end, if nothing else, does not fit behind what was not taken.
        async with worked(gateway, is_quick=True), Stream(gateway, path) as stream:
            await until(lambda: stream.is_over)
            assert stream.is_aborted
        assert gateway.boards.count == 0
        assert gateway.scheduler.watches.readers == {}
        assert not [task for task in asyncio.all_tasks() if "Board." in repr(task.get_coro())]


async def test_a_grid_ends_when_the_gateway_stops(gateway: Gateway) -> None:
    await gateway.added(id="t")
    shown = Shown()
    async with Stream(gateway, "/tasks/t/grid") as stream:
        shown.take(await stream.some() or [])
        gateway.scheduler.watches.close()
        await follow(stream, shown)
    assert (shown.text, shown.task["status"]) == ("q", "queued")


async def test_a_grid_is_its_owners(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, perimeter=Perimeter(tokens=Known())) as gateway:
        await added_for(gateway, "alice", "t")
        await gateway.scheduler.cancel("t")
        for who, status in (("alice", 200), ("admin", 200), ("bob", 404), ("nobody", 401)):
            answer: httpx.Response = await gateway.client.get(
                "/tasks/t/grid", headers={"Authorization": f"Bearer {who}"}
            )
            assert answer.status_code == status
        assert (
            await gateway.client.get("/tasks/none/grid", headers={"Authorization": "Bearer alice"})
        ).status_code == 404
