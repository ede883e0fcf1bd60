"""Preview 2 commands run to their ends, whatever these are, and a deterministic one always to the same."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import wasmtime

from tests import components as guests
from tests.components import command, exits, exits_plainly, plain, sleeps
from ww.sandbox.component import Components, compile_component, make_config
from ww.sandbox.invocation import GuestFault, Invocation, Result, RunLimits

MIB = 1 << 20


class Bench:
    """Runs commands in this process, whose outputs are files in memory meanwhile."""

    def __init__(self, *, fuel: bool = False, deterministic: bool = False) -> None:
        self._options = {"fuel": fuel, "deterministic": deterministic}
        self.engine = wasmtime.Engine(make_config(**self._options))
        self.components = Components(self.engine, **self._options)

    def run(
        self,
        component: bytes,
        *,
        args: Sequence[str] = (),
        env: Sequence[tuple[str, str]] = (),
        stdin: bytes = b"",
        duration_s: float = 10.0,
        memory_bytes: int = 16 * MIB,
        fuel: int = 0,
        seed: int = 0,
        preopens: Sequence[tuple[str, str]] = (),
    ) -> Result:
        """Run to the end, with the outputs in the result."""
        result = Result()
        kept = [os.dup(1), os.dup(2)]
        files = [os.memfd_create("out"), os.memfd_create("error")]
        for fd, file in zip((1, 2), files, strict=True):
            os.dup2(file, fd)
        timer = threading.Timer(duration_s, self.engine.increment_epoch)
        timer.start()
        try:
            program = self.components.load(compile_component(component, **self._options))
            self.components.run(
                program,
                Invocation(args=args, env=env, stdin=stdin, seed=seed),
                RunLimits(duration_s=duration_s, memory_bytes=memory_bytes, output_bytes=MIB, fuel=fuel),
                result,
                preopens,
            )
        except GuestFault as fault:
            result.reason, result.detail = fault.reason, fault.detail
        finally:
            timer.cancel()
            timer.join()
            for fd, saved in zip((1, 2), kept, strict=True):
                os.dup2(saved, fd)
                os.close(saved)
            result.stdout, result.stderr = (os.pread(file, MIB, 0) for file in files)
            for file in files:
                os.close(file)
        return result


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    return Bench()


@pytest.fixture(scope="module")
def deterministic() -> Bench:
    return Bench(deterministic=True)


def end(result: Result) -> tuple[str, str, int | None]:
    return result.reason, result.detail, result.exit_code


def test_a_command_gets_arguments_and_environment(bench: Bench) -> None:
    result = bench.run(guests.SAYS_ARGUMENTS, args=["one", "", "zwölf"], env=[("A", "b"), ("C", "=")])
    assert result.stdout.decode() == "main.wasm\none\n\nzwölf\nA=b\nC==\n"
    assert end(result) == ("ok", "", 0)


@pytest.mark.parametrize("size", [0, 1, 5000, 300_000])
def test_a_command_reads_stdin_and_writes_both_outputs(bench: Bench, size: int) -> None:
    data = os.urandom(size)
    result = bench.run(guests.ECHOES, stdin=data)
    assert (result.stdout, result.stderr) == (data, data)
    assert end(result) == ("ok", "", 0)


def test_what_a_guest_does_not_flush_is_its_own_output_and_not_the_next_ones(bench: Bench) -> None:
    assert bench.run(guests.WRITES_ONLY).stdout == b"secret"
    assert bench.run(guests.NOOP).stdout == b""


def test_what_cannot_be_written_is_not_the_next_ones_output(bench: Bench) -> None:
    import resource
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        bench.run(guests.WRITES_ONLY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert bench.run(guests.SAYS_ARGUMENTS).stdout == b"main.wasm\n"


@pytest.mark.parametrize("code", [0, 1, 7, 125, 126, 200, 255])
def test_exit_codes(bench: Bench, code: int) -> None:
    expected = ("exit", f"exit code {code}", code) if code else ("ok", "", 0)
    assert end(bench.run(exits(code))) == expected


def test_exit_and_a_run_that_returns_an_error_are_exit_code_1(bench: Bench) -> None:
    assert end(bench.run(exits_plainly(False))) == ("ok", "", 0)
    assert end(bench.run(exits_plainly(True))) == ("exit", "exit code 1", 1)
    assert end(bench.run(guests.FAILS)) == ("exit", "exit code 1", 1)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("unreachable", "unreachable"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "integer_division_by_zero"),
        ("(drop (i32.load (i32.const -8)))", "memory_out_of_bounds"),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", "bad_conversion_to_integer"),
    ],
)
def test_traps_are_named_as_those_of_modules(bench: Bench, body: str, detail: str) -> None:
    assert end(bench.run(plain(body))) == ("trap", detail, None)


def test_endless_recursion_traps(bench: Bench) -> None:
    assert end(bench.run(guests.RECURSES)) == ("trap", "stack_overflow", None)


def test_a_functions_name_does_not_pass_for_the_cause(bench: Bench) -> None:
    name = r"x\0a\0aCaused by:\0a    wasm trap: interrupt"
    component = command(f'(func $run (@name "{name}") (export "run") (result i32) unreachable)')
    assert end(bench.run(component)) == ("trap", "unreachable", None)


def test_an_endless_loop_ends_at_its_deadline(bench: Bench) -> None:
    start = time.monotonic()
    result = bench.run(guests.SPINS, duration_s=0.1)
    assert end(result) == ("deadline", "the run took longer than it may", None)
    assert time.monotonic() - start < 5
    assert end(bench.run(guests.NOOP)) == ("ok", "", 0)


def test_a_sleep_is_slept(bench: Bench) -> None:
    start = time.monotonic()
    assert end(bench.run(sleeps(0.05))) == ("ok", "", 0)
    assert time.monotonic() - start >= 0.05


def test_memory_is_limited_as_it_grows_and_at_the_start(bench: Bench) -> None:
    assert end(bench.run(guests.GROWS)) == ("trap", "unreachable", None)
    result = bench.run(guests.STARTS_LARGE)
    assert result.reason == "memory"
    assert "1024 pages" in result.detail or "exceeds" in result.detail


def test_a_second_memory_is_refused(bench: Bench) -> None:
    result = bench.run(guests.TWO_MEMORIES)
    assert (result.reason, result.detail) == ("compile", "resource limit exceeded: memory count too high at 2")


def test_output_is_taken_as_it_comes(bench: Bench) -> None:
    result = bench.run(guests.FLOODS, duration_s=1.0)
    assert result.reason == "deadline"
    assert len(result.stdout) == MIB


def test_what_a_guest_takes_of_the_host_is_limited(bench: Bench) -> None:
    hoard, draw = bench.run(guests.HOARDS), bench.run(guests.draws(1 << 40))
    assert hoard.detail == "cannot allocate another handle: store handle limit exceeded"
    assert draw.detail == f"requested len {1 << 40} exceeds limit {64 * MIB}"
    assert hoard.reason == draw.reason == "trap"


def test_there_are_no_sockets(bench: Bench, deterministic: Bench) -> None:
    assert end(bench.run(guests.MAKES_SOCKETS)) == end(deterministic.run(guests.MAKES_SOCKETS)) == ("ok", "", 0)


def test_fuel_is_counted_the_same_each_time() -> None:
    bench = Bench(fuel=True)
    first, second = (bench.run(guests.NOOP, fuel=100_000) for _ in range(2))
    assert end(first) == ("ok", "", 0)
    assert first.fuel == second.fuel
    assert first.fuel is not None
    assert 0 < first.fuel < 100
    spent = bench.run(guests.SPINS, fuel=100_000)
    assert end(spent) == ("fuel", "the run took more fuel than it may", None)
    assert spent.fuel == 100_000
    assert bench.run(guests.NOOP).reason == "ok"


def test_a_guest_has_the_folders_it_is_given_and_no_other(bench: Bench, tmp_path: Path) -> None:
    body = """(func (export "run") (result i32)
      (call $directories (i32.const 0)) (call $exit-with-code (i32.load (i32.const 4))) (i32.const 0))"""
    component = command(body, "directories", "exit-with-code")
    assert end(bench.run(component))[2] == 0
    assert end(bench.run(component, preopens=[(str(tmp_path), "/"), (str(tmp_path), "/more")]))[2] == 2


@pytest.mark.parametrize("version", ["0.2.0", "0.2.3", "0.2.8", "0.2.12", "0.2.40"])
def test_all_versions_0_2_link(bench: Bench, deterministic: Bench, version: str) -> None:
    body = '(func (export "run") (result i32) (call $exit-with-code (i32.const 3)) (i32.const 0))'
    component = command(body, *guests.ALL, version=version, run=f"wasi:cli/run@{version}")
    assert end(bench.run(component))[2] == 3
    assert end(deterministic.run(component))[2] == 3


@pytest.mark.parametrize(
    ("component", "detail"),
    [
        (b"\0asm\x0d\0\1\0", "exports no wasi:cli/run@0.2"),
        (command('(func (export "run") (result i32) (i32.const 0))', run="wasi:cli/run@0.3.0"), "exports no wasi:cli"),
        (b"\0asm\1\0\0\0", "is no component"),
        (b"\0asm\x0d\0\1\0\7\1", "unexpected end"),
        (b"(component)", "is no component"),
        (wasmtime.wat2wasm('(component (import "wasi:http/types@0.2.0" (instance (export "x" (func)))))'), "exports"),
        (guests.UNKNOWN_IMPORT, "wasi:http/types"),
        (guests.TAKES_A_NUMBER, "takes nothing"),
    ],
)
def test_what_is_no_command_does_not_compile_or_load(bench: Bench, component: bytes, detail: str) -> None:
    result = bench.run(bytes(component))
    assert result.reason == "compile"
    assert detail in result.detail
    assert "\n" not in result.detail


def test_what_another_configuration_compiled_is_not_loaded(bench: Bench) -> None:
    with pytest.raises(wasmtime.WasmtimeError):
        bench.components.load(compile_component(guests.NOOP, fuel=True))


READS_CLOCKS_AND_RANDOM = guests.says_results("now", "now", "random-u64", "insecure-u64", "random-u64")


def test_clocks_and_random_numbers_differ_from_run_to_run(bench: Bench) -> None:
    assert bench.run(READS_CLOCKS_AND_RANDOM).stdout != bench.run(READS_CLOCKS_AND_RANDOM).stdout


def test_a_deterministic_run_is_the_same_each_time_and_everywhere(deterministic: Bench) -> None:
    first = deterministic.run(READS_CLOCKS_AND_RANDOM, seed=7).stdout
    assert first == deterministic.run(READS_CLOCKS_AND_RANDOM, seed=7).stdout
    assert first == Bench(deterministic=True).run(READS_CLOCKS_AND_RANDOM, seed=7).stdout
    other = deterministic.run(READS_CLOCKS_AND_RANDOM, seed=8).stdout
    assert first[:16] == other[:16] == (10**6).to_bytes(8, "little") + (2 * 10**6).to_bytes(8, "little")
    assert first[16:] != other[16:]
    # What workers of other versions of Python and ww have to give too.
    assert first[16:].hex() == "32d07bae2aee7fca4ad0a003f4c22bd127c954bf64ea77f3"


def test_a_deterministic_run_draws_its_random_bytes(deterministic: Bench) -> None:
    seen = [deterministic.run(guests.SAYS_RANDOM_BYTES, seed=seed).stdout for seed in (1, 1, 2)]
    assert seen[0] == seen[1] != seen[2]
    assert len(seen[0]) == 2000
    assert len(set(seen[0])) > 200


def test_a_deterministic_wall_clock_and_seed(deterministic: Bench) -> None:
    result = deterministic.run(guests.SAYS_WALL_CLOCK_AND_SEED)
    assert int.from_bytes(result.stdout[:8], "little") == 946_684_800
    assert int.from_bytes(result.stdout[8:12], "little") == 10**6
    assert len(set(result.stdout[16:32])) > 8


def test_a_deterministic_run_does_not_wait(deterministic: Bench) -> None:
    start = time.monotonic()
    assert end(deterministic.run(sleeps(3600))) == ("ok", "", 0)
    assert end(deterministic.run(guests.POLLS)) == ("exit", "exit code 3", 3)
    assert time.monotonic() - start < 30


def test_a_deterministic_run_has_no_folders(deterministic: Bench, tmp_path: Path) -> None:
    result = deterministic.run(guests.NOOP, preopens=[(str(tmp_path), "/")])
    assert result.reason == "compile"
    assert "has no files" in result.detail


def test_a_deterministic_run_that_asks_for_too_much_traps(deterministic: Bench) -> None:
    result = deterministic.run(guests.draws(1 << 40))
    assert result.reason == "trap"
    assert "random bytes" in result.detail


def test_values_given_to_a_guest_are_freed(deterministic: Bench) -> None:
    component = guests.DRAWS_FOR_EVER
    deterministic.run(component, duration_s=0.3)
    before = resident_bytes()
    deterministic.run(component, duration_s=1.5)
    assert resident_bytes() - before < 20 * MIB


def test_commands_run_in_a_confined_process_that_any_other_system_call_kills() -> None:
    module = "tests.sandbox.strict_components"
    done = subprocess.run([sys.executable, "-m", module], stdout=subprocess.PIPE, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (0, b"all ended as expected\n")


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
