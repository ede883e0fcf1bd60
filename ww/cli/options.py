"""The options that several commands of nodes share.

Holds them and what is made of them. Must not start anything. The parser itself: parser.py.
"""

import argparse
from pathlib import Path

from ww.cli.parser import Append, NotInArgv, Parser, count, key_value, seconds, size
from ww.cluster.membership import MembershipConfig
from ww.dial_string import DialString, load_dial_string, read_dial_string
from ww.directories import state_directory
from ww.discovery.multicast import DEFAULT_GROUP
from ww.discovery.packet import META_MAX
from ww.discovery.sources import DiscoveryConfig
from ww.errors import UsageError
from ww.identity import PeerId
from ww.net.multiaddr import Multiaddr, MulticastGroup
from ww.net.tls import KEEPALIVE_S
from ww.node import EVERYWHERE, LOOPBACK, NodeConfig, check_namespace
from ww.rpc.account import PeerLimits
from ww.rpc.admission import Admission, parse_admission
from ww.rpc.register import Register


def add_peer_options(parser: Parser) -> None:
    """Add what is needed to find peers and talk to them."""
    parser.option(
        "--ns", check_namespace, "namespace: nodes of different ones do not talk (ww)", default="ww", metavar="NAME"
    )
    parser.option(
        "--addr", Multiaddr.parse, "where a peer may be found: /ip4/HOST/tcp/PORT/p2p/PEER_ID; repeatable",
        action=Append, default=[], metavar="ADDR",
    )  # fmt: skip
    parser.option(
        "--state", Path, "directory for keys, the registry of this machine and a gateway's database"
        " ($XDG_STATE_HOME/ww)", default=state_directory(), metavar="DIR",
    )  # fmt: skip
    parser.option(
        "--handshake-timeout", seconds, "seconds until a peer must have said who it is (5)", default=5.0, metavar="N"
    )
    add_discovery_options(parser)
    parser.flag("--no-multicast", "do not survey, nor answer surveys, nor send heartbeats by multicast")
    parser.flag("--no-mdns", "do not speak mDNS, which is spoken beyond this machine only")
    parser.option("--log", _level, "least level logged: debug, info, warning or error", default="info", metavar="LEVEL")


def add_discovery_options(parser: Parser) -> None:
    """Add where to survey."""
    parser.flag("--lan", "find peers, and be found, on the networks of this machine, not only on itself")
    parser.option(
        "--discover", MulticastGroup.parse, f"multicast group of surveys ({DEFAULT_GROUP}), optionally followed by"
        " /INTERFACE; repeatable", action=Append, default=[DEFAULT_GROUP], metavar="ADDR",
    )  # fmt: skip


def add_node_options(parser: Parser) -> None:
    """Add what every node has."""
    add_peer_options(parser)
    parser.option(
        "--listen", Multiaddr.parse, "where peers may connect (/ip4/127.0.0.1/tcp/0: loopback, any port; with --lan and"
        " --admit /ip4/0.0.0.0/tcp/0); repeatable", action=Append, default=[], metavar="ADDR",
    )  # fmt: skip
    parser.option(
        "--admit", admission, "who may connect: open, allow:FILE with a peer id a line, or ticket (see ww ticket);"
        " must be given to listen beyond loopback", metavar="POLICY",
    )  # fmt: skip
    parser.option("--peers-max", count, "peers connected at a time (1024)", default=1024, metavar="N")
    limits = PeerLimits()
    parser.limits(
        ("--peer-connections-max", count, limits.connections_max, "connections of one peer"),
        ("--peer-calls-max", count, limits.calls_max, "calls of one peer that it is not done with"),
        ("--peer-bytes-max", size, limits.bytes_max, "bytes of those calls"),
    )
    parser.option(
        "--keepalive", _keepalive, "seconds without a packet back after which a peer counts as gone, at least 2 (5)",
        default=KEEPALIVE_S, metavar="N",
    )  # fmt: skip
    parser.option(
        "--ttl", _ttl, "seconds until a member of the cluster that says nothing counts as gone (10)",
        default=MembershipConfig().ttl_s, metavar="N",
    )  # fmt: skip
    parser.flag("--log-json", "log one JSON object a line")
    parser.option(
        "--meta", key_value, "what to say of this node; repeatable", action=Append, default=[], metavar="KEY=VALUE"
    )


def _ttl(text: str) -> float:
    ttl_s = seconds(text)
    if not 1 <= ttl_s <= MembershipConfig().ttl_max_s:
        raise UsageError(f"{text[:40]!r}: expected from 1 to {MembershipConfig().ttl_max_s:g} seconds")
    return ttl_s


