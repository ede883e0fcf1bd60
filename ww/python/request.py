"""What a call of a Python function is given, and what a guest and its host say about calls that it makes itself.

Bytes only, no I/O. write_call and write_calls are the caller's; read_calls unpickles, so it is the guest's alone. The
requests of a nested call are read by the host, who checks their lengths and never looks inside.
"""

import json
import pickle
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from io import BytesIO
from typing import Any, Final, NamedTuple

VERSION: Final = 1
REQUESTS_MAX: Final = 10_000
TICKET_BYTES_MAX: Final = 64 << 20
_SEVERAL: Final = 1
_TRUST: Final = 2
# The opcode by which a pickle of this protocol refers to what is not in it.
_PERSISTENT_ID: Final = b"Q"
_HEAD: Final = struct.Struct("<BBIQ")  # version, mode, number of buffers, length of the pickle
_LENGTH: Final = struct.Struct("<Q")
_COUNT: Final = struct.Struct("<I")
_ANSWER: Final = struct.Struct("<BI")

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class AnswerKind(IntEnum):
    """How a nested call ended."""

    VALUE = 0
    """It returned: the body is the value."""
    RAISED = 1
    """It raised: the body is the failure."""
    ENDED = 2
    """Otherwise: the body says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one nested call."""

    kind: AnswerKind
    """How it ended."""
    body: bytes
    """Of VALUE and RAISED the text that the function left; of ENDED what `ended` wrote."""


class Calls(NamedTuple):
    """What one request asks for."""

    calls: list[Arguments]
    """The arguments of each call, in order."""
    are_several: bool
    """Whether the value is a list of the values of all calls, or that of the only one."""
    trust: bool
    """Whether the value may be written as a pickle."""


def write_call(
    args: Sequence[Any],
    kwargs: dict[str, Any],
    *,
    trust: bool = False,
    pickler: type[pickle.Pickler] = pickle.Pickler,
) -> bytes:
    """Return the request for one call. Raises what the pickler raises on what it cannot write."""
    return _write((tuple(args), kwargs), _TRUST if trust else 0, pickler)


def write_calls(
    calls: Iterable[tuple[Sequence[Any], dict[str, Any]]],
    *,
    trust: bool = False,
    pickler: type[pickle.Pickler] = pickle.Pickler,
) -> bytes:
    """Return the request for several calls, one after the other; the first that raises ends them."""
    listed = [(tuple(args), kwargs) for args, kwargs in calls]
    return _write(listed, _SEVERAL | (_TRUST if trust else 0), pickler)


def _write(value: object, mode: int, pickler: type[pickle.Pickler]) -> bytes:
    buffers: list[pickle.PickleBuffer] = []
    if pickler is pickle.Pickler:
        data: bytes | memoryview = pickle.dumps(value, 5, buffer_callback=buffers.append)
    else:
        stream = BytesIO()
        pickler(stream, 5, buffer_callback=buffers.append).dump(value)
        data = stream.getbuffer()
    parts = [_HEAD.pack(VERSION, mode, len(buffers), len(data)), data]
    for buffer in buffers:
        raw = buffer.raw()
        parts += [_LENGTH.pack(raw.nbytes), raw]
    return b"".join(parts)


def read_calls(data: bytes, unpickler: Callable[..., pickle.Unpickler] = pickle.Unpickler) -> Calls:
    """Unpickle a request: only where whatever it does is to be contained. Raises ValueError where it is none."""
    if len(data) < _HEAD.size:
        raise ValueError("a request ends before its head does")
    version, mode, count, length = _HEAD.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"a request has version {version}: expected {VERSION}")
    view = memoryview(data)
    at, end = _HEAD.size, _HEAD.size + length
    _expect_room(data, end)
    pickled = view[at:end]
    buffers = []
    for _ in range(count):
        at = end + _LENGTH.size
        _expect_room(data, at)
        end = at + _LENGTH.unpack_from(data, end)[0]
        _expect_room(data, end)
        buffers.append(bytearray(view[at:end]))  # what it was made of may have been changed in place too
    if end != len(data):
        raise ValueError("a request goes on behind its end")
    # What names nothing but modules takes a fourth of the time.
    is_plain = _PERSISTENT_ID not in data
    value = pickle.loads(pickled, buffers=buffers) if is_plain else unpickler(BytesIO(pickled), buffers=buffers).load()
    return Calls(value if mode & _SEVERAL else [value], bool(mode & _SEVERAL), bool(mode & _TRUST))


