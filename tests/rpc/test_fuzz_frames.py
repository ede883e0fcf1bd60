"""A listening vat is fed broken and hostile Cap'n Proto: it lives, stays small, and nobody else notices.

WW_FUZZ_FRAMES says how many frames (3,000; scripts/soak: 100,000), WW_FUZZ_SEED which. A failure names the seed.
"""

import asyncio
import contextlib
import json
import os
import random
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.rpc.conversation import Said, record
from tests.rpc.frames import (
    Mutator,
    bootstrap,
    call_with_millions_of_capabilities,
    is_whole,
    kind_of,
    split,
    with_millions_of_cases,
)
from ww import schema
from ww.caps.facets import facet_of
from ww.caps.value import TEXT
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr
from ww.net.tls import TlsTransport
from ww.net.transport import Stream
from ww.rpc.vat import Vat

FRAMES = int(os.environ.get("WW_FUZZ_FRAMES", "3000"))
SEED = int(os.environ.get("WW_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
STRANGERS = 8
FRAMES_A_CONNECTION = 8
# Seconds in which a connection is dropped or answers, and in which somebody else's send meets a receive.
BOUND_S = 5.0
# Beyond what it has after one conversation; 20,000 frames moved it by 20 MB. One message may have 64 MiB.
GROWTH_BYTES_MAX = 64 << 20
ROOT = Path(__file__).parent.parent.parent

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("kj_loop"),
    pytest.mark.timeout(60 + FRAMES // 20),
]


class Target:
    """The child process."""

    def __init__(self, process: asyncio.subprocess.Process, peer_id: PeerId, address: Multiaddr) -> None:
        self.process, self.peer_id, self.address = process, peer_id, address

    async def state(self) -> dict[str, int]:
        """Ask it how it is."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        async with asyncio.timeout(BOUND_S):
            answer: dict[str, int] = json.loads(await self.process.stdout.readline())
        return answer

    def forget_peak(self) -> None:
        """Measure the most memory that it has resident from now on."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
        return int(kilobytes) * 1024


@contextlib.asynccontextmanager
async def target(log: Path) -> AsyncIterator[Target]:
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.rpc.fuzz_target",
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
        )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        peer, address = (await process.stdout.readline()).decode().split()
        yield Target(process, PeerId.parse(peer), Multiaddr.parse(address))
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), BOUND_S) == 0, "it stops as it should"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Stranger:
    """One connection that speaks in frames."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.heard = bytearray()
        self._counted = 0
        self._frames = 0
        self._something = asyncio.Event()
        stream.attach(self)

    def data_received(self, data: bytes) -> None:
        self.heard += data
        frames, rest = split(bytes(self.heard[self._counted :]))
        self._frames += len(frames)
        self._counted = len(self.heard) - len(rest)
        self._something.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._something.set()

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass

    @property
    def is_dropped(self) -> bool:
        return self._stream.is_closing()

    async def _heard_until(self, condition: Any, bound_s: float) -> bool:
        """Return whether the condition came to hold, or the connection was dropped, within the bound."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(bound_s):
                while not (condition() or self.is_dropped):
                    self._something.clear()
                    await self._something.wait()
        return bool(condition()) or self.is_dropped

    async def repeat(self, said: list[Said], before: int) -> None:
        """Say what was said before that frame, each when as much was heard as then, and wait until it could be said."""
        for number, one in enumerate(said[: before + 1]):
            await self._heard_until(lambda one=one: self._frames >= one.after, 0.2)
            if number < before:
                self._stream.write(one.frame)

    async def say(self, frame: bytes, question: int) -> str:
        """Say something and return what came of it: dropped, answers, or reads, where more was announced."""
        self._stream.write(frame)
        if not is_whole(frame):
            return "reads"
        self._stream.write(bootstrap(question))
        number = question.to_bytes(4, "little")
        assert await self._heard_until(lambda: number in self.heard, BOUND_S), "neither dropped nor answered"
        return "dropped" if self.is_dropped else "answers"

    async def hear(self, text: bytes) -> None:
        """Wait until that was said by the other side."""
        await self._heard_until(lambda: text in self.heard, BOUND_S)
        assert text in self.heard

    def leave(self) -> None:
        self._stream.abort()


class Fuzz:
    """Strangers that come one after the other until enough frames were said."""

    def __init__(self, target: Target, said: list[Said]) -> None:
        self._target = target
        self._said = said
        self._rng = random.Random(SEED)
        self._mutator = Mutator(SEED, [one.frame for one in said])
        self._transport = TlsTransport(Identity.generate())
        self.outcomes: Counter[str] = Counter()

    async def run(self) -> None:
        while self.outcomes.total() < FRAMES:
            stream = await self._transport.dial(self._target.address, self._target.peer_id)
            stranger = Stranger(stream)
            try:
                await self._talk(stranger)
            finally:
                stranger.leave()

    async def _talk(self, stranger: Stranger) -> None:
        begun = self._rng.randrange(len(self._said))
        await stranger.repeat(self._said, before=begun)
        for _ in range(FRAMES_A_CONNECTION):
            near = self._said[min(begun + self._rng.randrange(3), len(self._said) - 1)].frame
            frame = self._mutator.frame(near)
            try:
                outcome = await stranger.say(frame, 0x5EA50000 + self.outcomes.total())
            except AssertionError as error:
                raise AssertionError(f"{error}; seed {SEED}, after {begun} good frames: {frame[:256].hex()}") from None
            self.outcomes[outcome] += 1
            if outcome != "answers":
                return


