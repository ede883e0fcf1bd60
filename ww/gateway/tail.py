"""The latest results, as they were just put on disk: who follows a task at once need not have them read back.

Holds a bounded stretch of what was committed, of all tasks. Must not know who reads, nor the store, which tells it of
each commit. Whoever wants what lies before the stretch reads the store.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import Final

from ww.gateway.task import RunResult

# What one costs beside its output, roughly.
_RESULT_BYTES: Final = 1024


class _Commit:
    """Results that share a commit; their positions follow each other."""

    __slots__ = ("_by_task", "first", "results", "size_bytes")

    def __init__(self, first: int, results: Sequence[tuple[int, RunResult]]) -> None:
        self.first = first
        self.results = results
        self.size_bytes = sum(
            _RESULT_BYTES + len(result.outcome.stdout) + len(result.outcome.stderr) for _, result in results
        )
        self._by_task: dict[int, list[tuple[int, RunResult]]] | None = None

    @property
    def last(self) -> int:
        return self.first + len(self.results) - 1

    def of(self, task: int) -> list[tuple[int, RunResult]]:
        """Return the results of a task with their positions."""
        if self._by_task is None:
            self._by_task = {}
            for position, (number, result) in enumerate(self.results, self.first):
                self._by_task.setdefault(number, []).append((position, result))
        return self._by_task.get(task, [])


class Tail:
    """One gateway's."""

    def __init__(self, *, bytes_max: int) -> None:
        """Hold results of at most bytes_max together, and always the latest commit."""
        self._bytes_max = bytes_max
        self._bytes = 0
        self._commits: deque[_Commit] = deque()
        self.count = 0
        """Commits there have been: a mark that `since` understands."""

    def put(self, first: int, results: Sequence[tuple[int, RunResult]]) -> None:
        """Note a commit: results, each with its task's number, at positions from first on."""
        if not results:
            return
        if self._commits and first != self._commits[-1].last + 1:
            # Something was committed that nobody told of: what is held is no stretch any more.
            self._commits.clear()
            self._bytes = 0
            self.count += 1  # of that: whoever came before it has not all of his here
        commit = _Commit(first, results)
        self._commits.append(commit)
        self._bytes += commit.size_bytes
        self.count += 1
        while self._bytes > self._bytes_max and len(self._commits) > 1:
            self._bytes -= self._commits.popleft().size_bytes

    def since(
        self, task: int, after: int, *, mark: int | None = None, limit: int, bytes_max: int
    ) -> tuple[list[tuple[int, RunResult]], bool] | None:
        """Return results of a task beyond the position after, in order, and whether there are more.

        None when they may not all be held. At most limit, and fewer, but one, once their output passes bytes_max. mark
        is what `count` was before the task was submitted, where that is known: then it has results only from there on.
        """
        commits = self._commits
        oldest = self.count - len(commits)
        is_whole = mark is not None and mark >= oldest
        if not is_whole and not (commits and after >= commits[0].first - 1):
            return None
        begin = bisect_right(commits, after, key=lambda commit: commit.last)
        if mark is not None:
            begin = max(begin, mark - oldest)
        found: list[tuple[int, RunResult]] = []
        for index in range(begin, len(commits)):
            for position, result in commits[index].of(task):
                if position <= after:
                    continue
                bytes_max -= len(result.outcome.stdout) + len(result.outcome.stderr)
                if len(found) >= limit or (bytes_max < 0 and found):
                    return found, True
                found.append((position, result))
        return found, False
