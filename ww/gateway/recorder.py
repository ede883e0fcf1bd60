"""Puts the ends of runs on disk, however long the disk refuses, and then lets them be known.

Holds results and artifacts on their way there. Must not know where runs come from. Many results share one commit. What
has ended is the run's state only once it is on disk.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from ww.clock import Clock
from ww.errors import Overloaded, StoreError
from ww.gateway.artifacts import ArtifactStore
from ww.gateway.observer import Observer
from ww.gateway.storage import Storage
from ww.gateway.task import Attempt, Outcome, RunResult, Task

log = logging.getLogger("ww.gateway")

_RETRY_S: Final = 1.0
# Results on their way to disk; slots wait when there are more.
_UNWRITTEN_MAX: Final = 4096
# And what they may have printed, since a disk that refuses may do so for hours.
_UNWRITTEN_BYTES_MAX: Final = 64 << 20
# While more runs are due, results wait this long for others, so that many share one commit.
_LINGER_S: Final = 0.005


class Recorder:
    """What waits for the disk."""

    def __init__(
        self,
        store: Storage,
        artifacts: ArtifactStore,
        clock: Clock,
        observer: Observer,
        *,
        is_busy: Callable[[], bool],
        on_written: Callable[[Task], None],
    ) -> None:
        """is_busy says whether more results are to be expected soon; on_written is told of a task with further ones on
        disk."""
        self._store = store
        self._artifacts = artifacts
        self._clock = clock
        self._observer = observer
        self._is_busy = is_busy
        self._on_written = on_written
        self._unwritten: list[tuple[Task, RunResult]] = []
        self._unwritten_bytes = 0
        self._put = 0
        self._done = 0
        """How many results were ever put, and how many of them are on disk."""
        self._to_write = asyncio.Event()
        self._written = asyncio.Event()
        self._held: dict[Task, Callable[[], None]] = {}
        self.held: Counter[str] = Counter()
        """Digests of artifacts whose results are not on disk yet."""

    async def put(self, task: Task, results: Sequence[RunResult]) -> None:
        """Have the ends of runs put on disk; waits when too many are on their way."""
        while len(self._unwritten) >= _UNWRITTEN_MAX or self._unwritten_bytes >= _UNWRITTEN_BYTES_MAX:
            await self._next_write()
        self.put_now(task, results)

    def hold(self, task: Task, write: Callable[[], None]) -> None:
        """Have write called just before the first of a task's results goes to the disk: the task is not there yet."""
        self._held[task] = write

    def release(self, task: Task) -> None:
        """Call what `hold` was given, if it was not called yet."""
        if (write := self._held.pop(task, None)) is not None:
            write()

    def put_now(self, task: Task, results: Sequence[RunResult]) -> None:
        """Have the ends of runs put on disk."""
        self._unwritten += [(task, result) for result in results]
        self._unwritten_bytes += sum(map(_printed_bytes, results))
        self._put += len(results)
        self._to_write.set()

    async def is_written(self, task: Task, timeout_s: float) -> bool:
        """Wait until the results of a task that are on their way are on disk; False when the disk takes too long."""
        if not any(other is task for other, _ in self._unwritten):
            return True
        # Of a batch there are always further ones: those are not waited for.
        last = self._put
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._done < last:
                    await self._next_write()
        return self._done >= last

    async def record(self) -> None:
        """Put results on disk, for ever."""
        refused = False
        while True:
            await self._to_write.wait()
            if self._is_busy():
                await self._clock.sleep(_LINGER_S)
            self._to_write.clear()
            results = self._unwritten[:_UNWRITTEN_MAX]
            began = self._clock.now()
            if self._held:
                for task, _ in results:
                    self.release(task)
            writing = self._store.add_results([(task.number, result) for task, result in results])
            try:
                # What was released above is scheduled before this: it is written first, and in the same commit.
                await asyncio.ensure_future(writing)
            except StoreError as error:
                if not refused:
                    log.error("results wait until the disk takes them: %s", error)
                refused = True
                self._to_write.set()
                await self._clock.sleep(_RETRY_S)
                continue
            refused = False
            del self._unwritten[: len(results)]
            self._unwritten_bytes -= sum([_printed_bytes(result) for _, result in results])
            self._done += len(results)
            if self._unwritten:
                self._to_write.set()
            self._observer.stored(len(results), self._clock.now() - began)
            wall = self._clock.wall()
            by_task: dict[Task, list[RunResult]] = {}
            ended = self._observer.run_ended
            for task, result in results:
                outcome = result.outcome
                if outcome.artifacts:
                    self.let_go(outcome)
                ended(result.state, outcome.reason, outcome.wall_s)
                by_task.setdefault(task, []).append(result)
            for task, of_task in by_task.items():
                task.commit(of_task, wall)
                self._on_written(task)
            self._written.set()

    async def _next_write(self) -> None:
        self._written.clear()
        await self._written.wait()

    # Artifacts.

    async def keep_artifacts(self, attempt: Attempt, outcome: Outcome, data: bytes) -> Outcome:
        """Store a run's artifacts, however long the disk refuses, and return its outcome with them.

        PeerError when they are not what was asked for. When there is no room for them the run has failed.
        """
        digest = await self._artifacts.examine(data, bytes_max=attempt.task.spec.artifact_bytes)
        outcome = outcome._replace(artifacts=digest, artifacts_bytes=len(data))
        self.held[digest] += 1
        refused = False
        while attempt.task.is_active(attempt):
            try:
                await self._artifacts.keep(data, digest, self.artifacts_in_use)
                break
            except Overloaded as error:
                self.let_go(outcome)
                reason, detail = outcome.reason or "artifacts", outcome.detail or str(error)
                return outcome._replace(reason=reason, detail=detail, artifacts="", artifacts_bytes=0)
            except StoreError as error:
                if not refused:
                    log.error("artifacts wait until the disk takes them: %s", error)
                refused = True
                await self._clock.sleep(_RETRY_S)
        return outcome

    def let_go(self, outcome: Outcome) -> None:
        """Note that an outcome's artifacts are on disk with it, or that it does not count."""
        if outcome.artifacts:
            self.held[outcome.artifacts] -= 1
            if not self.held[outcome.artifacts]:
                del self.held[outcome.artifacts]

    async def artifacts_in_use(self) -> set[str]:
        """Return the digests of the artifacts that a remembered run has, or is about to."""
        held = set(self.held)
        return await self._store.artifacts() | held


def _printed_bytes(result: RunResult) -> int:
    return len(result.outcome.stdout) + len(result.outcome.stderr)
