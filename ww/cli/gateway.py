"""`ww gateway`: take tasks over HTTP and give their runs to workers."""

import argparse
import asyncio
import ipaddress
import logging
import re
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ww.cli.native import add_tasks_options, guests, tasks_admission, tasks_config, warn_of_open
from ww.cli.options import add_node_options, node_config
from ww.cli.parser import Append, Parser, count, readable_file, seconds, size, whole
from ww.cli.process import log_to_stderr, look_for_cycles_seldom, on_stop_signals
from ww.cli.store import add_store_options, add_store_timeout, store_of
from ww.clock import SystemClock
from ww.errors import UsageError
from ww.gateway.breaker import BreakerConfig
from ww.gateway.calls import CallsConfig
from ww.gateway.certificate import Certificate
from ww.gateway.dispatch import DispatchConfig
from ww.gateway.fields import REPLICAS_MAX
from ww.gateway.intake import HttpConfig
from ww.gateway.perimeter import PerimeterConfig
from ww.gateway.pulse import PulseConfig
from ww.gateway.replicas import complete
from ww.gateway.request import RequestLimits
from ww.gateway.scheduler import SchedulerConfig
from ww.gateway.serve import GatewayConfig, serve
from ww.gateway.server import ServerConfig
from ww.gateway.storage import StoreConfig
from ww.gateway.task import Policy
from ww.gateway.tokens import Tokens
from ww.node import Node
from ww.rpc.admission import Admission
from ww.rpc.loop import run

log = logging.getLogger("ww.gateway")

_HOSTS: Final = {"localhost": "127.0.0.1", "[::1]": "::1"}
_HOST_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*")


