"""The scheduler with its pool, store and modules, against workers that do what a test says, in one process."""

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.gateway.scheduling import NOOP, Gateway, next_run, open_gateway
from tests.gateway.scripted_worker import ScriptedWorker
from tests.gateway.stored import results_of
from tests.guests import digest_of, zipped
from ww.errors import BadModule, Conflict, Draining, NotFound, Overloaded, RemoteError, UsageError, WwError
from ww.gateway import recorder
from ww.gateway.limits import MESSAGE_BYTES_MAX, RequestLimits
from ww.gateway.scheduler import SchedulerConfig
from ww.gateway.task import RunState
from ww.net.memory import Network

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path) as gateway:
        yield gateway


async def test_a_run_goes_to_a_waiting_slot_and_its_end_to_the_disk(gateway: Gateway) -> None:
    worker = await gateway.worker()
    await gateway.submit("a")
    (await next_run(worker)).end(value=12)
    (result,) = await gateway.ended("a")
    assert (result.state, result.outcome.result, result.worker) == (RunState.SUCCEEDED, "12", worker.peer_id)
    assert (result.attempts, worker.module) == (1, NOOP)
    row = await gateway.store.task("a")
    assert row is not None
    assert (row.status, row.succeeded) == ("succeeded", 1)
    await until(lambda: worker.leases_ended == 1)


async def test_runs_wait_for_a_worker(gateway: Gateway) -> None:
    await gateway.submit("a")
    task = gateway.scheduler.task("a")
    assert task is not None
    assert task.status(gateway.clock.now()) == "queued"
    worker = await gateway.worker()
    (await next_run(worker)).end()
    assert len(await gateway.ended("a")) == 1


async def test_runs_start_at_their_time_and_not_before(gateway: Gateway) -> None:
    worker = await gateway.worker(slots=3)
    await gateway.submit("a", start_s=5.0, delay_s=2.0, repeats=3)
    for wait_s, runs in ((4.99, 0), (0.02, 1), (1.9, 1), (0.1, 2), (1.9, 2), (0.1, 3)):
        await gateway.pass_time(wait_s)
        await until(lambda runs=runs: len(worker.runs) == runs)  # type: ignore[misc]
    for run in worker.runs:
        run.end()
    assert [result.run for result in await gateway.ended("a")] == [0, 1, 2]


@pytest.mark.parametrize("jump_s", [-1e6, -5.0, 5.0, 1e6])
async def test_setting_the_clock_starts_nothing_twice_and_skips_nothing(gateway: Gateway, jump_s: float) -> None:
    worker = await gateway.worker(slots=3)
    await gateway.submit("a", start_s=5.0, delay_s=5.0, repeats=3)
    await gateway.pass_time(4.0)
    gateway.clock.set_wall(gateway.clock.wall() + jump_s)
    for wait_s, runs in ((0.9, 0), (0.2, 1), (4.8, 1), (0.2, 2), (4.8, 2), (0.2, 3)):
        await gateway.pass_time(wait_s)
        await until(lambda runs=runs: len(worker.runs) == runs)  # type: ignore[misc]
    for run in worker.runs:
        run.end()
    assert [(result.run, result.attempts) for result in await gateway.ended("a")] == [(0, 1), (1, 1), (2, 1)]


@pytest.mark.parametrize(("off_s", "due_after_s"), [(0.0, 60.0), (20.0, 40.0), (1e6, 0.0), (-1e6, 60.0)])
async def test_what_was_scheduled_keeps_its_time_over_a_restart(
    tmp_path: Path, off_s: float, due_after_s: float
) -> None:
    network = Network()
    first = Gateway(tmp_path, network, SchedulerConfig())
    await first.start()
    await first.submit("a", start_s=60.0)
    await first.aclose()
    second = Gateway(tmp_path, network, SchedulerConfig())
    second.clock.set_wall(second.clock.wall() + off_s)  # negative: it was set back meanwhile
    await second.start()
    try:
        worker = await second.worker()
        if due_after_s:
            await second.pass_time(due_after_s - 0.1)
            assert worker.runs == []
            await second.pass_time(0.2)
        (await next_run(worker)).end()
        assert len(await second.ended("a")) == 1
    finally:
        await second.aclose()


