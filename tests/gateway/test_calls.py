"""What runs have called while they run: nested tasks, lent slots, and that nothing waits for what waits for it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.gateway.scheduling import Gateway, next_run, open_gateway
from tests.gateway.scripted_worker import Run, ScriptedWorker
from ww.errors import UsageError, WwError
from ww.gateway.calls import CallsConfig, nested_grants
from ww.gateway.spec import Grant, RunState
from ww.python.request import Answer, AnswerKind, read_ended

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

ZIP = b"PK\5\6" + bytes(18)


def grant(name: str = "m:g", **values: Any) -> Grant:
    return Grant(**{"name": name, "duration_s": 5.0, "memory_bytes": 1 << 20, "output_bytes": 200} | values)


async def submit(gateway: Gateway, id: str, *grants: Grant, **values: Any) -> None:
    defaults = {"kind": "python", "entry": "", "arguments": (), "input": None, "args": ("m:f",), "files_bytes": 0}
    await gateway.submit(id, zip=ZIP, **defaults | {"grants": grants} | values)


def nested(gateway: Gateway) -> list[Any]:
    return [task.spec for task in gateway.scheduler.open_tasks() if task.spec.parent]


def reasons(answers: list[Answer]) -> list[tuple[str, str]]:
    assert all(answer.kind is AnswerKind.ENDED for answer in answers)
    return [read_ended(answer.body) for answer in answers]


async def waiting_run(gateway: Gateway, *grants: Grant, **values: Any) -> tuple[ScriptedWorker, Run]:
    """Begin a run that was granted that, on a worker of one slot."""
    worker = await gateway.worker()
    await submit(gateway, "p", *(grants or (grant(),)), **values)
    return worker, await next_run(worker)


async def answered(calling: "asyncio.Task[list[Answer]]", gateway: Gateway) -> list[Answer]:
    async with asyncio.timeout(10):
        while not calling.done():
            await gateway.pass_time(0.01)
    return calling.result()


async def test_a_call_is_a_task_whose_run_goes_to_the_slot_that_is_lent(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        given = grant(fuel=7, retries=2, grants=("m:g",))
        worker, run = await waiting_run(gateway, given, owner="ada", priority=3)
        assert list(run.invocation["args"]) == ["m:f", "m:g"], "the guest is told what it may call"
        assert run.invocation["code"] == ZIP
        calling = asyncio.ensure_future(run.call("m:g", b"request"))
        await until(lambda: bool(nested(gateway)))
        worker.offer(depth=1)
        inner = await next_run(worker, 2)
        (spec,) = nested(gateway)
        assert (spec.parent, spec.depth, spec.owner, spec.priority, spec.fuel, spec.retries) == ("p", 1, "ada", 3, 7, 2)
        assert (spec.grants, spec.args) == ((given,), ("m:g",))
        assert (inner.invocation["stdin"], inner.invocation["depth"]) == (b"request", 1)
        assert (inner.invocation["code"], list(inner.invocation["args"])) == (ZIP, ["m:g", "m:g"])
        inner.end(stdout=b"49")
        assert await answered(calling, gateway) == [Answer(AnswerKind.VALUE, b"49")]
        run.end(stdout=b"50")
        (result,) = await gateway.ended("p")
        assert (result.state, result.outcome.stdout) == (RunState.SUCCEEDED, b"50")
        row = await gateway.store.task(spec.id)
        assert row is not None
        assert (row.spec, row.succeeded) == (spec, 1), "it is on disk as any other task"


async def test_many_calls_at_once_are_one_task_and_each_is_answered_in_its_place(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        worker, run = await waiting_run(gateway, grant())
        calling = asyncio.ensure_future(run.call("m:g", b"a", b"bb", b"ccc"))
        await until(lambda: bool(nested(gateway)))
        worker.offer(depth=1)
        for number, outcome in enumerate(
            ({"stdout": b"1"}, {"reason": "exit", "stdout": b"{}", "exit_code": 1}, {"reason": "fuel", "detail": "all"})
        ):
            inner = await next_run(worker, number + 2)
            assert inner.invocation["stdin"] == (b"a", b"bb", b"ccc")[number]
            inner.end(**outcome)
        first, second, third = await answered(calling, gateway)
        assert (first, second) == (Answer(AnswerKind.VALUE, b"1"), Answer(AnswerKind.RAISED, b"{}"))
        assert reasons([third]) == [("fuel", "all")]


async def test_what_may_not_be_called_is_refused_with_the_reason(tmp_path: Path) -> None:
    config = {"calls": CallsConfig(depth_max=2, request_bytes_max=10)}
    async with open_gateway(tmp_path, config=config) as gateway:
        _, run = await waiting_run(gateway, grant(), grant("m:h", is_indirect=True), depth=1)
        assert reasons(await run.call("m:x", b"", b"")) == [("refused", "'m:x' is not granted to this task")] * 2
        assert reasons(await run.call("m:h", b""))[0][1] == "'m:h' is not granted to this task"
        why = "a request has 11 bytes, at most 10 are taken (--stdin-max)"
        assert reasons(await run.call("m:g", bytes(11))) == [("refused", why)]
        with pytest.raises(UsageError, match="requests: 3 bytes end before what they say they hold"):
            await run.call_raw("m:g", b"abc")
        assert not nested(gateway)


async def test_calls_go_no_deeper_than_the_gateway_lets_them(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, config={"calls": CallsConfig(depth_max=0)}) as gateway:
        _, run = await waiting_run(gateway)
        why = "calls within calls go to a depth of 0 (--nesting), this one is deeper"
        assert reasons(await run.call("m:g", b"")) == [("refused", why)]


async def test_a_call_for_which_there_is_no_room_says_that_there_may_be_another_time(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, config={"tasks_max": 1}) as gateway:
        _, run = await waiting_run(gateway)
        assert reasons(await run.call("m:g", b"")) == [("overloaded", "1 tasks have not ended, the limit")]


@pytest.mark.parametrize("how", ["ends", "is lost", "is cancelled", "drops its call"])
async def test_what_a_run_called_is_cancelled_with_it(tmp_path: Path, how: str) -> None:
    async with open_gateway(tmp_path) as gateway:
        worker, run = await waiting_run(gateway)
        calling = asyncio.ensure_future(run.call("m:g", b"", b""))
        await until(lambda: bool(nested(gateway)))
        (spec,) = nested(gateway)
        worker.offer(depth=1)
        inner = await next_run(worker, 2)
        if how == "ends":
            run.end()
        elif how == "is lost":
            run.fail(RuntimeError("gone"))
        elif how == "is cancelled":
            await gateway.cancel("p")
        else:
            calling.cancel()
        await until(lambda: bool(inner.cancels))
        async with asyncio.timeout(10):
            while gateway.scheduler.task(spec.id) is not None:
                await gateway.pass_time(0.01)
        row = await gateway.store.task(spec.id)
        assert row is not None
        assert row.cancelled
        if how != "drops its call":
            with pytest.raises(WwError):
                await calling


async def test_a_call_that_is_cancelled_by_somebody_else_is_answered_so(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        _, run = await waiting_run(gateway)
        calling = asyncio.ensure_future(run.call("m:g", b"", b""))
        await until(lambda: bool(nested(gateway)))
        await gateway.cancel(nested(gateway)[0].id)
        assert reasons(await answered(calling, gateway)) == [("cancelled", "")] * 2


async def test_at_a_restart_what_runs_had_called_is_cancelled_and_they_begin_again(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        _, run = await waiting_run(gateway)
        calling = asyncio.ensure_future(run.call("m:g", b"", b""))
        await until(lambda: bool(nested(gateway)))
        (spec,) = nested(gateway)
    calling.cancel()
    async with open_gateway(tmp_path) as gateway:
        assert [task.spec.id for task in gateway.scheduler.open_tasks()] == ["p"]
        row = await gateway.store.task(spec.id)
        assert row is not None
        assert row.cancelled
        worker = await gateway.worker()
        assert (await next_run(worker)).calls is not None


async def test_a_slot_that_is_lent_takes_what_is_deep_enough_alone(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, config={"tasks_max": 10}) as gateway:
        worker = await gateway.worker(slots=0)
        worker.offer(depth=2)
        await until(lambda: gateway.free_slots == 1)
        ((entry, free),) = gateway.scheduler.pool.workers()
        assert (free, entry.leased) == (0, 0), "it is no slot more"
        for depth in range(3):
            await submit(gateway, f"deep-{depth}", depth=depth, parent="x" if depth else "")
        run = await next_run(worker)
        assert run.invocation["depth"] == 2
        ((entry, free),) = gateway.scheduler.pool.workers()
        assert (free, entry.leased) == (0, 0)
        run.end(wall_s=0.001)
        await gateway.ended("deep-2")
        worker.offer()
        assert (await next_run(worker, 2)).invocation["depth"] == 1, "what others wait for goes first"


async def test_neither_a_drain_nor_a_reservation_keeps_a_lent_slot_from_what_is_waited_for(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, config={"tasks_max": 10}) as gateway:
        worker = await gateway.worker(slots=2, cpus=2.0, memoryBytes=1 << 30)
        await submit(gateway, "p", grant())
        run = await next_run(worker)
        await submit(gateway, "large", cpus=2.0)
        await gateway.pass_time(1)
        gateway.scheduler.pool.drain(gateway.scheduler.pool.workers()[0][0].peer.peer_id)
        calling = asyncio.ensure_future(run.call("m:g", b""))
        await until(lambda: bool(nested(gateway)))
        worker.offer(depth=1)
        inner = await next_run(worker, 2)
        assert inner.invocation["depth"] == 1
        inner.end(stdout=b"1")
        assert await answered(calling, gateway) == [Answer(AnswerKind.VALUE, b"1")]


async def test_nothing_is_on_a_slot_beside_a_run_that_may_call(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, config={"tasks_max": 10}) as gateway:
        worker = await gateway.worker(is_quick=True)
        await submit(gateway, "short", repeats=300)
        await submit(gateway, "caller", grant(), repeats=300)
        await gateway.ended("short")
        await gateway.ended("caller")
        of_callers = [group for group in worker.groups if group[0].calls is not None]
        assert len(of_callers) == 300
        assert max(map(len, worker.groups)) > 1, "others go together"


async def test_calls_of_one_run_beyond_those_at_a_time_wait(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, config={"calls": CallsConfig(tasks_max=1), "tasks_max": 10}) as gateway:
        worker, run = await waiting_run(gateway)
        calling = [asyncio.ensure_future(run.call("m:g", bytes([n]))) for n in range(3)]
        for number in range(3):
            await until(lambda: len(nested(gateway)) == 1)
            worker.offer(depth=1)
            inner = await next_run(worker, number + 2)
            inner.end(stdout=b"%d" % inner.invocation.get("stdin", b"\0")[0])
            assert await answered(calling[number], gateway) == [Answer(AnswerKind.VALUE, b"%d" % number)]


async def test_a_called_function_may_call_what_its_grant_names_and_what_that_needs() -> None:
    f, g, h = grant("m:f", grants=("m:g",)), grant("m:g", grants=("m:h", "m:f")), grant("m:h", is_indirect=True)
    unused = grant("m:x")
    of_f = nested_grants((f, g, h, unused), f.grants)
    assert [(each.name, each.is_indirect) for each in of_f] == [("m:f", True), ("m:g", False), ("m:h", True)]
    assert nested_grants((f, g, h), ()) == ()
