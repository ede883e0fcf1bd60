"""Exceptions that a stranger describes: they can be raised, handled and printed, and do nothing else."""

import builtins
import dataclasses
import json
import traceback
import urllib.error
from collections.abc import Callable
from typing import Any

import pytest

from ww.python.exception import RemoteException, exception_of
from ww.python.failure import loads_failure
from ww.python.values import dumps


class Ending(Exception):
    """Does something with what it is given when it ends."""

    ended: list[Any] = []  # noqa: RUF012

    def __del__(self) -> None:
        self.ended.append(self.args)


def made(name: str = "ValueError", classes: Callable[[str, str], Any] = lambda *_: None, **said: Any) -> Exception:
    failure = {"module": "builtins", "name": name, "text": "text", "traceback": "", **said}
    return exception_of(loads_failure(json.dumps(failure), classes), classes)


def printed(error: Exception) -> str:
    return "".join(traceback.format_exception(error))


def test_attributes_replace_no_method_of_an_exception() -> None:
    names = ("with_traceback", "add_note", "args", "__class__", "__traceback__", "mine")
    error = made(args=dumps(("a",)), attributes=dict.fromkeys(names, "1"), notes=["note"])
    assert (type(error), error.args, vars(error)["mine"]) == (ValueError, ("a",), 1)
    assert error.with_traceback(None) is error
    assert printed(error) == "ValueError: a\nnote\n"


@pytest.mark.parametrize(
    "said",
    [
        {"args": dumps(("\x1b[31m\x07\x9b",))},
        {"name": "FileNotFoundError", "args": dumps((2, "\x1b]0;"))},
        {"name": "SyntaxError", "args": dumps(("\x1b", ("\x1b", 1, 1, "\x1b x", 1, 1)))},
        {
            "name": "ExceptionGroup",
            "args": dumps(("\x1b",)),
            "parts": [{"module": "builtins", "name": "E", "text": "\x1b"}],
        },
        {"name": "Unknown", "text": "\x1b", "traceback": "\x1b"},
        {"args": dumps(()), "notes": ["\x1b"]},
    ],
)
def test_what_is_printed_of_it_obeys_no_stranger(said: dict[str, Any]) -> None:
    shown = printed(made(**said))
    assert "\\x1b" in shown
    assert not any((letter < " " and letter != "\n") or "\x7f" <= letter < "\xa0" for letter in shown)


ARGUMENTS: list[tuple[Any, ...]] = [
    (),
    (1,),
    (None,) * 5,
    ("utf-8", b"x", -5, 2**60, "r"),
    ("utf-8", "x", 5, 2, "r"),
    ("x", (1, 2, 3, 4)),
    ("invalid syntax", ("/dev/zero", 1, 1, None, 1, 1, (1, 0, None))),
    ("x", ("f", 1, 1, "text")),
    ("x", [ValueError]),
]


@pytest.mark.parametrize("name", [name for name, kind in vars(builtins).items() if isinstance(kind, type)])
def test_any_builtin_with_any_arguments_can_be_printed(name: str) -> None:
    for arguments in ARGUMENTS:
        try:
            said = dumps(arguments)
        except TypeError:
            continue
        error = made(name, args=said)
        assert isinstance(error, Exception)
        assert printed(error)
        assert error.with_traceback(None) is error


def test_a_class_that_does_something_at_its_end_is_not_made() -> None:
    error = made("Ending", lambda *_: Ending, module="shipped", args=dumps(("hostile",)))
    assert isinstance(error, RemoteException)
    del error
    assert Ending.ended == []


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """Refuses whatever is set, also what Python's own code sets on an exception."""

    number: int


def test_a_frozen_exception_arrives_with_its_traceback_and_notes() -> None:
    said = {"module": "sent", "name": "Frozen", "args": dumps((3,)), "attributes": {"number": "3"}, "notes": ["note"]}
    error = made(**said, traceback="there\n", classes=lambda *_: Frozen)
    assert isinstance(error, Frozen)
    assert error.number == 3
    assert "there" in printed(error)
    assert printed(error).endswith("note\n")


@pytest.mark.parametrize("attributes", [{}, {"reason": "1"}])
def test_one_of_the_standard_library_that_lacks_what_it_says_is_another_that_says_it(
    attributes: dict[str, str],
) -> None:
    # What urllib has there is an exception, which does not travel within another.
    error = made("URLError", module="urllib.error", args=dumps(("x",)), attributes=attributes, text="no route")
    assert str(error) == ("<urlopen error 1>" if attributes else "urllib.error.URLError: no route")
    assert isinstance(error, urllib.error.URLError) == bool(attributes)