class Bystander:
    """Another peer, whose sends meet its receives all the while."""

    def __init__(self) -> None:
        self.pairs = 0

    async def run(self, target: Target) -> None:
        identity = Identity.generate()
        async with (
            Vat(identity, TlsTransport(identity)) as vat,
            await vat.dial(target.peer_id, [target.address]) as connection,
        ):
            sender = facet_of(await connection.connect("steady sender", schema.channel.Sender), TEXT)
            receiver = facet_of(await connection.connect("steady receiver", schema.channel.Receiver), TEXT)
            while True:
                value = f"value {self.pairs}"
                async with asyncio.timeout(BOUND_S):
                    _, received = await asyncio.gather(sender.send(value), receiver.receive())
                assert received == value
                self.pairs += 1
                await asyncio.sleep(0.002)  # leaves the strangers most of the time there is


async def test_a_conversation_is_recorded_in_which_everything_occurs(tmp_path: Path) -> None:
    async with target(tmp_path / "log") as fed:
        said = await record(fed.peer_id, fed.address)
        assert {kind_of(one.frame) for one in said} == {
            "bootstrap", "call", "return", "finish", "resolve", "release", "disembargo",
        }  # fmt: skip
        # Said again as it was it is a conversation still: what comes of a broken frame comes of its being broken.
        stranger = Stranger(await TlsTransport(Identity.generate()).dial(fed.address, fed.peer_id))
        await stranger.repeat(said, before=len(said))
        assert await stranger.say(b"", 0x5EA50000) == "answers"
        stranger.leave()


async def test_a_select_that_says_it_has_millions_of_cases_is_refused_at_once(tmp_path: Path) -> None:
    async with target(tmp_path / "log") as fed:
        said = await record(fed.peer_id, fed.address)
        transport = TlsTransport(Identity.generate())
        fed.forget_peak()
        before = fed.peak_bytes()
        tried = 0
        for number, one in enumerate(said):
            if (frame := with_millions_of_cases(one.frame)) is None:
                continue
            stranger = Stranger(await transport.dial(fed.address, fed.peer_id))
            await stranger.repeat(said, before=number)
            assert await stranger.say(frame, 0x5EA50000) == "answers"
            await stranger.hear(b"cases: 8000000 are given, at most 64 are taken")
            stranger.leave()
            tried += 1
        assert tried >= 3
        assert fed.peak_bytes() - before < 16 << 20


async def test_calls_that_say_they_have_millions_of_capabilities_are_refused_before_they_cost_anything(
    tmp_path: Path,
) -> None:
    async with target(tmp_path / "log") as fed:
        stranger = Stranger(await TlsTransport(Identity.generate()).dial(fed.address, fed.peer_id))
        fed.forget_peak()
        before = fed.peak_bytes()
        # Who has not even said hello: a hundred of them once took twelve gigabytes.
        said = [bootstrap(0), *(call_with_millions_of_capabilities(number) for number in range(1, 101))]
        assert await stranger.say(b"".join(said), 0x5EA50000) == "dropped"
        assert fed.peak_bytes() - before < 16 << 20
        stranger.leave()


async def test_hostile_frames_harm_nobody_but_who_sent_them(tmp_path: Path) -> None:
    sys.stdout.write(f"WW_FUZZ_SEED={SEED}\n")
    log = tmp_path / "log"
    async with target(log) as fed:
        fuzz, bystander = Fuzz(fed, await record(fed.peer_id, fed.address)), Bystander()
        fed.forget_peak()
        before = fed.peak_bytes()
        async with asyncio.TaskGroup() as group:
            standing_by = group.create_task(bystander.run(fed))
            async with asyncio.TaskGroup() as strangers:
                for _ in range(STRANGERS):
                    strangers.create_task(fuzz.run())
            sys.stdout.write(f"{dict(fuzz.outcomes)}, {bystander.pairs} pairs\n")
            await everything_is_forgotten(fed)
            standing_by.cancel()
        grown = fed.peak_bytes() - before
        sys.stdout.write(f"{grown / 1e6} MB\n")
        assert grown < GROWTH_BYTES_MAX
    assert bystander.pairs > 10
    # Each of the three came about: else it was not what it is meant to be.
    assert min(fuzz.outcomes[outcome] for outcome in ("dropped", "answers", "reads")) > FRAMES / 50


async def everything_is_forgotten(fed: Target) -> None:
    """Wait until only the bystander's connection is left, and no channel of a stranger's."""
    async with asyncio.timeout(3 * BOUND_S):
        while await fed.state() != {"connections": 1, "channels": 0}:  # noqa: ASYNC110 it is another process
            await asyncio.sleep(0.05)
