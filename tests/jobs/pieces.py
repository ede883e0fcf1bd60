"""Jobs and classes that tests of calls use: a local module, as a program has them."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from types import ModuleType
from typing import Any

import ww


@dataclass
class Point:
    x: int
    y: int = 0


class Colour(Enum):
    RED = 1


class Wrong(Exception):
    """Its constructor takes other things than its args say."""

    made = 0

    def __init__(self, code: int, *, hint: str) -> None:
        Wrong.made += 1
        super().__init__(f"code {code}")
        self.code = code
        self.hint = hint


class BadFile(OSError):
    pass


@ww.job
def square(a: int) -> int:
    return a * a


@ww.job(timeout_s=5, memory=64 << 20)
def add(a: int, b: int = 1) -> int:
    return a + b


@ww.job
def echo(value: object) -> object:
    return value


@ww.job
def fail(kind: str) -> None:
    if kind == "wrong":
        error = Wrong(3, hint="look there")
        error.add_note("a note")
        raise error
    if kind == "file":
        raise BadFile(2, "gone")
    raise {"value": ValueError, "key": KeyError, "stop": StopIteration, "exit": SystemExit}[kind](kind)


@ww.job(grants=[square])
def squares(count: int) -> list[int]:
    return [future.result() for future in [square.remote_async(n) for n in range(count)]]


@ww.job(grants=lambda: [countdown])
def countdown(n: int) -> int:
    return 0 if n == 0 else countdown.remote(n - 1)


def closure(n: int) -> Callable[[int], int]:
    def inner(x: int, by: int = n) -> int:
        return x * by + twice(n)

    def twice(y: int) -> int:
        return y if y < 10 else inner(0)

    return inner


def factorial() -> Callable[[int], int]:
    def inner(n: int) -> int:
        return 1 if n < 2 else n * inner(n - 1)

    return inner


def closing_over(module: ModuleType) -> Callable[[], str]:
    return lambda: module.__name__


def lambdas() -> tuple[Callable[[int], int], Callable[[int], int]]:
    return (lambda x: x + 1), (lambda x: x * 2)


NESTED: Any = lambda x: (lambda y: y - x)(9)  # noqa: E731
DEFAULT: Any = lambda x, f=lambda y: y + 100: f(x)  # noqa: E731


def plain(a: int, by: int = 3) -> int:
    return a * by
