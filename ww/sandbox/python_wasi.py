"""WASI 0.2 as a Python component's core modules call it.

Holds clocks, random numbers, the environment, stderr, waiting and the end of a run; there are no files, no sockets and
no input. Must not know Python, nor wasmtime. What a component may import and is not here ends it when it is called.
Each function takes and returns what the canonical ABI makes of its WIT type. Source: WASI 0.2; CanonicalABI.md.
"""

import ctypes
import os
import struct
import time
from typing import Any, Final

from ww.sandbox.determinism import START_NS
from ww.sandbox.python_host import Host, Known, Pollable
from ww.sandbox.wasi_originals import Ended
from ww.sandbox.wasi_poll import SLICE_NS

# At once, so that nobody who looks at no result of write, as Python's stderr, loses anything.
_WRITE_BYTES_MAX: Final = 1 << 30
_RANDOM_BYTES_MAX: Final = 1 << 20
_POLLABLES_MAX: Final = 1_000
_DURATION_MAX_NS: Final = 1 << 62
_OK, _NONE, _ERROR = b"\0", b"\0", b"\1"
# Of a stream-error, where it follows a result of at most 32 bits, and one of 64.
_CLOSED: Final = bytes((1, 0, 0, 0, 1, 0, 0, 0))
_CLOSED_64: Final = bytes((1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0))
# A socket or a name that there is none of: the error code access-denied, behind a handle's place.
_DENIED: Final = bytes((1, 0, 0, 0, 1))
_EMPTY_AT: Final = 8
"""The address of lists that hold nothing."""


class _Input:
    """stdin, which is at its end."""


class _Output:
    """stdout and stderr, which are one."""


class _Network:
    """What there is of a network, which is nothing."""


_INPUT, _OUTPUT, _NETWORK = _Input(), _Output(), _Network()


class Wasi:
    """The functions, for one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def known(self, interface: str, name: str, realloc: Any) -> Known | None:
        """Return a function by its interface and name; None when it is not here."""
        host = self._host
        lists = _Lists(host, realloc)
        found: dict[str, dict[str, Known]] = {
            "": {"resource.drop": Known("i", "", host.drop)},
            "wasi:cli/environment": {
                "get-environment": Known("i", "", lists.environment),
                "get-arguments": Known("i", "", self._empty_list),
                "initial-cwd": Known("i", "", self._none),
            },
            "wasi:cli/exit": {
                "exit": Known("i", "", lambda failed: self._exit(1 if failed & 0xFF else 0)),
                "exit-with-code": Known("i", "", lambda code: self._exit(code & 0xFF)),
            },
            "wasi:cli/stdin": {"get-stdin": Known("", "i", lambda: host.add(_INPUT))},
            "wasi:cli/stdout": {"get-stdout": Known("", "i", lambda: host.add(_OUTPUT))},
            "wasi:cli/stderr": {"get-stderr": Known("", "i", lambda: host.add(_OUTPUT))},
            "wasi:cli/terminal-stdin": {"get-terminal-stdin": Known("i", "", self._none)},
            "wasi:cli/terminal-stdout": {"get-terminal-stdout": Known("i", "", self._none)},
            "wasi:cli/terminal-stderr": {"get-terminal-stderr": Known("i", "", self._none)},
            "wasi:filesystem/preopens": {"get-directories": Known("i", "", self._empty_list)},
            "wasi:filesystem/types": {"filesystem-error-code": Known("ii", "", lambda error, at: self._none(at))},
            "wasi:sockets/instance-network": {"instance-network": Known("", "i", lambda: host.add(_NETWORK))},
            "wasi:sockets/tcp-create-socket": {"create-tcp-socket": Known("ii", "", self._no_socket)},
            "wasi:sockets/udp-create-socket": {"create-udp-socket": Known("ii", "", self._no_socket)},
            "wasi:sockets/ip-name-lookup": {"resolve-addresses": Known("iiii", "", self._no_names)},
            "wasi:random/random": {
                "get-random-bytes": Known("Ii", "", lists.random_bytes),
                "get-random-u64": Known("", "I", lists.random_u64),
            },
            "wasi:random/insecure": {
                "get-insecure-random-bytes": Known("Ii", "", lists.random_bytes),
                "get-insecure-random-u64": Known("", "I", lists.random_u64),
            },
            "wasi:random/insecure-seed": {
                "insecure-seed": Known("i", "", lambda at: host.write(at, lists.random(16), 8)),
            },
        }
        return (found.get(interface) or _Clocks(host).functions.get(interface) or self._streams(interface, lists)).get(
            name
        )

    def _streams(self, interface: str, lists: "_Lists") -> dict[str, Known]:
        host = self._host
        if interface != "wasi:io/streams":
            return lists.poll if interface == "wasi:io/poll" else {}
        out, into = "[method]output-stream.", "[method]input-stream."
        return {
            f"{out}check-write": Known("ii", "", self._check_write),
            f"{out}write": Known("iiii", "", self._write),
            f"{out}blocking-write-and-flush": Known("iiii", "", self._write),
            f"{out}flush": Known("ii", "", self._flush),
            f"{out}blocking-flush": Known("ii", "", self._flush),
            f"{out}subscribe": Known("i", "i", lambda _: host.add(Pollable(None))),
            f"{into}read": Known("iIi", "", self._read),
            f"{into}blocking-read": Known("iIi", "", self._read),
            f"{into}skip": Known("iIi", "", self._skip),
            f"{into}blocking-skip": Known("iIi", "", self._skip),
            f"{into}subscribe": Known("i", "i", lambda _: host.add(Pollable(None))),
        }

    def _none(self, at: int) -> None:
        self._host.write(at, _NONE, 1)

    def _empty_list(self, at: int) -> None:
        self._host.write(at, struct.pack("<II", _EMPTY_AT, 0))

    def _exit(self, code: int) -> None:
        self._host.run.exit_code = code
        raise Ended("")

    def _no_socket(self, family: int, at: int) -> None:
        self._host.write(at, _DENIED)

    def _no_names(self, network: int, name: int, length: int, at: int) -> None:
        self._host.write(at, _DENIED)

    # Streams.

    def _check_write(self, stream: int, at: int) -> None:
        self._host.get(stream, _Output)
        self._host.write(at, struct.pack("<B7xQ", 0, _WRITE_BYTES_MAX), 8)

    def _write(self, stream: int, data: int, size: int, at: int) -> None:
        host = self._host
        host.get(stream, _Output)
        data_at = host.at(data, size)
        # What is more than is kept is not even looked at.
        host.run.print(ctypes.string_at(data_at, min(size, host.run.room)), size)
        host.write(at, _OK)

    def _flush(self, stream: int, at: int) -> None:
        self._host.get(stream, _Output)
        self._host.write(at, _OK)

    def _read(self, stream: int, size: int, at: int) -> None:
        self._host.get(stream, _Input)
        self._host.write(at, _CLOSED)

    def _skip(self, stream: int, size: int, at: int) -> None:
        self._host.get(stream, _Input)
        self._host.write(at, _CLOSED_64, 8)


class _Clocks:
    """Time, and what waits for it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.functions = {
            "wasi:clocks/monotonic-clock": {
                "now": Known("", "I", host.now_ns),
                "resolution": Known("", "I", lambda: 1),
                "subscribe-instant": Known("I", "i", lambda due: host.add(Pollable(due))),
                "subscribe-duration": Known("I", "i", self._subscribe_duration),
            },
            "wasi:clocks/wall-clock": {
                "now": Known("i", "", self._wall_now),
                "resolution": Known("i", "", lambda at: host.write(at, struct.pack("<QI", 0, 1), 8)),
            },
        }

    def _subscribe_duration(self, duration_ns: int) -> int:
        clock = self._host.run.clock
        now_ns = clock.now_ns if clock is not None else time.monotonic_ns()
        return self._host.add(Pollable(now_ns + min(duration_ns, _DURATION_MAX_NS)))

    def _wall_now(self, at: int) -> None:
        clock = self._host.run.clock
        now_ns = START_NS + clock.read_ns() if clock is not None else time.time_ns()
        self._host.write(at, struct.pack("<QI", *divmod(now_ns, 10**9)), 8)


