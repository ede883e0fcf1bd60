"""A group of runs in child processes, from its beginning to the last run's end.

Holds which runs have ended, which the child has, and which are not to begin any more; every run gets exactly one
outcome, whatever becomes of the children. Must not know who waits for them, nor which children there are: pool.py does.
A child runs what it is asked for in order, so what is known of it is how far it has come. Next in a task's life:
executor.py.
"""

import asyncio
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, Self

from ww import schema
from ww.errors import ClosedError, UsageError, WwError
from ww.records import read_outcomes, write_outcome, write_raw
from ww.sandbox.calls import Calls
from ww.sandbox.child import NONSENSE, Child, ChildDied, reading
from ww.sandbox.children import Children
from ww.sandbox.codec import check_artifacts, check_outcomes, line_of, read_spilled, write_run
from ww.sandbox.inputs import Inputs, Task
from ww.sandbox.invocation import Result, RunLimits
from ww.sandbox.nesting import Nesting
from ww.sandbox.patience import Patience

# A run that is not to go on ends its child when that does not come past it by itself within the first time, or, when it
# gets no processor, the second: runs that are shorter cost no process, and starting one takes more than they do.
_PASS_WITHIN_S, _PASS_AT_LAST_S = 0.05, 1.0
# How often in turn a module may be compiled anew without a run of it.
_MISSING_MAX: Final = 1
_CANCELLED: Final = Result(reason="cancelled")


class Outcomes(NamedTuple):
    """How further runs of a group ended."""

    records: bytes
    """See ww/records.py."""
    runs: int
    """How many they are of."""


