"""What a send that meets a receive costs: here, from another process over TLS, and while many others wait.

    .venv/bin/python bench/channel.py [--pairs N] [--rounds N]

One JSON line a case, medians of several rounds. The last two lines set the cost of a pair while 16 and more sends wait
all the time against each other in this very run, the rounds of all interleaved: it should be flat within 1.5.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from ww import schema  # noqa: E402
from ww.caps.channel import Channel  # noqa: E402
from ww.caps.facets import SenderServer, facet_of  # noqa: E402
from ww.caps.rendezvous import Operation, Receive, Rendezvous, Send, begin  # noqa: E402
from ww.caps.value import TEXT  # noqa: E402
from ww.identity import Identity, PeerId  # noqa: E402
from ww.net.multiaddr import Multiaddr  # noqa: E402
from ww.net.tls import TlsTransport  # noqa: E402
from ww.rpc.loop import run  # noqa: E402
from ww.rpc.vat import Vat  # noqa: E402

SENDERS: Final = (1, 16, 256)
WAITING: Final = (16, 64, 256, 1024, 4096)


def report(case: str, **figures: Any) -> None:
    print(json.dumps({"case": case} | figures), flush=True)


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


async def send_on_and_on(send: Callable[[str], Awaitable[None]]) -> None:
    while True:
        await send("value")


@contextlib.asynccontextmanager
async def sending(send: Callable[[str], Awaitable[None]], senders: int) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(send_on_and_on(send)) for _ in range(senders)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def receiving(channel: Channel[str], pairs: int) -> float:
    """Receive that many values and return how many a second that was."""
    start = time.perf_counter()
    for _ in range(pairs):
        await channel.receive()
    return pairs / (time.perf_counter() - start)


async def rates(channel: Channel[str], pairs: int, rounds: int) -> list[float]:
    await receiving(channel, pairs // 4)
    return [await receiving(channel, pairs) for _ in range(rounds)]


async def local(senders: int, pairs: int, rounds: int) -> None:
    """Senders and receiver on one loop."""
    channel = Channel(TEXT)
    async with sending(channel.send, senders):
        found = await rates(channel, pairs, rounds)
    report("local", senders=senders, pairs_per_s=rounded(statistics.median(found)))


async def over_tls(senders: int, pairs: int, rounds: int) -> None:
    """The senders in another process of this host, on one connection."""
    channel = Channel(TEXT)
    identity = Identity.generate()
    async with Vat(identity, TlsTransport(identity)) as vat:
        vat.export("channel", lambda peer: SenderServer(channel))
        address = (await vat.listen(Multiaddr("ip4", "127.0.0.1", 0)))[0]
        there = (str(identity.peer_id), str(address), str(senders))
        command = (sys.executable, str(ROOT / "bench" / "channel.py"), "--send-to", *there)
        process = await asyncio.create_subprocess_exec(*command)
        try:
            found = await rates(channel, pairs, rounds)
        finally:
            process.kill()
            await process.wait()
    report("tls", senders=senders, pairs_per_s=rounded(statistics.median(found)))


async def send_to(peer: str, address: str, senders: str) -> None:
    """Be that other process, until killed."""
    identity = Identity.generate()
    async with (
        Vat(identity, TlsTransport(identity)) as vat,
        await vat.dial(PeerId.parse(peer), [Multiaddr.parse(address)]) as connection,
    ):
        sender = facet_of(await connection.connect("channel", schema.channel.Sender), TEXT)
        async with sending(sender.send, int(senders)):
            await connection.wait_closed()


class WaitingCore:
    """A core on which the same number of sends wait after each pair."""

    def __init__(self, waiting: int) -> None:
        self._core = Rendezvous()
        for _ in range(waiting):
            begin(Operation([Send(self._core, "value")]))

    async def pairs(self, count: int) -> float:
        """Return the seconds of one."""
        core = self._core
        start = time.perf_counter()
        for _ in range(count):
            begin(Operation([Receive(core)]))
            begin(Operation([Send(core, "value")]))
        return (time.perf_counter() - start) / count


class WaitingChannel:
    """A channel on which the same number of tasks wait in send after each pair."""

    def __init__(self, waiting: int) -> None:
        self._channel = Channel(TEXT)
        self._tasks = [asyncio.create_task(send_on_and_on(self._channel.send)) for _ in range(waiting)]

    async def pairs(self, count: int) -> float:
        """Return the seconds of one."""
        channel = self._channel
        await asyncio.sleep(0)
        assert len(list(channel.waiting())) == len(self._tasks)
        start = time.perf_counter()
        for _ in range(count):
            await channel.receive()
            await asyncio.sleep(0)  # the one that was served sends again, so that all wait all the time
        return (time.perf_counter() - start) / count


async def while_waiting(case: str, kind: Callable[[int], Any], pairs: int, rounds: int) -> None:
    """Measure a pair while more and more wait, one number after the other in each round."""
    crowds = [kind(waiting) for waiting in WAITING]
    costs = [[await crowd.pairs(pairs) for crowd in crowds] for _ in range(1 + rounds)]
    medians = [statistics.median(of_one) for of_one in zip(*costs[1:], strict=True)]  # the first round warms up
    for waiting, cost_s in zip(WAITING, medians, strict=True):
        report(case, waiting=waiting, us_per_pair=rounded(cost_s * 1e6))
    ratios = {
        f"ratio_{waiting}": rounded(cost_s / medians[0]) for waiting, cost_s in zip(WAITING, medians, strict=True)
    }
    report(f"{case}_over_{WAITING[0]}", **ratios)


async def main(arguments: argparse.Namespace) -> int:
    if arguments.send_to:
        await send_to(*arguments.send_to)
        return 0
    for senders in SENDERS:
        await local(senders, arguments.pairs, arguments.rounds)
    for senders in SENDERS:
        await over_tls(senders, arguments.pairs // 10, arguments.rounds)
    await while_waiting("waiting_core", WaitingCore, arguments.pairs, arguments.rounds)
    await while_waiting("waiting_channel", WaitingChannel, arguments.pairs, arguments.rounds)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Measure what a send that meets a receive costs; one JSON line a case."
    )
    parser.add_argument("--pairs", type=int, default=20_000, help="pairs a round; over TLS a tenth of it (20000)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of which the median counts (7)")
    parser.add_argument("--send-to", nargs=3, help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    sys.exit(run(lambda: main(parsed)))
