"""The real component in a real sandbox: what plain CPython cannot show."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.python.guests import zipped
from tests.sandbox.python_sandbox import prepare
from ww.python.build import component_path
from ww.python.failure import Failure, loads_failure
from ww.python.request import Answer, AnswerKind, read_calls, read_requests, write_answers, write_call
from ww.python.values import loads
from ww.sandbox.invocation import Invocation, Result, RunLimits
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import SandboxPool

pytest.importorskip("componentize_py")
pytestmark = pytest.mark.anyio

SOURCE = """
import asyncio, os, random, sys, threading, time, uuid
import absent as ab
import ww
STATE = []
@ww.job
def square(a: "ab.ndarray"): return a * a
def plain(a): STATE.append(a); return STATE
def surroundings(): return dict(os.environ), random.random(), uuid.uuid4().hex, time.time() > 1.6e9, sys.stdin.read()
def use(what): return eval(what)
def deep(n): return deep(n + 1)
def deeper():
    sys.setrecursionlimit(10**9)
    return deep(0)
def nested_value():
    value = []
    for _ in range(100_000): value = [value]
    return repr(value)
def printed():
    print("to stdout"); print("to stderr", file=sys.stderr); os.write(1, b"raw")
    raise KeyError("after")
def memory():
    held = []
    while True: held.append(bytearray(1 << 20))
async def waits(): return await asyncio.gather(asyncio.sleep(0.001, 1), asyncio.to_thread(lambda: 2))
def calls(): return square.remote(3), square.remote_fanout([1, 2])
async def calls_async(): return await asyncio.gather(*(square.remote_async(n) for n in (1, 2)))
"""


class Functions:
    """A pool with the component in it."""

    def __init__(self, pool: SandboxPool, digest: bytes) -> None:
        self._pool = pool
        self._digest = digest

    async def result(self, name: str, *args: Any, calls: Any = None, **limits: Any) -> Result:
        """Return what a run of a function of SOURCE left."""
        invocation = Invocation(
            args=(f"sent:{name}", "sent:square"), stdin=write_call(args, {}), env=limits.pop("env", ()),
            code=limits.pop("code", None) or zipped({"sent.py": SOURCE}),
        )  # fmt: skip
        given = RunLimits(**{"duration_s": 30.0, "memory_bytes": 128 << 20, "output_bytes": 1 << 20} | limits)
        return await self._pool.run(self._digest, invocation, given, calls)

    async def __call__(self, name: str, *args: Any, **given: Any) -> Any:
        """Return a call's value, or its failure."""
        result = await self.result(name, *args, **given)
        if result.exit_code == 0:
            return loads(result.stdout, lambda module, name: None)
        return loads_failure(result.stdout, lambda module, name: None)


@pytest.fixture
async def functions(tmp_path: Path) -> AsyncIterator[Functions]:
    data = await asyncio.to_thread(lambda: component_path().read_bytes())
    modules = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    digest = hashlib.sha256(data).digest()
    async with modules.writer(digest) as writer:
        await writer.write(data)
    async with SandboxPool(modules, slots=1) as pool:
        await prepare(pool, modules, digest, metered=False)
        yield Functions(pool, digest)


async def test_calls_begin_from_the_same_state_but_random_numbers_and_environment(functions: Functions) -> None:
    assert [await functions("plain", number) for number in (1, 2)] == [[1], [2]]
    first, second = [await functions("surroundings", env=(("A", value),)) for value in "xy"]
    assert first[0] == {"A": "x"}
    assert second[0] == {"A": "y"}
    assert first[1:3] != second[1:3]
    assert first[3:] == second[3:] == (True, "")


@pytest.mark.parametrize(
    ("files", "about"),
    [
        ({"sent.py": "import statistics\ndef draw(): return statistics.NormalDist().samples(3)"}, {}),
        ({"sent.py": "import uuid\ndef draw(): return uuid.uuid6().hex[20:]"}, {}),
        ({"sent.py": "from email.utils import make_msgid\ndef draw(): return make_msgid(domain='x')"}, {}),
        # Of a script: the import is no source.
        (
            {".ww/0.py": "def draw(): return g(0, 1)\n"},
            {
                "spaces": {
                    "sent": [
                        {"from": "g", "module": "random", "qualname": "gauss"},
                        {"source": ".ww/0.py", "file": "script.py", "line": 1},
                    ]
                }
            },
        ),
    ],
)
async def test_whoever_takes_random_numbers_gets_its_own(
    functions: Functions, files: dict[str, str | bytes], about: dict[str, Any]
) -> None:
    code = zipped(files, **about)
    first, second = [await functions("draw", code=code) for _ in range(2)]
    assert not isinstance(first, Failure)
    assert first != second


async def test_deep_recursion_is_an_exception_and_no_trap(functions: Functions) -> None:
    for name, args in (("deep", (0,)), ("deeper", ()), ("nested_value", ())):
        failure = await functions(name, *args)
        assert isinstance(failure, Failure)
        assert failure.type_name == "RecursionError"


async def test_what_is_not_there_says_so(functions: Functions) -> None:
    for what, expected in (
        ("threading.Thread(target=print).start()", "RuntimeError: a sandbox has one thread"),
        ("open('/etc/passwd')", "FileNotFoundError: "),
        ("__import__('socket').create_connection(('127.0.0.1', 1))", "PermissionError"),
        ("__import__('subprocess').run(['ls'])", "OSError: "),
        ("ab.zeros(3)", "ImportError: absent is not in the sandbox: absent.zeros cannot be used there"),
        ("input()", "EOFError"),
        ("ww.Executor()", "ww.errors.UsageError: ww.Executor is not there in a sandbox"),
        ("sys.exit(5)", "SystemExit: 5"),
    ):
        failure = await functions("use", what)
        assert isinstance(failure, Failure), what
        assert failure.line.startswith(expected), failure.line


async def test_what_is_printed_and_the_traceback_come_in_order(functions: Functions) -> None:
    result = await functions.result("printed")
    assert result.exit_code == 1
    text = result.stderr.decode()
    assert text.startswith('to stdout\nto stderr\nrawTraceback (most recent call last):\n  File "sent.py", line ')
    assert text.endswith("KeyError: 'after'\n")
    assert loads_failure(result.stdout, lambda module, name: None).args == ("after",)


async def test_memory_that_runs_out_is_said_and_the_next_call_has_all_of_it(functions: Functions) -> None:
    for _ in range(2):
        result = await functions.result("memory")
        assert result.reason == "memory"
    assert await functions("use", "len(bytes(50 << 20))") == 50 << 20


async def test_coroutines_run_without_sockets(functions: Functions) -> None:
    assert await functions("waits") == [1, 2]


class Squares:
    """Answers nested calls of square."""

    async def call(self, name: str, requests: bytes) -> bytes:
        assert name == "sent:square"
        numbers = [read_calls(request).calls[0][0][0] for request in read_requests(requests)]
        return write_answers([Answer(AnswerKind.VALUE, str(number * number).encode()) for number in numbers])

    def set_blocked(self, blocked: bool) -> None:
        pass


async def test_nested_calls_go_through_the_sandbox(functions: Functions) -> None:
    assert await functions("calls", calls=Squares()) == (9, [1, 4])
    assert await functions("calls_async", calls=Squares()) == [1, 4]
