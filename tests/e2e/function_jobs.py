"""Jobs of the tests with a real cluster: ordinary ones, and some that misbehave. What travels is this module."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ww


@dataclass
class Point:
    x: int


class Wrong(Exception):
    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}")
        self.hint = hint


@ww.job
def square(a: int) -> int:
    return a * a


def times(factor: int) -> Callable[[int], int]:
    return lambda n: n * factor


INCREASED: Any = lambda n: n + 1  # noqa: E731


@ww.job
def echo(value: Any) -> Any:
    return value


@ww.job(output=8 << 20)
def echo_large(value: bytes) -> bytes:
    return value


@ww.job
def talk(text: str) -> None:
    print(text)  # noqa: T201
    print("also this", file=sys.stderr)  # noqa: T201


@ww.job
def fail(kind: str) -> None:
    if kind == "wrong":
        raise Wrong(3, hint="look there")
    raise {"value": ValueError("bad value"), "key": KeyError("k"), "exit": SystemExit(3)}[kind]


def _count(state: list[int] = []) -> int:  # noqa: B006
    state.append(1)
    return len(state)


@ww.job
def count() -> int:
    """Return what it returns in a fresh process."""
    return _count()


@ww.job(timeout_s=0.5)
def spin() -> None:
    while True:
        pass


@ww.job(timeout_s=120)
def spin_long() -> None:
    while True:
        pass


@ww.job(timeout_s=120)
def sleep_long() -> None:
    time.sleep(100)


@ww.job(fuel=50_000_000)
def burn() -> int:
    return sum(range(10_000_000))


@ww.job(memory=64 << 20)
def hoard() -> int:
    held = []
    while True:
        held.append(bytearray(1 << 20))


@ww.job(output=4096)
def chatter() -> str:
    return "x" * 1_000_000


@ww.job
def recurse(n: int) -> int:
    return 1 + recurse(n + 1)


@ww.job(grants=[square])
def sum_of_squares(count: int) -> int:
    return sum(future.result() for future in [square.remote_async(n) for n in range(count)])


@ww.job(grants=lambda: [tree])
def tree(depth: int) -> int:
    return 1 if depth == 0 else sum(tree.remote_fanout([depth - 1, depth - 1]))


@ww.job
def ungranted() -> int:
    return square.remote(3)


@ww.job
def lie(how: str) -> Any:
    """Have the guest answer what its runtime never would."""
    from ww.python.guest import runtime  # type: ignore[attr-defined,unused-ignore]

    bodies = {
        "no json": b"{",
        "pickle": b'{"": ["pickle", "gASVHwAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjARleGl0lIWUUpQu"]}',
        "deep": b"[" * 500_000 + b"]" * 500_000,
        "digits": b"1" * 500_000,
        "class": b'{"": ["data", "os:system", {}]}',
        "nothing": b"",
    }

    class Text(str):
        def encode(self, *_: Any) -> bytes:
            return bodies[how]

    runtime.dumps = lambda *_, **__: Text()
    return None
