"""The worker in TypeScript, for `ww worker --runtime deno` and `node`: found, and run in place of this process.

Holds which options it takes, what of the machine it may use, and how it is begun. Must not know what it does: web/src.
It becomes this process, so that signals, the exit code and its end are its own, and nothing is left of it.
"""

import argparse
import os
import re
import shutil
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ww.cli.options import dial_string_of
from ww.cli.parser import TRUTHS, Parser, readable_file
from ww.errors import UsageError
from ww.identity import Identity

NATIVE: Final = "native"
RUNTIMES: Final = (NATIVE, "deno", "node")
# The same as of clients: ww/client/wire.py.
_URL: Final = "http://127.0.0.1:8080"
_BUNDLE: Final = Path(__file__).resolve().parent.parent / "web" / "terminal"
_PORTS: Final = {"http": 80, "https": 443}
# Of what `ww worker` takes, what such a worker takes too, as it is; and what is told to it in another way.
_PASSED_ON: Final = ("slots", "grace", "ns", "log", "module_max", "memory_max", "duration_max", "output_max",
                     "input_max", "held_max")  # fmt: skip
_TAKEN: Final = frozenset({"runtime", "gateway", "ca", "dial", "key", "meta", "log_json", "ticket", "ticket_file",
                           "default_of", "run", *_PASSED_ON})  # fmt: skip
_ONLY_HERE: Final = ("gateway", "ca")
_MISSING: Final = {
    "deno": "deno is not on the PATH: pip install 'ww[deno]', or see https://deno.com",
    "node": "node is not on the PATH: expected Node 20.10 or newer",
}
_NODE_LEAST: Final = (20, 10)
_VERSION_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Command:
    """What is run in place of this process."""

    argv: tuple[str, ...]
    environment: dict[str, str]


def add_runtime_options(parser: Parser) -> None:
    """Add in what the worker runs, and what it needs to know there."""
    parser.option(
        "--runtime", _runtime, "what guests run in: native (this Python, with wasmtime), or the worker in TypeScript,"
        " deno or node, which reaches the gateway by HTTP (native)", default=NATIVE, metavar="NAME",
    )  # fmt: skip
    parser.option(
        "--gateway", _gateway, "with --runtime deno or node: the address of the gateway's HTTP (http://127.0.0.1:8080)",
        metavar="URL", not_ours=TRUTHS,  # by which cmd/scheduler.py is told to be a gateway
    )  # fmt: skip
    parser.option(
        "--ca", _certificates, "with --runtime deno or node: file of certificates to trust besides the system's",
        metavar="FILE",
    )  # fmt: skip
    parser.set_defaults(default_of=parser.get_default)


def check_native(arguments: argparse.Namespace) -> None:
    """Refuse what only the worker in TypeScript takes. What a variable says is for other commands too."""
    for name in _ONLY_HERE:
        if getattr(arguments, name) != arguments.default_of(name):
            raise UsageError(f"--{name}: expected --runtime deno or node with it; a native worker has --dial", name)


def become(arguments: argparse.Namespace) -> int:
    """Be the worker in TypeScript from now on."""
    command = command_for(arguments, dict(os.environ))
    if arguments.key is not None:
        # Held here, as a native worker holds it: the other program has no lock that both know.
        Identity.load(arguments.key).hand_over()
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(command.argv[0], command.argv, command.environment)
    except OSError as error:
        reason = (error.strerror or "it cannot be run").lower()
        raise UsageError(f"{arguments.runtime} cannot be started: {reason}", "runtime") from None


def command_for(arguments: argparse.Namespace, environment: dict[str, str], bundle: Path = _BUNDLE) -> Command:
    """Say how the worker in TypeScript is run. UsageError for options that it does not have."""
    _check_options(arguments)
    url = arguments.gateway or _URL
    host = _host_of(url)
    script = _script(bundle)
    program = _find(arguments.runtime, environment)
    # Neither reads what is in the folder where it is started, nor asks anybody for a newer version.
    kept = environment | {"DENO_NO_UPDATE_CHECK": "1", "NO_UPDATE_NOTIFIER": "1"}
    kept = {name: value for name, value in kept.items() if name != "NODE_OPTIONS" and not name.startswith("WW_")}
    if (dial_string := dial_string_of(arguments)) is not None:
        kept["WW_TICKET"] = dial_string.ticket
    if arguments.ca is not None and arguments.runtime == "node":
        kept["NODE_EXTRA_CA_CERTS"] = str(arguments.ca)
    flags = _deno_flags(arguments, host, bundle) if arguments.runtime == "deno" else _NODE_FLAGS
    return Command((program, *flags, str(script), url, *_passed_on(arguments)), kept)


