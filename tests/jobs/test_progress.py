"""The bar: what it says, where it is drawn, and the futures that come out of it."""

import asyncio
import concurrent.futures
import io
from typing import Any

import pytest

from ww.errors import UsageError
from ww.jobs.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _ended(count: int, failed: int = 0) -> list["concurrent.futures.Future[int]"]:
    futures: list[concurrent.futures.Future[int]] = []
    for number in range(count):
        future: concurrent.futures.Future[int] = concurrent.futures.Future()
        if number < failed:
            future.set_exception(ValueError())
        else:
            future.set_result(number)
        futures.append(future)
    return futures


def test_a_terminal_gets_a_line_that_is_drawn_over() -> None:
    out = Terminal()
    futures = _ended(20, failed=3)
    assert list(progress(futures, file=out, label="squares")) == futures
    text = out.getvalue()
    assert text.endswith("\n")
    assert text.count("\n") == 1
    last = text.rsplit("\r", 1)[1]
    assert "squares 20/20" in last
    assert "3 failed" in last
    assert "#" in last


def test_elsewhere_nothing_is_drawn() -> None:
    out = io.StringIO()
    futures = _ended(5)
    assert list(progress(iter(futures), file=out)) == futures
    assert out.getvalue() == ""
    assert list(progress([], file=Terminal())) == []


def test_futures_come_as_they_end() -> None:
    first, second = concurrent.futures.Future[int](), concurrent.futures.Future[int]()
    found = progress([first, second], file=io.StringIO())
    second.set_result(2)
    assert next(found) is second
    first.cancel()
    assert next(found) is first
    assert list(found) == []


def test_it_is_drawn_at_most_so_often() -> None:
    out = Terminal()
    list(progress(_ended(10_000), file=out))
    assert out.getvalue().count("\r") < 1000


@pytest.mark.parametrize("make", [lambda: 3, lambda: asyncio.get_running_loop().create_future()])
def test_what_would_never_end_here_is_refused(make: Any) -> None:
    async def draw() -> None:
        with pytest.raises(UsageError, match="futures: expected what remote_async or submit returned, not "):
            progress([make()])

    asyncio.run(draw())
