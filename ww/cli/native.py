"""What `ww gateway` takes about peers that give it work: who they may be, and how much of it they may hold.

Holds options. Must not know what such a peer does: ww/gateway/native.py.
"""

import argparse
import logging
from collections.abc import Iterable
from typing import Final

from ww.cli.options import admission
from ww.cli.parser import Parser, count, seconds, size
from ww.gateway.caller import Quota
from ww.gateway.native_intake import TasksConfig
from ww.net.multiaddr import Multiaddr
from ww.rpc.admission import Admission, Closed, parse_admission
from ww.rpc.register import Register

log = logging.getLogger("ww.gateway")

_CLOSED: Final = "this gateway takes tasks from its own key alone: see its --tasks-admit"


def add_tasks_options(parser: Parser) -> None:
    """Add what the command takes."""
    parser.option(
        "--tasks-admit", admission, "which peers may submit tasks, whoever else may connect: open, allow:FILE with a"
        " peer id a line, or ticket (ww ticket create --for tasks). Not given: on loopback, without --admit, --lan"
        " and --token-file, all; else this gateway's own key alone", metavar="POLICY",
    )  # fmt: skip
    for name, type, of in (
        ("--peer-tasks-max", count, "tasks of one peer that have not ended (no limit of its own)"),
        ("--peer-runs-max", count, "their runs that have not ended (no limit of its own)"),
        ("--peer-tasks-bytes-max", size, "bytes of their stdin and texts (no limit of its own)"),
    ):
        parser.option(name, type, of, metavar="N")
    config = TasksConfig()
    parser.limits(
        ("--peer-arriving", count, config.arriving_max, "modules, zips and batches of one peer on their way in"),
        ("--arrive-timeout", seconds, config.arrive_timeout_s, "seconds for which nothing of one of those may arrive"),
        ("--tail-max", size, config.tail_bytes_max, "bytes of the latest results kept in memory for peers"),
    )


def guests(given: Admission | None) -> Admission | None:
    """Say who may connect, of those who may submit tasks, whoever else may."""
    return None if isinstance(given, Closed) else given


def tasks_admission(arguments: argparse.Namespace) -> Admission | None:
    """Say which peers may submit tasks; None: whoever may connect."""
    if arguments.tasks_admit is not None:
        return parse_admission(arguments.tasks_admit, Register(arguments.state / "peers.db"), "tasks")
    # Whoever says who may work, or use HTTP, does not thereby say who may submit without a token.
    is_open = arguments.admit is None and arguments.token_file is None and not arguments.lan
    if is_open and all(address.is_loopback for address in arguments.listen):
        return None
    return Closed(_CLOSED)


def warn_of_open(arguments: argparse.Namespace, listen: Iterable[Multiaddr]) -> None:
    """Say so in the log when peers of other machines, whoever they are, may have this cluster compute for them."""
    if arguments.tasks_admit == "open" and (beyond := [address for address in listen if not address.is_loopback]):
        log.warning("--tasks-admit open: whoever reaches %s may submit tasks", ", ".join(map(str, beyond)))


def tasks_config(arguments: argparse.Namespace) -> TasksConfig:
    """Say what such peers may hold."""
    return TasksConfig(
        quota=Quota(arguments.peer_tasks_max, arguments.peer_runs_max, arguments.peer_tasks_bytes_max),
        arriving_max=arguments.peer_arriving,
        arrive_timeout_s=arguments.arrive_timeout,
        module_bytes_max=arguments.upload_max,
        tail_bytes_max=arguments.tail_max,
    )
