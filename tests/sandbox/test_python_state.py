"""What one run of a Python function leaves to the next: nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sandbox.python_sandbox import PythonSandbox, open_sandbox
from ww.sandbox.child import Child
from ww.sandbox.limits import SandboxLimits

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

CODE = """
kept = []
class Thing: pass
def deep(n): return n and 1 + deep(n - 1)
"""


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[PythonSandbox]:
    async with open_sandbox(tmp_path, code=CODE) as opened:
        yield opened


LEFT = {
    "a global": ("globals().update(mine=1)", "'mine' in globals()", "False"),
    "a list": ("kept.append(1)", "kept", "[]"),
    "a module": ("sys.modules.update(evil=1)", "'evil' in sys.modules", "False"),
    "a changed module": ("setattr(json, 'dumps', None)", "json.dumps(1)", "'1'"),
    "a class": ("setattr(Thing, 'x', 1)", "hasattr(Thing, 'x')", "False"),
    "the environment": ("os.environ.update(A='1')", "os.environ.get('A')", "None"),
    "random numbers": ("random.seed(1)", "random.getstate() == random.Random(1).getstate()", "False"),
    "a limit": ("sys.setrecursionlimit(50)", "sys.getrecursionlimit() > 50", "True"),
    "stderr": ("setattr(sys, 'stderr', None)", "sys.stderr is None", "False"),
    "a hook": ("sys.settrace(lambda *a: 1/0)", "sys.gettrace()", "None"),
    "an exit": ("os._exit(0)", "kept", "[]"),
    "an abort": ("kept.append(os.abort())", "kept", "[]"),
    "a trap": ("kept.append(jobs.wait(3))", "kept", "[]"),
    "a deep call": ("deep(10**6)", "deep(100)", "100"),
    "grown memory": ("kept.append(bytearray(60 << 20))", "kept", "[]"),
    "too much memory": ("kept.append(bytearray(900 << 20))", "kept", "[]"),
}


@pytest.mark.parametrize("what", LEFT)
async def test_nothing_of_a_run_is_seen_by_the_next(sandbox: PythonSandbox, what: str) -> None:
    leaves, looks, finds = LEFT[what]
    results = await sandbox.group(looks, leaves, looks, leaves, looks)
    assert [result.stdout.decode() for result in results[::2]] == [finds] * 3
    assert sandbox.pool._idle, "all in one process"


async def test_nothing_is_left_after_a_deadline(sandbox: PythonSandbox) -> None:
    for text in ("[kept.append(1) for _ in iter(int, 1)]", "kept.append(1) or time.sleep(60)"):
        assert (await sandbox.run(text, duration_s=0.3)).reason == "deadline"
        assert (await sandbox.run("kept")).stdout == b"[]"


async def test_no_byte_of_a_run_is_in_the_memory_of_the_next(sandbox: PythonSandbox) -> None:
    secret = "".join(chr(97 + n * 7 % 26) for n in range(64))
    # The request of the second run holds the text backwards; the whole heap is looked at from within by gc alone, so
    # new memory is looked at for what it held.
    await sandbox.run(f"len([{secret!r} * 50 for _ in range(2000)])")
    text = f"any({secret[::-1]!r}[::-1].encode() in bytes(bytearray(n)) for n in range(1000, 200000, 5000))"
    assert (await sandbox.run(text)).stdout == b"False"
    assert (await sandbox.run("id(object()) == id(object())")).reason == "ok"


async def test_runs_begin_alike_wherever_they_run(sandbox: PythonSandbox) -> None:
    text = "[id(Thing()), id(kept), len(gc.get_objects()), hash('x')]"
    first, *others = [result.stdout for result in await sandbox.group(*[text] * 6)]
    assert set(others) == {first}


async def test_two_programs_in_turn_have_each_their_own_state(sandbox: PythonSandbox) -> None:
    one, two = "state = [1]\n", "state = [2]\n"
    for _ in range(3):
        assert (await sandbox.run("state.append(0) or state", one)).stdout == b"[1, 0]"
        assert (await sandbox.run("state.append(0) or state", two)).stdout == b"[2, 0]"


async def test_a_program_is_loaded_once_and_again_when_others_took_its_place(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path, limits=SandboxLimits(programs_max=2)) as sandbox:
        born = "born = os.urandom(8)\n"
        first = (await sandbox.run("born", born)).stdout
        assert (await sandbox.run("born", born)).stdout == first
        assert (await sandbox.run("1", "other = 1\n")).stdout == b"1"
        assert (await sandbox.run("born", born)).stdout == first, "two are kept"
        for number in range(2):
            await sandbox.run("1", f"other = {number + 2}\n")
        assert (await sandbox.run("born", born)).stdout != first


@pytest.mark.parametrize(
    "other", [{"args": ("user:other",)}, {"args": ("user:function", "a:b")}, {"memory_bytes": 99 << 20}]
)
async def test_another_name_grant_or_memory_is_another_program(
    sandbox: PythonSandbox, other: dict[str, object]
) -> None:
    born = "born = os.urandom(8)\n"
    first = (await sandbox.run("born", born)).stdout
    assert (await sandbox.run("born", born, **other)).stdout != first


async def test_what_is_not_used_is_given_back(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path, limits=SandboxLimits(kept_s=0.05)) as sandbox:
        (child,) = (child for child in sandbox.pool._children if child.files is not None)
        first = (await sandbox.run("born", "born = os.urandom(8)\n")).stdout
        async with asyncio.timeout(10):
            while (await sandbox.run("born", "born = os.urandom(8)\n")).stdout == first:  # noqa: ASYNC110 no event
                await asyncio.sleep(0.1)
        assert child in sandbox.pool._children


async def test_two_thousand_runs_leave_memory_and_descriptors_as_they_were(sandbox: PythonSandbox) -> None:
    (child,) = (child for child in sandbox.pool._children if child.files is not None)
    assert child._process is not None
    process = Path(f"/proc/{child._process.pid}")
    texts = ["1", "kept.append(bytearray(100_000))", "1/0", "print('x' * 1000)", "bytes(100_000)"] * 40
    for _ in range(2):
        await sandbox.group(*texts)
    before, opened = child.private_bytes(), len(list((process / "fd").iterdir()))
    for _ in range(10):
        await sandbox.group(*texts)
    assert child.private_bytes() < before + (4 << 20)
    assert len(list((process / "fd").iterdir())) == opened


@pytest.mark.parametrize("executor", ["mapless", "scanless", "strict"])
async def test_it_is_the_same_without_the_kernels_help_and_with_no_call_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    monkeypatch.setattr(Child, "module", f"tests.sandbox.{executor}_executor")
    async with open_sandbox(tmp_path, code=CODE) as sandbox:
        results = await sandbox.group("kept", "kept.append(bytearray(1 << 20))", "kept", "os.abort()", "kept")
        assert [result.stdout for result in results[::2]] == [b"[]"] * 3
        # Then in another memory: what grew does not shrink.
        grows = "kept.append(bytearray(64 << 20))"
        runs = ["kept.append(1) or kept"] * 5
        results = await sandbox.group(*runs, grows, *runs, code=f"{CODE}\n# another")
        assert {result.stdout for result in results} == {b"[1]", b"None"}
