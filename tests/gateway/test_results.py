"""The results of a task as lines: in both orders, from any place, while it runs, and never an end that is none."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.test_batches import LINES, PARENT, lines
from tests.gateway.test_events import Stream, worked
from tests.gateway.test_http import Gateway, open_gateway
from ww.errors import StoreError
from ww.gateway.http import HttpConfig
from ww.gateway.query import AFTER_RESULT
from ww.gateway.streams import Streams

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path) as gateway:
        yield gateway


async def told(gateway: Gateway, query: str = "", id: str = "t") -> list[Any]:
    answer = await gateway.client.get(f"/tasks/{id}/results{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson"), answer.text
    return [json.loads(line) for line in answer.text.splitlines() if line]


async def test_results_come_as_they_ended_or_by_their_numbers_from_any_place(gateway: Gateway) -> None:
    await gateway.added(id="t", repeats=5)
    for run in (3, 0, 4, 1):
        await gateway.end("t", run, stdout=b"\xff")
    now = "?follow=false"
    ended = await told(gateway, now)
    assert [each["run"] for each in ended] == [3, 0, 4, 1]
    assert [await gateway.json(f"/tasks/t/runs/{each['run']}") for each in ended] == ended
    assert await told(gateway, f"{now}&order=completion&after={ended[1]['position']}") == ended[2:]
    assert await told(gateway, f"{now}&after={ended[-1]['position']}") == []
    # Run 2 is missing: what follows it waits.
    assert await told(gateway, f"{now}&order=input") == [ended[1], ended[3]]
    assert await told(gateway, f"{now}&order=input&after=0") == [ended[3]]
    assert await told(gateway, f"{now}&order=input&after=2") == [ended[0], ended[2]]


async def test_a_task_that_ended_without_all_results_tells_those_there_are(gateway: Gateway) -> None:
    await gateway.added(id="t", repeats=5)
    for run in (3, 0):
        await gateway.end("t", run)
    await gateway.json("/tasks/t", method="DELETE")
    assert [each["run"] for each in await told(gateway, "?order=input")] == [0, 3]
    assert [each["run"] for each in await told(gateway)] == [3, 0]
    none = await gateway.added(id="none", start=100)
    await gateway.json(f"/tasks/{none['id']}", method="DELETE")
    assert await told(gateway, "", "none") == []


async def test_names_come_from_the_inputs(gateway: Gateway) -> None:
    runs = [{"name": f"in/{run}", "stdin": "x" * (200_000 if run == 2 else 1)} for run in range(3)] + [{}]
    await gateway.json("/tasks", 201, "POST", content=lines({"id": "t", **PARENT}, runs), headers=LINES)
    await gateway.end("t", 2, 3, 0)
    found = await told(gateway, "?follow=false")
    assert [each.get("name") for each in found] == ["in/2", None, "in/0"]
    assert [each.get("name") for each in await gateway.json("/tasks/t/runs")] == ["in/0", "in/2", None]
    assert (await gateway.json("/tasks/t/runs/2"))["name"] == "in/2"
    assert "name" not in await gateway.json("/tasks/t/runs/1")


@pytest.mark.parametrize("order", ["input", "completion"])
async def test_results_follow_a_task_while_it_runs(gateway: Gateway, order: str) -> None:
    count = 1000
    await gateway.added(id="t", repeats=count)
    # Nobody works yet: the readers wait.
    readers = [asyncio.create_task(told(gateway, f"?order={order}")) for _ in range(3)]
    async with worked(gateway, 2, is_quick=True):
        found = [await reader for reader in readers]
    assert found[0] == found[1] == found[2]
    assert sorted(each["run"] for each in found[0]) == list(range(count))
    assert (await gateway.json("/tasks/t"))["status"] == "succeeded"
    key = "run" if order == "input" else "position"
    assert [each[key] for each in found[0]] == sorted({each[key] for each in found[0]})
    place = found[0][400][key]
    assert await told(gateway, f"?order={order}&after={place}") == found[0][401:]


async def test_large_results_come_a_few_at_a_time(gateway: Gateway) -> None:
    await gateway.added(id="t", repeats=20, output=1 << 20)
    await gateway.end("t", *range(20), stdout=b"x" * (1 << 20))
    async with Stream(gateway, "/tasks/t/results?follow=false") as stream:
        message = await stream._messages.get()
        assert len(message["body"]) < 4 << 20
    assert len(await told(gateway, "?follow=false")) == 20


async def test_what_breaks_off_is_cut(gateway: Gateway) -> None:
    """Who is told an end would take it for all."""
    await gateway.added(id="t", repeats=2)
    await gateway.end("t", 0)
    async with Stream(gateway, "/tasks/t/results") as stream:
        first = await stream._messages.get()
        assert (json.loads(first["body"])["run"], first["more_body"]) == (0, True)
        gateway.scheduler.watches.close()
        await asyncio.wait_for(stream._task, 20)
        assert stream.is_aborted
        assert stream._messages.empty()


async def test_a_head_is_the_head_alone_and_streams_are_bounded(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, http=HttpConfig(streams_max=1)) as gateway:
        await gateway.added(id="t")
        head = await gateway.client.head("/tasks/t/results")
        assert (head.status_code, head.content) == (200, b"")
        async with Stream(gateway, "/tasks/t/results"):
            problem = await gateway.json("/tasks/t/results", 429)
            assert "the limit (--streams)" in problem["detail"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("?order=random", "order: 'random' is not one of completion input"),
        ("?after=-1", "after: '-1' is not a whole number from 0"),
        (f"?after={AFTER_RESULT.high + 1}", "after: "),
        ("?follow=maybe", "follow: 'maybe' is not one of true false"),
    ],
)
async def test_what_is_asked_wrongly_is_refused(gateway: Gateway, query: str, says: str) -> None:
    await gateway.added(id="t")
    assert says in (await gateway.json(f"/tasks/t/results{query}", 422))["detail"]
    assert "no task 'none'" in (await gateway.json("/tasks/none/results", 404))["detail"]


async def test_inputs_that_are_gone_are_said_where_one_result_is_asked(gateway: Gateway) -> None:
    await gateway.json("/tasks", 201, "POST", content=lines({"id": "t", **PARENT}, [{}]), headers=LINES)
    await gateway.end("t", 0)
    for path in (gateway.directory / "modules").glob("*.inputs"):
        path.unlink()
    problem = await gateway.json("/tasks/t/runs", 503)
    assert problem["code"] == StoreError.code


async def test_one_reader_is_rendered_for_in_one_round_of_the_loop() -> None:
    streams, rounds = Streams(count_max=1, timeout_s=1), [0]

    async def reader() -> list[int]:
        seen = []
        for _ in range(3):
            async with streams.turn():
                seen.append(rounds[0])
        return seen

    def begun() -> None:
        rounds[0] += 1
        if not all(each.done() for each in readers):
            loop.call_soon(begun)

    loop = asyncio.get_running_loop()
    readers = [asyncio.ensure_future(reader()) for _ in range(20)]
    loop.call_soon(begun)
    seen = [each for one in await asyncio.wait_for(asyncio.gather(*readers), 5) for each in one]
    assert len(set(seen)) == len(seen) == 60