def add_to(parser: Parser) -> None:
    """Add what the command takes."""
    parser.description = "Take tasks over HTTP and give their runs to workers. Prints its peer id on stdout."
    add_node_options(parser)
    parser.option("--key", Path, "file of the key pair (gateway.key in the state directory)", metavar="FILE")
    _add_http_options(parser)
    add_tasks_options(parser)
    add_store_options(parser)
    add_store_timeout(parser)
    limits, http, scheduler, store = RequestLimits(), HttpConfig(), SchedulerConfig(), StoreConfig()
    parser.limits(
        ("--upload-max", size, http.upload_bytes_max, "bytes of one request"),
        ("--upload-timeout", seconds, http.upload_timeout_s, "seconds one request may take to arrive"),
        ("--uploads", count, http.uploads_max, "requests with a body read at a time"),
        ("--connections", count, 512, "HTTP connections at a time"),
        ("--streams", count, http.streams_max, "streams of events and WebSockets at a time"),
        (
            "--stream-timeout",
            seconds,
            http.stream_timeout_s,
            "seconds after which a client that takes nothing of its answer is dropped",
        ),
        ("--web-peers", count, http.peers_max, "peers connected by WebSocket at a time"),
        ("--watches", count, http.watches_max, "tasks that one WebSocket watches at a time"),
        ("--messages", count, http.messages_max, "messages of one WebSocket that are worked on at a time"),
        ("--message-max", size, ServerConfig().message_bytes_max, "bytes of one WebSocket message"),
        ("--json-max", size, limits.json_bytes_max, "bytes of a submission that comes as JSON"),
        ("--line-max", size, limits.line_bytes_max, "bytes of one line of a batch"),
        ("--batch-max", size, limits.batch_bytes_max, "bytes of a batch, as it comes and as it is kept"),
        ("--batch-timeout", seconds, http.batch_timeout_s, "seconds a batch may take to arrive as lines"),
        ("--batches", count, http.batches_max, "batches read at a time"),
        ("--tasks-max", count, scheduler.tasks_max, "tasks that have not ended"),
        ("--tasks-bytes-max", size, scheduler.tasks_bytes_max, "bytes that those take in memory, with their stdin"),
        ("--nesting", whole, scheduler.calls.depth_max, "depth of calls within calls of Python functions; 0: none"),
        ("--calls-max", count, scheduler.calls.tasks_max, "tasks that one run has called for at a time; others wait"),
        ("--needs-max", count, scheduler.needs_max, "distinct needs (cpus, memory, labels, kind) that those may have"),
        (
            "--unsatisfiable-ttl",
            seconds,
            scheduler.unsatisfiable_ttl_s,
            "seconds that a due run waits while no connected worker could ever serve it; then its task has failed",
        ),
        ("--attempts-max", count, scheduler.policy.attempts_max, "attempts of one run that may be lost"),
        ("--cancel-grace", seconds, scheduler.dispatch.cancel_grace_s, "seconds a worker has to answer a cancel"),
        (
            "--breaker-failures",
            count,
            scheduler.breaker.failures_max,
            "runs in a row that a worker fails, once a module where that may be at fault, until it gets nothing",
        ),
        ("--breaker-open", seconds, scheduler.breaker.open_s, "seconds of that, doubled each time it fails again"),
        ("--pulse", _above_0, scheduler.pulse.every_s, "seconds between beats of the pulse of a worker that has one"),
        (
            "--pulse-timeout",
            _above_0,
            scheduler.pulse.timeout_s,
            "seconds such a worker has to answer one; then it is gone",
        ),
        ("--keep", keep, store.keep, "ended tasks that are remembered, or with s, m, h or d how long they are"),
        ("--results-max", size, store.results_bytes_max, "bytes of all results kept"),
        (
            "--attempt-slack",
            seconds,
            scheduler.dispatch.attempt_slack_s,
            "seconds beyond a run's duration until a worker that says nothing has lost it",
        ),
        ("--modules-max", size, 10 << 30, "bytes of all modules and files kept"),
        ("--artifacts-kept", size, 10 << 30, "bytes of all artifacts kept"),
        ("--disk-reserve", size, 64 << 20, "bytes that must be free on the state's disk for new tasks to be taken"),
        ("--max-runs", count, limits.runs_max, "runs of one task"),
        ("--duration-default", seconds, limits.duration_default_s, "seconds a run may take when its task does not say"),
        ("--duration-max", seconds, limits.duration_max_s, "seconds a task may ask for"),
        ("--memory-default", size, limits.memory_default_bytes, "bytes of memory a run has when its task does not say"),
        ("--memory-max", size, limits.memory_max_bytes, "bytes of memory a task may ask for"),
        ("--output-max", size, limits.output_max_bytes, "bytes of stdout and of stderr a task may ask for"),
        ("--stdin-max", size, limits.stdin_max_bytes, "bytes of stdin"),
        ("--files-upload-max", size, limits.files_upload_max_bytes, "bytes of the zip that a task's files come as"),
        ("--files-count-max", count, limits.files_count_max, "files and folders in it"),
        (
            "--files-default",
            size,
            limits.files_default_bytes,
            "bytes of a run's file system when its task does not say",
        ),
        ("--files-max", size, limits.files_max_bytes, "bytes of a file system a task may ask for"),
        (
            "--artifacts-default",
            size,
            limits.artifacts_default_bytes,
            "bytes of a run's artifacts when its task does not say",
        ),
        ("--artifacts-max", size, limits.artifacts_max_bytes, "bytes of artifacts a task may ask for"),
        (
            "--cpu-default",
            seconds,
            limits.cpu_default_s,
            "seconds of processor time a run has when its task does not say, 0: as long as it may take",
        ),
        ("--cpu-max", seconds, limits.cpu_max_s, "seconds of processor time a task may ask for"),
        (
            "--fuel-default",
            count,
            limits.fuel_default,
            "WebAssembly instructions a run has when its task does not say, 0: they are not counted",
        ),
        ("--fuel-max", count, limits.fuel_max, "WebAssembly instructions a task may ask for"),
        (
            "--disagreements-max",
            whole,
            scheduler.disagreements_max,
            "runs on which a peer may say something else than a quorum of others; with one more it is refused",
        ),
    )
    _add_quorum_options(parser)
    parser.flag(
        "--speculate", "give a run that takes three times as long as its like a second attempt on another worker, once"
        " nothing else of its task waits",
    )  # fmt: skip
    parser.set_defaults(run=lambda arguments: run(lambda: main(arguments)))


def _add_quorum_options(parser: Parser) -> None:
    parser.option(
        "--replicas", _peers, "peers that a run is given to when its task does not say (1, or such that --quorum is a"
        " majority); above 1 tasks have to be deterministic", metavar="N",
    )  # fmt: skip
    parser.option(
        "--quorum", _peers, "peers that have to give the same result when its task does not say (1, or a majority of"
        " --replicas)", metavar="M",
    )  # fmt: skip


def _peers(text: str) -> int:
    if (number := count(text)) > REPLICAS_MAX:
        raise UsageError(f"{number} is too many: expected 1 to {REPLICAS_MAX}")
    return number


