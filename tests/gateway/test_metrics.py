"""The numbers, as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families

from ww.gateway.metrics import Histogram, Metrics


def read(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return each sample by its name and labels, as a reader of the text sees it."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        assert family.documentation
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_runs_attempts_and_commits_are_counted() -> None:
    metrics = Metrics()
    metrics.run_ended("succeeded", "", 0.2)
    metrics.run_ended("succeeded", "", 7.0)
    metrics.run_ended("failed", "trap", 0.0)
    metrics.attempt_ended("lost")
    metrics.dispatched(0.003)
    metrics.stored(5, 0.001)
    found = read(metrics)
    assert found["ww_runs_ended_total", (("reason", ""), ("state", "succeeded"))] == 2
    assert found["ww_runs_ended_total", (("reason", "trap"), ("state", "failed"))] == 1
    assert found["ww_attempts_ended_total", (("ending", "lost"),)] == 1
    assert found["ww_run_wall_seconds_count", ()] == 2
    assert found["ww_run_wall_seconds_sum", ()] == 7.2
    assert found["ww_dispatch_seconds_bucket", (("le", "0.0025"),)] == 0
    assert found["ww_dispatch_seconds_bucket", (("le", "0.005"),)] == 1
    assert found["ww_store_commit_rows_sum", ()] == 5
    assert found["ww_store_commit_seconds_bucket", (("le", "0.001"),)] == 1, "a bound is within"


def test_requests_are_counted_by_template_and_streams_have_no_duration() -> None:
    metrics = Metrics()
    metrics.leave_out_durations(["/ws"])
    metrics.request_ended("GET", "/tasks/{id}", 200, 0.01)
    metrics.request_ended("GET", "/ws", 101, 3600.0)
    for method in ("A", "B", "C"):
        metrics.request_ended(method, "", 404, 0.0)
    found = read(metrics)
    assert found["ww_http_requests_total", (("method", "GET"), ("route", "/tasks/{id}"), ("status", "200"))] == 1
    assert found["ww_http_requests_total", (("method", "other"), ("route", "other"), ("status", "404"))] == 3
    assert found["ww_http_request_seconds_count", (("route", "/tasks/{id}"),)] == 1
    assert ("ww_http_request_seconds_count", (("route", "/ws"),)) not in found


def test_what_others_know_is_asked_when_it_is_shown() -> None:
    metrics, asked = Metrics(), []
    metrics.gauge("queue", "Runs.", lambda: asked.append(1) or 3)
    metrics.gauges("slots", "Slots.", ("state",), lambda: {("free",): 1, ("all",): 2})
    metrics.counter("dropped", "Packets.", ("reason",), lambda: {("crc",): 4})
    metrics.before(lambda: asked.append(2))
    assert asked == []
    metrics.look()
    found = read(metrics)
    assert asked == [2, 1]
    assert found["ww_queue", ()] == 3
    assert found["ww_slots", (("state", "free"),)] == 1
    assert found["ww_dropped_total", (("reason", "crc"),)] == 4


def test_two_gateways_of_a_process_count_for_themselves() -> None:
    one, other = Metrics(), Metrics()
    one.attempt_ended("ok")
    assert ("ww_attempts_ended_total", (("ending", "ok"),)) not in read(other)


def test_a_histogram_has_all_in_its_last_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 99.0):
        histogram.observe(value)
    assert histogram.buckets() == ([("1.0", 2), ("2.0", 3), ("+Inf", 4)], 102.0)
