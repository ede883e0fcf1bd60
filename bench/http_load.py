"""A client that costs little: one request over and over on many kept connections, from a process of its own.

    python bench/http_load.py HOST:PORT CONNECTIONS SECONDS < REQUEST

Holds epoll and sockets alone, since it shares the cores with the gateway that it asks: about 50 us a request. Prints
one JSON line: answers by status, times, and its own processor time. A connection sends its next request when it has the
answer to the one before, also when that is a refusal; the gateway may close none.
"""

import json
import re
import select
import socket
import sys
import time
from collections import Counter
from typing import Any, Final

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Connection:
    """One kept connection with at most one request under way."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer = b""
        self._bytes = 0
        self.sent_at = 0.0

    def ask(self, request: bytes) -> None:
        self._answer, self._bytes = b"", 0
        self.sent_at = time.perf_counter()
        # A request fits into a socket's buffer; the gateway reads it whole before it answers.
        self.socket.sendall(request)

    def read(self) -> int:
        """Read what is there; return the status once the answer is complete, until then 0."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the gateway closed a connection")
        self._answer = self._answer + data if self._answer else data
        if not self._bytes:
            head = self._answer.find(b"\r\n\r\n")
            if head < 0:
                return 0
            length = _LENGTH.search(self._answer, 0, head)
            if length is None:
                raise ConnectionError("an answer without a length")
            self._bytes = head + 4 + int(length[1])
        return int(self._answer[9:12]) if len(self._answer) >= self._bytes else 0


def load(address: str, connections: int, seconds: float, request: bytes) -> dict[str, Any]:
    """Ask for that long; those under way at the end are waited for, and count."""
    host, _, port = address.rpartition(":")
    waiting = [Connection(host.strip("[]"), int(port)) for _ in range(connections)]
    by_fd = {connection.socket.fileno(): connection for connection in waiting}
    poll = select.epoll()
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    times_s: list[float] = []
    statuses: Counter[int] = Counter()
    begun_at, cpu_s = time.perf_counter(), time.process_time()
    for connection in waiting:
        connection.ask(request)
    under_way = connections
    while under_way:
        for fd, _ in poll.poll():
            connection = by_fd[fd]
            if not (status := connection.read()):
                continue
            now = time.perf_counter()
            statuses[status] += 1
            if status < 300:
                times_s.append(now - connection.sent_at)
            if now - begun_at < seconds:
                connection.ask(request)
            else:
                under_way -= 1
    wall_s = time.perf_counter() - begun_at
    cpu_s = time.process_time() - cpu_s
    for connection in waiting:
        connection.socket.close()
    times_s.sort()
    return {
        "accepted": len(times_s),
        "statuses": dict(statuses),
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "p50_ms": times_s[len(times_s) // 2] * 1e3 if times_s else None,
        "p99_ms": times_s[int(len(times_s) * 0.99)] * 1e3 if times_s else None,
    }


if __name__ == "__main__":
    print(json.dumps(load(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.stdin.buffer.read())))
