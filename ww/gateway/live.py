"""What happens in the cluster, told to whoever listens.

Holds the sample that is made each second, and, while anybody listens, the topics (topic.py) that are followed for all
readers together. Must not know how it is sent: streams.py tells it over HTTP. Nothing is queued for a reader: it keeps
which version of each topic it has, and a slow one misses what was in between.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson

from ww import __version__
from ww.clock import Clock
from ww.cluster.heartbeat import Heartbeats
from ww.discovery.sources import Discovery
from ww.errors import StoreError
from ww.gateway.caller import Caller, Scope
from ww.gateway.history import History, Now
from ww.gateway.metrics import Metrics
from ww.gateway.neighbours import Members, Packets, Workers
from ww.gateway.scheduler import Scheduler
from ww.gateway.storage import Storage, TaskRow
from ww.gateway.task import Task
from ww.gateway.task_news import TaskNews
from ww.gateway.topic import Topic
from ww.gateway.watch import Watches

log = logging.getLogger("ww.gateway")

_SAMPLE_EVERY_S: Final = 1.0

Told = tuple[str, bytes]
"""An event and its data."""
Known = Task | TaskRow


class Node:
    """What is asked of the node that a gateway is."""

    def __init__(self, heartbeats: Heartbeats, discovery: Discovery) -> None:
        self.heartbeats = heartbeats
        self.discovery = discovery


class Live:
    """One gateway's."""

    def __init__(
        self,
        scheduler: Scheduler,
        store: Storage,
        clock: Clock,
        metrics: Metrics,
        *,
        about: Callable[[], Mapping[str, Any]],
        current: Callable[[TaskRow], Awaitable[Known]],
        summary: Callable[[Known], dict[str, Any]],
        node: Node | None = None,
    ) -> None:
        """about says who the gateway is, current what is known of a task now, summary how that looks as JSON.

        Without a node nothing is told of members and packets.
        """
        self.scheduler = scheduler
        self.clock = clock
        self.node = node
        self._store = store
        self._metrics = metrics
        self._about = about
        self._current = current
        self._summary = summary
        self._started = clock.wall()
        self.history = History(metrics.totals())
        self._following: _Following | None = None
        self._readers = 0

    @property
    def is_stopping(self) -> bool:
        """Whether nothing further will be told."""
        return self.scheduler.watches.is_closed

    # The sample.

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Make a sample each second while the context is open."""
        sampling = asyncio.create_task(self._sample_for_ever())
        try:
            yield
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)

    async def _sample_for_ever(self) -> None:
        due = self.clock.now()
        while True:
            due = max(due + _SAMPLE_EVERY_S, self.clock.now())
            await self.clock.sleep(due - self.clock.now())
            try:
                self.sample()
            except Exception:  # what is only shown must not end what is done
                log.exception("a second is not sampled")

    def sample(self) -> None:
        """Note what was done since this was last called."""
        self.history.add(self._metrics.totals(), self._now(), self.clock.wall())
        if self._following is not None:
            self._following.note_second()

    def _now(self) -> Now:
        scheduler = self.scheduler
        workers = scheduler.pool.workers()
        slots, free = sum(entry.info.slots for entry, _ in workers), sum(waiting for _, waiting in workers)
        return Now(scheduler.dispatcher.running, scheduler.queue_length(), len(workers), slots, free)

    # Readers.

    @asynccontextmanager
    async def following(self) -> AsyncIterator["_Following"]:
        """Listen: the topics are followed while anybody does."""
        self._readers += 1
        if self._following is None:
            tasks = TaskNews(self.scheduler, self._store, self.clock, current=self._current, summary=self._summary)
            self._following = _Following(self, tasks)
        following = self._following
        try:
            yield following
        finally:
            self._readers -= 1
            if not self._readers:
                self._following = None
                await following.close()

    def hello(self) -> bytes:
        """Return what a reader is told first."""
        about = self._about()
        said = {
            "gateway": about["peer"],
            "namespace": about["namespace"],
            "version": __version__,
            "started": round(self._started, 3),
            "now": round(self.clock.wall(), 3),
            "samples": list(self.history.samples),
        }
        return orjson.dumps(said)


class _Following:
    """The topics, while they are followed."""

    def __init__(self, live: Live, tasks: TaskNews) -> None:
        self.history = live.history
        self.tasks = tasks
        self.workers = Workers(live.scheduler.pool)
        self.members: Members | None = None
        self.packets: Packets | None = None
        self.tell = asyncio.Event()
        self._news = asyncio.Event()
        self._topics: list[Topic] = [self.tasks, self.workers]
        self._ends: list[Callable[[], object]] = []
        self._hear(live.scheduler.watches.listeners, self._on_task)
        self._hear(live.scheduler.on_workers, self.workers.touch)
        if live.node is not None:
            self.members = Members(live.node.heartbeats)
            self.packets = Packets(live.node.discovery, live.clock)
            self._topics += [self.members, self.packets]
            self._ends.append(self.packets.open())
        self._following = [asyncio.create_task(topic.follow(self.tell)) for topic in self._topics]
        self._following.append(asyncio.create_task(self._wake_for_ever()))
        self._following.append(asyncio.create_task(self._wake_at_the_end(live.scheduler.watches)))
        if self.members is not None:
            self._following.append(asyncio.create_task(self.members.listen()))

    def _hear(self, listeners: list[Any], listener: Any) -> None:
        listeners.append(listener)
        self._ends.append(lambda: listeners.remove(listener))

    def _on_task(self, id: str) -> None:
        self.tasks.note(id)
        self.workers.touch()

    def note_second(self) -> None:
        """Note that there is another sample."""
        self.tasks.note_second()
        self.workers.note_second()
        self.tell.set()

    async def _wake_for_ever(self) -> None:
        while True:
            await self.tell.wait()
            self.tell.clear()
            news, self._news = self._news, asyncio.Event()
            news.set()

    async def _wake_at_the_end(self, watches: Watches) -> None:
        with watches.open("") as watch:
            while not watch.is_closed:
                await watch.changes()
        self.tell.set()

    async def ready(self) -> None:
        """Wait until all topics were looked at."""
        for topic in self._topics:
            await topic.is_ready.wait()

    async def news(self, timeout_s: float) -> bool:
        """Wait until there is something new to tell; False when there was nothing for so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Follow nothing any more."""
        for end in self._ends:
            end()
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)


class ClusterReader:
    """What one reader is told of the cluster."""

    def __init__(self, live: Live, who: Callable[[], Caller | None]) -> None:
        """who says on whose behalf it listens by now; None: nobody's, any more."""
        self._live = live
        self._who = who
        self._versions = {"tasks": 0, "workers": 0, "members": 0, "packets": 0}
        self._samples = 0

    async def events(self, *, idle_s: float) -> AsyncGenerator[list[Told]]:
        """Give what is to be told, until the gateway stops or nobody may hear it; nothing when there was nothing for
        idle_s."""
        async with self._live.following() as following:
            self._samples = self._live.history.count
            yield [("hello", self._live.hello())]
            await following.ready()
            while not self._live.is_stopping and (caller := self._who()) is not None and caller.may(Scope.READ):
                if told := await self._next(following, caller):
                    yield told
                    del told
                elif not await following.news(idle_s):
                    yield []

    async def _next(self, following: _Following, caller: Caller) -> list[Told]:
        told = [("sample", orjson.dumps(sample)) for sample in following.history.since(self._samples)]
        self._samples = following.history.count
        try:
            self._take(told, "tasks", await following.tasks.since(self._versions["tasks"], caller))
        except StoreError as error:
            log.debug("a live page misses tasks for now: %s", error)
        self._take(told, "workers", following.workers.since(self._versions["workers"]))
        if following.members is not None:
            self._take(told, "members", following.members.since(self._versions["members"]))
        if following.packets is not None and caller.may(Scope.ADMIN):
            self._take(told, "packets", following.packets.since(self._versions["packets"]))
        return told

    def _take(self, told: list[Told], topic: str, news: tuple[int, bytes] | None) -> None:
        if news is not None:
            self._versions[topic], data = news
            if data:
                told.append((topic, data))