def look_for(runtime: str, bundle: Path = _BUNDLE) -> tuple[bool, str]:
    """Tell whether such workers can be run here, and by what, or why not."""
    try:
        _script(bundle)
        return True, _find(runtime, dict(os.environ))
    except UsageError as error:
        return False, str(error)


_NODE_FLAGS: Final = ("--experimental-websocket", "--no-warnings", "--disallow-code-generation-from-strings")


def _deno_flags(arguments: argparse.Namespace, host: str, bundle: Path) -> list[str]:
    """Let it reach the gateway, and read what it is made of and its key: nothing else."""
    flags = ["run", "--no-prompt", "--no-config", "--no-lock", "--no-npm", "--no-remote", f"--allow-net={host}"]
    reads = [str(bundle)]
    if arguments.key is not None:
        key = os.path.abspath(arguments.key)
        if "," in key:  # where a path would end
            raise UsageError("--key: expected a path without a comma with --runtime deno", "key")
        reads.append(key)
        flags.append(f"--allow-write={key}")
    flags += [f"--allow-read={','.join(reads)}", "--allow-env=WW_TICKET"]
    flags.append("--allow-sys=hostname,systemMemoryInfo")
    if arguments.ca is not None:
        flags.append(f"--cert={arguments.ca}")
    return flags


def _passed_on(arguments: argparse.Namespace) -> list[str]:
    words: list[str] = []
    for name in _PASSED_ON:
        value = getattr(arguments, name)
        words += [f"--{name.replace('_', '-')}", f"{value:f}" if isinstance(value, float) else str(value)]
    for key, value in arguments.meta:
        words += ["--meta", f"{key}={value}"]
    dial_string = dial_string_of(arguments)
    ticket_of = dial_string.peer_id if dial_string is not None else None
    if arguments.dial is not None and ticket_of is not None and arguments.dial != ticket_of:
        raise UsageError(f"--dial {arguments.dial}: the ticket is of {ticket_of}", "dial")
    if (peer_id := arguments.dial or ticket_of) is not None:
        words += ["--dial", str(peer_id)]
    if arguments.key is not None:
        words += ["--key", os.path.abspath(arguments.key), "--key-held"]
    return [*words, *(["--log-json"] if arguments.log_json else [])]


def _check_options(arguments: argparse.Namespace) -> None:
    for name, value in vars(arguments).items():
        if name not in _TAKEN and value != arguments.default_of(name):
            flag = name.replace("_", "-")
            raise UsageError(
                f"--{flag}: makes no sense with --runtime {arguments.runtime}: it is of a native worker", flag
            )


def _host_of(url: str) -> str:
    """Return HOST:PORT of the gateway."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in _PORTS or not parts.hostname or parts.path not in ("", "/") or parts.query or "@" in url:
        raise UsageError(f"{url[:80]!r} is no address of HTTP: expected --gateway http://HOST:PORT", "gateway")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port or _PORTS[parts.scheme]}"


def _gateway(text: str) -> str:
    # The client takes longer to import than all else that a native worker begins with.
    from ww.cli.remote import gateway_url

    return gateway_url(text)


def _find(runtime: str, environment: dict[str, str]) -> str:
    """Return where a runtime is: on the PATH, or among the scripts of this Python's environment."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(runtime, path=environment.get("PATH")) or shutil.which(runtime, path=beside)
    if found is None:
        raise UsageError(_MISSING[runtime], "runtime")
    if runtime == "node":
        _check_node(found)
    return found


def _script(bundle: Path) -> Path:
    script = bundle / "worker.mjs"
    if not script.is_file():
        raise UsageError("the worker in TypeScript is not built here: expected scripts/web to have been run", "runtime")
    return script


def _check_node(program: str) -> None:
    """Refuse a Node that is too old: it would say of an option of its own that it does not know it."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S).stdout
    except (OSError, subprocess.SubprocessError, ValueError):
        return  # what is wrong with it shows when it is run
    found = re.match(r"v(\d{1,6})\.(\d{1,6})", said)
    if found is not None and tuple(map(int, found.groups())) < _NODE_LEAST:
        expected = ".".join(map(str, _NODE_LEAST))
        raise UsageError(f"node is {found[0]}: expected Node {expected} or newer on the PATH", "runtime")


def _certificates(text: str) -> Path:
    path = readable_file(text)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise UsageError(f"{path.name!r}: it holds no certificates, PEM") from None
    return path


def _runtime(text: str) -> str:
    if text not in RUNTIMES:
        raise UsageError(f"{text[:40]!r} is not {', '.join(RUNTIMES[:-1])} or {RUNTIMES[-1]}")
    return text
