"""Guests in child processes, from outside: every end of a guest is an outcome, and none is the node's."""

import asyncio
import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.guests import FLOOD, GROW_4_GIB, ROOT, SLEEP_FOR_EVER, START_WITH_4_GIB, digest_of, function, guest, wat
from ww import schema
from ww.errors import BadModule, ClosedError
from ww.outcome import read_invocation
from ww.sandbox.child import Child
from ww.sandbox.invocation import Invocation, Result, RunLimits
from ww.sandbox.limits import SandboxLimits
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import SandboxPool

pytestmark = pytest.mark.anyio

SPIN = Invocation("run", (0, 0))
LIMITS = SandboxLimits(memory_bytes_max=256 << 20, kill_grace_s=0.2)


class Sandbox:
    """A pool and its cache, with a short way to run a module."""

    def __init__(self, pool: SandboxPool, cache: ModuleCache) -> None:
        self.pool = pool
        self.cache = cache

    async def prepare(self, module: bytes, *, metered: bool = False) -> bytes:
        digest = digest_of(module)
        if not await self.cache.has(digest):
            async with self.cache.writer(digest) as writer:
                await writer.write(module)
        await self.pool.prepare(digest, metered=metered)
        return digest

    async def run(
        self,
        module: bytes,
        duration_s: float = 10.0,
        memory_bytes: int = 0,
        output_bytes: int = 0,
        asked: Mapping[str, Any] | None = None,
        **say: Any,
    ) -> Any:
        """Run a module once; asked are further fields of worker.Limits, say those of worker.Invocation."""
        message = schema.worker.Invocation.new_message(**say)
        told = message.limits
        told.durationSeconds, told.memoryBytes, told.outputBytes = duration_s, memory_bytes, output_bytes
        for name, value in (asked or {}).items():
            setattr(told, name, value)
        return await self.send(module, message)

    async def send(self, module: bytes, message: Any) -> Result:
        """Run a module once with a worker.Invocation, and return its Result."""
        invocation = read_invocation(message)
        limits = self.pool.limits.of_run(message.limits, invocation)
        digest = await self.prepare(module, metered=limits.is_metered(invocation))
        return await self.pool.run(digest, invocation, limits)

    async def spin(self, duration_s: float = 60.0) -> "asyncio.Future[Result]":
        """Begin a run that does not end by itself."""
        digest = await self.prepare(guest("spin"))
        return asyncio.ensure_future(self.pool.run(digest, SPIN, RunLimits(duration_s, 1 << 28, 1 << 16)))

    async def call(self, module: bytes, *arguments: int, **limits: Any) -> Any:
        return await self.run(module, entry="run", arguments=arguments or (0, 0), **limits)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=1, limits=LIMITS) as pool:
        yield Sandbox(pool, cache)


def children() -> set[int]:
    """Return the pids of this process's sandboxes: other tests may have a server of theirs."""
    tasks = Path("/proc/self/task")
    pids = {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()}
    return {pid for pid in pids if "postgres" not in command_of(pid).partition(" ")[0]}


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:  # it has gone
        return ""


async def test_an_exported_function_gets_its_arguments_and_gives_its_result(sandbox: Sandbox) -> None:
    outcome = await sandbox.call(guest("hash"), 7, 3)
    assert (outcome.reason, outcome.value) == ("ok", 7379)
    assert outcome.memory_bytes > 0
    assert outcome.wall_s > 0


async def test_a_command_gets_args_env_and_stdin_and_gives_output_and_exit_code(sandbox: Sandbox) -> None:
    outcome = await sandbox.run(
        guest("echo"), args=["one", "zwei drei", "\u56db"], env=[{"key": "K", "value": "v"}], stdin=b"\0in\xff"
    )
    assert outcome.stdout == "one zwei drei \u56db\n".encode() + b"\0in\xff"
    assert outcome.stderr == b"K=v\n"  # and nothing of this process's environment
    assert (outcome.reason, outcome.exit_code) == ("ok", 0)


