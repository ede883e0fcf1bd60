"""`ww discover`: see the packets by which nodes find each other, or send one."""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ww.cli.options import add_discovery_options
from ww.cli.parser import Parser, argument, count, seconds
from ww.cli.table import show
from ww.discovery.interface import Watch, interfaces
from ww.discovery.multicast import Link, Links, MulticastConfig, check_interfaces
from ww.discovery.packet import ANY_DISTANCE, Drop, Packet, Response, Survey, Writer, read
from ww.errors import UsageError
from ww.identity import Identity, PeerId
from ww.node import check_namespace
from ww.rpc.loop import run

_PEERS_MAX = 4096


def add_to(group: Parser) -> None:
    """Add what the command takes."""
    kinds = group.add_subparsers(metavar="COMMAND", required=True)
    listen: Parser = kinds.add_parser(
        "listen",
        help="print every packet",
        description="Print every packet to the multicast group as it comes, of all namespaces unless one is named, and"
        " why nodes drop it when they do. Answers go to whoever asked alone: see ww discover emit.",
    )
    listen.option("--ns", check_namespace, "only packets of this namespace", metavar="NAME")
    add_discovery_options(listen)
    listen.add_argument("--count", type=argument(count), metavar="N", help="end after so many packets")
    listen.add_argument("--json", action="store_true", help="one JSON object a line")
    listen.set_defaults(run=lambda arguments: run(lambda: main_listen(arguments)))
    emit: Parser = kinds.add_parser(
        "emit",
        help="send one survey and print who answers",
        description="Send one survey and print who answers. Exits with 1 when nobody does.",
    )
    emit.option("--ns", check_namespace, "namespace (ww)", default="ww", metavar="NAME")
    add_discovery_options(emit)
    emit.add_argument("--wanted", type=argument(PeerId.parse), metavar="PEER_ID", help="the one peer that shall answer")
    emit.add_argument(
        "--distance", type=argument(_distance), default=ANY_DISTANCE, metavar="BITS",
        help="only peers within this distance answer, of a key that is made for this (255: all)",
    )  # fmt: skip
    emit.add_argument(
        "--wait", type=argument(seconds), default=1.0, metavar="N", help="seconds to wait for answers (1)"
    )
    emit.add_argument("--json", action="store_true", help="one JSON object a line")
    emit.set_defaults(run=lambda arguments: run(lambda: main_emit(arguments)))


def _distance(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:4]) <= ANY_DISTANCE):
        raise UsageError(f"{text[:40]!r} is no distance: expected 0 to {ANY_DISTANCE}")
    return int(text)


@contextlib.contextmanager
def _open_links(arguments: argparse.Namespace, receive: Callable[[Link, bytes, Any], None]) -> Any:
    check_interfaces(arguments.discover, interfaces())
    links = Links(MulticastConfig(tuple(arguments.discover), arguments.lan), receive)
    with contextlib.closing(links), Watch(links.update):
        if links.is_empty:
            raise UsageError("no interface of this machine does multicast there", "discover")
        yield links


