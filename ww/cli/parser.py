"""How a command line is read: from argv, else from WW_* variables, with one-line errors.

Holds the parser and the kinds of values. Must not know any option, nor import what takes long: every command begins
here. Options that several commands share: options.py for nodes, remote.py for those that ask over HTTP.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from ww.errors import UsageError

_SIZE_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TRUE: Final = ("true", "1", "yes")
_FALSE: Final = ("false", "0", "no")
TRUTHS: Final = _TRUE + _FALSE
_TIME_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Parser(argparse.ArgumentParser):
    """A parser whose options can be given as WW_NAME too, and whose errors are one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"allow_abbrev": False})
        self._from_environment: list[argparse.Action] = []
        self._not_ours: dict[str, tuple[str, ...]] = {}
        self._words: str | None = None

    def option(
        self, flag: str, kind: Callable[[str], Any], help: str, *, not_ours: tuple[str, ...] = (), **settings: Any
    ) -> None:
        """Add an option that WW_NAME gives where argv does not; repeatable ones are separated by commas there.

        not_ours: values of the variable that are meant for something else.
        """
        variable = "WW_" + flag.removeprefix("--").replace("-", "_").upper()
        action = self.add_argument(flag, type=argument(kind), help=f"{help} [{variable}]", **settings)
        self._from_environment.append(action)
        self._not_ours[action.dest] = not_ours

    def words(self, name: str, help: str) -> None:
        """Take all words that are no options, wherever they stand, and whatever follows --, as a list."""
        self.add_argument(name, nargs="*", default=[], metavar=name.upper(), help=help)
        self._words = name

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse args, then fill in what only the environment says."""
        for action in self._from_environment:
            self._read_environment(action, os.environ)
        if self._words is None:
            return super().parse_known_args(args, namespace)
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        namespace, others = super().parse_known_args(given[:end], namespace)
        # argparse takes only the words of one place for a list, and leaves the others over.
        if flags := [word for word in others if word.startswith("-") and word != "-"]:
            self.error(f"unrecognized arguments: {' '.join(flags)}; what is not for ww goes behind --")
        setattr(namespace, self._words, [*getattr(namespace, self._words), *others, *given[end + 1 :]])
        return namespace, []

    def flag(self, flag: str, help: str) -> None:
        """Add a switch: on when it is named, or when WW_NAME is true."""
        variable = "WW_" + flag.removeprefix("--").replace("-", "_").upper()
        action = self.add_argument(flag, action="store_true", help=f"{help} [{variable}]")
        action.type = argument(truth)
        self._from_environment.append(action)

    def limits(self, *rows: tuple[str, Callable[[str], Any], Any, str]) -> None:
        """Add limits: flag, kind, default and help of each."""
        for flag, kind, default, help in rows:
            shown = _size_text(default) if kind is size else f"{default:g}" if kind is seconds else str(default)
            self.option(flag, kind, f"{help} ({shown})", default=default, metavar="N")

    def _read_environment(self, action: argparse.Action, environment: Mapping[str, str]) -> None:
        variable = "WW_" + action.dest.upper()
        text = environment.get(variable)
        if not text or text.lower() in self._not_ours.get(action.dest, ()):
            return
        assert callable(action.type)
        try:
            if isinstance(action, Append):
                action.default = [action.type(part) for part in text.split(",")]
            else:
                action.default = action.type(text)
        except argparse.ArgumentTypeError as error:
            self.error(f"{variable}: {error}")

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the usage, in one line."""
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


class Append(argparse.Action):
    """Collects a repeatable option; the first one on the command line replaces the default."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        known = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [values] if known is self.default else [*known, values])


class NotInArgv(argparse.Action):
    """An option that only the environment may give, since it is a secret."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        name = self.option_strings[0]
        variable = "WW_" + self.dest.upper()
        parser.error(f"{name} given as an argument can be read by everybody here: use {name}-file, or {variable}")


def argument(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make of what reads a text the `type` of an argument, with read's own words for what is wrong."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def size(text: str) -> int:
    """Read bytes: 65536, 64K, 1G."""
    match = re.fullmatch(r"([0-9]{1,15})([KMGT]?)(?:iB|B)?", text)
    if match is None or not int(match[1]):
        raise UsageError(f"{text[:40]!r} is no size: expected bytes, or a number with K, M, G or T")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def _size_text(number: int) -> str:
    unit = max((unit for unit, factor in _SIZE_UNITS.items() if number % factor == 0), key=_SIZE_UNITS.__getitem__)
    return f"{number // _SIZE_UNITS[unit]}{unit}"


def seconds(text: str) -> float:
    """Read a time: 30, 2.5s, 10m, 24h, 7d."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhd]?)", text)
    if match is None:
        raise UsageError(f"{text[:40]!r} is no time: expected seconds, or a number with s, m, h or d")
    return float(match[1]) * _TIME_UNITS[match[2]]


def count(text: str) -> int:
    """Read a whole number above zero."""
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text)):
        raise UsageError(f"{text[:40]!r} is not a whole number above 0")
    return int(text)


def whole(text: str) -> int:
    """Read a whole number from zero."""
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise UsageError(f"{text[:40]!r} is not a whole number from 0")
    return int(text)


def integer(text: str) -> int:
    """Read a whole number, which may be below zero."""
    return -whole(text[1:]) if text.startswith("-") else whole(text)


def decimal(text: str) -> float:
    """Read a number from zero."""
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
        raise UsageError(f"{text[:40]!r} is not a number from 0")
    return float(text)


def number_32(text: str) -> int:
    """Read a whole number above zero that has 32 bits."""
    if (number := count(text)) >= 2**32:
        raise UsageError(f"{text[:40]!r}: expected at most {2**32 - 1}")
    return number


def niceness(text: str) -> int:
    """Read how much the processor prefers others: 0 to 19."""
    if not (text.isascii() and text.isdigit() and int(text[:3]) <= 19):
        raise UsageError(f"{text[:40]!r}: expected 0 to 19")
    return int(text)


def readable_file(text: str) -> Path:
    """Read the name of a file that can be read."""
    path = Path(text)
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise UsageError(f"{path.name[:80]!r}: {(error.strerror or 'cannot be read').lower()}") from None


def truth(text: str) -> bool:
    """Read true or false."""
    if text.lower() not in TRUTHS:
        raise UsageError(f"{text[:40]!r}: expected true or false")
    return text.lower() in _TRUE


def key_value(text: str) -> tuple[str, str]:
    """Read KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}", key):
        raise UsageError(f"{text[:80]!a} is not KEY=VALUE, with a key of letters, digits and . _ / -")
    if len(value) > 256 or not value.isprintable():
        raise UsageError(f"{text[:80]!a}: expected a value of at most 256 characters, all of them printable")
    return key, value
