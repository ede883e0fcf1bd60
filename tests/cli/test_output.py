"""Results in their order, whatever order they end in, and how they are printed."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ww.cli import output, run
from ww.cli.output import Printer, follow
from ww.client import Client, Event, Result, Task


def ended(number: int, state: str = "succeeded", **said: Any) -> Result:
    return Result(run=number, state=state, **said)


class Told:
    """A client that tells runs in some order, and notes which it is asked for."""

    def __init__(self, results: list[Result]) -> None:
        self._results = results
        self.asked: list[int] = []

    def events(self, id: str) -> Iterator[Event]:
        yield Event(task=Task(id=id, status="running"))
        for result in self._results:
            yield Event(run=Result(run=result.run, state="running"))
            yield Event(run=result)
        yield Event(task=Task(id=id, status="succeeded"))

    def result(self, id: str, number: int) -> Result:
        self.asked.append(number)
        return next(result for result in self._results if result.run == number)


def followed(results: list[Result]) -> tuple[list[int], list[int]]:
    told = Told(results)
    *found, task = follow(cast(Client, told), "t")
    assert isinstance(task, Task)
    assert task.has_ended
    return [each.run for each in found if isinstance(each, Result)], told.asked


@given(st.permutations(range(8)))
def test_in_order_of_run(order: list[int]) -> None:
    assert followed([ended(number) for number in order]) == (list(range(8)), [])


@given(st.permutations([0, 2, 3, 7]))
def test_runs_that_never_end_hold_nothing_back_for_ever(order: list[int]) -> None:
    assert followed([ended(number) for number in order]) == ([0, 2, 3, 7], [])


def test_each_as_soon_as_those_before_it_have_ended() -> None:
    told = Told([ended(number) for number in (1, 0, 3, 2)])
    found = follow(cast(Client, told), "t")
    assert [cast(Result, next(found)).run for _ in range(2)] == [0, 1]


def test_what_is_too_much_to_hold_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_HELD_BYTES_MAX", 10_000)
    order = [4, 3, 2, 1, 0]
    numbers, asked = followed([ended(number, stdout=b"x" * 1000) for number in order])
    assert numbers == [0, 1, 2, 3, 4]
    assert asked == [1, 2, 3]


@pytest.mark.parametrize(
    ("stdout", "is_numbered", "shown"),
    [
        (b"a\n\xff", False, b"a\n\xff"),
        (b"a\n\nb", True, b"[3] a\n[3] \n[3] b\n"),
        (b"a\n", True, b"[3] a\n"),
        (b"", True, b""),
    ],
)
def test_output(stdout: bytes, is_numbered: bool, shown: bytes, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    Printer(is_numbered=is_numbered, is_json=False).print(ended(3, stdout=stdout))
    assert capfdbinary.readouterr() == (shown, b"")


def test_what_was_cut_is_said(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    Printer(is_numbered=True, is_json=False).print(ended(3, stdout=b"a", stdout_truncated=True))
    assert capfdbinary.readouterr() == (b"[3] a\n", b"ww: run 3: stdout was cut: see --output\n")


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (ended(0), 0),
        (ended(0, exit_code=0), 0),
        (ended(0, "failed", reason="exit", exit_code=7), 7),
        (ended(0, "failed", reason="exit", exit_code=255), 255),
        (ended(0, "failed", reason="exit", exit_code=256), 1),
        (ended(0, "failed", reason="trap"), 1),
        (ended(0, "failed", reason="memory"), 1),
        (ended(0, "failed", reason="crash"), 1),
        (ended(0, "failed", reason="something new"), 1),
        (ended(0, "failed", reason="deadline"), 124),
        (ended(0, "failed", reason="cpu"), 124),
        (ended(0, "failed", reason="lost"), 125),
        (ended(0, "cancelled"), 125),
    ],
)
def test_exit_codes(result: Result, code: int) -> None:
    assert run.exit_code(result) == code
