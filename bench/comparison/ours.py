"""ww as it is compared: `ww gateway` and one `ww worker` with two slots, each a process, over TLS, everything on disk.

Holds the cluster and the ways to ask it: natively, through the client's HTTP, and through HTTP without the client.
Each run is in a sandbox of its own.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from bench.cluster import Client as PlainClient
from bench.cluster import Processes
from bench.comparison.cases import SLOTS, System
from ww.address_book import AddressBook
from ww.client import Result, connect
from ww.identity import PeerId

ROOT: Final = Path(__file__).resolve().parent.parent.parent
NOOP, COPY, SPIN = (
    (ROOT / "wasm" / name / f"{name}.wasm").read_bytes() for name in ("noop", "echo", "spin")
)  # fmt: skip
# Rounds of a million steps, to see how long one takes.
_MEASURED_ROUNDS: Final = 50
_OUTPUT_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Cluster:
    """One gateway and one worker."""

    http: str
    """HOST:PORT."""
    multiaddr: str
    gateway_pid: int
    worker_pid: int


@contextlib.contextmanager
def cluster(sampled: Mapping[str, Path] | None = None) -> Iterator[Cluster]:
    """Run a cluster. sampled: files for what is seen of the processor time of "gateway" and "worker" (sampled.py)."""
    sampled = sampled or {}
    with tempfile.TemporaryDirectory(prefix="ww-bench-") as folder, contextlib.ExitStack() as stack:
        started = Processes(folder, stack)
        http = started.start(
            "gateway", "--http", "127.0.0.1:0", ready=r"HTTP on http://(\S+)", sampled=sampled.get("gateway")
        )
        with contextlib.closing(PlainClient(http)) as client:
            peer = client.request("GET", "/healthz")["peer"]
        options = ["--dial", peer, "--slots", str(SLOTS)]
        started.start("worker", *options, ready=r"(joined) gateway", sampled=sampled.get("worker"))
        peer_id = PeerId.parse(peer)
        address = AddressBook(Path(folder, "state", "ww", "peers", "ww")).lookup(peer_id)[0]
        gateway_pid, worker_pid = started.pids
        yield Cluster(http, str(replace(address, peer_id=peer_id)), gateway_pid, worker_pid)


@dataclass(slots=True)
class Ww:
    """A cluster through the client."""

    client: Any
    """Client or NativeClient."""
    rounds_per_s: float = 0.0
    """How many rounds of wasm/spin a processor does in a second, once that is known."""
    guests_s: float = 0.0
    """Processor time that the guests of all runs used."""
    _digests: dict[str, str] = field(default_factory=dict)

    def _batch(self, wasm: bytes, runs: Sequence[Any], **fields: Any) -> list[Result]:
        """Run a batch of a module that is sent once; return the results by run."""
        task = self.client.submit_batch(self._digest(wasm), runs, **fields)
        found: list[Result | None] = [None] * len(runs)
        for result in self.client.stream(task.id):
            found[result.run] = result
        results = [result for result in found if result is not None and result.state == "succeeded"]
        if len(results) != len(runs):
            raise RuntimeError(f"{len(runs) - len(results)} of {len(runs)} runs did not succeed")
        self.guests_s += sum(result.cpu_s or 0.0 for result in results)
        return results

    def _digest(self, wasm: bytes) -> str:
        name = hashlib.sha256(wasm).hexdigest()
        if name not in self._digests:
            self._digests[name] = self.client.upload(wasm)
        return self._digests[name]

    def noop(self, values: Sequence[int]) -> list[int]:
        return [int(result.result or -1) for result in self._batch(NOOP, [{"input": value} for value in values])]

    def single(self, value: int) -> int:
        (result,) = self.client.run(self._digest(NOOP), input=value)
        self.guests_s += result.cpu_s or 0.0
        return int(result.result or -1)

    def copy(self, payloads: Sequence[bytes]) -> list[bytes]:
        return [result.stdout for result in self._batch(COPY, payloads, output_bytes=_OUTPUT_BYTES)]

    def compute(self, count: int, seconds: float) -> float:
        if not self.rounds_per_s:
            # On both slots, since processors that share a core are slower then.
            measured = self._batch(SPIN, [{"input": _MEASURED_ROUNDS}] * (2 * SLOTS))
            self.rounds_per_s = len(measured) * _MEASURED_ROUNDS / sum(result.cpu_s or 0.0 for result in measured)
        rounds = max(1, round(seconds * self.rounds_per_s))
        results = self._batch(SPIN, [{"input": rounds}] * count)
        if any(result.result != str(rounds) for result in results):
            raise RuntimeError(f"a run of {rounds} rounds gave something else")
        return sum(result.cpu_s or 0.0 for result in results)


class PlainHttp:
    """Single submissions by the standard library's http.client, on one kept connection: curl would be slower."""

    def __init__(self, client: PlainClient) -> None:
        self._client = client
        self._digest = client.request("POST", "/modules", NOOP, "application/wasm")["module"]

    def noop(self, values: Sequence[int]) -> list[int]:
        return [self.single(value) for value in values]

    def single(self, value: int) -> int:
        body = f'{{"parent": {{"module": "{self._digest}", "input": {value}}}}}'.encode()
        task = self._client.request("POST", "/tasks?wait=60", body, "application/json")
        while task["status"] != "succeeded":
            task = self._client.request("GET", f"/tasks/{task['id']}?wait=60")
        return int(task["results"][0]["result"])

    def copy(self, payloads: Sequence[bytes]) -> list[bytes]:
        raise NotImplementedError("only single submissions are measured so")

    def compute(self, count: int, seconds: float) -> float:
        raise NotImplementedError("only single submissions are measured so")


@contextlib.contextmanager
def asked(it: Cluster, *, natively: bool) -> Iterator[Ww]:
    """Connect to a cluster."""
    if natively:
        with connect(it.multiaddr) as client:
            yield Ww(client)
    else:
        with connect(f"http://{it.http}") as client:
            yield Ww(client)


@contextlib.contextmanager
def native() -> Iterator[System]:
    """Run a cluster, and ask it as a peer."""
    with cluster() as it, asked(it, natively=True) as system:
        yield system


@contextlib.contextmanager
def http() -> Iterator[System]:
    """Run a cluster, and ask it through HTTP."""
    with cluster() as it, asked(it, natively=False) as system:
        yield system


@contextlib.contextmanager
def plain_http() -> Iterator[System]:
    """Run a cluster, and ask it through HTTP without ww's client."""
    with cluster() as it, contextlib.closing(PlainClient(it.http)) as client:
        yield PlainHttp(client)
