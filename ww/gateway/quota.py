"""How much of a gateway each caller holds with tasks that have not ended, and may.

Holds the count of those whose tokens limit them. Must not know HTTP. Nobody has to say when a task ends: only who is at
a limit has its tasks looked at again, and not more often than that pays.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, NamedTuple

from ww.errors import Overloaded
from ww.gateway.caller import Caller
from ww.gateway.task import Spec, Task

_LOOK_AGAIN_S: Final = 0.1
_RETRY_AFTER_S: Final = 5
# Anybody can make a key, and be a peer by it.
_CALLERS_MAX: Final = 10_000


class Share(NamedTuple):
    """What one task holds, or all of a caller's."""

    tasks: int
    runs: int
    size_bytes: int


def share_of(spec: Spec) -> Share:
    """Return what a task holds when it begins."""
    texts = [spec.description, spec.name, *spec.args]
    texts += [text for pair in (*spec.env, *spec.labels) for text in pair]
    return Share(1, spec.repeats, len(spec.stdin) + sum(len(text.encode()) for text in texts))


class _Held:
    """What one caller holds."""

    def __init__(self, now: float, caller: Caller) -> None:
        self.caller = caller
        """As it came last: its limits may change."""
        self.shares: dict[str, Share] = {}
        self.being_added: set[str] = set()
        self.looked_at = now
        self.looked_count = 0
        """Tasks that were open then."""
        self.total = Share(0, 0, 0)

    def set(self, id: str, share: Share | None) -> None:
        old = self.shares.pop(id, None)
        for sign, one in ((-1, old), (1, share)):
            if one is not None:
                self.total = Share(*(a + sign * b for a, b in zip(self.total, one, strict=True)))
        if share is not None:
            self.shares[id] = share


class Quotas:
    """The shares of all limited callers."""

    def __init__(
        self, task: Callable[[str], Task | None], open_tasks: Callable[[], Iterable[Task]], now: Callable[[], float]
    ) -> None:
        """Look at tasks that are open by task, which returns None for those that are not, or at all of them."""
        self._task = task
        self._open_tasks = open_tasks
        self._now = now
        self._held: dict[str, _Held] = {}

    @contextmanager
    def taking(self, caller: Caller, spec: Spec) -> Iterator[None]:
        """Count a task while it is being submitted, and from then on if it is.

        Overloaded, with the name of the quota, when the caller may not hold it too.
        """
        held = self._of(caller)
        if held is None or spec.id in held.shares:
            yield  # one that is there is not taken twice: the scheduler tells it from another of its id
            return
        share = share_of(spec)
        self._check(caller, held, share)
        held.set(spec.id, share)
        held.being_added.add(spec.id)
        try:
            yield
        except BaseException:
            held.set(spec.id, None)
            raise
        finally:
            held.being_added.discard(spec.id)

    def taking_nested(self, spec: Spec) -> AbstractContextManager[None]:
        """Count a task that a run of its owner's called for. Raises as `taking` does."""
        held = self._held.get(spec.owner)
        # Whose limits nobody has seen since the start, has none that could be looked up by a name.
        return self.taking(held.caller, spec) if held is not None else nullcontext()

    def _of(self, caller: Caller) -> _Held | None:
        """Return what a caller holds, if that is counted: once it is, for good, since limits come and go."""
        held = self._held.get(caller.name)
        if held is None and caller.quota.is_limited:
            if len(self._held) >= _CALLERS_MAX:
                self._forget_idle()
            held = self._held[caller.name] = _Held(self._now(), caller)
            for task in self._open_tasks():
                if task.spec.owner == caller.name:
                    held.set(task.spec.id, share_of(task.spec))
            held.looked_count = len(held.shares)
        if held is not None:
            held.caller = caller
        return held

    def _forget_idle(self) -> None:
        """Forget those that hold nothing any more: whoever comes again is counted anew."""
        for name, held in list(self._held.items()):
            self._look_again(held)
            if not held.shares:
                del self._held[name]

    def _check(self, caller: Caller, held: _Held, share: Share) -> None:
        # Those that ended are still counted: not for ever, also when nothing is limited by them.
        if self._excess(caller, held, share) or len(held.shares) > 2 * held.looked_count + 1000:
            self._look_again(held)
        if excess := self._excess(caller, held, share):
            raise Overloaded(f"{caller.called} {excess}", _RETRY_AFTER_S)

    def _excess(self, caller: Caller, held: _Held, share: Share) -> str:
        """Say which quota would be passed."""
        quota = caller.quota
        wanted = Share(*(a + b for a, b in zip(held.total, share, strict=True)))
        for name, limit, amount, what in (
            ("tasks_max", quota.tasks_max, wanted.tasks, "tasks"),
            ("runs_max", quota.runs_max, wanted.runs, "runs"),
            ("bytes_max", quota.bytes_max, wanted.size_bytes, "bytes"),
        ):
            if limit is not None and amount > limit:
                return f"may hold {limit} {what} of tasks that have not ended ({name}); with this it would be {amount}"
        return ""

    def _look_again(self, held: _Held) -> None:
        """Count what is left of a caller's tasks now."""
        now = self._now()
        if now - held.looked_at < _LOOK_AGAIN_S and held.looked_count:
            return
        for id, share in list(held.shares.items()):
            if id in held.being_added:
                continue
            task = self._task(id)
            if task is None or task.has_ended:
                held.set(id, None)
            else:
                held.set(id, share._replace(runs=task.spec.repeats - task.succeeded - task.failed))
        held.looked_at, held.looked_count = now, len(held.shares)
