"""What the runs of a group are given: what they have in common, and a record for each.

Holds their bytes, which pass through this process as they came: the sandbox's process reads them. What is looked at
here is how long they are. Must not know where they come from. A record that is by reference is put in when it is here.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from ww.errors import UsageError
from ww.records import Input, read_input, spans, write_input
from ww.sandbox.invocation import Invocation

GROUP_MAX: Final = 256
"""Runs of a group."""
_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Task:
    """What all runs of a group have in common."""

    entry: str
    artifacts: Sequence[str]
    dirs: Sequence[str]
    has_files: bool
    deterministic: bool
    context: bytes
    record: bytes
    """What a run is given that says nothing else, as an input record."""
    arguments_count: int
    has_code: bool = False
    """Whether what the record gives as files is a Python guest's code."""

    @classmethod
    def of(cls, invocation: Invocation) -> Self:
        """Take a task's invocation apart. ValueError when a guest cannot be given it."""
        record = write_input(
            Input(
                invocation.arguments,
                invocation.args,
                invocation.env,
                invocation.stdin,
                invocation.code or invocation.files,
                invocation.seed,
            )
        )
        return cls(
            invocation.entry,
            invocation.artifacts,
            invocation.dirs,
            invocation.has_files,
            invocation.deterministic,
            invocation.context,
            record,
            len(invocation.arguments),
            bool(invocation.code),
        )


class Inputs:
    """An input record for each run of a group."""

    def __init__(self, data: bytes) -> None:
        """Take records, one after the other. UsageError when they are none, or too many."""
        self._data = data
        self._starts: list[int] = []
        """Of each record, its length included; and where the last one ends."""
        self._large: dict[int, bytes | None] = {}
        """By place: what is by reference, or None while it is not here."""
        try:
            for place, (start, end) in enumerate(spans(data)):
                if place >= GROUP_MAX:
                    raise UsageError(f"inputs: a group has at most {GROUP_MAX} runs")
                self._starts.append(start - 4)
                if start == end:
                    # A record of no length looks the same.
                    if data[start - 4 : start] == b"\0\0\0\0":
                        raise UsageError("inputs: an input record is empty")
                    self._large[place] = None
        except ValueError as error:
            raise UsageError(f"inputs: {error}") from None
        if not self._starts:
            raise UsageError("inputs: a group has at least one run")
        self._starts.append(len(data))

    @classmethod
    def of(cls, invocations: Sequence[Invocation]) -> Self:
        """Write invocations down that differ in what a record can say."""
        return cls(b"".join(write_input(given) for given in _differences(invocations)))

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def size_bytes(self) -> int:
        """Of all that is here."""
        return len(self._data) + sum(len(record) for record in self._large.values() if record is not None)

    @property
    def missing(self) -> Sequence[int]:
        """Places of the records that are by reference and not here."""
        return [place for place, record in self._large.items() if record is None]

    def put(self, place: int, record: bytes) -> None:
        """Have the record that was by reference at that place."""
        self._large[place] = record

    def take_back(self, place: int) -> None:
        """Have it no more."""
        self._large[place] = None

    def here_from(self, place: int) -> int:
        """Return up to where records are here."""
        return min((missing for missing in self.missing if missing >= place), default=len(self))

    def forget(self, place: int | None = None) -> int:
        """Drop what was put at earlier places, or all; return how many bytes that is."""
        dropped = [at for at, record in self._large.items() if record and (place is None or at < place)]
        return sum(len(self._large.pop(at) or b"") for at in dropped)

    def check(self, task: Task, bytes_max: int, places: Iterable[int] | None = None) -> None:
        """Raise UsageError when a run, or one at those places, is given more than bytes_max: stdin, args, env and
        files."""
        common = len(task.record)
        if self.size_bytes + common <= bytes_max:
            return
        starts = self._starts
        for place in range(len(self)) if places is None else places:
            large = self._large.get(place)
            size = len(large) if large is not None else starts[place + 1] - starts[place]
            if size + common > bytes_max:
                self._check_closely(place, task, bytes_max)

    def _check_closely(self, place: int, task: Task, bytes_max: int) -> None:
        given = _sizes_of(task.record, 4)
        large = self._large.get(place)
        try:
            if large is not None:
                given |= _sizes_of(large, 0)
            else:
                given |= _sizes_of(self._data[self._starts[place] : self._starts[place + 1]], 4)
        except ValueError as error:
            raise UsageError(f"inputs: {error}") from None
        total = sum(given.values())
        if total > bytes_max:
            raise UsageError(
                f"one run gets at most {bytes_max} bytes of stdin, args, env and files here, {total} are given"
            )

    def pieces(self, places: range) -> Iterator[bytes]:
        """Yield the records at those places, none by reference any more."""
        starts, at = self._starts, places.start
        for place, record in self._large.items():
            if place in places:
                assert record is not None
                if place > at:
                    yield self._data[starts[at] : starts[place]]
                yield _LENGTH.pack(len(record))
                yield record
                at = place + 1
        if at == 0 and places.stop == len(self):
            yield self._data
        elif at < places.stop:
            yield self._data[starts[at] : starts[places.stop]]


def _sizes_of(record: bytes, start: int) -> dict[str, int]:
    """Return how much a record gives a guest, of what it says anything of. ValueError when it is none."""
    given = read_input(memoryview(record), start)
    sizes: dict[str, int] = {}
    if given.args is not None:
        sizes["args"] = sum(len(text.encode()) for text in given.args)
    if given.env is not None:
        sizes["env"] = sum(len(name.encode()) + len(value.encode()) for name, value in given.env)
    if given.stdin is not None:
        sizes["stdin"] = len(given.stdin)
    if given.files is not None:
        sizes["files"] = len(given.files)
    return sizes


def _differences(invocations: Sequence[Invocation]) -> Iterator[Input]:
    first = invocations[0]
    for each in invocations:
        yield Input(
            each.arguments,
            None if each.args is first.args else each.args,
            None if each.env is first.env else each.env,
            None if each.stdin is first.stdin else each.stdin,
            None if each.files is first.files else each.files,
            each.seed,
        )
