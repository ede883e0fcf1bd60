"""Python functions in the sandbox: what goes in and comes out, what they find there, and where they end."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sandbox.python_sandbox import PythonSandbox, open_sandbox
from tests.sandbox.test_pool import children
from ww.sandbox.invocation import Invocation

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

MIB = 1 << 20


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[PythonSandbox]:
    async with open_sandbox(tmp_path) as opened:
        yield opened


async def test_a_value_comes_as_stdout_and_what_is_printed_as_stderr(sandbox: PythonSandbox) -> None:
    result = await sandbox.run("print('seen') or (name, grants, 6 * 7)", args=("a:b", "c:d", "e:f"))
    assert (result.reason, result.detail, result.exit_code) == ("ok", "", 0)
    assert result.stdout == b"('a:b', ['c:d', 'e:f'], 42)"
    assert result.stderr == b"seen\n"
    assert result.wall_s > 0
    assert 8 * MIB < result.memory_bytes < 64 * MIB


async def test_an_exception_is_an_exit_with_its_last_line(sandbox: PythonSandbox) -> None:
    result = await sandbox.run("{}['missing']")
    assert (result.reason, result.exit_code, result.detail) == ("exit", 1, "KeyError: 'missing'")
    assert json.loads(result.stdout)["name"] == "KeyError"
    assert result.stderr.endswith(b"KeyError: 'missing'\n")


async def test_a_program_that_does_not_load_fails_each_run_of_its_group_and_is_tried_again_by_the_next(
    sandbox: PythonSandbox,
) -> None:
    code = "print('importing')\nraise ValueError(os.urandom(4))\n"
    first = await sandbox.group("1", "2", "3", code=code)
    second = await sandbox.group("1", code=code)
    assert {result.reason for result in first} == {"exit"}
    assert all(b"importing" in result.stderr and b"Traceback" in result.stderr for result in first)
    assert len({result.detail for result in first}) == 1
    assert first[0].detail.startswith("ValueError: b")
    assert second[0].detail != first[0].detail


async def test_the_environment_is_the_runs(sandbox: PythonSandbox) -> None:
    text = "dict(environment.get_environment())"
    assert (await sandbox.run(text, env=(("A", "ä"), ("EMPTY", "")))).stdout.decode() == "{'A': 'ä', 'EMPTY': ''}"
    assert (await sandbox.run(text)).stdout == b"{}"


async def test_large_requests_results_and_prints_arrive(sandbox: PythonSandbox) -> None:
    text = f"print('p' * {3 * MIB}, end='') or b'v' * {5 * MIB} #" + "x" * (4 * MIB)
    result = await sandbox.run(text, output_bytes=6 * MIB)
    assert (result.stdout, result.stderr) == (b"v" * 5 * MIB, b"p" * 3 * MIB)
    results = await sandbox.group(*[f"b'{n}' * 70000" for n in range(10)])
    assert [result.stdout for result in results] == [b"%d" % n * 70000 for n in range(10)]


async def test_a_result_that_is_too_large_is_named_and_a_flood_of_prints_is_cut(sandbox: PythonSandbox) -> None:
    result = await sandbox.run("b'v' * 2001", output_bytes=2000)
    assert (result.reason, result.stdout) == ("exit", b"")
    assert result.detail == "the result has 2001 bytes, at most 2000 are taken"
    result = await sandbox.run("print('p' * 10**6)", output_bytes=2000)
    assert (result.reason, result.stderr, result.stderr_truncated) == ("ok", b"p" * 2000, True)


@pytest.mark.parametrize(
    "text",
    [
        "[0 for _ in iter(int, 1)]",
        "time.sleep(3600)",
        "sum(range(10**12))",
        "'a' * 10**7 + re.match('(a*)*b', 'a' * 40)",
    ],
)
async def test_a_deadline_ends_whatever_a_function_does(sandbox: PythonSandbox, text: str) -> None:
    before = children()
    result = await sandbox.run(text, duration_s=0.4)
    assert result.reason == "deadline"
    assert "it may for 0.4 s" in result.detail
    assert children() == before


@pytest.mark.parametrize("code", ["while True: pass\n", "time.sleep(60)\n"])
async def test_loading_ends_too(sandbox: PythonSandbox, code: str) -> None:
    before = children()
    results = await sandbox.group("1", "2", code=code, duration_s=0.2)
    assert [result.reason for result in results] == ["deadline"] * 2
    assert results[0].detail == results[1].detail == "loading it took longer than it may"
    assert (await sandbox.run("1")).stdout == b"1"
    assert children() == before


async def test_loading_may_take_longer_than_a_call(sandbox: PythonSandbox) -> None:
    result = await sandbox.run("1", "time.sleep(0.6)\n", duration_s=0.3)
    assert (result.reason, result.stdout) == ("ok", b"1")
    assert result.instantiate_s > 0.6
    assert result.wall_s < 0.3


async def test_memory_is_limited(sandbox: PythonSandbox) -> None:
    result = await sandbox.run("len(bytearray(90 << 20))", memory_bytes=64 * MIB)
    assert (result.reason, result.detail) == ("memory", f"MemoryError; it may have {64 * MIB} bytes")
    assert (await sandbox.run("len(bytearray(90 << 20))", memory_bytes=128 * MIB)).reason == "ok"
    result = await sandbox.run("1", "x = bytearray(90 << 20)\n", memory_bytes=64 * MIB)
    assert result.reason == "memory"
    result = await sandbox.run("1", memory_bytes=5 * MIB)
    assert result.reason == "memory", result.detail
    assert result.detail.startswith("Python alone takes ")


async def test_fuel_is_counted_for_the_call_alone(sandbox: PythonSandbox) -> None:
    busy = "sum(range(100_000))\n" * 20
    first, second = [await sandbox.run("1", busy, fuel=50_000_000) for _ in range(2)]
    assert first.reason == second.reason == "ok"
    assert first.fuel is not None
    assert first.fuel == second.fuel < 5_000_000
    result = await sandbox.run("[0 for _ in iter(int, 1)]", busy, fuel=50_000_000)
    assert (result.reason, result.fuel) == ("fuel", 50_000_000)


async def test_a_deterministic_run_is_the_same_whenever_and_wherever(tmp_path: Path, sandbox: PythonSandbox) -> None:
    text = (
        "[time.time(), time.monotonic(), os.urandom(4), random.SystemRandom().random(), time.sleep(1000), uuid.uuid4()]"
    )
    first = await sandbox.run(text, deterministic=True, seed=5)
    assert first.reason == "ok"
    async with open_sandbox(tmp_path / "another") as another:
        await another.run("1", deterministic=True, seed=6)
        assert (await another.run(text, deterministic=True, seed=5)).stdout == first.stdout
    assert (await sandbox.run(text, deterministic=True, seed=6)).stdout != first.stdout


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("open('/etc/passwd')", "FileNotFoundError"),
        ("open('/new', 'w')", "FileNotFoundError"),
        ("os.listdir('/')", "FileNotFoundError"),
        ("socket.socket()", "PermissionError"),
        ("socket.getaddrinfo('localhost', 80)", "PermissionError"),
        ("sys.stdin.read(1) or 1/0", "ZeroDivisionError"),
        ("os.system('ls')", "AttributeError"),
        ("deep(deep)", "RecursionError"),
        ("json.dumps(nested)", "RecursionError"),
        ("[sys.setrecursionlimit(10**5), json.dumps(nested)]", "RecursionError"),
    ],
)
async def test_what_is_not_there_is_an_exception_and_no_trap(sandbox: PythonSandbox, text: str, error: str) -> None:
    code = "def deep(f): return f(f)\nnested = []\nfor _ in range(10**5): nested = [nested]\n"
    result = await sandbox.run(text, code)
    assert result.reason == "exit", (result.detail, result.stderr[-500:])
    assert error in result.detail


async def test_exit_ends_the_run(sandbox: PythonSandbox) -> None:
    result = await sandbox.run("os._exit(3)")
    assert (result.reason, result.exit_code) == ("exit", 1)
    assert (await sandbox.run("os.abort()")).reason == "trap"


async def test_time_passes_and_random_numbers_differ(sandbox: PythonSandbox) -> None:
    first, second = await sandbox.group("(time.time(), os.urandom(8))", "(time.time(), os.urandom(8))")
    assert first.stdout != second.stdout
    assert (await sandbox.run("[time.monotonic(), time.sleep(0.05)][0] + 0.05 <= time.monotonic()")).stdout == b"True"


@pytest.mark.parametrize(
    "invocation",
    [
        Invocation(args=("a:b",)),
        Invocation(code=b"x"),
        Invocation(args=("a:b",), code=b"x", entry="run"),
    ],
)
async def test_it_is_not_run_without_sources_and_a_name(sandbox: PythonSandbox, invocation: Invocation) -> None:
    result = await sandbox.pool.run(sandbox.digest, invocation, sandbox.limits())
    assert result.reason == "compile"
    assert "args=[module:qualname]" in result.detail