@pytest.mark.parametrize("code", [7, 125, 126, 255])
async def test_every_exit_code_arrives(sandbox: Sandbox, code: int) -> None:
    outcome = await sandbox.run(guest("echo"), env=[{"key": "EXIT", "value": str(code)}])
    assert (outcome.reason, outcome.exit_code) == ("exit", code)


async def test_one_run_leaves_nothing_to_the_next(sandbox: Sandbox) -> None:
    counter = function(
        "(i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))) (i32.load (i32.const 0))",
        "(memory 1)",
    )
    assert [(await sandbox.call(counter)).value for _ in range(3)] == [1, 1, 1]
    first = await sandbox.run(guest("echo"), stdin=b"secret", env=[{"key": "EXIT", "value": "3"}])
    second = await sandbox.run(guest("echo"))
    assert first.stdout == b"secret"
    assert (second.stdout, second.stderr, second.exit_code) == (b"", b"", 0)


@pytest.mark.parametrize(
    ("body", "before", "kind"),
    [
        ("unreachable", "", "unreachable"),
        ("(call $run (i32.const 0) (i32.const 0))", "", "stack_overflow"),
        ("(i32.div_u (i32.const 1) (local.get 0))", "", "integer_division_by_zero"),
        ("(i32.load (i32.const 65536))", "(memory 1)", "memory_out_of_bounds"),
        ("(call_indirect (param) (result i32) (i32.const 0))", "(table 1 funcref)", "indirect_call_to_null"),
    ],
)
async def test_a_trap_is_told_with_its_kind(sandbox: Sandbox, body: str, before: str, kind: str) -> None:
    outcome = await sandbox.call(function(body, before))
    assert (outcome.reason, outcome.detail) == ("trap", kind)


@pytest.mark.parametrize("where", ["run", "start section", "_initialize"])
async def test_an_endless_loop_ends_at_its_deadline_wherever_it_is(sandbox: Sandbox, where: str) -> None:
    loop = "(loop $again (br $again))"
    module = {
        "run": guest("spin"),
        "start section": function("(i32.const 1)", f"(func $f {loop}) (start $f)"),
        "_initialize": function("(i32.const 1)", f'(func (export "_initialize") {loop})'),
    }[where]
    before = children()
    outcome = await sandbox.call(module, duration_s=0.1)
    assert outcome.reason == "deadline"
    assert children() == before  # interrupted, not killed


async def test_a_guest_that_sleeps_ends_at_its_deadline(sandbox: Sandbox) -> None:
    before = children()
    async with asyncio.timeout(5):
        outcome = await sandbox.run(SLEEP_FOR_EVER, duration_s=0.1)
    assert outcome.reason == "deadline"
    assert children() == before  # interrupted, not killed


async def test_memory_beyond_the_limit_is_refused(sandbox: Sandbox) -> None:
    assert (await sandbox.call(START_WITH_4_GIB)).reason == "memory"
    grown = await sandbox.call(
        function("(memory.grow (i32.const 100))", '(memory (export "memory") 1)'), memory_bytes=1 << 20
    )
    assert grown.value == -1
    trapped = await sandbox.call(GROW_4_GIB)
    assert (trapped.reason, trapped.detail) == ("trap", "memory_out_of_bounds")


async def test_a_limit_beyond_the_nodes_is_the_nodes(sandbox: Sandbox) -> None:
    asked = schema.worker.Limits.new_message(memoryBytes=1 << 40)
    assert sandbox.pool.limits.of_run(asked, Invocation()).memory_bytes == LIMITS.memory_bytes_max


async def test_a_flood_of_output_is_cut_and_flagged(sandbox: Sandbox) -> None:
    for _ in range(2):  # the first instance of a module, and a later one
        outcome = await sandbox.run(FLOOD, output_bytes=1000)
        assert (len(outcome.stdout), outcome.stdout_truncated) == (1000, True)
        assert (len(outcome.stderr), outcome.stderr_truncated) == (1000, True)
    exact = await sandbox.run(guest("echo"), stdin=b"x" * 1000, output_bytes=1000)
    assert (len(exact.stdout), exact.stdout_truncated) == (1000, False)


