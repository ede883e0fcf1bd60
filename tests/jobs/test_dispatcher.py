"""Calls over a fake gateway: what goes together, how each ends, and that none is forgotten."""

import asyncio
import concurrent.futures
import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import ww
from tests.jobs import fake_cluster, pieces
from ww.client.answer import Result
from ww.errors import (
    BadResult,
    ClosedError,
    DeadlineExceeded,
    OutOfFuel,
    OutOfMemory,
    PeerError,
    RunFailed,
    RunLost,
    Trapped,
)


@pytest.fixture
def cluster() -> Iterator[Any]:
    with fake_cluster.FakeCluster() as cluster:
        cluster.serve(pieces.square, pieces.add, pieces.echo, pieces.fail)
        yield cluster


def test_a_call_returns_what_the_function_returns(cluster: Any) -> None:
    future = cluster.submit(pieces.square, (3,), {})
    assert future.result(10) == 9
    assert future.stdout == future.stderr == "printed"
    assert future.done()
    assert not future.running()
    assert future.try_get() == 9
    (task,) = cluster.client.tasks.values()
    assert task["args"] == ["tests.jobs.pieces:square"]
    assert task["duration_s"] == 60


def test_limits_are_the_tasks(cluster: Any) -> None:
    assert cluster.submit(pieces.add, (1,), {"b": 2}).result(10) == 3
    (task,) = cluster.client.tasks.values()
    assert (task["duration_s"], task["memory_bytes"]) == (5, 64 << 20)


def test_calls_made_while_one_is_sent_go_together(cluster: Any) -> None:
    cluster.link.do(cluster.client.gate.clear)
    futures = [cluster.submit(pieces.square, (n,), {}) for n in range(200)]
    cluster.link.do(cluster.client.gate.set)
    assert [future.result(10) for future in futures] == [n * n for n in range(200)]
    assert len(cluster.client.tasks) < 100


def test_a_map_gives_results_in_order(cluster: Any) -> None:
    assert list(cluster.map(pieces.square, range(1000))) == [n * n for n in range(1000)]
    assert list(cluster.map(pieces.add, ((n, n) for n in range(3)), star=True)) == [0, 2, 4]
    assert list(cluster.map(pieces.echo, [(1, 2)])) == [(1, 2)]
    assert list(cluster.map(pieces.square, [])) == []


def test_chunks_share_a_run(cluster: Any) -> None:
    assert list(cluster.map(pieces.square, range(10), chunksize=4)) == [n * n for n in range(10)]
    assert sum(len(task["runs"]) for task in cluster.client.tasks.values()) == 3


def test_an_endless_iterable_can_be_mapped(cluster: Any) -> None:
    def numbers() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    results = cluster.map(pieces.square, numbers(), chunksize=1000)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    results.close()


def test_leaving_a_map_early_cancels_the_rest(cluster: Any) -> None:
    cluster.link.do(cluster.client.gate.clear)
    results = cluster.map(pieces.square, range(10), timeout=0)
    with pytest.raises(TimeoutError):
        next(results)
    cluster.link.do(lambda: None)
    cluster.link.do(lambda: None)
    assert cluster.link.do(lambda: sorted(cluster.client.cancelled)) == sorted(cluster.client.tasks)


def test_an_exception_has_its_type_and_the_remote_traceback(cluster: Any) -> None:
    with pytest.raises(ValueError, match=r"^value$") as caught:
        cluster.submit(pieces.fail, ("value",), {}).result(10)
    assert isinstance(caught.value.__cause__, ww.RemoteTraceback)
    assert "in fail" in str(caught.value.__cause__)
    with pytest.raises(KeyError):
        cluster.submit(pieces.fail, ("key",), {}).result(10)


def test_an_exception_of_shipped_code_is_made_without_its_constructor(cluster: Any) -> None:
    future = cluster.submit(pieces.fail, ("wrong",), {})
    concurrent.futures.wait([future])
    made = pieces.Wrong.made
    with pytest.raises(pieces.Wrong, match="code 3") as caught:
        future.result()
    assert pieces.Wrong.made == made
    assert (caught.value.code, caught.value.hint) == (3, "look there")
    assert caught.value.__notes__ == ["a note"]
    with pytest.raises(pieces.BadFile) as gone:
        cluster.submit(pieces.fail, ("file",), {}).result(10)
    assert gone.value.args == (2, "gone")


