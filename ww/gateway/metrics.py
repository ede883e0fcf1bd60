"""The gateway in numbers, for Prometheus.

Holds counters that others add to, in well under a microsecond each, and functions that are asked when the numbers are.
Must not know HTTP, nor what is counted. Plain numbers: prometheus_client's own take a lock for each addition, and are
made of these only when somebody looks.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG_SECONDS: Final = (*_SECONDS, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21_600.0)
# Of latencies: eleven steps a decade and those that are shown, which percentiles of one second are told by.
LATENCY_BOUNDS_S: Final = tuple(sorted({*_LONG_SECONDS, *(float(f"{10 ** (n / 11):.3g}") for n in range(-55, 49))}))
_ROWS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

Labels = tuple[str, ...]
Numbers = Mapping[Labels, float]


class Histogram:
    """How many of what was observed lay below each bound."""

    __slots__ = ("_bounds", "_counts", "_shown", "_sum")

    def __init__(self, bounds: tuple[float, ...], shown: tuple[float, ...] = ()) -> None:
        """Count by those bounds; Prometheus is shown some of them, or all."""
        self._bounds = bounds
        self._shown = frozenset(shown or bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count so many of that value."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Return the numbers below each bound, as Prometheus has them, and the sum of what was observed."""
        total = 0
        found: list[tuple[str, float]] = []
        for bound, count in zip(self._bounds, self._counts, strict=False):
            total += count
            if bound in self._shown:
                found.append((repr(bound), total))
        return [*found, ("+Inf", total + self._counts[-1])], self._sum

    def counts(self) -> tuple[int, ...]:
        """Return how many were counted in each bucket; the last one is for what lay above all bounds."""
        return tuple(self._counts)


class Totals(NamedTuple):
    """What has been counted since the gateway started."""

    ended: int
    """Runs."""
    failed: int
    requests: int
    dispatch: tuple[int, ...]
    """Runs by how long they waited, in the buckets of LATENCY_BOUNDS_S."""
    wall: tuple[int, ...]
    """Runs by how long they took, likewise."""