async def test_arguments_are_fitted_to_the_parameters(sandbox: Sandbox) -> None:
    add = function("(i32.add (local.get 0) (local.get 1))")
    assert (await sandbox.call(add, 2**32 - 1, 0)).value == -1
    outcome = await sandbox.call(add, 2**32, 0)
    assert (outcome.reason, outcome.detail) == ("trap", "the argument 4294967296 does not fit into i32")


@pytest.mark.parametrize(
    ("module", "detail"),
    [
        (wat('(func (export "run") (param i32) (result i32) (i32.const 1))'), "takes 1 arguments, 2 are given"),
        (wat('(func (export "run") (param i32 v128))'), "exports no function 'run' that takes"),
        (wat('(func (export "other"))'), "exports no function 'run'"),
        (wat('(import "env" "f" (func))'), "unknown import"),
    ],
)
async def test_what_cannot_be_called_or_linked_is_a_compile_failure(
    sandbox: Sandbox, module: bytes, detail: str
) -> None:
    outcome = await sandbox.call(module)
    assert outcome.reason == "compile"
    assert detail in outcome.detail


async def test_what_does_not_compile_is_a_bad_module(sandbox: Sandbox) -> None:
    with pytest.raises(BadModule) as error:
        await sandbox.prepare(guest("hash")[:-400])
    assert "\n" not in str(error.value)


async def test_bytes_that_are_not_what_their_digest_says_are_not_kept(sandbox: Sandbox) -> None:
    digest = digest_of(b"something else")
    with pytest.raises(BadModule, match="sha256"):
        async with sandbox.cache.writer(digest) as writer:
            await writer.write(guest("noop"))
    assert not await sandbox.cache.has(digest)


async def test_a_killed_child_is_a_crash_and_the_next_run_finds_another(sandbox: Sandbox) -> None:
    before = children()
    run = await sandbox.spin()
    busy = await busiest(before)
    os.kill(busy, signal.SIGABRT)
    outcome = await asyncio.wait_for(run, 10)
    assert outcome.reason == "crash"
    assert "SIGABRT" in outcome.detail
    assert (await sandbox.call(guest("noop"), 5, 0)).value == 5


async def busiest(pids: set[int]) -> int:
    """Return which of the processes uses the processor."""

    def ticks(pid: int) -> int:
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))

    before = {pid: ticks(pid) for pid in pids}
    await until(lambda: any(ticks(pid) > before[pid] + 5 for pid in pids))
    return max(pids, key=lambda pid: ticks(pid) - before[pid])


async def test_a_child_that_is_stopped_costs_its_run_alone(sandbox: Sandbox) -> None:
    run = await sandbox.spin(1.0)
    os.kill(await busiest(children()), signal.SIGSTOP)
    outcome = await asyncio.wait_for(run, 10)
    assert outcome.reason == "deadline"
    assert (await sandbox.call(guest("noop"), 5, 0)).value == 5


async def test_cancelling_stops_the_guest_and_frees_the_slot(sandbox: Sandbox) -> None:
    run = await sandbox.spin()
    busy = await busiest(children())
    run.cancel()
    await until(lambda: busy not in children())
    assert (await sandbox.call(guest("noop"), 5, 0)).value == 5


