"""Following results: however their lines are cut, whatever breaks in between, each is told once and none is missing."""

import itertools
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.steps import REFUSED, problem
from ww.client import AsyncClient, Client, Retry
from ww.client.answer import Task, read_as
from ww.client.call import Answer, Contact
from ww.client.results import Order, ResultStream
from ww.errors import NotFound, Overloaded, PeerError, UsageError

pytestmark = pytest.mark.anyio


def line(position: int, run: int | None = None, **said: Any) -> bytes:
    number = position if run is None else run
    return json.dumps({"run": number, "state": "succeeded", "position": position, **said}).encode() + b"\n"


def stream(order: Order = "completion", after: int | None = None, retries: int = 2) -> ResultStream:
    return ResultStream("t", order, after, Contact(Retry(retries=retries, chance=lambda: 1.0)))


def task(status: str, repeats: int = 3) -> Task:
    return read_as(Task, {"id": "t", "status": status, "repeats": repeats})


LINES = line(3, 0, name="a", stdout="x") + b"\n" + line(5, 2) + line(9, 1)


@given(st.lists(st.integers(0, len(LINES)), max_size=8))
def test_lines_may_be_cut_anywhere(cuts: list[int]) -> None:
    s = stream()
    places = [0, *sorted(cuts), len(LINES)]
    found = [result for start, end in itertools.pairwise(places) for result in s.feed(LINES[start:end])]
    assert [(result.run, result.position, result.name) for result in found] == [(0, 3, "a"), (2, 5, ""), (1, 9, "")]


def test_a_stream_to_its_end() -> None:
    s = stream()
    assert (s.call().path, s.call().query) == ("/tasks/t/results", {"order": "completion", "follow": "true"})
    s.feed(LINES)
    s.closed()
    assert (s.is_over, s.lacks_end) == (False, True)
    s.end(task("succeeded"))
    assert s.is_over


def test_a_resume_goes_on_where_it_was() -> None:
    s = stream()
    s.call()
    s.feed(LINES[:-5])
    s.failed(REFUSED)
    assert s.pause_s() == pytest.approx(0.1)
    assert s.call().query["after"] == "5", "what was cut off was not told"
    assert [result.run for result in s.feed(line(5, 2) + line(9, 1))] == [1], "nothing is told twice"


def test_in_the_order_of_input_it_goes_on_from_the_run() -> None:
    s = stream("input", after=4)
    assert s.call().query == {"order": "input", "follow": "true", "after": "4"}
    s.feed(line(90, 5) + line(3, 6))
    s.failed(REFUSED)
    assert s.call().query["after"] == "6"


def test_a_gateway_that_stops_is_not_the_end() -> None:
    s = stream()
    s.feed(line(1))
    s.closed()
    s.end(task("running"))
    assert not s.is_over
    assert s.pause_s() > 0
    s.call()
    s.feed(line(2))
    s.closed()
    s.end(task("cancelled"))
    assert not s.is_over, "one that was cancelled may have more results than were told, or never get them"
    assert s.pause_s() == 0
    assert s.call().query["after"] == "2"
    s.closed()
    assert s.is_over


def test_nothing_before_the_first() -> None:
    assert stream(after=-1).call().query == {"order": "completion", "follow": "true"}
    assert stream(after=0).call().query["after"] == "0"


def test_retries_without_progress_are_bounded_and_a_sign_of_life_is_progress() -> None:
    s = stream()
    for _ in range(3):
        s.failed(REFUSED)
        assert s.pause_s() == pytest.approx(0.1)
        s.feed(b"\n")
    for pause_s in (0.1, 0.2):
        s.failed(REFUSED)
        assert s.pause_s() == pytest.approx(pause_s)
    s.failed(REFUSED)
    with pytest.raises(PeerError, match="refused"):
        s.pause_s()


def test_refusals() -> None:
    with pytest.raises(NotFound):
        stream().refused(problem(404, "not_found"))
    with pytest.raises(PeerError, match="expected application/x-ndjson"):
        stream().refused(Answer(200, {}, b"{}"))
    s = stream(retries=0)
    s.refused(problem(429, "overloaded", "too many streams", retry_after="3"))
    with pytest.raises(Overloaded, match="too many streams"):
        s.pause_s()
    for wrong in ({"order": "random"}, {"after": "7"}, {"after": True}):
        with pytest.raises(UsageError):
            stream(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("piece", [b"{\n", b"[]\n", b'{"run": "x", "state": "succeeded"}\n'])
def test_what_is_no_gateways(piece: bytes) -> None:
    with pytest.raises(PeerError, match="no gateway's"):
        stream().feed(piece)


class Gateway:
    """Gives three results, each over a connection of its own."""

    def __init__(self) -> None:
        self.queries: list[dict[str, str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/tasks/t":
            return httpx.Response(200, json={"id": "t", "status": "succeeded", "repeats": 3})
        self.queries.append(dict(request.url.params))
        done = int(self.queries[-1].get("after", 0))
        lines = [line(n, n - 1) for n in range(done + 1, min(done + 1, 3) + 1)]
        return httpx.Response(200, content=b"".join(lines), headers={"Content-Type": "application/x-ndjson"})


async def test_both_shells_come_to_the_end() -> None:
    gateway = Gateway()
    retry = Retry(retries=1, first_s=0)
    with Client(transport=httpx.MockTransport(gateway), retry=retry) as it:
        assert [result.run for result in it.stream("t")] == [0, 1, 2]
        assert [result.run for result in it.stream("t", after=1)] == [1, 2]
    assert [query.get("after") for query in gateway.queries] == [None, "1", "2", "1", "2", "3"], (
        "of what was begun in the middle the end is told by nothing more"
    )

    async with AsyncClient(transport=httpx.MockTransport(Gateway()), retry=retry) as later:
        assert [result.run async for result in later.stream("t")] == [0, 1, 2]
