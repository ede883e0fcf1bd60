"""The program that tests/rpc/test_fuzz_frames.py feeds: a vat that listens, says how it is when asked, and stops.

`python -m tests.rpc.fuzz_target` prints its peer id and address; then a line of JSON for each line on standard input,
until that ends.
"""

import asyncio
import json
import logging
import sys
from typing import Any
from weakref import WeakSet

from ww.caps.channel import Channel
from ww.caps.facets import ReceiverServer, SenderServer, WholeServer
from ww.caps.value import TEXT
from ww.identity import Identity
from ww.net.tls import TlsTransport
from ww.node import LOOPBACK
from ww.rpc.loop import run
from ww.rpc.vat import Peer, Vat


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def main() -> int:
    identity = Identity.generate()
    channels: WeakSet[Channel[Any]] = WeakSet()
    steady = Channel(TEXT)

    def whole(peer: Peer) -> WholeServer[Any]:
        """Make a channel of its own for each connection, so that none meets another's values."""
        channel: Channel[Any] = Channel()
        channels.add(channel)
        return WholeServer(channel)

    async with Vat(identity, TlsTransport(identity), hello_timeout_s=2.0) as vat:
        vat.export("whole", whole)
        vat.export("spare", lambda _: SenderServer(Channel(TEXT)))
        vat.export("steady sender", lambda _: SenderServer(steady))
        vat.export("steady receiver", lambda _: ReceiverServer(steady))
        (address,) = await vat.listen(LOOPBACK)
        say(f"{identity.peer_id} {address}")
        asked = await lines()
        while await asked.readline():
            say(json.dumps({"connections": len(vat._tasks), "channels": len(channels)}))
    return 0


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s", level=logging.INFO)
    sys.exit(run(main))
