"""Python functions of every kind at random, most of which mean harm: each is the first, and nothing of any is left."""

import asyncio
import gc
import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.sandbox.python_sandbox import PythonSandbox, open_sandbox
from tests.sandbox.test_hostile import descriptors, resident_bytes
from tests.sandbox.test_pool import children
from tests.sandbox.test_python_calls import CODE, Answering

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

RUNS = int(os.environ.get("WW_HOSTILE_RUNS", "200"))
SEED = int(os.environ.get("WW_HOSTILE_SEED") or random.randrange(2**32))
WARM_UP_RUNS = 100
PARENT_MAY_GROW_BYTES = 8 << 20
CHILD_MAY_GROW_BYTES = 24 << 20
MEMORY_BYTES = 200 << 20

# The last is empty where nothing was changed: the next run would find what one before it has done.
CHANGED = "[name for name in ('json', 'print', 'left') if name in globals() and globals()[name] == 'changed']"
CODES = [f"{CODE}\nnumber = {number}\nroom = bytearray({number} << 20)\n" for number in range(6)]
SOME_HARM = "globals().update(left='changed', json='changed'), __builtins__.update(print='changed'), gc.disable()"
HARM = f"({SOME_HARM}, sys.modules.clear(), __builtins__.update(len=None), random.seed(1), os.environ.update(a='b'))"


class Kind(NamedTuple):
    text: str
    reason: str
    stdout: bytes | None = None
    code: str | None = None
    duration_s: float = 30.0


KINDS = [
    Kind(f"{CHANGED}, len('ab'), 'json' in sys.modules, gc.isenabled()", "ok", b"([], 2, True, True)"),
    Kind(HARM, "ok"),
    Kind("1 / 0", "exit"),
    Kind(f"{SOME_HARM}, 1 / 0", "exit"),
    Kind("exec('def f(): return f()') or f()", "exit"),
    Kind("os._exit(3)", "exit"),
    Kind("os.abort()", "trap"),
    Kind("jobs.wait(7)", "trap"),
    Kind("jobs.start('m:g', b'')", "trap"),
    Kind("bytearray(1 << 29)", "memory"),
    Kind("globals().update(left=bytearray(100 << 20)) or len(left)", "ok", b"104857600"),
    Kind("bytes(2 << 20)", "exit"),
    Kind("sys.stderr.write('x' * (3 << 20)) and 1", "ok", b"1"),
    Kind("exec('while True: pass')", "deadline", duration_s=0.2),
    Kind("ask('m:g', b'12')[-4:]", "ok", b"1212"),
    Kind("[call('m:g', b'') for _ in range(20)] and 1", "ok", b"1"),
    Kind("ask('fails', b'') and 1", "ok", b"1"),
    Kind("1", "exit", code="raise ValueError('no')"),
    Kind("1", "memory", code="bytearray(1 << 29)"),
    Kind("1", "trap", code="os.abort()"),
    Kind("1", "exit", code="no Python"),
]


async def run_many(sandbox: PythonSandbox, source: random.Random, count: int) -> list[str]:
    wrong = []
    for _ in range(count):
        kind, code = source.choice(KINDS), source.choice(CODES)
        async with asyncio.timeout(60):
            result = await sandbox.run(
                kind.text, kind.code or code, calls=Answering(), duration_s=kind.duration_s, memory_bytes=MEMORY_BYTES
            )
        if result.reason != kind.reason or kind.stdout not in (None, result.stdout):
            wrong.append(f"{kind}: {result.reason}: {result.detail}: {result.stdout[:80]!r}")
    return wrong


class Measure(NamedTuple):
    """What there is when each program was run last, so that the same ones are kept."""

    descriptors: Counter[str]
    parent_bytes: int
    children_bytes: list[int]
    children_descriptors: int


async def measure(sandbox: PythonSandbox, pids: Sequence[int]) -> Measure:
    for code in CODES:
        for _ in range(3):
            assert (await sandbox.run("number", code, memory_bytes=MEMORY_BYTES)).reason == "ok"
    gc.collect()
    open_there = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids if os.access(f"/proc/{pid}/fd", os.R_OK))
    return Measure(descriptors(), resident_bytes("self"), [resident_bytes(pid) for pid in pids], open_there)


async def test_many_at_random_leave_the_sandbox_as_it_was(tmp_path: Path) -> None:
    others, source, said = children(), random.Random(SEED), f"WW_HOSTILE_SEED={SEED}"
    async with open_sandbox(tmp_path) as sandbox:
        wrong = await run_many(sandbox, source, WARM_UP_RUNS)
        pids = sorted(children() - others)
        before = await measure(sandbox, pids)
        wrong += await run_many(sandbox, source, RUNS)
        assert not wrong, said
        assert sorted(children() - others) == pids, f"none had to be killed, and none died; {said}"
        after = await measure(sandbox, pids)
        print(f"seed {SEED}, {RUNS} runs: {before[1:]} became {after[1:]}")  # noqa: T201
        assert after.descriptors == before.descriptors, said
        assert after.parent_bytes - before.parent_bytes < PARENT_MAY_GROW_BYTES, said
        grown = [now - then for then, now in zip(before.children_bytes, after.children_bytes, strict=True)]
        assert max(grown) < CHILD_MAY_GROW_BYTES, said
        assert after.children_descriptors == before.children_descriptors, said