async def test_tasks_take_turns(gateway: Gateway) -> None:
    await gateway.submit("large", repeats=3, input=1)
    await gateway.submit("small", input=2)
    worker = await gateway.worker()
    for count in range(1, 5):
        (await next_run(worker, count)).end()
    await gateway.ended("large")
    assert [run.argument for run in worker.runs] == [1, 2, 1, 1]
    assert worker.loads == 1, "one lease, one program"


async def test_the_run_of_a_lost_worker_goes_to_another(gateway: Gateway) -> None:
    first = await gateway.worker()
    await gateway.submit("a")
    await next_run(first)
    second = await gateway.worker()
    first.disconnect()
    async with asyncio.timeout(10):
        while not second.runs:
            await gateway.pass_time(0.05)  # the backoff
    second.runs[0].end()
    (result,) = await gateway.ended("a")
    assert (result.attempts, result.worker, result.state) == (2, second.peer_id, RunState.SUCCEEDED)
    assert [entry.peer.peer_id for entry, _ in gateway.scheduler.pool.workers()] != [first.peer_id]


async def test_a_run_that_is_lost_every_time_fails_in_the_end(gateway: Gateway) -> None:
    worker = await gateway.worker()
    worker.run_error = WwError("no")
    await gateway.submit("a")
    async with asyncio.timeout(10):
        while gateway.scheduler.task("a") is not None:
            if not gateway.free_slots:
                worker.offer()
            await gateway.pass_time(0.5)
    (result,) = await gateway.ended("a")
    assert (result.state, result.outcome.reason, result.attempts) == (RunState.FAILED, "lost", 5)
    assert result.outcome.detail == "no"


async def test_a_worker_that_says_nothing_loses_the_run(gateway: Gateway) -> None:
    silent = await gateway.worker()
    await gateway.submit("a", duration_s=0.05)
    run = await next_run(silent)
    other = await gateway.worker()
    async with asyncio.timeout(10):
        while not other.runs:
            await gateway.pass_time(0.05)
    run.end(value=1)  # too late
    other.runs[0].end(value=2)
    (result,) = await gateway.ended("a")
    assert (result.outcome.result, result.attempts) == ("2", 2)


async def test_a_draining_worker_costs_no_attempt(gateway: Gateway) -> None:
    leaving = await gateway.worker()
    leaving.run_error = Draining("this worker is stopping")
    await gateway.submit("a")
    await until(lambda: leaving.leases_ended == 1)
    other = await gateway.worker()
    (await next_run(other)).end()
    (result,) = await gateway.ended("a")
    assert (result.attempts, result.worker) == (1, other.peer_id)


async def test_a_module_that_does_not_compile_fails_the_run(gateway: Gateway) -> None:
    worker = await gateway.worker()
    worker.load_error = BadModule("a function of 10 GB")
    await gateway.submit("a")
    (result,) = await gateway.ended("a")
    assert (result.state, result.outcome.reason, result.outcome.detail) == ("failed", "compile", "a function of 10 GB")


async def test_a_crash_is_tried_once_more(gateway: Gateway) -> None:
    worker = await gateway.worker()
    await gateway.submit("a")
    (await next_run(worker)).end(reason="crash", detail="SIGSEGV")
    async with asyncio.timeout(10):
        while len(worker.runs) < 2:
            if not gateway.free_slots:
                worker.offer()
            await gateway.pass_time(0.05)
    worker.runs[1].end(reason="crash", detail="SIGSEGV")
    (result,) = await gateway.ended("a")
    assert (result.outcome.reason, result.attempts) == ("crash", 2)


async def test_what_a_worker_says_is_held_to_the_limits(gateway: Gateway) -> None:
    worker = await gateway.worker()
    await gateway.submit("a", output_bytes=10)
    run = await next_run(worker)
    run.end(
        reason="trap", detail="two\nlines" + "x" * 10_000, stdout=b"o" * 5000, stderr=b"e" * 10, memory_bytes=2**64 - 1
    )
    (result,) = await gateway.ended("a")
    outcome = result.outcome
    assert (outcome.stdout, outcome.stdout_truncated) == (b"o" * 10, True)
    assert (outcome.stderr, outcome.stderr_truncated) == (b"e" * 10, False)
    assert outcome.detail.startswith("two lines")
    assert len(outcome.detail) < 1000
    assert outcome.memory_bytes == 2**63 - 1