class _Printer:
    """Prints packets as they come."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._namespace: str | None = arguments.ns
        self._as_json: bool = arguments.json
        self._remaining: int | None = arguments.count
        self._heard_at: OrderedDict[PeerId, float] = OrderedDict()
        self.done = asyncio.Event()

    def print_header(self) -> None:
        """Name the columns."""
        if not self._as_json:
            self._print_line("TIME", "KIND", "SIZE", "NAMESPACE", "DISTANCE", "AGE", "VIA", "PEER")

    def receive(self, link: Link, data: bytes, sender: Any) -> None:
        """Print one."""
        try:
            self._print(read(data), data, link, str(sender[0]))
        except OSError:  # nobody reads any more
            self.done.set()

    def _print(self, packet: Packet | Drop, data: bytes, link: Link, sender: str) -> None:
        if self.done.is_set() or (self._namespace is not None and _namespace_of(packet) != self._namespace):
            return
        said = self._describe(packet, data, link, sender)
        if self._as_json:
            print(json.dumps(said), flush=True)
        else:
            dashed = {name: "-" if value is None else str(value) for name, value in said.items()}
            when = datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
            kind = said["dropped"] or dashed["kind"]
            age = "-" if said["age_seconds"] is None else f"{said['age_seconds']:.3f}s"
            cells = (when, kind, dashed["size"], dashed["namespace"], dashed["distance"], age, dashed["interface"])
            self._print_line(*cells, dashed["peer"])
        if self._remaining is not None:
            self._remaining -= 1
            if not self._remaining:
                self.done.set()

    def _describe(self, packet: Packet | Drop, data: bytes, link: Link, sender: str) -> dict[str, Any]:
        said = packet if isinstance(packet, Packet) else None
        survey = said.content if said is not None and isinstance(said.content, Survey) else None
        return {
            "time": time.time(),
            "kind": type(said.content).__name__.lower() if said is not None else None,
            "dropped": None if said is not None else str(packet),
            "size": len(data),
            "namespace": said.namespace if said is not None else None,
            "peer": str(said.sender) if said is not None else None,
            "distance": survey.distance if survey is not None else None,
            "wanted": str(survey.wanted) if survey is not None and survey.wanted is not None else None,
            "age_seconds": self._age(said.sender) if said is not None else None,
            "incarnation": said.incarnation if said is not None else None,
            "sequence": said.sequence if said is not None else None,
            "from": sender,
            "interface": link.interface.name,
        }

    def _age(self, peer_id: PeerId) -> float | None:
        """Return the seconds since the peer's packet before this one."""
        now = time.monotonic()
        before = self._heard_at.pop(peer_id, None)
        self._heard_at[peer_id] = now
        while len(self._heard_at) > _PEERS_MAX:
            self._heard_at.popitem(last=False)
        return None if before is None else round(now - before, 3)

    def _print_line(self, *cells: str) -> None:
        widths = (12, 15, 4, 10, 8, 8, 8, 0)
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip(), flush=True)


def _namespace_of(packet: Packet | Drop) -> str | None:
    return packet.namespace if isinstance(packet, Packet) else None


async def main_listen(arguments: argparse.Namespace) -> int:
    """Print packets until interrupted, or so many."""
    printer = _Printer(arguments)
    with _open_links(arguments, printer.receive) as links:
        print(f"listening on {', '.join(links.names)}; ctrl-C ends it", file=sys.stderr, flush=True)
        printer.print_header()
        await printer.done.wait()
    return 0


async def main_emit(arguments: argparse.Namespace) -> int:
    """Send a survey and print the answers."""
    nonce = random.getrandbits(64)
    answers: list[tuple[PeerId, str, str, str]] = []
    start = time.monotonic()
    done = asyncio.Event()

    def receive(link: Link, data: bytes, sender: Any) -> None:
        packet = read(data)
        if not (isinstance(packet, Packet) and isinstance(packet.content, Response) and packet.content.nonce == nonce):
            return
        if packet.sender in {answer[0] for answer in answers} or packet.namespace != arguments.ns:
            return
        took_ms = (time.monotonic() - start) * 1000
        addresses = [str(address) for address in packet.content.addresses]
        answers.append((packet.sender, f"{took_ms:.1f}", link.interface.name, " ".join(addresses)))
        if arguments.json:
            said = {"peer": str(packet.sender), "milliseconds": round(took_ms, 3), "addresses": addresses}
            try:
                print(json.dumps(said | {"interface": link.interface.name, "size": len(data)}), flush=True)
            except OSError:  # nobody reads any more
                done.set()
        if arguments.wanted is not None:
            done.set()

    with _open_links(arguments, receive) as links:
        survey = Survey(nonce, arguments.distance, arguments.wanted)
        links.send(Writer(Identity.generate(), arguments.ns, 1).write(survey))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(arguments.wait):
                await done.wait()
    if not arguments.json and answers:
        show(("PEER", "MS", "VIA", "ADDRESSES"), [(str(peer), ms, via, where) for peer, ms, via, where in answers])
    if not answers:
        raise UsageError(f"nobody answered within {arguments.wait:g} s in namespace {arguments.ns!r}")
    return 0
