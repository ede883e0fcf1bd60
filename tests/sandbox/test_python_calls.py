"""Calls that Python guests make: who answers, who waits, and what ends with a run."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import until
from tests.sandbox.python_sandbox import PythonSandbox, open_sandbox
from tests.sandbox.test_pool import children
from ww.errors import Overloaded, UsageError
from ww.python import request
from ww.sandbox import nesting, pool
from ww.sandbox.calls import NAME_BYTES_MAX, TICKETS_MAX
from ww.sandbox.python_calls import Jobs, Tickets
from ww.sandbox.wasi_originals import Ended

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

CODE = """
def call(name, *values):
    return jobs.start(name, len(values).to_bytes(4, "little") + b"".join(
        len(value).to_bytes(4, "little") + value for value in values))
def ask(name, *values):
    return jobs.wait(call(name, *values))
"""


class Answering:
    """Answers calls as a worker does: each request by itself, or what `answer` says."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[bytes]]] = []
        self.blocked: list[bool] = []
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def call(self, name: str, requests: bytes) -> bytes:
        values = request.read_requests(requests)
        self.asked.append((name, values))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if name == "fails":
            raise Overloaded("no more today")
        return request.write_answers([request.Answer(request.AnswerKind.VALUE, value * 2) for value in values])

    def set_blocked(self, blocked: bool) -> None:
        self.blocked.append(blocked)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[PythonSandbox]:
    async with open_sandbox(tmp_path, code=CODE) as opened:
        yield opened


async def test_a_guest_gets_what_it_called(sandbox: PythonSandbox) -> None:
    calls = Answering()
    result = await sandbox.run("ask('m:g', b'1', b'23')", calls=calls)
    answers = request.read_answers(result.stdout)
    assert [(answer.kind, answer.body) for answer in answers] == [(0, b"11"), (0, b"2323")]
    assert calls.asked == [("m:g", [b"1", b"23"])]
    assert calls.blocked in ([], [True, False]), "it was answered before it waited, or waited once"


async def test_many_calls_are_under_way_at_once_and_are_answered_in_any_order(sandbox: PythonSandbox) -> None:
    calls = Answering()
    text = "[jobs.wait(t)[9:] for t in reversed([call('m:g', bytes([65 + n])) for n in range(20)])]"
    result = await sandbox.run(text, calls=calls)
    assert result.stdout.decode() == repr([bytes([65 + n] * 2) for n in reversed(range(20))])


async def test_large_requests_and_answers_arrive(sandbox: PythonSandbox) -> None:
    result = await sandbox.run("len(ask('m:g', bytes(9 << 20)))", calls=Answering())
    assert (result.reason, result.stdout) == ("ok", str((18 << 20) + 9).encode())


async def test_what_fails_is_an_answer_too(sandbox: PythonSandbox) -> None:
    result = await sandbox.run("ask('fails', b'', b'')", calls=Answering())
    answers = request.read_answers(result.stdout)
    assert [request.read_ended(answer.body) for answer in answers] == [("lost", "no more today")] * 2


async def test_who_may_not_call_is_told_so(sandbox: PythonSandbox) -> None:
    result = await sandbox.run("ask('m:g', b'', b'')")
    assert [request.read_ended(answer.body)[0] for answer in request.read_answers(result.stdout)] == ["refused"] * 2


async def test_more_tickets_than_a_run_may_have_are_refused_and_it_goes_on(sandbox: PythonSandbox) -> None:
    calls = Answering()
    text = f"[jobs.wait(t)[4] for t in [call('m:g', b'') for _ in range({TICKETS_MAX} + 3)]][-5:]"
    result = await sandbox.run(text, calls=calls)
    assert result.stdout == b"[0, 0, 2, 2, 2]"
    assert len(calls.asked) == TICKETS_MAX


@pytest.mark.parametrize("text", ["jobs.wait(7)", "jobs.start('m:g', b'')", "jobs.start('m:g', b'\\xff' * 4)"])
async def test_nonsense_ends_the_run_alone(sandbox: PythonSandbox, text: str) -> None:
    result = await sandbox.run(text, calls=Answering())
    assert result.reason == "trap"
    assert (await sandbox.run("1")).stdout == b"1"


async def test_a_name_that_is_no_text_ends_the_run_and_is_not_made_longer_on_its_way() -> None:
    parts = {0: b"\xff" * NAME_BYTES_MAX, 1: request.write_requests([b""])}
    host: Any = SimpleNamespace(read=lambda at, *_: parts[at], run=SimpleNamespace(calls=Tickets(None)))
    start = Jobs(host).known("ww:python/jobs", "start", None)
    assert start is not None
    with pytest.raises(Ended, match="UTF-8"):
        start.function(0, NAME_BYTES_MAX, 1, len(parts[1]))
    parts[0] = b"m:g"
    assert start.function(0, 3, 1, len(parts[1])) == 1