class _Lists:
    """What gives lists, which the guest makes room for by a realloc; and waiting."""

    def __init__(self, host: Host, realloc: Any) -> None:
        self._host = host
        self._realloc = realloc
        self.poll = {
            "poll": Known("iii", "", self._poll),
            "[method]pollable.ready": Known("i", "i", self._ready),
            "[method]pollable.block": Known("i", "", lambda pollable: self._wait([host.get(pollable, Pollable)])),
        }

    def environment(self, at: int) -> None:
        host = self._host
        rows = []
        for pair in host.run.env:
            for text in pair:
                data = text.encode()
                rows.append(struct.pack("<II", host.give(self._realloc, data) if data else 1, len(data)))
        where = host.give(self._realloc, b"".join(rows), 4) if rows else _EMPTY_AT
        host.look()
        host.write(at, struct.pack("<II", where, len(rows) // 2))

    # Random numbers.

    def random(self, size: int) -> bytes:
        stream = self._host.run.random
        return bytes(stream.read(size)) if stream is not None else os.urandom(size)

    def random_bytes(self, size: int, at: int) -> None:
        host = self._host
        if size > _RANDOM_BYTES_MAX:
            raise Ended(f"{size} random bytes are asked for at once, at most {_RANDOM_BYTES_MAX} are given")
        where = host.give(self._realloc, self.random(size)) if size else _EMPTY_AT
        host.write(at, struct.pack("<II", where, size))

    def random_u64(self) -> int:
        return int.from_bytes(self.random(8), "little")

    # Waiting.

    def _ready(self, pollable: int) -> int:
        return int(self._is_due(self._host.get(pollable, Pollable)))

    def _poll(self, data: int, count: int, at: int) -> None:
        host = self._host
        if not 0 < count <= _POLLABLES_MAX:
            raise Ended(f"{count} are waited for at once; expected 1 to {_POLLABLES_MAX}")
        numbers = struct.unpack(f"<{count}I", host.read(data, 4 * count, 4 * count, "what is waited for"))
        pollables = [host.get(number, Pollable) for number in numbers]
        self._wait(pollables)
        ready = [place for place, pollable in enumerate(pollables) if self._is_due(pollable)]
        where = host.give(self._realloc, struct.pack(f"<{len(ready)}I", *ready), 4)
        host.write(at, struct.pack("<II", where, len(ready)))

    def _is_due(self, pollable: Pollable) -> bool:
        clock = self._host.run.clock
        now_ns = clock.now_ns if clock is not None else time.monotonic_ns()
        return pollable.due_ns is None or now_ns >= pollable.due_ns

    def _wait(self, pollables: list[Pollable]) -> None:
        """Wait until one is ready, or the run is over."""
        run = self._host.run
        while not any(self._is_due(pollable) for pollable in pollables):
            run.end_if_over()
            due_ns = min(pollable.due_ns for pollable in pollables if pollable.due_ns is not None)
            if run.clock is not None:
                # Which is not there for one that sleeps for ever.
                run.clock.sleep_until(due_ns)
                if run.clock.now_ns < due_ns:
                    return
            else:
                run.watch.wait(min(SLICE_NS, max(0, due_ns - time.monotonic_ns())) / 1e9)
