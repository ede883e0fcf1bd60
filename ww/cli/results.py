"""Where the results of a map go: files of a folder, or stdout.

Holds how a result is written: a file is whole or not there. Must not know inputs, tasks or who asks for results.
"""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Final, Protocol

from ww.cli.inputs import ERROR, PART
from ww.cli.output import why
from ww.cli.remote import tell
from ww.client import Result
from ww.errors import UsageError

# Not through a link: what it leads to is none of ours.
_WRITING: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class Sink(Protocol):
    """Takes results by the names of their inputs."""

    def has(self, name: str) -> bool:
        """Whether there is one of that name already."""

    def take(self, name: str, result: Result) -> bool:
        """Take one; return whether its run did what it should."""


def flaw_of(result: Result) -> str | None:
    """Return what is wrong with a run's result, if anything. An output that was cut is no result."""
    if result.state != "succeeded":
        return why(result)
    if result.stdout_truncated:
        return f"stdout has more than the {len(result.stdout)} bytes that are kept: see --output-max"
    return None


def output_of(result: Result) -> bytes:
    """Return what a run printed, or returned."""
    return result.stdout + (b"" if result.result is None else result.result.encode() + b"\n")


class FolderSink:
    """A file for each result; for a run that failed NAME.error, with the reason and what was on stderr."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def has(self, name: str) -> bool:
        """Whether it is there. UsageError when something else is."""
        path = self._root / name
        try:
            if path.is_dir():
                raise UsageError(f"output: {path} is a folder, expected none: {name} is an input's name", "output")
            return path.exists()
        except OSError as error:
            raise UsageError(f"output: {path}: {error.strerror}", "output") from None

    def take(self, name: str, result: Result) -> bool:
        """Write it beside its place and then have it there. UsageError when that fails."""
        path = self._root / name
        flaw = flaw_of(result)
        try:
            if flaw is None:
                # First: who is killed between the two finds none of them, and does it again.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{path}{ERROR}")
                _write(path, output_of(result))
            else:
                stderr = b"\n" + result.stderr if result.stderr else b""
                _write(path.with_name(path.name + ERROR), flaw.encode() + b"\n" + stderr)
        except OSError as error:
            raise UsageError(f"output: {path}: {error.strerror}", "output") from None
        return flaw is None


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(PART)
    try:
        descriptor = os.open(part, _WRITING, 0o666)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(part, _WRITING, 0o666)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    part.rename(path)


class StdoutSink:
    """Each result on stdout: what a run printed, with a line's end behind it, or as one line of JSON."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json

    def has(self, name: str) -> bool:
        """Nothing is kept."""
        return False

    def take(self, name: str, result: Result) -> bool:
        """Print it, and say on stderr why there is none."""
        flaw = flaw_of(result)
        if self._is_json:
            sys.stdout.write(json.dumps({"input": int(name), **result.json}) + "\n")
            sys.stdout.flush()
            return flaw is None
        content = output_of(result)
        sys.stdout.buffer.write(content if not content or content.endswith(b"\n") else content + b"\n")
        sys.stdout.buffer.flush()
        sys.stderr.buffer.write(result.stderr)
        sys.stderr.buffer.flush()
        if flaw is not None:
            tell(f"input {name}: {flaw}")
        return flaw is None
