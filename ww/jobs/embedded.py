"""A cluster of one program: a gateway and a worker as processes of its own, for as long as it lives.

Holds their start, their watch and their end. One a process, however many ask for it. It is closed to everybody else:
both listen on loopback, know each other and this program by keys that were made for them, answer no survey and keep
their state in a temporary folder. They end with the program however that ends (ww/cli/kept.py), and a child that it
forks has nothing to do with them. Must not know what is run on it. Who asks for one: gateways.py.
"""

import contextlib
import logging
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ww
from ww.client.call import Retry
from ww.client.native import LinkConfig, NativeClient
from ww.errors import PeerError, UsageError
from ww.identity import Identity

log = logging.getLogger("ww.jobs")

# Of the program's WW_ variables those that say something of this machine; others are of other nodes.
_VARIABLES: Final = ("WW_CACHE", "WW_CACHE_MAX", "WW_NICE", "WW_SLOTS")
_LINE_BYTES_MAX: Final = 4096
_DETAIL_MAX: Final = 300
_ENDS_WITHIN_S: Final = 10.0
_LOOK_S: Final = 0.005
_NODE_OPTIONS: Final = ("--no-multicast", "--no-mdns", "--log", "warning")
# Nobody asks again for what has ended. A run that the one worker cannot do, nobody ever will.
_GATEWAY_OPTIONS: Final = ("--http", "127.0.0.1:0", "--keep", "1000", "--unsatisfiable-ttl", "5")


@dataclass(frozen=True, slots=True)
class EmbeddedConfig:
    """What such a cluster is like."""

    slots: int | None = None
    """Runs at once; None: one a core, or what WW_SLOTS says."""
    start_timeout_s: float = 60.0
    """Seconds it has to start."""
    restarts_max: int = 3
    """How often a process of it that died is replaced within restarts_within_s; then the cluster ends."""
    restarts_within_s: float = 60.0