async def test_cancelling_stops_the_guest_and_drops_its_outcome(gateway: Gateway) -> None:
    worker = await gateway.worker()
    await gateway.submit("a", repeats=3)
    run = await next_run(worker)
    await gateway.cancel("a")
    row = await gateway.store.task("a")
    assert row is not None
    assert (row.status, row.succeeded) == ("cancelled", 0)
    await until(lambda: run.cancels == 1)
    await until(lambda: worker.leases_ended == 1)
    assert gateway.scheduler.late_outcomes == 1
    (result,) = await results_of(gateway.store, row.number, limit=10, after=-1)
    assert result.state is RunState.CANCELLED
    assert len(worker.runs) == 1
    await gateway.cancel("a")
    with pytest.raises(NotFound):
        await gateway.cancel("b")


async def test_a_run_that_has_ended_stays_so_when_its_task_is_cancelled(gateway: Gateway) -> None:
    worker = await gateway.worker(slots=2)
    gateway.store.refuses = True
    await gateway.submit("a", repeats=2)
    (await next_run(worker, 2)).end()
    task = gateway.scheduler.task("a")
    assert task is not None
    await until(lambda: len(task.active) == 1)
    cancelling = asyncio.ensure_future(gateway.scheduler.cancel("a"))
    await gateway.pass_time(0.1)
    gateway.store.refuses = False
    async with asyncio.timeout(10):
        while not cancelling.done():
            await gateway.pass_time(0.2)
    states = [r.state for r in await results_of(gateway.store, task.number, limit=10, after=-1)]
    assert sorted(states) == ["cancelled", "succeeded"]