def _add_http_options(parser: Parser) -> None:
    parser.option(
        "--http", http_address, "where HTTP listens (127.0.0.1:8080); beyond loopback with --token-file, and with"
        " --tls-cert and --tls-key or --behind-proxy", default=("127.0.0.1", 8080), metavar="HOST:PORT",
    )  # fmt: skip
    parser.option(
        "--token-file", readable_file, "file, mode 0600, of the tokens that HTTP is used with (ww token create); read"
        " again when it changes", metavar="FILE",
    )  # fmt: skip
    parser.option(
        "--tls-cert", readable_file, "file of a certificate and its chain, PEM, to speak HTTPS with; read again when it"
        " changes", metavar="FILE",
    )  # fmt: skip
    parser.option("--tls-key", readable_file, "file of its key, PEM, without a passphrase", metavar="FILE")
    parser.flag(
        "--behind-proxy",
        "a proxy in front speaks HTTPS, and says in X-Forwarded-For where requests come from",
    )
    parser.option(
        "--http-name", _host_name, "name by which clients call this gateway, beside IP addresses and localhost;"
        " repeatable", action=Append, default=[], metavar="NAME",
    )  # fmt: skip
    parser.option(
        "--cors-origin", _origin, "web pages that may use HTTP from their browser, as https://HOST[:PORT]; repeatable",
        action=Append, default=[], metavar="URL",
    )  # fmt: skip


def _above_0(text: str) -> float:
    if not (given_s := seconds(text)):
        raise UsageError(f"{text[:40]!r}: expected seconds above 0")
    return given_s


def _host_name(text: str) -> str:
    name = text.lower()
    if not _HOST_NAME.fullmatch(name):
        raise UsageError(f"{text[:80]!r} is no host name: expected one without a port, as gateway.example.org")
    return name


def _origin(text: str) -> str:
    expected = "expected https://HOST or https://HOST:PORT, without a path"
    try:
        parts = urlsplit(text)
        is_right = parts.scheme in ("http", "https") and parts.hostname and text == f"{parts.scheme}://{parts.netloc}"
        if not is_right or "@" in parts.netloc or text != text.lower() or (parts.port == 0):
            raise UsageError(f"{text[:80]!r} is no origin: {expected}")
    except ValueError:
        raise UsageError(f"{text[:80]!r} is no origin: {expected}") from None
    return text


def http_address(text: str) -> tuple[str, int]:
    """Read HOST:PORT."""
    host, colon, port = text.rpartition(":")
    host = _HOSTS.get(host, host.removeprefix("[").removesuffix("]") if host.startswith("[") else host)
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise UsageError(f"{text[:80]!r} is not HOST:PORT")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise UsageError(f"{host[:60]!r} is no IP address; expected one, [IPV6] or localhost, and its port") from None
    return str(address), int(port)


def _check_exposure(arguments: argparse.Namespace) -> bool:
    """Return whether HTTP is for this machine alone. UsageError unless what is open to others is guarded."""
    host, port = arguments.http
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        given, missing = ("cert", "key") if arguments.tls_key is None else ("key", "cert")
        raise UsageError(f"--tls-{given}: given without --tls-{missing}", f"tls-{missing}")
    if arguments.behind_proxy and arguments.token_file is None:
        raise UsageError("--behind-proxy lets other machines in: expected --token-file (ww token create)", "token-file")
    if arguments.cors_origin and arguments.token_file is None:
        raise UsageError("--cors-origin: lets other web pages in; expected --token-file beside it", "token-file")
    if ipaddress.ip_address(host).is_loopback:
        return True
    where = f"--http {host}:{port} lets other machines in"
    if arguments.token_file is None:
        raise UsageError(f"{where}: expected --token-file (ww token create), or an address of loopback", "token-file")
    if arguments.tls_cert is None and not arguments.behind_proxy:
        expected = "expected --tls-cert and --tls-key, or --behind-proxy where a proxy speaks HTTPS"
        raise UsageError(f"{where}, and tokens must not cross a network in the open: {expected}", "tls-cert")
    return False


def _certificate(arguments: argparse.Namespace) -> Certificate | None:
    return None if arguments.tls_cert is None else Certificate(arguments.tls_cert, arguments.tls_key)


def _tokens(arguments: argparse.Namespace) -> Tokens | None:
    if arguments.token_file is None:
        return None
    try:
        return Tokens(arguments.token_file, now=time.monotonic, wall=time.time)
    except UsageError as error:
        raise UsageError(f"--token-file {error}", "token-file") from None


def keep(text: str) -> int | float:
    """Read how much is remembered: a whole number of tasks, or a time, which has a unit."""
    if text[-1:] in ("s", "m", "h", "d"):
        return seconds(text)
    try:
        return count(text)
    except UsageError:
        raise UsageError(f"{text[:40]!r}: expected a number of tasks, or a time with s, m, h or d") from None