class _Process:
    """One of its processes, and the one that replaces it."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path, *, has_words: bool = False) -> None:
        """Be COMMAND name of ww; has_words says that it prints a line when it is ready."""
        self.name = name
        self._has_words = has_words
        self._folder = folder
        self._command = [sys.executable, "-P", "-m", "ww.cli.kept", str(folder), name, *arguments]
        self.popen: subprocess.Popen[bytes]
        self.stdin = -1
        """While it is open the process lives."""
        self.began_at: list[float] = []

    def start(self) -> None:
        """Start it; it waits for begin. Raises OSError."""
        self.began_at.append(time.monotonic())
        theirs, ours = os.pipe()
        try:
            with (self._folder / f"{self.name}.log").open("ab") as to:
                self.popen = subprocess.Popen(
                    self._command, stdin=theirs, stdout=subprocess.PIPE if self._has_words else subprocess.DEVNULL,
                    stderr=to, cwd="/", env=_environment(),
                    # A terminal's ctrl-C goes to all of the program's group.
                    start_new_session=True,
                )  # fmt: skip
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self.stdin = ours

    def begin(self) -> None:
        """Let it begin."""
        with contextlib.suppress(OSError):  # it is gone, which whoever waits for it finds out
            os.write(self.stdin, b"\n")

    def await_line(self, timeout_s: float) -> bool:
        """Return whether it has printed a line before it ended, or the time was over."""
        assert self.popen.stdout is not None
        end, said = time.monotonic() + timeout_s, b""
        with self.popen.stdout as pipe, selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in said and len(said) < _LINE_BYTES_MAX:
                if not selector.select(max(0.0, end - time.monotonic())) or not (more := os.read(pipe.fileno(), 512)):
                    return False
                said += more
        return True

    def last_words(self) -> str:
        """Return how it ended, where it has, and the last line that it logged."""
        ended = self.popen.poll()
        # What was killed says nothing of that: its last line is of another matter.
        how = "" if ended is None else f"{_how(ended)}; it said last: "
        with contextlib.suppress(OSError), (self._folder / f"{self.name}.log").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LINE_BYTES_MAX))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
            if lines:
                return how + "".join(c if c.isprintable() else " " for c in lines[-1])[:_DETAIL_MAX]
        return how + "nothing" if how else "it said nothing"

    def leave(self) -> bool:
        """Let go of its stdin: it ends, unless somebody else holds that too. Return whether it was held."""
        stdin, self.stdin = self.stdin, -1
        if stdin >= 0:
            os.close(stdin)
        return stdin >= 0

    def end(self) -> None:
        """End it now. Idempotent."""
        if self.leave():
            self.popen.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(_ENDS_WITHIN_S)
            if self.popen.stdout is not None:
                self.popen.stdout.close()


def _how(returncode: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(-returncode).name
    return f"exit code {returncode}"


class _Nodes:
    """Both processes and their folder; what has to be ended, apart from what is asked of it."""

    def __init__(self, config: EmbeddedConfig) -> None:
        self._config = config
        self._pid = os.getpid()
        self._turn = threading.Lock()
        self._is_ended = False
        self.problem = ""
        self.folder = Path(tempfile.mkdtemp(prefix="ww-embedded-"))
        try:
            self.client = Identity.generate()
            self.peer_id = _make_key(self.folder / "gateway.key")
            gateways = _write(self.folder / "gateways", self.peer_id)
            workers = _write(self.folder / "workers", _make_key(self.folder / "worker.key"))
            clients = _write(self.folder / "clients", str(self.client.peer_id))
            state = ("--state", str(self.folder), *_NODE_OPTIONS)
            slots = () if config.slots is None else ("--slots", str(config.slots))
            # Nobody has a token, so nobody uses HTTP.
            tokens = ("--token-file", _write(self.folder / "tokens", ""))
            admit = ("--admit", f"allow:{workers}", "--tasks-admit", f"allow:{clients}")
            dial = ("--admit", f"allow:{gateways}", "--dial", self.peer_id, "--key", str(self.folder / "worker.key"))
            self._gateway = _Process(
                "gateway", (*state, *admit, *tokens, *_GATEWAY_OPTIONS), self.folder, has_words=True
            )
            self._worker = _Process("worker", (*state, *dial, *slots), self.folder)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def start(self) -> None:
        """Start both. PeerError says why it cannot be done."""
        for process in (self._gateway, self._worker):
            try:
                process.start()
            except OSError as error:
                raise PeerError(f"the embedded {process.name} did not start: {error.strerror}") from None
        self._begin_gateway()
        self._worker.begin()
        for process in (self._gateway, self._worker):
            threading.Thread(
                target=self._watch, args=(process,), name=f"ww-embedded-{process.name}", daemon=True
            ).start()

        self._await_worker()

    def _await_worker(self) -> None:
        """Return when the gateway has the worker."""
        end = time.monotonic() + self._config.start_timeout_s
        # Whoever asks for the first time would wait for a gateway that is gone.
        with NativeClient(self.peer_id, self.link(), retry=Retry(retries=0), timeout_s=1.0) as client:
            while not self.problem:
                with contextlib.suppress(PeerError):
                    if client.workers():
                        return
                if time.monotonic() > end:
                    said = self._worker.last_words()
                    raise PeerError(f"the embedded worker was not there in {self._config.start_timeout_s:g} s: {said}")
                time.sleep(_LOOK_S)
        raise PeerError(self.problem)

    def link(self) -> LinkConfig:
        """Return how a client reaches it."""
        return LinkConfig(self.client, state_directory=self.folder, multicast=False, mdns=False)

    def _begin_gateway(self) -> None:
        self._gateway.begin()
        if not self._gateway.await_line(self._config.start_timeout_s):
            raise PeerError(f"the embedded gateway did not start: {self._gateway.last_words()}")

    def _watch(self, process: _Process) -> None:
        """Replace a process that dies; one that dies again and again ends the cluster."""
        while True:
            process.popen.wait()
            with self._turn:
                if self._is_ended:
                    return
                since = time.monotonic() - self._config.restarts_within_s
                process.began_at = [at for at in process.began_at if at >= since]
                try:
                    if len(process.began_at) > self._config.restarts_max:
                        raise PeerError(f"the embedded {process.name} ends again and again: {process.last_words()}")
                    log.warning("the embedded %s has ended and is replaced: %s", process.name, process.last_words())
                    process.leave()
                    process.start()
                    if process is self._gateway:
                        self._begin_gateway()
                    else:
                        process.begin()
                except (PeerError, OSError) as error:
                    self.problem = str(error)
                    self._end()
                    return

    def end(self) -> None:
        """End both and leave nothing. Idempotent; in a process that was forked it does nothing."""
        if os.getpid() == self._pid:
            with self._turn:
                self._end()

    def _end(self) -> None:
        if not self._is_ended:
            self._is_ended = True
            for process in (self._worker, self._gateway):
                process.end()
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def is_ended(self) -> bool:
        """Whether nothing is there any more."""
        return self._is_ended

    def leave(self) -> None:
        """Have nothing to do with it, in a process that was forked: while it held their pipes, they would not end."""
        for process in (self._worker, self._gateway):
            process.leave()


class Embedded:
    """A cluster for this program's life."""

    def __init__(self, config: EmbeddedConfig | None = None) -> None:
        """Start it. PeerError says why that cannot be done."""
        self._nodes = nodes = _Nodes(config or EmbeddedConfig())
        try:
            nodes.start()
        except BaseException:
            nodes.end()
            raise
        # At the latest when the program ends; clients, which are made later, are closed before.
        self.close: Callable[[], Any] = weakref.finalize(self, nodes.end)

    @property
    def target(self) -> str:
        """The peer id of its gateway."""
        return self._nodes.peer_id

    @property
    def folder(self) -> Path:
        """Its state and its logs."""
        return self._nodes.folder

    @property
    def problem(self) -> str:
        """Why it has ended by itself, or nothing."""
        return self._nodes.problem

    @property
    def is_there(self) -> bool:
        """Whether it has not ended."""
        return not self._nodes.is_ended

    def link(self) -> LinkConfig:
        """Return how a client reaches it."""
        return self._nodes.link()

    def leave(self) -> None:
        """Have nothing to do with it, in a process that was forked."""
        self._nodes.leave()