def admission(text: str) -> str:
    """Read a policy, which is made when it is known where the register of peers is."""
    parse_admission(text, Register(Path()))
    return text


def _keepalive(text: str) -> float:
    if (keepalive_s := seconds(text)) < 2:
        raise UsageError(f"{text[:40]!r}: expected at least 2 seconds")
    return keepalive_s


def _level(text: str) -> str:
    if text not in ("debug", "info", "warning", "error"):
        raise UsageError(f"{text[:40]!r} is not debug, info, warning or error")
    return text


def node_config(
    arguments: argparse.Namespace, key_file: Path | None, role: str, guests: Admission | None = None
) -> NodeConfig:
    """Make a node's configuration of the options that add_node_options added; guests may connect too."""
    listen = tuple(arguments.listen)
    if not listen:
        # A worker that lets nobody in can still look for its gateway everywhere.
        is_open = arguments.lan and (arguments.admit is not None or role == "gateway")
        if is_open and arguments.admit is None:
            raise UsageError("--lan lets other machines in: say who may come with --admit", "admit")
        listen = (EVERYWHERE if is_open else LOOPBACK,)
    if len(arguments.meta) > META_MAX:
        raise UsageError(f"--meta: given {len(arguments.meta)} times, at most {META_MAX}", "meta")
    is_beyond = arguments.lan or any(not address.is_loopback for address in listen)
    register = Register(arguments.state / "peers.db")
    dial_string = dial_string_of(arguments)
    ticket = (dialled(arguments), dial_string.ticket) if dial_string is not None else None
    bootstrap = [*arguments.addr]
    if dial_string is not None and dial_string.address is not None:
        bootstrap.append(dial_string.address)
    return NodeConfig(
        state_directory=arguments.state,
        key_file=key_file,
        namespace=arguments.ns,
        listen=listen,
        addresses=tuple(bootstrap),
        admission=parse_admission(arguments.admit, register) if arguments.admit is not None else None,
        guests=guests,
        register=register if role == "gateway" else None,
        ticket=ticket,
        connections_max=arguments.peers_max,
        handshake_timeout_s=arguments.handshake_timeout,
        keepalive_s=arguments.keepalive,
        limits=PeerLimits(arguments.peer_connections_max, arguments.peer_calls_max, arguments.peer_bytes_max),
        role=role,
        meta=dict(arguments.meta),
        discovery=discovery_config(arguments, beyond_loopback=is_beyond),
        membership=MembershipConfig(ttl_s=arguments.ttl),
    )


def discovery_config(arguments: argparse.Namespace, *, beyond_loopback: bool) -> DiscoveryConfig:
    """Say where to find and be found."""
    return DiscoveryConfig(
        beyond_loopback=beyond_loopback,
        multicast=not arguments.no_multicast,
        groups=tuple(arguments.discover),
        mdns=not arguments.no_mdns,
    )


def add_ticket_options(parser: Parser) -> None:
    """Add what lets a worker in."""
    parser.option(
        "--ticket-file", load_dial_string, "file, mode 0600, with what ww ticket create printed: it lets this worker"
        " in, and says whom to dial", metavar="FILE",
    )  # fmt: skip
    parser.option(
        "--ticket", read_dial_string, "the same, and never as an argument, which everybody on the machine can read",
        action=NotInArgv, metavar="TICKET",
    )  # fmt: skip


def dial_string_of(arguments: argparse.Namespace) -> DialString | None:
    """Return what --ticket-file or WW_TICKET says."""
    found: DialString | None = getattr(arguments, "ticket_file", None) or getattr(arguments, "ticket", None)
    return found


def dialled(arguments: argparse.Namespace) -> PeerId:
    """Return whom to dial: --dial, else whom the ticket is of, else the one peer that --addr names."""
    dial_string = dial_string_of(arguments)
    ticket_of = dial_string.peer_id if dial_string is not None else None
    given: PeerId | None = arguments.dial
    if given is not None and ticket_of is not None and given != ticket_of:
        raise UsageError(f"--dial {given}: the ticket is of {ticket_of}", "dial")
    if (peer_id := given or ticket_of) is not None:
        return peer_id
    named: set[PeerId] = {address.peer_id for address in arguments.addr if address.peer_id is not None}
    if len(named) != 1:
        raise UsageError(
            "whom to dial? expected --dial PEER_ID, --ticket-file FILE, or one --addr that ends in /p2p/PEER_ID"
        )
    return named.pop()