class Metrics:
    """All numbers of one gateway."""

    def __init__(self) -> None:
        self._runs: dict[Labels, float] = {}
        self._attempts: dict[Labels, float] = {}
        self._requests: dict[Labels, float] = {}
        self._request_seconds: dict[str, Histogram] = {}
        self._dispatch = Histogram(LATENCY_BOUNDS_S, _LONG_SECONDS)
        self._wall = Histogram(LATENCY_BOUNDS_S, _LONG_SECONDS)
        self._commit_seconds = Histogram(_SECONDS)
        self._commit_rows = Histogram(_ROWS)
        self._looks: list[Callable[[], None]] = []
        self._asked: list[Callable[[], Metric]] = []
        self._streamed: frozenset[str] = frozenset()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(self))

    # What the scheduler and the store tell, from whichever thread: each number has one that adds to it.

    def run_ended(self, state: str, reason: str, wall_s: float) -> None:
        """Count a run that has its final state; wall_s is how long its guest ran, 0 when none did."""
        key = (state, reason)
        self._runs[key] = self._runs.get(key, 0) + 1
        if wall_s > 0:
            self._wall.observe(wall_s)

    def attempt_ended(self, ending: str, count: int = 1) -> None:
        """Count attempts by how they ended: ok, guest (it failed), lost, crash or another word."""
        key = (ending,)
        self._attempts[key] = self._attempts.get(key, 0) + count

    def dispatched(self, waited_s: float, count: int = 1) -> None:
        """Note that runs were given to a worker together, waited_s after the first of them was due."""
        self._dispatch.observe(waited_s, count)

    def stored(self, rows: int, seconds: float) -> None:
        """Note that a commit put that many rows on disk."""
        self._commit_rows.observe(rows)
        self._commit_seconds.observe(seconds)

    # What HTTP tells.

    def request_ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; route is its path's template, empty when nothing is there."""
        if method not in _METHODS:
            method = "other"  # a stranger's word: it must not make numbers of its own
        key = (method, route or "other", str(status))
        self._requests[key] = self._requests.get(key, 0) + 1
        if route in self._streamed:
            return
        histogram = self._request_seconds.get(key[1])
        if histogram is None:
            histogram = self._request_seconds[key[1]] = Histogram(_SECONDS)
        histogram.observe(seconds)

    def leave_out_durations(self, routes: Iterable[str]) -> None:
        """Say which routes last as long as their clients listen."""
        self._streamed = frozenset(routes)

    # What is asked when the numbers are.

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Show what read returns."""

        def ask() -> Metric:
            return GaugeMetricFamily(f"ww_{name}", help, value=read())

        self._asked.append(ask)

    def gauges(self, name: str, help: str, labels: Labels, read: Callable[[], Numbers]) -> None:
        """Show what read returns, by values of those labels."""
        self._asked.append(lambda: _fill(GaugeMetricFamily(f"ww_{name}", help, labels=labels), read()))

    def counter(self, name: str, help: str, labels: Labels, read: Callable[[], Numbers]) -> None:
        """Show what read returns, numbers that only grow, by values of those labels."""
        self._asked.append(lambda: _fill(CounterMetricFamily(f"ww_{name}", help, labels=labels), read()))

    def before(self, look: Callable[[], None]) -> None:
        """Have look called, in a thread, before the numbers are shown: for what a disk has to be asked."""
        self._looks.append(look)

    def look(self) -> None:
        """Ask what takes its time; from a thread."""
        for look in self._looks:
            look()

    def totals(self) -> Totals:
        """Return what has been counted; from the loop."""
        failed = sum(number for (state, _), number in self._runs.items() if state == "failed")
        ended, requests = sum(self._runs.values()), sum(self._requests.values())
        return Totals(int(ended), int(failed), int(requests), self._dispatch.counts(), self._wall.counts())

    def render(self) -> bytes:
        """Return all numbers in Prometheus's text form."""
        return generate_latest(self._registry)

    def families(self) -> Iterator[Metric]:
        """Return all numbers."""
        runs = CounterMetricFamily("ww_runs_ended", "Runs that have their final state.", labels=("state", "reason"))
        yield _fill(runs, self._runs)
        attempts = CounterMetricFamily("ww_attempts_ended", "Attempts, by how they ended.", labels=("ending",))
        yield _fill(attempts, self._attempts)
        waited = "From being due to being given to a worker."
        yield _histogram("ww_dispatch_seconds", waited, {(): self._dispatch})
        yield _histogram("ww_run_wall_seconds", "How long guests ran.", {(): self._wall})
        yield _histogram("ww_store_commit_seconds", "Commits, until they were on disk.", {(): self._commit_seconds})
        yield _histogram("ww_store_commit_rows", "Rows of a commit.", {(): self._commit_rows})
        labels = ("method", "route", "status")
        yield _fill(CounterMetricFamily("ww_http_requests", "HTTP requests.", labels=labels), self._requests)
        by_route: dict[Labels, Histogram] = {(route,): histogram for route, histogram in self._request_seconds.items()}
        until_sent = "HTTP requests, until their answer was sent; streams are left out."
        yield _histogram("ww_http_request_seconds", until_sent, by_route, ("route",))
        for ask in self._asked:
            yield ask()


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH", "WS"})


class _Collector:
    """What prometheus_client's registry asks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return self._metrics.families()


def _fill(family: "CounterMetricFamily | GaugeMetricFamily", numbers: Numbers) -> Metric:
    for labels, number in list(numbers.items()):
        family.add_metric(labels, number)
    return family


def _histogram(name: str, help: str, histograms: Mapping[Labels, Histogram], labels: Labels = ()) -> Metric:
    family = HistogramMetricFamily(name, help, labels=labels)
    for values, histogram in list(histograms.items()):
        buckets, total = histogram.buckets()
        family.add_metric(values, buckets=buckets, sum_value=total)
    return family