class _Shared:
    """The one of this process."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.it: Embedded | None = None
        self.of_parents: list[Embedded] = []
        """Kept, since nobody is to tidy them up in a child."""

    def in_child(self) -> None:
        """Begin anew in a process that was forked."""
        self.turn = threading.Lock()
        if self.it is not None:
            self.it.leave()
            self.of_parents.append(self.it)
            self.it = None


_SHARED: Final = _Shared()
os.register_at_fork(after_in_child=_SHARED.in_child)


def shared(config: EmbeddedConfig | None = None) -> Embedded:
    """Return this process's cluster, which is started when there is none. config counts for that one alone."""
    with _SHARED.turn:
        if _SHARED.it is None or not _SHARED.it.is_there:
            _SHARED.it = Embedded(config)
        return _SHARED.it


def _make_key(path: Path) -> str:
    identity = Identity.load(path)
    identity.close()
    return str(identity.peer_id)


def _write(path: Path, line: str) -> str:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{line}\n")
    return str(path)


def _environment() -> dict[str, str]:
    """Return the program's variables without what is said to its own nodes, and with where ww is."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WW_") or name in _VARIABLES}
    # It may run from a checkout that nobody installed.
    where = str(Path(ww.__file__).resolve().parent.parent)
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH", ""), where)))}


def check_slots(slots: int | None) -> int | None:
    """Return how many slots are asked for. UsageError when there can be none such."""
    if slots is not None and (type(slots) is not int or not 1 <= slots <= 1024):
        raise UsageError(f"slots: {slots!r}; expected a whole number from 1 to 1024", "slots")
    return slots