async def test_a_damaged_or_missing_artefact_is_compiled_again(sandbox: Sandbox) -> None:
    digest = await sandbox.prepare(guest("hash"))
    path = sandbox.cache.artefact_path(digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert (await sandbox.call(guest("hash"), 0, 2)).value == 563
    path.unlink()
    other = await sandbox.call(guest("noop"), 9, 0)  # loaded beside it
    assert other.value == 9
    assert (await sandbox.call(guest("hash"), 0, 2)).value == 563


async def test_many_first_uses_compile_once(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    adopted: list[Path] = []
    adopt = sandbox.cache.adopt

    async def counting(temporary: Path, path: Path) -> None:
        adopted.append(path)
        await adopt(temporary, path)

    monkeypatch.setattr(sandbox.cache, "adopt", counting)
    digest = digest_of(guest("hash"))
    async with sandbox.cache.writer(digest) as writer:
        await writer.write(guest("hash"))
    await asyncio.gather(*(sandbox.pool.prepare(digest) for _ in range(50)))
    assert adopted.count(sandbox.cache.artefact_path(digest)) == 1


async def test_compiling_has_a_time_limit_and_the_next_module_compiles(tmp_path: Path) -> None:
    big = wat("".join(f"(func (result i32) {'(i32.const 1) (drop) ' * 2000} (i32.const {i}))" for i in range(400)))
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=1, limits=SandboxLimits(compile_max_s=0.05)) as pool:
        sandbox = Sandbox(pool, cache)
        with pytest.raises(BadModule, match=r"longer than 0\.05 s"):
            await sandbox.prepare(big)
    async with SandboxPool(cache, slots=1) as pool:
        assert (await Sandbox(pool, cache).call(guest("noop"), 4, 0)).value == 4


async def test_the_cache_keeps_its_quota_and_forgets_what_is_oldest(tmp_path: Path) -> None:
    cache = ModuleCache(tmp_path / "cache", quota_bytes=10_000)
    modules = [bytes([i]) * 3000 for i in range(5)]
    for age, module in enumerate(modules):
        async with cache.writer(digest_of(module)) as writer:
            await writer.write(module)
        os.utime(cache.module_path(digest_of(module)), (age, age))
    assert [await cache.has(digest_of(module)) for module in modules] == [False, False, True, True, True]


async def test_no_process_or_descriptor_is_left(tmp_path: Path) -> None:
    before, descriptors = children(), set(os.listdir("/proc/self/fd"))
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=2, limits=LIMITS) as pool:
        sandbox = Sandbox(pool, cache)
        run = await sandbox.spin()
        busy = await busiest(children() - before)
        os.kill(busy, signal.SIGSTOP)
    await asyncio.wait((run,), timeout=5)
    assert run.done()
    run.exception()
    assert children() == before
    assert set(os.listdir("/proc/self/fd")) == descriptors
    with pytest.raises(ClosedError):
        await sandbox.run(guest("noop"))


async def test_a_child_that_is_never_content_costs_its_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptors = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(Child, "module", "tests.sandbox.wanting_executor")
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=1) as pool:
        outcome = await Sandbox(pool, cache).call(guest("noop"), 1, 0)
        assert outcome.reason == "crash"
        assert "another question" in outcome.detail
        monkeypatch.undo()
        assert (await Sandbox(pool, cache).call(guest("noop"), 1, 0)).value == 1
    assert set(os.listdir("/proc/self/fd")) == descriptors


async def test_a_child_that_keeps_to_its_count_of_runs_is_replaced(tmp_path: Path) -> None:
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=1, limits=SandboxLimits(runs_per_child=2)) as pool:
        sandbox = Sandbox(pool, cache)
        await sandbox.prepare(guest("noop"))
        before = children()
        for i in range(3):
            assert (await sandbox.call(guest("noop"), i, 0)).value == i
        assert children() != before
        await until(lambda: len(children()) == len(before))


def test_children_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    program = f"""
        import asyncio, sys
        from pathlib import Path
        sys.path.insert(0, {str(ROOT)!r})
        from tests.guests import digest_of, guest
        from tests.sandbox.test_pool import Sandbox, busiest, children
        from ww.sandbox.modules import ModuleCache
        from ww.sandbox.pool import SandboxPool

        async def main():
            cache = ModuleCache(Path({str(tmp_path)!r}), quota_bytes=1 << 30)
            async with SandboxPool(cache, slots=1) as pool:
                run = await Sandbox(pool, cache).spin()
                await busiest(children())
                print(*children(), flush=True)
                await run

        asyncio.run(main())
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        process.kill()
    assert len(pids) == 2
    for pid in pids:
        # The end of a process that is not ours: its pidfd becomes readable.
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        assert select.select([fd], [], [], 10)[0], "a child outlives its parent"
        os.close(fd)