def _expect_room(data: bytes, end: int) -> None:
    if end > len(data):
        raise ValueError(f"a request of {len(data)} bytes says it has at least {end}")


def write_requests(requests: Sequence[bytes]) -> bytes:
    """Return what the calls of one ticket are begun with. Raises ValueError beyond the limits of a ticket."""
    if not 1 <= len(requests) <= REQUESTS_MAX:
        raise ValueError(f"{len(requests)} calls at once: expected 1 to {REQUESTS_MAX}")
    parts = [_COUNT.pack(len(requests))]
    for request in requests:
        parts += [_COUNT.pack(len(request)), request]
    data = b"".join(parts)
    if len(data) > TICKET_BYTES_MAX:
        raise ValueError(f"calls of {len(data)} bytes at once: expected at most {TICKET_BYTES_MAX}")
    return data


def read_requests(data: bytes) -> list[bytes]:
    """Return the requests of a ticket; raise ValueError where they are none."""
    if len(data) > TICKET_BYTES_MAX:
        raise ValueError(f"calls of {len(data)} bytes at once: expected at most {TICKET_BYTES_MAX}")
    count = _read_count(data)
    if not 1 <= count <= REQUESTS_MAX:
        raise ValueError(f"{count} calls at once: expected 1 to {REQUESTS_MAX}")
    requests, at = [], _COUNT.size
    for _ in range(count):
        end = at + _COUNT.size
        _expect_part(data, end)
        at, end = end, end + _COUNT.unpack_from(data, at)[0]
        _expect_part(data, end)
        requests.append(data[at:end])
        at = end
    _expect_end(data, at)
    return requests


def write_answers(answers: Sequence[Answer]) -> bytes:
    """Return what the guest is given for a ticket, in the order of its requests."""
    parts = [_COUNT.pack(len(answers))]
    for answer in answers:
        parts += [_ANSWER.pack(answer.kind, len(answer.body)), answer.body]
    return b"".join(parts)


def read_answers(data: bytes) -> list[Answer]:
    """Return the answers of a ticket; raise ValueError where they are none."""
    count = _read_count(data)
    if count > REQUESTS_MAX:
        raise ValueError(f"{count} answers at once: expected at most {REQUESTS_MAX}")
    answers, at = [], _COUNT.size
    for _ in range(count):
        end = at + _ANSWER.size
        _expect_part(data, end)
        kind, length = _ANSWER.unpack_from(data, at)
        at, end = end, end + length
        _expect_part(data, end)
        answers.append(Answer(AnswerKind(kind), data[at:end]))
        at = end
    _expect_end(data, at)
    return answers


def ended(reason: str, detail: str = "") -> Answer:
    """Return the answer for a call that neither returned nor raised."""
    return Answer(AnswerKind.ENDED, json.dumps({"reason": reason, "detail": detail[:200]}).encode())


def read_ended(body: bytes) -> tuple[str, str]:
    """Return reason and detail of such an answer; raise ValueError where there are none."""
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("an answer does not say why a call ended")
    return str(found.get("reason", "")), str(found.get("detail", ""))


def _read_count(data: bytes) -> int:
    _expect_part(data, _COUNT.size)
    return int(_COUNT.unpack_from(data)[0])


def _expect_part(data: bytes, end: int) -> None:
    if end > len(data):
        raise ValueError(f"{len(data)} bytes end before what they say they hold")


def _expect_end(data: bytes, end: int) -> None:
    if end != len(data):
        raise ValueError(f"{len(data)} bytes go on behind what they say they hold")
