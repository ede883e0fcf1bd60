"""Clients that post tasks with ids while gateways die under them, and keep a log of all that they were told.

Holds what is posted, what its answer must be, and the log. Must not know who is killed, and when. What the n-th call
posts follows from the seed and n alone; to which earlier task another call goes depends on who was answered first.
"""

import base64
import contextlib
import json
import queue
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from tests.guests import UNREACHABLE, guest

# Inputs and difficulties of the hash puzzle, and their answers.
HASHES: Final = {(0, 1): 3, (0, 2): 563, (0, 3): 2832, (1, 1): 25, (1, 2): 467, (7, 1): 19, (7, 2): 198}
REPEATS_MAX: Final = 20
# Enough for groups, and for several of them at once on a slot.
BATCH_MAX: Final = 300
PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Order:
    """A task to post, and what becomes of it unless it is cancelled."""

    id: str
    wasm: bytes
    fields: dict[str, Any]
    expected: dict[str, Any]
    """Of each of its results."""
    runs: tuple[dict[str, Any], ...] = ()
    """Of a batch: what each run is given."""
    differs: tuple[dict[str, Any], ...] = ()
    """And what is expected of each beside that."""

    @property
    def repeats(self) -> int:
        return len(self.runs) or int(self.fields["repeats"])

    def expected_of(self, run: int) -> dict[str, Any]:
        """Return what is expected of a run's result."""
        return self.expected | self.differs[run] if self.differs else self.expected

    @property
    def request(self) -> dict[str, Any]:
        """How it is posted."""
        if not self.runs:
            return {"data": self.fields, "files": {"wasm": ("guest.wasm", self.wasm)}}
        parent = self.fields | {"wasm_base64": base64.b64encode(self.wasm).decode()}
        lines = "".join(json.dumps(each) + "\n" for each in ({"parent": parent}, *self.runs))
        return {"content": lines, "headers": {"Content-Type": "application/x-ndjson"}}


