"""How options are read: from argv, else from WW_* variables, with one-line errors.

Holds the parser, the kinds of values and the options that several subcommands share. Must not start anything.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from ww.cli.dial_string import DialString, load_dial_string, read_dial_string
from ww.cluster.membership import MembershipConfig
from ww.discovery.multicast import DEFAULT_GROUP
from ww.discovery.packet import META_MAX
from ww.discovery.sources import DiscoveryConfig
from ww.errors import UsageError
from ww.identity import PeerId
from ww.net.multiaddr import Multiaddr, MulticastGroup
from ww.net.tls import KEEPALIVE_S
from ww.node import EVERYWHERE, LOOPBACK, NodeConfig, check_namespace
from ww.rpc.account import PeerLimits
from ww.rpc.admission import parse_admission
from ww.rpc.register import Register

_SIZE_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TRUE: Final = ("true", "1", "yes")
_FALSE: Final = ("false", "0", "no")
_TIME_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Parser(argparse.ArgumentParser):
    """A parser whose options can be given as WW_NAME too, and whose errors are one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"allow_abbrev": False})
        self._from_environment: list[argparse.Action] = []

    def option(self, flag: str, kind: Callable[[str], Any], help: str, **settings: Any) -> None:
        """Add an option that WW_NAME gives where argv does not; repeatable ones are separated by commas there."""
        variable = "WW_" + flag.removeprefix("--").replace("-", "_").upper()
        action = self.add_argument(flag, type=argument(kind), help=f"{help} [{variable}]", **settings)
        self._from_environment.append(action)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse args, then fill in what only the environment says."""
        for action in self._from_environment:
            self._read_environment(action, os.environ)
        return super().parse_known_args(args, namespace)

    def flag(self, flag: str, help: str) -> None:
        """Add a switch: on when it is named, or when WW_NAME is true."""
        variable = "WW_" + flag.removeprefix("--").replace("-", "_").upper()
        action = self.add_argument(flag, action="store_true", help=f"{help} [{variable}]")
        action.type = argument(truth)
        self._from_environment.append(action)

    def limits(self, *rows: tuple[str, Callable[[str], Any], Any, str]) -> None:
        """Add limits: flag, kind, default and help of each."""
        for flag, kind, default, help in rows:
            shown = _size_text(default) if kind is size else f"{default:g}" if kind is seconds else str(default)
            self.option(flag, kind, f"{help} ({shown})", default=default, metavar="N")

    def _read_environment(self, action: argparse.Action, environment: Mapping[str, str]) -> None:
        variable = "WW_" + action.dest.upper()
        text = environment.get(variable)
        if not text:
            return
        assert callable(action.type)
        try:
            if isinstance(action, Append):
                action.default = [action.type(part) for part in text.split(",")]
            else:
                action.default = action.type(text)
        except argparse.ArgumentTypeError as error:
            self.error(f"{variable}: {error}")

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the usage, in one line."""
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


class Append(argparse.Action):
    """Collects a repeatable option; the first one on the command line replaces the default."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        known = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [values] if known is self.default else [*known, values])


class NotInArgv(argparse.Action):
    """An option that only the environment may give, since it is a secret."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        name = self.option_strings[0]
        variable = "WW_" + self.dest.upper()
        parser.error(f"{name} given as an argument can be read by everybody here: use {name}-file, or {variable}")


def argument(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make of what reads a text the `type` of an argument, with read's own words for what is wrong."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def size(text: str) -> int:
    """Read bytes: 65536, 64K, 1G."""
    match = re.fullmatch(r"([0-9]{1,15})([KMGT]?)(?:iB|B)?", text)
    if match is None or not int(match[1]):
        raise UsageError(f"{text[:40]!r} is no size: expected bytes, or a number with K, M, G or T")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def _size_text(number: int) -> str:
    unit = max((unit for unit, factor in _SIZE_UNITS.items() if number % factor == 0), key=_SIZE_UNITS.__getitem__)
    return f"{number // _SIZE_UNITS[unit]}{unit}"


def seconds(text: str) -> float:
    """Read a time: 30, 2.5s, 10m, 24h, 7d."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhd]?)", text)
    if match is None:
        raise UsageError(f"{text[:40]!r} is no time: expected seconds, or a number with s, m, h or d")
    return float(match[1]) * _TIME_UNITS[match[2]]


def count(text: str) -> int:
    """Read a whole number above zero."""
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text)):
        raise UsageError(f"{text[:40]!r} is not a whole number above 0")
    return int(text)


def number_32(text: str) -> int:
    """Read a whole number above zero that has 32 bits."""
    if (number := count(text)) >= 2**32:
        raise UsageError(f"{text[:40]!r}: expected at most {2**32 - 1}")
    return number


def niceness(text: str) -> int:
    """Read how much the processor prefers others: 0 to 19."""
    if not (text.isascii() and text.isdigit() and int(text[:3]) <= 19):
        raise UsageError(f"{text[:40]!r}: expected 0 to 19")
    return int(text)


def truth(text: str) -> bool:
    """Read true or false."""
    if text.lower() not in _TRUE + _FALSE:
        raise UsageError(f"{text[:40]!r}: expected true or false")
    return text.lower() in _TRUE


def key_value(text: str) -> tuple[str, str]:
    """Read KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}", key):
        raise UsageError(f"{text[:80]!a} is not KEY=VALUE, with a key of letters, digits and . _ / -")
    if len(value) > 256 or not value.isprintable():
        raise UsageError(f"{text[:80]!a}: expected a value of at most 256 characters, all of them printable")
    return key, value


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
        "--admit", _admission, "who may connect: open, allow:FILE with a peer id a line, or ticket (see ww ticket);"
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


def _admission(text: str) -> str:
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


def _xdg(variable: str, default: str) -> Path:
    # The specification: a relative path there is to be ignored.
    path = Path(os.environ.get(variable, ""))
    return (path if path.is_absolute() else Path.home() / default) / "ww"


def state_directory() -> Path:
    """Return where what must last is kept."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def cache_directory() -> Path:
    """Return where what can be had again is kept."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def node_config(arguments: argparse.Namespace, key_file: Path | None, role: str) -> NodeConfig:
    """Make a node's configuration of the options that add_node_options added."""
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