class SandboxGroup:
    """Runs of one module, one after the other, each in an instance of its own: `async with` stops what is left."""

    def __init__(
        self,
        children: Children,
        digest: bytes,
        task: Task,
        inputs: Inputs,
        limits: RunLimits,
        compile_s: float = 0.0,
        calls: Calls | None = None,
    ) -> None:
        """Begin nothing yet. compile_s is how long the first run has waited for its module; calls answers what the only
        run calls."""
        self._children = children
        self._digest = digest
        self._task = task
        self._inputs = inputs
        self._limits = limits
        self._metered = limits.is_metered(task)
        self._compile_s = compile_s
        self._calls = calls
        self._nesting: Nesting | None = None
        self._came_at = time.monotonic()
        self._ready: list[Outcomes] = []
        self._next = 0
        """The first place without an outcome."""
        self._withdrawn: set[int] = set()
        """Later places that have one: they are not asked for."""
        self._asked = range(0)
        """What the child was asked for."""
        self._cancelled: set[int] = set()
        """Of that, what is not to begin any more, or to stop."""
        self._alone = False
        """Whether a run has ended a child, and which is to be found out."""
        self._missing = 0
        self._failure: WwError | None = None
        """Why the inputs that are not here will not be."""
        self._woken: asyncio.Future[Child | None] | None = None
        """What is waited for while there is no child."""
        self._child: Child | None = None
        self._written: tuple[range, Any, Sequence[bytes]] | None = None
        """What is to be asked next."""
        self._request: Any = None
        self._has_spilled = False
        self._has_sent_artefact = False
        self._turns = 0
        self._patience = Patience(limits, children.limits.kill_grace_s)
        self._patience_s = 0.0
        self._patient_since = 0.0
        self._begun_at = 0.0
        self._passing: asyncio.TimerHandle | None = None

    @property
    def is_done(self) -> bool:
        """Whether every run has its outcome, though not all may have been given."""
        return self._next >= len(self._inputs)

    @property
    def next_place(self) -> int:
        """The first place without an outcome."""
        return self._next

    def has_ended(self, place: int) -> bool:
        """Whether the run at a place has its outcome."""
        return place < self._next or place in self._withdrawn

    async def outcomes(self) -> list[Outcomes]:
        """Wait for further runs to end; return how they did, nothing once all were given. May be cancelled and called
        again.

        Raises UsageError when guests cannot be given the inputs, BadModule when the module does not compile, WwError
        when its bytes are not in the cache any more.
        """
        while not self._ready and not self.is_done:
            if self._child is None:
                await self._begin()
            else:
                await self._listen(self._child)
        return self.take()

    def take(self) -> list[Outcomes]:
        """Return how runs ended that nobody was told of, without waiting."""
        ready, self._ready = self._ready, []
        return ready

    def cancel(self, places: Iterable[int] = ()) -> None:
        """Stop the runs at those places, or all. Those that have ended are left as they are, what has not begun never
        will; `take` has their outcomes at once, or `outcomes` when the child has come past them."""
        marked: list[int] = []
        for place in set(places) or range(self._next, len(self._inputs)):
            if not self._next <= place < len(self._inputs) or place in self._withdrawn:
                continue
            if place in self._asked:
                if place not in self._cancelled:
                    marked.append(place)
            else:
                self._withdraw(place)
        if marked:
            self._cancelled.update(marked)
            if self._child is not None and self._child.files is not None:
                # Taken back when another group begins.
                self._child.is_marked = True
                self._child.files.mark(marked)
            self._see_past()
        self._advance()
        if self._ready:
            self._wake()

    def put(self, place: int, record: bytes) -> None:
        """Have the input that is by reference at that place. UsageError when it gives a guest more than it may have."""
        self._inputs.put(place, record)
        try:
            self._inputs.check(self._task, self._children.limits.input_bytes_max, (place,))
        except UsageError:
            self._inputs.take_back(place)
            raise
        self._wake()

    def fail(self, error: WwError) -> None:
        """Say why no more inputs will be put: `outcomes` raises it when it comes to them."""
        self._failure = error
        self._wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop what is left, and give the child back."""
        self.cancel()
        try:
            while self._child is not None:
                await self._listen(self._child)
        except WwError:
            pass  # nobody is left to be told
        finally:
            if self._child is not None:
                self._child.kill()
                self._release()

    # How far it has come.

    def _give(self, place: int, result: Result) -> None:
        queue_s = 0.0 if result is _CANCELLED else max(0.0, self._begun_at - self._came_at)
        record = write_outcome(place, result, memory_limit_bytes=self._limits.memory_bytes, queue_s=queue_s)
        self._ready.append(Outcomes(record, 1))

    def _withdraw(self, place: int) -> None:
        self._give(place, _CANCELLED)
        self._withdrawn.add(place)

    def _advance(self, count: int = 0) -> None:
        """Note that so many runs more have their outcome."""
        self._next += count
        while self._next in self._withdrawn:
            self._withdrawn.remove(self._next)
            self._next += 1

    def _left(self) -> range:
        """Return the places to ask for."""
        start = self._next
        stop = min(min(self._withdrawn, default=len(self._inputs)), self._inputs.here_from(start))
        return range(start, min(stop, start + 1) if self._alone else stop)

    def _see_past(self) -> None:
        """End the child when it does not come past a run that is not to go on."""
        if self._passing is None and self._child is not None and self._next in self._cancelled:
            self._look_past(self._next, self._child, self._child.processor_s(), time.monotonic() + _PASS_AT_LAST_S)

    def _look_past(self, *at: Any) -> None:
        self._passing = asyncio.get_running_loop().call_later(_PASS_WITHIN_S, self._end_if_at, *at)

    def _end_if_at(self, place: int, child: Child, used_s: float, until: float) -> None:
        self._passing = None
        if child is not self._child or self._next != place:
            self._see_past()
        elif time.monotonic() < until and child.is_held_up(used_s):
            self._look_past(place, child, used_s, until)
        else:
            child.kill()

    # What is asked.

    def prepare(self) -> None:
        """Write down what is to be asked next, while the child is another's. Idempotent."""
        places = self._left()
        if places and (self._written is None or self._written[0] != places):
            request = schema.sandbox.Request.new_message()
            run = request.init("run")
            spilled = write_run(run, self._digest, self._metered, self._limits, self._task, self._inputs, places)
            self._written = places, request, spilled

    async def _begin(self) -> None:
        """Have a child begin what is left, unless something else is to be told of first."""
        if not self._left():
            await self._wait_for_inputs()
            return
        self.prepare()
        child = await self._take()
        if child is None:
            return
        assert self._written is not None
        (places, request, spilled), self._written = self._written, None
        if places != self._left():  # some were withdrawn in that very moment
            self._children.release(child, 0)
            return
        run = request.run
        self._child, self._asked, self._request, self._has_spilled = child, places, request, bool(spilled)
        self._has_sent_artefact, self._turns = False, 0
        if self._calls is not None:
            self._nesting, run.hasCalls = Nesting(self._calls, self._children, child), True
        try:
            await self._ask(child, run, spilled)
        except ChildDied as death:
            await self._lost(child, death)
        except BaseException:
            child.kill()
            raise

    async def _wait_for_inputs(self) -> None:
        """Wait for the next run's, or until something else is to be told of first."""
        if self._failure is not None:
            raise self._failure
        woken = self._woken = asyncio.get_running_loop().create_future()
        try:
            await woken
        finally:
            self._woken = None

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def _take(self) -> Child | None:
        taking = self._woken = self._children.wait_for_child()
        try:
            return await taking
        except asyncio.CancelledError:
            if not taking.cancelled() and (child := taking.result()) is not None:
                self._children.release(child, 0)
            elif not asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise ClosedError("the sandbox is closed") from None
            raise
        finally:
            self._woken = None

    async def _ask(self, child: Child, run: Any, spilled: Sequence[bytes]) -> None:
        assert child.files is not None
        if child.is_marked:
            child.files.unmark()
            child.is_marked = False
        if spilled:
            await child.files.put(spilled)
        self._patience_s = self._patience.first_s(has_code=self._task.has_code)
        self._begun_at = self._patient_since = time.monotonic()
        run.queuedSeconds = self._begun_at - self._came_at
        run.compileSeconds, self._compile_s = self._compile_s, 0.0
        child.send(self._request)

    # What is answered.

    async def _listen(self, child: Child) -> None:
        """Take one reply."""
        try:
            data = await child.reply(self._left_s)
            try:
                await self._read(child, data)
            except asyncio.CancelledError:
                child.kill()  # the reply is lost
                raise
        except TimeoutError:
            detail = f"ran for {self._ran_s:.3f} s, it may for {self._limits.duration_s:g} s"
            child.kill()
            await self._lost(child, None, Result(reason="deadline", detail=detail, wall_s=self._ran_s))
        except ChildDied as death:
            await self._lost(child, death)
        self._see_past()

    @property
    def _left_s(self) -> float:
        """How long to wait for the next reply. One that calls says much before its only run ends, at whatever rate."""
        if self._nesting is None:
            return self._patience_s
        left_s = self._patient_since + self._patience_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    @property
    def _ran_s(self) -> float:
        return time.monotonic() - self._begun_at

    async def _read(self, child: Child, data: bytes) -> None:
        with reading(data) as reply:
            kind = str(reply.which())
            if kind == "outcomes":
                await self._collect(child, reply.outcomes)
            elif kind in ("begins", "packs") and self._turns < 2 * len(self._asked):
                self._turns += 1
                self._patience_s = self._patience.run_s if kind == "begins" else self._patience.files_s
                self._patient_since = time.monotonic()
            elif kind == "call" and self._nesting is not None:
                self._nesting.call(reply.call)
            elif kind == "blocked" and self._nesting is not None:
                self._nesting.wait(reply.blocked)
            elif kind == "stuck":
                await self._give_up(child, bytes(reply.stuck.records))
            elif kind == "wanted" and not self._has_sent_artefact:
                self._has_sent_artefact = child.has_loaded = True
                if not self._send_artefact(child):
                    await self._compile_anew()
            elif kind == "missing" and self._has_sent_artefact and self._next == self._asked.start:
                await self._compile_anew()
            elif kind == "full" and self._next > self._asked.start:
                self._end_at(None)
            elif kind == "refused" and self._next == self._asked.start:
                said = line_of(reply.refused)
                self._release()
                raise UsageError(said)
            else:
                raise ChildDied("it answers another question")

    async def _collect(self, child: Child, outcomes: Any) -> None:
        left = range(self._next, self._asked.stop)
        records, limits = outcomes.records, self._limits
        count = check_outcomes(records, left, limits)
        spilled = outcomes.spilled
        if spilled or limits.artifact_count:
            ready = await self._complete(child, records, spilled, left[:count])
        else:
            ready = [Outcomes(records, count)]
        self._ready += ready
        self._missing = 0
        if self._cancelled:
            self._cancelled.difference_update(left[:count])
        if count == len(left):
            # Before who waits for the outcomes: the child may do the next one's meanwhile.
            self._release()
        self._advance(count)

    async def _complete(self, child: Child, records: bytes, spilled: bytes, places: range) -> list[Outcomes]:
        """Put what lies in files where it belongs, and look at artifacts."""
        where = read_spilled(spilled, places, self._limits)
        assert child.files is not None
        fetched = dict(zip(where, await child.files.fetch(list(where.values())), strict=True))
        ready: list[Outcomes] = []
        for raw in read_outcomes(records):
            more = fetched.get(raw.place)
            if more is not None:
                raw = raw._replace(
                    stdout=more.stdout or raw.stdout,
                    stderr=more.stderr or raw.stderr,
                    artifacts=more.artifacts or raw.artifacts,
                )
            if raw.artifacts:
                check_artifacts(raw.artifacts, self._limits)
            ready.append(Outcomes(write_raw(raw), 1))
        return ready

    async def _give_up(self, child: Child, record: bytes) -> None:
        """Take the outcome of a run that hears nothing, whose process has to end."""
        place = self._next
        check_outcomes(record, range(place, place + 1), self._limits)
        if read_outcomes(record)[0].reason == 0:
            raise ChildDied(NONSENSE)
        child.kill()
        await self._children.end(child)
        if place in self._cancelled:
            self._give(place, _CANCELLED)
        else:
            self._ready.append(Outcomes(record, 1))
        self._end_at(place)

    def _send_artefact(self, child: Child) -> bool:
        try:
            artefact = self._children.open_artefact(self._digest, self._metered)
        except OSError:
            return False
        try:
            self._request.clear_write_flag()  # pycapnp warns of a second to_bytes
            child.send(self._request, (artefact,))
        finally:
            os.close(artefact)
        return True

    async def _compile_anew(self) -> None:
        """Have the module compiled once more: its compiled form is gone or damaged."""
        self._end_at(None)
        if self.is_done:
            return
        self._missing += 1
        if self._missing > _MISSING_MAX:
            raise WwError("the module's compiled form does not stay on disk")
        self._compile_s += await self._children.prepare_anew(self._digest, self._metered)

    # When a child is given back, or has ended.

    async def _lost(self, child: Child, death: ChildDied | None, late: Result | None = None) -> None:
        """Give an outcome to the run that ended the child, if it is known to have."""
        how = await self._children.end(child)
        place = self._next
        if place in self._cancelled:
            self._give(place, _CANCELLED)
            self._end_at(place)
        elif len(self._asked) == 1:
            # What ends a child is asked for alone, so that it ends nobody else's run.
            crash = Result(reason="crash", detail=f"the sandbox process died ({how or death})")
            self._give(place, late or crash)
            self._alone = False
            self._end_at(place)
        else:
            self._alone = True
            self._end_at(None)

    def _end_at(self, place: int | None) -> None:
        """Have the child no more, after the run at that place, if any, had its outcome; of what is left, what is not to
        begin never will."""
        cancelled = sorted(self._cancelled)
        self._release()
        if place is not None:
            self._advance(1)
        for other in cancelled:
            if other >= self._next:
                self._withdraw(other)
        self._advance()

    def _release(self) -> None:
        """Have the child no more."""
        child, self._child = self._child, None
        runs, self._asked = len(self._asked), range(0)
        if self._passing is not None:
            self._passing.cancel()
            self._passing = None
        if self._nesting is not None:
            self._nesting.close()
            self._nesting = None
        if child is None:
            return
        if child.files is not None and child.is_alive and self._has_spilled:
            child.files.drop_input()
        self._request = None
        self._cancelled.clear()
        self._children.release(child, runs)
