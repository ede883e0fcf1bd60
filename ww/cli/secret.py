"""Where a secret that was just made is written: to stdout, or to a new file that nobody else can read.

Holds that alone.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ww.cli.parser import Parser
from ww.errors import UsageError


def add_out(parser: Parser) -> None:
    """Add the option."""
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write it to a new file that nobody else can read, instead"
    )


@contextmanager
def secret_output(path: Path | None) -> Iterator[TextIO]:
    """Open what --out names, or stdout. UsageError, before there is a secret, when that cannot be made."""
    if path is None:
        yield sys.stdout
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"--out {path.name}: {error.strerror}", "out") from None
    with os.fdopen(fd, "w") as file:
        yield file