@pytest.mark.parametrize("kind", ["stop", "exit"])
def test_what_would_steer_this_program_is_not_raised_here(cluster: Any, kind: str) -> None:
    with pytest.raises(ww.RemoteException, match={"stop": "StopIteration", "exit": "SystemExit"}[kind]):
        cluster.submit(pieces.fail, (kind,), {}).result(10)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("trap", Trapped),
        ("crash", Trapped),
        ("deadline", DeadlineExceeded),
        ("cpu", DeadlineExceeded),
        ("fuel", OutOfFuel),
        ("memory", OutOfMemory),
        ("lost", RunLost),
        ("compile", RunFailed),
        ("unheard of", RunFailed),
    ],
)
def test_a_reason_is_an_error(cluster: Any, reason: str, kind: type[Exception]) -> None:
    cluster.client.answer = lambda number, _: Result(run=number, state="failed", reason=reason, detail="because")
    with pytest.raises(kind, match=r"^square: .*because") as caught:
        cluster.submit(pieces.square, (3,), {}).result(10)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 1_000_000,
        b'{"": ["pickle", "gASVHwAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjARleGl0lIWUUpQu"]}',
        b'{"": ["data", "os:path", {}]}',
        b'{"": ["nonsense"]}',
        b"1" * 100_000,
        b"NaN",
    ],
)
def test_a_hostile_result_is_refused(cluster: Any, body: bytes) -> None:
    cluster.client.answer = lambda number, _: Result(run=number, state="succeeded", exit_code=0, stdout=body)
    with pytest.raises(BadResult, match=r"^square: "):
        cluster.submit(pieces.square, (3,), {}).result(10)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"module": 3}', b"[" * 100_000])
def test_a_hostile_failure_is_refused(cluster: Any, body: bytes) -> None:
    answer = lambda number, _: Result(run=number, state="failed", reason="exit", exit_code=1, stdout=body)  # noqa: E731
    cluster.client.answer = answer
    with pytest.raises(BadResult, match=r"^square: "):
        cluster.submit(pieces.square, (3,), {}).result(10)


def test_a_cut_result_is_refused(cluster: Any) -> None:
    cluster.client.answer = lambda number, _: Result(
        run=number, state="succeeded", exit_code=0, stdout=b"1", stdout_truncated=True
    )
    with pytest.raises(BadResult, match="output"):
        cluster.submit(pieces.square, (3,), {}).result(10)


def test_shipped_values_come_back(cluster: Any) -> None:
    value = [pieces.Point(1, 2), pieces.Colour.RED, {1, 2}, (b"x", 2**100), {"a": 1.5}]
    assert cluster.submit(pieces.echo, (value,), {}).result(10) == value


def test_cancelling_ends_the_task(cluster: Any) -> None:
    cluster.link.do(cluster.client.gate.clear)
    future = cluster.submit(pieces.square, (3,), {})
    cluster.link.do(lambda: None)
    assert future.running()
    assert future.cancel()
    assert future.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    assert list(concurrent.futures.as_completed([future], timeout=10)) == [future]
    cluster.link.do(lambda: None)
    assert cluster.link.do(lambda: cluster.client.cancelled) == list(cluster.client.tasks)


def test_a_task_that_somebody_else_cancels_cancels_the_future(cluster: Any) -> None:
    cluster.client.answer = lambda number, _: Result(run=number, state="cancelled")
    future = cluster.submit(pieces.square, (3,), {})
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(10)
    assert future.cancelled()


def test_a_lost_gateway_fails_all_who_wait(cluster: Any) -> None:
    cluster.client.error = PeerError("the gateway is gone")
    cluster.problem = "the embedded gateway died"
    futures = [cluster.submit(pieces.square, (n,), {}) for n in range(50)]
    for future in futures:
        with pytest.raises(PeerError, match="gateway is gone; the embedded gateway died"):
            future.result(10)
    assert len({id(future.exception()) for future in futures}) == 50


def test_a_stream_that_ends_early_leaves_nobody_waiting(cluster: Any) -> None:
    cluster.client.answer = lambda number, _: Result(run=number, state="running")
    with pytest.raises(RunLost):
        cluster.submit(pieces.square, (3,), {}).result(10)


