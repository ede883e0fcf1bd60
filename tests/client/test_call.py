"""When a call is made again, and which error an answer is."""

import pytest

from tests.client.steps import REFUSED, Script, answer, problem
from ww.client.call import Answer, Call, Contact, Failure, Retry, error_of
from ww.errors import (
    BadModule,
    Conflict,
    NotAllowed,
    NotFound,
    Overloaded,
    PeerError,
    RemoteError,
    StoreError,
    UsageError,
    WwError,
)

GET = Call("GET", "/tasks")
CERTAIN = Retry(retries=3, chance=lambda: 1.0)
BUSY = problem(429, "overloaded", retry_after="2")


@pytest.mark.parametrize(
    ("first", "pauses"),
    [
        ([], []),
        ([REFUSED], [0.1]),
        ([REFUSED, REFUSED, REFUSED], [0.1, 0.2, 0.4]),
        ([BUSY, REFUSED], [2.1, 0.2]),
        ([problem(503, "store", retry_after="1")], [1.1]),
        ([problem(503, "overloaded", retry_after="Fri, 01 Jan 2027 00:00:00 GMT")], [1.1]),
        ([Answer(502, {}), Answer(504, {})], [0.1, 0.2]),
        ([problem(429, "overloaded", retry_after="99999")], [60.1]),
    ],
)
def test_what_may_pass_is_tried_again(first: list[Answer | Failure], pauses: list[float]) -> None:
    script = Script(*first, answer(200, []))
    assert script.run(Contact(CERTAIN).ask(GET)).status == 200
    assert script.pauses == pytest.approx(pauses)
    assert script.calls == [GET] * (len(first) + 1)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 409, 413, 422, 500, 501, 503])
def test_what_will_not_pass_is_not(status: int) -> None:
    script = Script(problem(status, "x"))
    assert script.run(Contact(CERTAIN).ask(GET)).status == status


def test_the_number_of_retries_is_bounded() -> None:
    with pytest.raises(PeerError, match="refused"):
        (script := Script(*[REFUSED] * 4)).run(Contact(CERTAIN).ask(GET))
    assert len(script.pauses) == 3
    assert Script(*[BUSY] * 4).run(Contact(CERTAIN).ask(GET)) is BUSY


def test_what_ends_the_same_each_time_is_not_tried_again() -> None:
    with pytest.raises(PeerError, match="not trusted"):
        Script(Failure(PeerError("not trusted"), is_final=True)).run(Contact(CERTAIN).ask(GET))


def test_a_gateway_that_never_answered_is_tried_less_often() -> None:
    contact = Contact(Retry(retries=3, first_retries=1))
    with pytest.raises(PeerError):
        Script(REFUSED, REFUSED).run(contact.ask(GET))
    Script(answer(200, [])).run(contact.ask(GET))
    with pytest.raises(PeerError):
        Script(*[REFUSED] * 4).run(contact.ask(GET))


def test_pauses_grow_to_a_bound_and_differ() -> None:
    assert [CERTAIN.pause_s(n) for n in (0, 1, 5, 6, 10_000)] == pytest.approx([0.1, 0.2, 3.2, 5.0, 5.0])
    assert Retry(chance=lambda: 0.0).pause_s(6) == 2.5


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (409, "conflict", Conflict),
        (404, "not_found", NotFound),
        (404, "http", NotFound),
        (422, "usage", UsageError),
        (422, "bad_module", BadModule),
        (400, "http", UsageError),
        (413, "http", UsageError),
        (429, "overloaded", Overloaded),
        (503, "overloaded", Overloaded),
        (503, "store", StoreError),
        (401, "unauthorized", NotAllowed),
        (403, "not_allowed", NotAllowed),
        (403, "forbidden", NotAllowed),
        (500, "internal", RemoteError),
        (301, "http", PeerError),
    ],
)
def test_a_problem_is_the_error_that_it_was(status: int, code: str, kind: type[WwError]) -> None:
    said = {"detail": "repeats: 'x' is not\x1b[31m\nso", "code": code, "field": "repeats"}
    error = error_of(answer(status, said, retry_after="7"))
    assert type(error) is kind
    if status != 301:
        assert str(error) == "repeats: 'x' is not [31m so"
    if isinstance(error, UsageError):
        assert error.field == "repeats"
    if isinstance(error, Overloaded):
        assert error.retry_after_s == 7


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"detail": 7}', b"[" * 100_000])
def test_what_is_no_problem_is_one_line_too(body: bytes) -> None:
    assert str(error_of(Answer(502, {}, body))) == "the gateway answered with status 502"
    assert isinstance(error_of(Answer(404, {}, body)), NotFound)