def _config(arguments: argparse.Namespace, tasks: Admission | None) -> GatewayConfig:
    host, port = arguments.http
    replicas, quorum = complete(arguments.replicas, arguments.quorum, "--quorum")
    is_loopback, tokens = _check_exposure(arguments), _tokens(arguments)
    return GatewayConfig(
        state_directory=arguments.state,
        meta=dict(arguments.meta),
        disk_reserve_bytes=arguments.disk_reserve,
        tokens=tokens,
        perimeter=PerimeterConfig(
            names=frozenset(arguments.http_name),
            origins=frozenset(arguments.cors_origin),
            any_address=arguments.behind_proxy or not is_loopback,
            behind_proxy=arguments.behind_proxy,
        ),
        server=ServerConfig(
            host=host,
            port=port,
            connections_max=arguments.connections,
            certificate=_certificate(arguments),
            message_bytes_max=arguments.message_max,
            unread_timeout_s=arguments.stream_timeout,
        ),
        modules_bytes_max=arguments.modules_max,
        artifacts_bytes_max=arguments.artifacts_kept,
        http=HttpConfig(
            upload_bytes_max=arguments.upload_max,
            upload_timeout_s=arguments.upload_timeout,
            uploads_max=arguments.uploads,
            streams_max=arguments.streams,
            peers_max=arguments.web_peers,
            stream_timeout_s=arguments.stream_timeout,
            watches_max=arguments.watches,
            messages_max=arguments.messages,
            batches_max=arguments.batches,
            batch_timeout_s=arguments.batch_timeout,
        ),
        limits=RequestLimits(
            runs_max=arguments.max_runs,
            duration_default_s=arguments.duration_default,
            duration_max_s=arguments.duration_max,
            memory_default_bytes=arguments.memory_default,
            memory_max_bytes=arguments.memory_max,
            output_default_bytes=min(RequestLimits().output_default_bytes, arguments.output_max),
            python_output_default_bytes=min(RequestLimits().python_output_default_bytes, arguments.output_max),
            output_max_bytes=arguments.output_max,
            stdin_max_bytes=arguments.stdin_max,
            files_upload_max_bytes=arguments.files_upload_max,
            files_count_max=arguments.files_count_max,
            files_default_bytes=min(arguments.files_default, arguments.files_max),
            files_max_bytes=arguments.files_max,
            artifacts_default_bytes=min(arguments.artifacts_default, arguments.artifacts_max),
            artifacts_max_bytes=arguments.artifacts_max,
            cpu_default_s=arguments.cpu_default,
            cpu_max_s=arguments.cpu_max,
            fuel_default=arguments.fuel_default,
            fuel_max=arguments.fuel_max,
            replicas_default=replicas,
            quorum_default=quorum,
            batch_bytes_max=arguments.batch_max,
            line_bytes_max=arguments.line_max,
            json_bytes_max=arguments.json_max,
        ),
        scheduler=SchedulerConfig(
            tasks_max=arguments.tasks_max,
            tasks_bytes_max=arguments.tasks_bytes_max,
            needs_max=arguments.needs_max,
            unsatisfiable_ttl_s=arguments.unsatisfiable_ttl,
            calls=CallsConfig(
                depth_max=arguments.nesting,
                tasks_max=arguments.calls_max,
                request_bytes_max=arguments.stdin_max,
            ),
            dispatch=DispatchConfig(
                attempt_slack_s=arguments.attempt_slack,
                cancel_grace_s=arguments.cancel_grace,
                speculate=arguments.speculate,
            ),
            breaker=BreakerConfig(
                failures_max=arguments.breaker_failures,
                open_s=arguments.breaker_open,
                open_max_s=max(arguments.breaker_open, BreakerConfig().open_max_s),
            ),
            pulse=PulseConfig(every_s=arguments.pulse, timeout_s=arguments.pulse_timeout),
            policy=Policy(attempts_max=arguments.attempts_max),
            disagreements_max=arguments.disagreements_max,
        ),
        store=StoreConfig(
            keep=arguments.keep if isinstance(arguments.keep, int) else None,
            keep_s=arguments.keep if isinstance(arguments.keep, float) else None,
            results_bytes_max=arguments.results_max,
        ),
        tasks=tasks_config(arguments),
        tasks_admission=tasks,
        postgres=store_of(arguments),
        postgres_timeout_s=arguments.store_timeout,
    )


async def main(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    log_to_stderr(arguments.log, as_json=arguments.log_json)
    look_for_cycles_seldom()
    tasks = tasks_admission(arguments)
    config = _config(arguments, tasks)
    key_file = arguments.key or arguments.state / "gateway.key"
    of_node = node_config(arguments, key_file, "gateway", guests(tasks))
    warn_of_open(arguments, of_node.listen)
    stop = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None
    on_stop_signals(stop.set, task.cancel)
    try:
        async with (
            Node(of_node) as node,
            serve(node, SystemClock(), config),
        ):
            print(node.peer_id, flush=True)
            await stop.wait()
            log.info("stopping; unfinished tasks go on at the next start")
    except asyncio.CancelledError:
        return 130
    return 0