async def test_a_cancel_takes_effect_though_whoever_asked_for_it_is_gone(gateway: Gateway) -> None:
    worker = await gateway.worker()
    await gateway.submit("a", repeats=3)
    run = await next_run(worker)
    cancelling = asyncio.ensure_future(gateway.scheduler.cancel("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # on its way to the disk
    cancelling.cancel()
    await asyncio.gather(cancelling, return_exceptions=True)
    row = await gateway.store.task("a")
    assert row is not None
    assert row.cancelled
    await gateway.ended("a")
    await until(lambda: run.cancels == 1)
    assert len(worker.runs) == 1


async def test_what_waits_for_the_disk_is_bounded_in_bytes(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder, "_UNWRITTEN_BYTES_MAX", 250)
    worker = await gateway.worker()
    worker.offers_again, gateway.store.refuses = True, True
    await gateway.submit("a", repeats=10)
    for count in (1, 2, 3):
        (await next_run(worker, count)).end(stdout=bytes(100))
    await next_run(worker, 4)
    await gateway.pass_time(0.3)
    await until(lambda: "no space left" in caplog.text)
    worker.runs[3].end(stdout=bytes(100))
    for _ in range(20):
        await gateway.pass_time(0.3)
        await asyncio.sleep(0.001)
    assert len(worker.runs) == 4, "its slot waits"
    gateway.store.refuses = False
    async with asyncio.timeout(10):
        while len(worker.runs) < 5:
            await gateway.pass_time(0.5)
            await asyncio.sleep(0.001)
    await gateway.cancel("a")


async def test_results_wait_for_a_disk_that_refuses(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    worker = await gateway.worker()
    await gateway.submit("a")
    gateway.store.refuses = True
    (await next_run(worker)).end()
    await until(lambda: "no space left" in caplog.text)
    task = gateway.scheduler.task("a")
    assert task is not None
    assert task.status(gateway.clock.now()) == "running", "nothing shows before it is on disk"
    gateway.store.refuses = False
    assert [result.state for result in await gateway.ended("a")] == ["succeeded"]


async def test_short_runs_travel_in_groups_and_several_of_these_at_once(gateway: Gateway) -> None:
    worker = await gateway.worker()
    await gateway.submit("a", repeats=200)
    await next_run(worker)
    await gateway.pass_time(0)
    assert len(worker.runs) == 1, "nothing is known of them yet"
    most = 0
    for _ in range(200):
        await until(lambda: bool(worker.open_runs))
        most = max(most, sum(any(not run.outcome.done() for run in group) for group in worker.groups))
        worker.open_runs[0].end(wall_s=0.0001)
        await gateway.pass_time(0)
    assert most == 3
    sizes = list(map(len, worker.groups))
    assert (sizes[0], sizes[1], max(sizes)) == (1, 8, 64)
    results = await gateway.ended("a")
    assert [result.run for result in results] == list(range(200))
    assert {result.attempts for result in results} == {1}


async def test_a_group_lasts_about_20_ms(gateway: Gateway) -> None:
    worker = await gateway.worker()
    await gateway.submit("a", repeats=100)
    for _ in range(100):
        await until(lambda: bool(worker.open_runs))
        worker.open_runs[0].end(wall_s=0.004)
        await gateway.pass_time(0)
    await gateway.ended("a")
    assert max(map(len, worker.groups)) == 5


async def test_what_prints_much_travels_in_small_groups(gateway: Gateway) -> None:
    worker = await gateway.worker()
    await gateway.submit("a", repeats=100, output_bytes=200_000)
    for _ in range(100):
        await until(lambda: bool(worker.open_runs))
        worker.open_runs[0].end(wall_s=0.0001, stdout=bytes(200_000))
        await gateway.pass_time(0)
    await gateway.ended("a")
    assert max(map(len, worker.groups)) == 5


async def test_long_runs_are_sent_one_at_a_time(gateway: Gateway) -> None:
    worker = await gateway.worker()
    await gateway.submit("a", repeats=5)
    for count in range(1, 6):
        run = await next_run(worker, count)
        await gateway.pass_time(0)
        assert worker.open_runs == [run]
        run.end(wall_s=0.1)
    await gateway.ended("a")


async def shared_slot(gateway: Gateway, repeats: int) -> ScriptedWorker:
    """Have a task of short runs use several lanes of one slot, and then none of them end."""
    worker = await gateway.worker()
    await gateway.submit("a", repeats=repeats)
    while len(worker.open_runs) < 3:
        await until(lambda: bool(worker.open_runs))
        worker.open_runs[0].end(wall_s=0.0001)
        count = len(worker.runs)
        await until(lambda count=count: len(worker.runs) > count)  # type: ignore[misc]
        for _ in range(5):
            await asyncio.sleep(0)
    return worker


async def test_runs_behind_a_long_one_go_back_to_the_queue(gateway: Gateway) -> None:
    slow = await shared_slot(gateway, repeats=12)
    oldest, *behind = slow.open_runs
    await gateway.worker(is_quick=True)
    async with asyncio.timeout(10):
        while any(not run.cancels for run in behind):
            await gateway.pass_time(0.05)
    assert oldest.cancels == 0
    async with asyncio.timeout(10):
        task = gateway.scheduler.task("a")
        while task is not None and task.succeeded < 11:
            await gateway.pass_time(0.05)
    oldest.end()
    results = await gateway.ended("a")
    assert [result.run for result in results] == list(range(12))
    assert {(result.attempts, result.state) for result in results} == {(1, "succeeded")}


async def test_a_lost_slot_loses_all_that_was_on_it(gateway: Gateway) -> None:
    lost = await shared_slot(gateway, repeats=12)
    on_it = len(lost.open_runs)
    await gateway.worker(is_quick=True)
    lost.disconnect()
    results = await gateway.ended("a")
    assert [result.run for result in results] == list(range(12))
    assert sum(result.attempts == 2 for result in results) == on_it


async def test_a_restart_goes_on_where_the_disk_says(tmp_path: Path) -> None:
    network, config = Network(), SchedulerConfig()
    first = Gateway(tmp_path, network, config)
    await first.start()
    worker = await first.worker()
    await first.submit("a", repeats=3)
    (await next_run(worker)).end()
    await next_run(worker, 2)
    task = first.scheduler.task("a")
    assert task is not None
    async with asyncio.timeout(10):
        while not task.succeeded:
            await first.pass_time(0.01)
    await first.aclose()

    second = Gateway(tmp_path, network, config)
    await second.start()
    try:
        worker = await second.worker(is_quick=True)
        results = await second.ended("a")
        assert [(result.run, result.attempts) for result in results] == [(0, 1), (1, 1), (2, 1)]
        assert len(worker.runs) == 2
    finally:
        await second.aclose()


async def test_the_same_task_twice_is_one_and_another_under_its_id_is_refused(gateway: Gateway) -> None:
    await gateway.submit("a")
    await gateway.submit("a")
    with pytest.raises(Conflict, match="'a' is taken"):
        await gateway.submit("a", repeats=2)
    assert len(await gateway.store.tasks(limit=10)) == 1


async def test_open_tasks_are_bounded(gateway: Gateway) -> None:
    for id in "abc":
        await gateway.submit(id)
    with pytest.raises(Overloaded, match="3 tasks have not ended"):
        await gateway.submit("d")
    await gateway.cancel("a")
    await gateway.submit("d")


async def test_a_peer_registers_before_it_offers(gateway: Gateway) -> None:
    async with ScriptedWorker(gateway._network) as stranger:
        await stranger.connect(gateway.address)
        with pytest.raises(UsageError, match="register before"):
            await stranger.offer()
        with pytest.raises(UsageError, match="slots: 0"):
            await stranger.register(slots=0)
        await stranger.register()
        with pytest.raises(Conflict, match="registered already"):
            await stranger.register()
        registered = gateway.scheduler.pool.workers
        assert [entry.info.kind for entry, _ in registered()] == ["scripted"]
        stranger.disconnect()
        await until(lambda: not registered())


async def test_an_offer_that_is_no_worker_is_refused(gateway: Gateway) -> None:
    async with ScriptedWorker(gateway._network) as stranger:
        await stranger.connect(gateway.address)
        await stranger.register()
        with pytest.raises((UsageError, RemoteError)):
            await asyncio.wait_for(stranger.send_text(), 5)
    assert gateway.free_slots == 0


async def test_offers_of_a_lost_worker_leave_the_channel(gateway: Gateway) -> None:
    worker = await gateway.worker(slots=3)
    assert gateway.free_slots == 3
    worker.disconnect()
    await until(lambda: gateway.free_slots == 0)
    assert not gateway.scheduler.pool.workers()


async def test_the_least_busy_worker_gets_the_next_run(gateway: Gateway) -> None:
    first = await gateway.worker(slots=2)
    second = await gateway.worker(slots=2)
    await gateway.submit("a", repeats=2)
    await next_run(first)
    await next_run(second)
    first.runs[0].end()
    second.runs[0].end()
    await gateway.ended("a")


# What a run is given, and what comes back.


async def test_all_that_a_task_asks_for_is_in_its_invocation(gateway: Gateway) -> None:
    worker = await gateway.worker()
    await gateway.submit(
        "a", zip=zipped(a=b"x"), kind="command", entry="", arguments=(), input=7, args=("b",), env=(("K", "v"),),
        stdin=b"in", artifacts=("out",), artifact_bytes=50, dirs=("data", "out"), deterministic=True, seed=2**64 - 1,
        fuel=10**15, cpu_s=2.5, files_bytes=70,
    )  # fmt: skip
    run = await next_run(worker)
    assert run.invocation == {
        "entry": "", "arguments": [], "args": ["7", "b"], "env": [{"key": "K", "value": "v"}], "stdin": b"in",
        "limits": {
            "durationSeconds": 10.0, "memoryBytes": 1 << 20, "outputBytes": 100, "cpuSeconds": 2.5, "fuel": 10**15,
            "filesBytes": 70, "artifactBytes": 50,
        },
        "files": zipped(a=b"x"), "artifacts": ["out"], "dirs": ["data", "out"], "deterministic": True,
        "seed": 2**64 - 1, "context": b"", "depth": 0,
    }  # fmt: skip


async def test_numbers_of_a_function_go_as_they_are(gateway: Gateway) -> None:
    worker = await gateway.worker()
    await gateway.submit("a", entry="f", arguments=(-1, 2**63 - 1, -(2**63)), args=("x",))
    run = await next_run(worker)
    assert run.invocation["arguments"] == [-1, 2**63 - 1, -(2**63)]
    assert (run.invocation["entry"], run.invocation["args"], run.invocation["context"]) == ("f", ["x"], b"")


async def test_runs_of_a_reactor_share_a_context_that_is_their_tasks_alone(gateway: Gateway) -> None:
    worker = await gateway.worker(slots=2)
    reactor = {"kind": "reactor", "entry": "", "arguments": ()}
    await gateway.submit("a", repeats=3, **reactor)
    await gateway.submit("b", **reactor)
    await gateway.submit("c", deterministic=True, **reactor)
    for count in range(1, 6):
        (await next_run(worker, count)).end()
        await gateway.pass_time(0)
    await gateway.ended("a")
    contexts = [run.invocation["context"] for run in worker.runs]
    by_context = {context: contexts.count(context) for context in contexts}
    assert sorted(by_context.values()) == [1, 1, 3]
    assert by_context.pop(b"") == 1, "a deterministic run depends on none before it"
    assert {len(context) for context in by_context} == {32}


async def test_files_are_read_once_for_all_runs_under_way(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read_files = gateway.modules.read_files

    async def counted(digest: str) -> bytes:
        reads.append(digest)
        return await read_files(digest)

    monkeypatch.setattr(gateway.modules, "read_files", counted)
    data = zipped(a=bytes(100_000))
    worker = await gateway.worker()
    await gateway.submit("a", zip=data, repeats=4)
    for count in range(1, 5):
        (await next_run(worker, count)).end(wall_s=0.0001)
        await gateway.pass_time(0)
        assert len(worker.open_runs) <= 1, "what brings files along is not short"
    await gateway.ended("a")
    assert [run.invocation["files"] for run in worker.runs] == [data] * 4
    assert reads == [digest_of(data).hex()]


async def test_the_largest_files_and_artifacts_fit_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = RequestLimits()
    files, content = bytes(limits.files_upload_max_bytes), bytes(limits.artifacts_max_bytes)
    artifacts = io.BytesIO()
    with zipfile.ZipFile(artifacts, "w") as archive:
        archive.writestr("out", content)

    async def read_files(digest: str) -> bytes:
        return files

    async with open_gateway(tmp_path, artifacts_bytes_max=1 << 30) as gateway:
        monkeypatch.setattr(gateway.modules, "read_files", read_files)
        worker = await gateway.worker()
        most = {"artifact_bytes": len(content), "output_bytes": 1 << 20}
        stdin = bytes(MESSAGE_BYTES_MAX - len(files) - limits.text_max_bytes)
        await gateway.submit("a", zip=zipped(a=b"x"), stdin=stdin, **ASKED | most)
        run = await next_run(worker)
        assert (run.invocation["files"], run.invocation["stdin"]) == (files, stdin)
        output = bytes(1 << 20)
        run.end(artifacts=artifacts.getvalue(), stdout=output, stderr=output)
        (result,) = await gateway.ended("a")
        assert (result.state, result.outcome.artifacts_bytes) == ("succeeded", len(artifacts.getvalue()))


async def test_files_that_are_gone_lose_the_run(gateway: Gateway) -> None:
    worker = await gateway.worker(slots=0)
    await gateway.submit("a", zip=zipped(a=b"x"))
    for path in (gateway.directory / "modules").glob("*.zip"):
        path.unlink()
    async with asyncio.timeout(10):
        while gateway.scheduler.task("a") is not None:
            if not gateway.free_slots:
                worker.offer()
            await gateway.pass_time(0.5)
    (result,) = await gateway.ended("a")
    assert (result.outcome.reason, result.outcome.detail) == (
        "lost",
        "files: the zip cannot be read: No such file or directory",
    )
    assert worker.runs == []


async def test_a_task_that_is_cancelled_while_its_files_are_read_is_not_started(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(digest: str) -> bytes:
        reading.set()
        await may_answer.wait()
        return b"x"

    monkeypatch.setattr(gateway.modules, "read_files", slow)
    worker = await gateway.worker()
    await gateway.submit("a", zip=zipped(a=b"x"))
    await reading.wait()
    await gateway.cancel("a")
    may_answer.set()
    await until(lambda: worker.leases_ended == 1)
    assert worker.runs == []


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"value": 0x3FF8000000000000, "is_float": True}, "1.5"),
        ({"value": 0x7FF8000000000000, "is_float": True}, "NaN"),
        ({"value": -(1 << 52), "is_float": True}, "-Infinity"),
        ({"value": -5}, "-5"),
        ({"value": None}, None),
    ],
)
async def test_results_are_text(gateway: Gateway, said: dict[str, Any], shown: str | None) -> None:
    worker = await gateway.worker()
    await gateway.submit("a")
    (await next_run(worker)).end(**said)
    (result,) = await gateway.ended("a")
    assert result.outcome.result == shown


async def test_what_a_run_used_is_kept(gateway: Gateway) -> None:
    worker = await gateway.worker()
    await gateway.submit("a", repeats=2)
    used = {"queue_s": 0.5, "compile_s": 0.25, "instantiate_s": 0.125, "files_bytes": 77}
    (await next_run(worker)).end(fuel=2**64 - 1, **used)
    (await next_run(worker, 2)).end(queue_s=float("nan"), compile_s=-1.0, files_bytes=2**64 - 1)
    first, second = (result.outcome for result in await gateway.ended("a"))
    assert (first.queue_s, first.compile_s, first.instantiate_s, first.files_bytes) == (0.5, 0.25, 0.125, 77)
    assert (first.fuel, second.fuel) == (2**63 - 1, None)
    assert (second.queue_s, second.compile_s, second.files_bytes) == (0.0, 0.0, 2**63 - 1)


@pytest.mark.parametrize("reason", ["cpu", "fuel", "files", "artifacts"])
async def test_a_limit_that_is_reached_fails_the_run(gateway: Gateway, reason: str) -> None:
    worker = await gateway.worker()
    await gateway.submit("a")
    (await next_run(worker)).end(reason=reason, detail="too much")
    (result,) = await gateway.ended("a")
    assert (result.state, result.outcome.reason, result.attempts) == (RunState.FAILED, reason, 1)


# Artifacts.

ASKED: dict[str, Any] = {"artifacts": ("out",), "artifact_bytes": 1000, "files_bytes": 1000}


async def test_artifacts_are_on_disk_with_their_result(gateway: Gateway) -> None:
    worker = await gateway.worker()
    await gateway.submit("a", repeats=2, **ASKED)
    data = zipped(out__a=b"x", out__b=b"y" * 500)
    (await next_run(worker)).end(artifacts=data)
    (await next_run(worker, 2)).end(reason="exit", exit_code=3, artifacts=data)
    results = await gateway.ended("a")
    assert [result.state for result in results] == ["succeeded", "failed"]
    for result in results:
        assert (result.outcome.artifacts, result.outcome.artifacts_bytes) == (digest_of(data).hex(), len(data))
    assert gateway.artifact_files() == {f"{digest_of(data).hex()}.zip"}
    with await gateway.artifacts.open(digest_of(data).hex()) as file:
        assert file.read() == data
    assert not gateway.scheduler.recorder.held


@pytest.mark.parametrize(
    ("asked", "sent", "says"),
    [
        ({}, zipped(a=b"x"), "asked for none"),
        (ASKED, b"no zip", "that were not asked for: the files are no zip"),
        (ASKED, zipped(a=bytes(1001)), "holds 1001 bytes when it is unpacked, the limit is 1000"),
        (ASKED, zipped(**{"..__a": b"x"}), "'../a'"),
        (ASKED, bytes((16 << 20) + 1001), "16778217 bytes of artifacts, where 1000 may be"),
    ],
)
async def test_artifacts_that_were_not_asked_for_are_the_workers_fault(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, asked: dict[str, Any], sent: bytes, says: str
) -> None:
    caplog.set_level("INFO", "ww.gateway")
    hostile = await gateway.worker()
    await gateway.submit("a", **asked)
    (await next_run(hostile)).end(artifacts=sent)
    await until(lambda: says in caplog.text)
    good = await gateway.worker()
    async with asyncio.timeout(10):
        while not good.runs:
            await gateway.pass_time(0.05)
    good.runs[0].end(artifacts=zipped(out=b"x") if asked else b"")
    (result,) = await gateway.ended("a")
    assert (result.attempts, result.state, bool(result.outcome.artifacts)) == (2, "succeeded", bool(asked))
    assert len(gateway.artifact_files()) == bool(asked)


async def test_artifacts_of_a_forgotten_task_make_room(tmp_path: Path) -> None:
    one, two, three = (zipped(out=bytes([number]) * 500) for number in (1, 2, 3))
    size = max(map(len, (one, two, three)))
    async with open_gateway(tmp_path, artifacts_bytes_max=2 * size, keep=1) as gateway:
        worker = await gateway.worker(slots=4)
        for count, (id, data) in enumerate((("a", one), ("b", two)), 1):
            await gateway.submit(id, **ASKED)
            (await next_run(worker, count)).end(artifacts=data)
            await gateway.ended(id)
        assert gateway.artifact_files() == {f"{digest_of(data).hex()}.zip" for data in (one, two)}
        await gateway.submit("c", **ASKED)
        await gateway.store.housekeep()  # forgets the first
        (await next_run(worker, 3)).end(artifacts=three)
        (result,) = await gateway.ended("c")
        assert result.state == "succeeded"
        assert gateway.artifact_files() == {f"{digest_of(data).hex()}.zip" for data in (two, three)}


async def test_artifacts_without_room_fail_the_run(tmp_path: Path) -> None:
    one, two = (zipped(out=bytes([number]) * 500) for number in (1, 2))
    async with open_gateway(tmp_path, artifacts_bytes_max=len(one)) as gateway:
        worker = await gateway.worker()
        await gateway.submit("a", repeats=3, **ASKED)
        (await next_run(worker)).end(artifacts=one)
        await until(lambda: bool(gateway.artifact_files()))
        (await next_run(worker, 2)).end(artifacts=two)
        (await next_run(worker, 3)).end(artifacts=one)
        results = await gateway.ended("a")
        assert [result.state for result in results] == ["succeeded", "failed", "succeeded"]
        assert (results[1].outcome.reason, results[1].outcome.artifacts) == ("artifacts", "")
        assert f"have reached {len(one)} bytes, the limit" in results[1].outcome.detail
        assert gateway.artifact_files() == {f"{digest_of(one).hex()}.zip"}
        assert not gateway.scheduler.recorder.held


async def test_artifacts_wait_for_a_disk_that_refuses(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    worker = await gateway.worker()
    await gateway.submit("a", **ASKED)
    (gateway.directory / "artifacts").rmdir()
    (await next_run(worker)).end(artifacts=zipped(out=b"x"))
    await until(lambda: "artifacts wait until the disk takes them" in caplog.text)
    await gateway.pass_time(5)
    assert str(gateway.directory) not in caplog.text
    (gateway.directory / "artifacts").mkdir()
    (result,) = await gateway.ended("a")
    assert result.outcome.artifacts_bytes == len(zipped(out=b"x"))


async def test_artifacts_of_a_cancelled_run_are_not_held(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    worker = await gateway.worker()
    await gateway.submit("a", **ASKED)
    (gateway.directory / "artifacts").rmdir()
    (await next_run(worker)).end(artifacts=zipped(out=b"x"))
    await until(lambda: "artifacts wait until the disk takes them" in caplog.text)
    await gateway.cancel("a")
    (gateway.directory / "artifacts").mkdir()
    async with asyncio.timeout(10):
        while gateway.scheduler.recorder.held:
            await gateway.pass_time(0.5)
    assert gateway.artifact_files() == set()


async def test_artifacts_on_their_way_to_disk_are_not_removed_for_others(tmp_path: Path) -> None:
    one, two = (zipped(out=bytes([number]) * 500) for number in (1, 2))
    async with open_gateway(tmp_path, artifacts_bytes_max=len(one)) as gateway:
        worker = await gateway.worker()
        gateway.store.refuses = True
        await gateway.submit("a", repeats=2, **ASKED)
        (await next_run(worker)).end(artifacts=one)
        await until(lambda: bool(gateway.artifact_files()))
        (await next_run(worker, 2)).end(artifacts=two)
        task = gateway.scheduler.task("a")
        assert task is not None
        await until(lambda: not task.active)
        gateway.store.refuses = False
        results = await gateway.ended("a")
        assert [result.outcome.reason for result in results] == ["", "artifacts"]
        assert gateway.artifact_files() == {f"{digest_of(one).hex()}.zip"}
