"""Following events: however their bytes are cut, whatever breaks in between, each ended run is told once."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.steps import REFUSED, problem
from ww.client.answer import Event, Task, read_as
from ww.client.call import Answer, Contact, Failure, Retry
from ww.client.stream import EventStream, Lines
from ww.errors import NotFound, Overloaded, PeerError

TEXT = (
    b": hello\n\nevent: task\nid: 0\ndata: {\ndata: }\n\n:\r\nevent:run\r\nid:12\r\ndata:x\r\n\r\n"
    b"data: y\rretry: 7\runknown\r\r\nevent: lost\n\ndata\n\n"
)
EVENTS = [None, ("task", "0", "{\n}"), None, ("run", "12", "x"), ("message", None, "y"), ("message", None, "")]


@given(st.lists(st.integers(0, len(TEXT)), max_size=8))
def test_bytes_may_be_cut_anywhere(cuts: list[int]) -> None:
    lines = Lines()
    places = [0, *sorted(cuts), len(TEXT)]
    found = [event for start, end in itertools.pairwise(places) for event in lines.feed(TEXT[start:end])]
    assert found == EVENTS


def test_an_event_is_bounded() -> None:
    for piece in (b"data: " + b"x" * 100, b"data: x\n" * 20):
        lines = Lines(100)
        with pytest.raises(PeerError, match="more than 100 bytes"):
            lines.feed(piece)
    lines = Lines(100)
    for _ in range(100):
        lines.feed(b": comment\ndata: x\n\n")


def event(name: str, position: int | None, **said: Any) -> bytes:
    where = "" if position is None else f"id: {position}\n"
    return f"event: {name}\n{where}data: {json.dumps(said)}\n\n".encode()


def task(status: str, position: int = 0, **said: Any) -> bytes:
    return event("task", position, id="t", status=status, **said)


def run(number: int, position: int, state: str = "succeeded", **said: Any) -> bytes:
    return event("run", position, run=number, state=state, **said)


def stream(after: int | str | None = None, retries: int = 2) -> EventStream:
    return EventStream("t", after, Contact(Retry(retries=retries, chance=lambda: 1.0)))


def told(events: list[Event]) -> list[str]:
    return [e.task.status if e.task else f"{e.run.run} {e.run.state}" for e in events if e.task or e.run]


def test_a_stream_to_its_end() -> None:
    s = stream()
    assert (s.call().path, s.call().query, "Last-Event-ID" in s.call().headers) == ("/tasks/t/events", {}, False)
    events = s.feed(task("queued") + run(0, 0, "running", worker="w", attempt=2) + run(0, 5) + task("succeeded", 5))
    assert told(events) == ["queued", "0 running", "0 succeeded", "succeeded"]
    assert [e.position for e in events] == [0, 0, 5, 5]
    assert events[1].run is not None
    assert (events[1].run.worker, events[1].run.attempts) == ("w", 2)
    assert s.is_over


def test_a_resume_goes_on_where_it_was() -> None:
    s = stream()
    s.feed(task("running") + run(0, 5) + run(1, 6)[:-1])
    s.failed(REFUSED)
    assert s.pause_s() == pytest.approx(0.1)
    assert s.call().headers["Last-Event-ID"] == "5", "what was cut off was not told"
    events = s.feed(task("running", 5) + run(1, 6) + task("succeeded", 6))
    assert told(events) == ["1 succeeded", "succeeded"], "the task as it was before is not told again"


def test_where_to_begin() -> None:
    assert stream(7).call().headers["Last-Event-ID"] == "7"
    assert stream("now").call().query == {"after": "now"}


def test_what_newer_gateways_tell_is_ignored() -> None:
    assert told(stream().feed(event("weather", None, rain=True) + task("queued", colour=3))) == ["queued"]


def test_retries_without_progress_are_bounded() -> None:
    s = stream()
    for pause_s in (0.1, 0.2):
        s.call()
        s.failed(REFUSED)
        assert s.pause_s() == pytest.approx(pause_s)
    s.call()
    s.failed(REFUSED)
    with pytest.raises(PeerError, match="refused"):
        s.pause_s()


def test_a_stream_that_says_the_same_again_and_again_is_no_progress() -> None:
    s = stream()
    for _ in range(2):
        s.call()
        s.feed(task("queued"))
        s.pause_s()
    s.call()
    s.feed(task("queued"))
    with pytest.raises(PeerError, match="again and again"):
        s.pause_s()


@pytest.mark.parametrize("piece", [b": still here\n", run(0, 1), task("running")])
def test_progress_allows_for_more(piece: bytes) -> None:
    s = stream()
    for _ in range(2):
        s.failed(REFUSED)
        s.pause_s()
    s.feed(piece)
    s.failed(REFUSED)
    assert s.pause_s() == pytest.approx(0.1)


def test_refusals() -> None:
    with pytest.raises(NotFound):
        stream().refused(problem(404, "not_found"))
    with pytest.raises(PeerError, match="expected text/event-stream"):
        stream().refused(Answer(200, {}, b"{}"))
    with pytest.raises(PeerError, match="not trusted"):
        stream().failed(Failure(PeerError("not trusted"), is_final=True))
    s = stream()
    for _ in range(2):
        s.call()
        s.refused(problem(429, "overloaded", "too many streams", retry_after="3"))
        assert s.pause_s() >= 3
    s.refused(problem(429, "overloaded", "too many streams", retry_after="3"))
    with pytest.raises(Overloaded, match="too many streams"):
        s.pause_s()


def test_an_end_that_was_missed_is_asked_for() -> None:
    s = stream()
    s.feed(task("running") + run(0, 5))
    s.refused(Answer(204, {}))
    assert (s.is_over, s.lacks_end) == (False, True)
    last = s.end(read_as(Task, {"id": "t", "status": "succeeded"}))
    assert last is not None
    assert told([last]) == ["succeeded"]
    assert (s.is_over, s.lacks_end) == (True, False)


def test_an_end_that_was_told_is_not() -> None:
    s = stream()
    s.feed(task("running") + run(0, 5) + task("succeeded", 5))
    s.refused(Answer(204, {}))
    assert (s.is_over, s.lacks_end) == (True, False)


@pytest.mark.parametrize("piece", [b"event: task\ndata: {\n\n", b"event: run\ndata: []\n\n"])
def test_what_is_no_gateways(piece: bytes) -> None:
    with pytest.raises(PeerError, match="no gateway's"):
        stream().feed(piece)