async def test_what_a_run_has_under_way_is_bounded_whatever_is_refused(
    sandbox: PythonSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nesting, "HELD_BYTES_MAX", 1 << 20)
    calls = Answering()
    calls.gate.clear()
    # Of many calls, so that refusing them is long.
    much = "jobs.start('m:g', (10_000).to_bytes(4, 'little') + bytes(300_000))"
    last = "jobs.wait(call('m:h', bytes(900_000)))"
    text = f"call('m:g', bytes(900_000)), [jobs.wait({much}) and 1 for _ in range(3)], {last}"
    result = await sandbox.run(text, calls=calls, duration_s=5.0)
    assert result.reason == "ok", "the last one is refused too, and not waited for"
    assert [name for name, _ in calls.asked] == ["m:g"]
    waited_for_none = f"call('m:g', bytes(900_000)), [{much} for _ in range(10)]"
    assert (await sandbox.run(waited_for_none, calls=calls)).reason == "crash"
    assert (await sandbox.run("1")).stdout == b"1"


async def test_a_guest_that_waits_ends_at_its_deadline_and_its_calls_are_cancelled(sandbox: PythonSandbox) -> None:
    calls = Answering()
    calls.gate.clear()
    result = await sandbox.run("ask('m:g', b'')", calls=calls, duration_s=0.5)
    assert result.reason == "deadline"
    assert calls.blocked == [True, False]
    await until(lambda: calls.cancelled == 1)
    assert (await sandbox.run("1")).stdout == b"1", "the same process goes on"


async def test_calls_that_nobody_waits_for_end_with_the_run(sandbox: PythonSandbox) -> None:
    calls = Answering()
    calls.gate.clear()
    assert (await sandbox.run("call('m:g', b'') and 5", calls=calls)).stdout == b"5"
    await until(lambda: calls.cancelled == 1 or not calls.asked)
    assert (await sandbox.run("ask('m:g', b'x')", calls=Answering())).stdout[-2:] == b"xx"


async def test_a_blocked_guest_leaves_its_slot_to_another(sandbox: PythonSandbox) -> None:
    calls = Answering()
    calls.gate.clear()
    waiting = asyncio.ensure_future(sandbox.run("ask('m:g', b'')", calls=calls))
    await until(lambda: calls.blocked == [True])
    assert (await sandbox.run("2 + 2")).stdout == b"4", "there is one slot, and its guest waits"
    calls.gate.set()
    assert (await waiting).reason == "ok"


async def test_a_child_that_was_one_more_goes_again(sandbox: PythonSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_SPARE_S", 0.05)
    calls, before = Answering(), len(children())
    calls.gate.clear()
    waiting = asyncio.ensure_future(sandbox.run("ask('m:g', b'')", calls=calls))
    await until(lambda: calls.blocked == [True])
    await sandbox.run("1")
    assert len(children()) == before + 1
    calls.gate.set()
    await waiting
    await until(lambda: len(children()) == before)
    assert (await sandbox.run("1")).stdout == b"1"


async def test_there_are_no_more_children_than_nesting_lets_there_be(tmp_path: Path) -> None:
    async with open_sandbox(tmp_path, code=CODE, nesting=1) as sandbox:
        calls = Answering()
        calls.gate.clear()
        waiting = [asyncio.ensure_future(sandbox.run("ask('m:g', b'')", calls=calls)) for _ in range(3)]
        await until(lambda: calls.blocked == [True] * 2)
        assert len(sandbox.pool._children) <= 3, "two that wait, and the compiler"
        calls.gate.set()
        assert [result.reason for result in await asyncio.gather(*waiting)] == ["ok"] * 3


async def test_guests_that_wait_for_each_other_in_a_chain_all_end(sandbox: PythonSandbox) -> None:
    class Chain(Answering):
        async def call(self, name: str, requests: bytes) -> bytes:
            depth = int(name)
            text = f"ask('{depth - 1}', b'')" if depth else "7"
            result = await sandbox.run(text, calls=self)
            return request.write_answers([request.Answer(request.AnswerKind.VALUE, result.stdout)])

    result = await sandbox.run("ask('2', b'')", calls=Chain())
    assert result.stdout.endswith(b"7")


async def test_a_cancelled_run_cancels_its_calls(sandbox: PythonSandbox) -> None:
    calls = Answering()
    calls.gate.clear()
    waiting = asyncio.ensure_future(sandbox.run("ask('m:g', b'')", calls=calls))
    await until(lambda: calls.blocked == [True])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: calls.cancelled == 1)
    assert calls.blocked == [True, False]
    assert (await sandbox.run("1")).stdout == b"1"


async def test_a_group_that_calls_is_one_run(sandbox: PythonSandbox) -> None:
    with pytest.raises(UsageError, match="one run"):
        await sandbox.pool.run_group(
            sandbox.digest, [sandbox.invocation("1"), sandbox.invocation("2")], sandbox.limits(), Answering()
        )