def test_a_module_that_was_forgotten_is_sent_again(cluster: Any) -> None:
    assert cluster.submit(pieces.square, (2,), {}).result(10) == 4
    cluster.client.has_module = False
    assert cluster.submit(pieces.square, (3,), {}).result(10) == 9
    assert cluster.client.uploads == 2


class Held:
    """Stands for a capability: where it is collected in another thread than its own, the program ends."""


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_what_was_under_way_is_let_go_of_in_its_own_thread(cluster: Any, how: str) -> None:
    gate, held, freed_by = cluster.link.do(asyncio.Event), [], []
    stopped = threading.Event()

    async def run(module: str, **fields: Any) -> Any:
        mine, kept = Held(), []
        held.append(weakref.ref(mine, lambda _: (freed_by.append(threading.get_ident()), stopped.set())))
        try:
            await gate.wait()
            raise PeerError("it is gone")
        except BaseException as error:
            kept.append(error)  # a cycle: it, its traceback, this frame
            raise
        yield

    cluster.client.run = run
    gc.disable()
    try:
        future = cluster.submit(pieces.square, (3,), {})
        cluster.link.do(lambda: None)
        if how == "cancelled":
            assert future.cancel()
        else:
            cluster.link.do(gate.set)
            with pytest.raises(PeerError, match="it is gone"):
                future.result(10)
        assert stopped.wait(10)
        assert freed_by == [cluster.link.thread.ident]
    finally:
        gc.enable()


def test_a_result_goes_when_nobody_has_it(cluster: Any) -> None:
    gc.disable()
    try:
        future = cluster.submit(pieces.square, (3,), {})
        assert future.result(10) == 9
        gone = threading.Event()
        reference = weakref.ref(future, lambda _: gone.set())
        cluster.link.do(lambda: None)
        del future
        assert gone.wait(10)
        assert reference() is None
    finally:
        gc.enable()


def test_closing_fails_what_waits(cluster: Any) -> None:
    cluster.link.do(cluster.client.gate.clear)
    future = cluster.submit(pieces.square, (3,), {})
    cluster.dispatcher.close()
    with pytest.raises(ClosedError):
        future.result(10)
    with pytest.raises(ClosedError):
        cluster.submit(pieces.square, (3,), {})


def test_a_future_can_be_awaited_and_cancelled_in_any_loop(cluster: Any) -> None:
    async def main() -> None:
        assert await cluster.submit(pieces.square, (3,), {}) == 9
        assert await asyncio.gather(*(cluster.submit(pieces.square, (n,), {}) for n in range(3))) == [0, 1, 4]
        with pytest.raises(ValueError, match="value"):
            await cluster.submit(pieces.fail, ("value",), {})
        cluster.link.do(cluster.client.gate.clear)
        future = cluster.submit(pieces.square, (3,), {})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await future
        assert future.cancelled()

    asyncio.run(main())
    asyncio.run(main_again(cluster))


async def main_again(cluster: Any) -> None:
    cluster.link.do(cluster.client.gate.set)
    assert await cluster.submit(pieces.square, (3,), {}) == 9


def test_try_get_does_not_wait(cluster: Any) -> None:
    cluster.link.do(cluster.client.gate.clear)
    future = cluster.submit(pieces.square, (3,), {})
    assert future.try_get() is None
    assert future.try_get(-1) == -1
    with pytest.raises(TimeoutError):
        future.result(0)
    cluster.link.do(cluster.client.gate.set)
    assert future.result(10) == future.try_get() == 9


def test_grants_travel_with_those_of_theirs(cluster: Any) -> None:
    cluster.client.functions["tests.jobs.pieces:squares"] = len
    cluster.client.functions["tests.jobs.pieces:countdown"] = lambda n: n
    with pytest.raises(TypeError):
        cluster.submit(pieces.squares, (3,), {}).result(10)
    cluster.submit(pieces.countdown, (3,), {}).result(10)
    first, second = cluster.client.tasks.values()
    assert [grant["name"] for grant in first["grants"]] == ["tests.jobs.pieces:square"]
    assert second["grants"] == [
        {
            "name": "tests.jobs.pieces:countdown",
            "duration_s": 60,
            "grants": ["tests.jobs.pieces:countdown"],
        }
    ]