def batch_of(id: str, source: random.Random) -> Order:
    """Make up a batch, each of whose runs has an input of its own: most are short, some take a while, some fail."""
    count, kind = source.randint(1, BATCH_MAX), source.choice(("noop", "spin", "echo"))
    well = {"state": "succeeded", "reason": None}
    fields: dict[str, Any] = {"id": id, "spread": source.choice(("pull", "pull", "roundrobin", "random"))}
    if kind == "echo":
        texts = [f"{id} {run} {source.randrange(1 << 40)}" for run in range(count)]
        # Some go by reference.
        inputs = ["x" * (source.choice((0, 10, 100_000)) if run % 20 == 0 else 5) for run in range(count)]
        runs = tuple({"args": [text], "stdin": given} for text, given in zip(texts, inputs, strict=True))
        differs = tuple({"stdout": f"{text}\n{given}"} for text, given in zip(texts, inputs, strict=True))
        return Order(id, guest("echo"), fields | {"output": 200_000}, well, runs, differs)
    if kind == "spin":
        numbers = [source.choice((1, 1, 1, 2, 3, 60)) for _ in range(count // 4 + 1)]
    else:
        numbers = [source.randrange(1 << 40) for _ in range(count)]
    runs = tuple({"input": number} for number in numbers)
    return Order(id, guest(kind), fields, well, runs, tuple({"result": str(number)} for number in numbers))


def order_of(id: str, source: random.Random) -> Order:
    """Make up a small task: now or in a moment, at once or one run after the other; or a batch."""
    if source.random() < 0.25:
        return batch_of(id, source)
    fields: dict[str, Any] = {"id": id, "repeats": source.randint(1, REPEATS_MAX)}
    if source.random() < 0.25:
        fields |= {"delay": round(source.uniform(0.001, 0.05), 3), "start": round(source.uniform(0, 0.3), 3)}
    kind = source.choices(("noop", "hash", "echo", "spin", "trap"), (4, 3, 2, 2, 1))[0]
    if kind == "trap":
        return Order(id, UNREACHABLE, fields, {"state": "failed", "reason": "trap"})
    well = {"state": "succeeded", "reason": None}
    if kind == "noop":
        number = source.randrange(1 << 40)
        return Order(id, guest("noop"), fields | {"input": number}, well | {"result": str(number)})
    if kind == "spin":
        milliseconds = source.randint(1, 10)
        return Order(id, guest("spin"), fields | {"input": milliseconds}, well | {"result": str(milliseconds)})
    if kind == "hash":
        (number, zeros), answer = source.choice(sorted(HASHES.items()))
        return Order(id, guest("hash"), fields | {"input": number, "difficulty": zeros}, well | {"result": str(answer)})
    text = f"{id} {source.randrange(1 << 40)}"
    return Order(id, guest("echo"), fields | {"args": text, "stdin": "in"}, well | {"stdout": f"{text}\nin"})


@dataclass
class Log:
    """What the clients were told, which must stay true."""

    accepted: dict[str, tuple[Order, str]] = field(default_factory=dict)
    """By id: what was posted, and when the gateway said it was created."""
    ended: dict[str, Any] = field(default_factory=dict)
    """Tasks as they were when they were first seen to have ended."""
    unsure: int = 0
    """Calls whose first answer never came."""
    reposted: int = 0
    asked_to_cancel: set[str] = field(default_factory=set)
    cancelled: int = 0


class Load:
    """Some client threads, and the calls that they are to make."""

    def __init__(self, http: str, seed: int, clients: int) -> None:
        self.log = Log()
        self._http = http
        self._seed = seed
        self._given = 0
        self._waiting: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.done = 0
        """Calls that were answered."""
        self.failures: list[BaseException] = []
        self._ids: list[str] = []
        """What was accepted, in that order."""
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(clients)]

    def give(self, calls: int) -> None:
        """Have the clients make that many more calls."""
        for _ in range(calls):
            self._waiting.put(self._given)
            self._given += 1

    def is_done(self, calls: int | None = None) -> bool:
        """Whether that many calls were answered, all of them if not given. Raises what went wrong at a client."""
        if self.failures:
            raise self.failures[0]
        return self.done >= (self._given if calls is None else calls)

    def _work(self) -> None:
        with httpx.Client(base_url=f"http://{self._http}", timeout=PATIENCE_S) as client:
            try:
                while (number := self._waiting.get()) is not None:
                    self._call(client, number)
                    with self._lock:
                        self.done += 1
            except BaseException as error:
                self.failures.append(error)

    def _call(self, client: httpx.Client, number: int) -> None:
        source = random.Random(f"{self._seed} {number}")
        what = source.random()
        with self._lock:
            known = source.choice(self._ids) if number % 4 == 0 and self._ids else None
        if known is not None and what < 0.3:
            self.cancel(client, known)
        elif known is not None:
            self.post_again(client, known)
        else:
            self._post(client, order_of(f"t{number}", source))

    def _post(self, client: httpx.Client, order: Order) -> None:
        answer, is_first = self._ask(client, "POST", "/tasks", order)
        assert answer.status_code == 201 or (answer.status_code == 200 and not is_first), answer.text
        with self._lock:
            self.log.accepted[order.id] = order, answer.json()["created_at"]
            self._ids.append(order.id)

    def post_again(self, client: httpx.Client, id: str) -> None:
        """Post what was accepted: nothing but 200 and the same task will do."""
        order, created_at = self.log.accepted[id]
        answer, _ = self._ask(client, "POST", "/tasks", order)
        assert answer.status_code == 200, f"{id} was lost: {answer.text}"
        task = answer.json()
        assert (task["id"], task["created_at"]) == (id, created_at)
        with self._lock:
            self.log.reposted += 1
        self._see(task)

    def cancel(self, client: httpx.Client, id: str) -> None:
        """Cancel a task that may have ended: from then on it has."""
        with self._lock:
            self.log.asked_to_cancel.add(id)
        answer, _ = self._ask(client, "DELETE", f"/tasks/{id}")
        assert answer.status_code == 200, f"{id} was lost: {answer.text}"
        task = answer.json()
        assert task["finished_at"] is not None, f"{id} was cancelled and goes on"
        with self._lock:
            self.log.cancelled += task["status"] == "cancelled"
        self._see(task)

    def _see(self, task: Any) -> None:
        if task["finished_at"] is None:
            return
        with self._lock:
            before = self.log.ended.setdefault(task["id"], unchanging(task))
        assert unchanging(task) == before, f"{task['id']} has ended and changed"

    def _ask(
        self, client: httpx.Client, method: str, path: str, order: Order | None = None
    ) -> tuple[httpx.Response, bool]:
        """Ask until there is an answer that is not "later", and say whether it is that to the first try."""
        form: dict[str, Any] = {} if order is None else order.request
        end, is_first = time.monotonic() + PATIENCE_S, True
        while True:
            try:
                answer = client.request(method, path, **form)
            except httpx.TransportError:
                if is_first:
                    with self._lock:
                        self.log.unsure += 1
                is_first = False
            else:
                if answer.status_code not in (429, 503):
                    return answer, is_first
            assert time.monotonic() < end, f"no answer to {method} {path} within {PATIENCE_S} s"
            time.sleep(0.02)  # as a client does that was refused

    def close(self) -> None:
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()


def unchanging(task: Any) -> Any:
    """What of an ended task must never change. A run that is cancelled gets its result after its task."""
    results = task["results"] if task["status"] != "cancelled" else []
    return task["status"], task["finished_at"], task["completions"], sorted(results, key=lambda result: result["run"])


@contextlib.contextmanager
def load_on(http: str, seed: int, clients: int) -> Iterator[Load]:
    """Run that many clients of the gateway at http."""
    load = Load(http, seed, clients)
    load.start()
    try:
        yield load
    finally:
        load.close()
