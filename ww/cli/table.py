"""Tables for people: with rich on a terminal, as plain columns everywhere else.

Holds how rows look. Must not know what is in them.
"""

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

Rows = Sequence[Sequence[str]]

# Columns of a terminal that has room for whole peer ids.
_WIDE: Final = 120
_NARROW: Final = "peer ids are whole in a wider terminal, in a pipe and with --json"
_NUMBERS: Final = (
    "SLOTS",
    "FREE",
    "QUEUE",
    "AGE",
    "MS",
    "RUN",
    "RUNS",
    "FAILED",
    "SECONDS",
    "CPUS",
    "MEMORY",
    "MODULES",
    "OUTVOTED",
)
_WHOLE: Final = ("PEER", "ID", "STATUS", "STATE", "AGE")
# Of the columns in which they are what matters.
_STATES: Final = ("STATUS", "STATE", "BREAKER")
_STYLES: Final = {
    "succeeded": "green",
    "closed": "green",
    "failed": "red",
    "open": "red",
    "unsatisfiable": "red",
    "running": "cyan",
    "queued": "yellow",
    "half-open": "yellow",
    "cancelled": "dim",
}


def show(columns: Sequence[str], rows: Rows) -> None:
    """Print a table."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(_rich(columns, rows))
    else:
        print(_plain(columns, rows), flush=True)


@contextmanager
def live() -> Iterator[Callable[[Sequence[str], Rows], None]]:
    """Give what shows a table in place of the one before; without a terminal one after the other."""
    with contextlib.ExitStack() as stack:
        if not sys.stdout.isatty():
            yield lambda columns, rows: print(_plain(columns, rows) + "\n", flush=True)
            return
        from rich.console import Console
        from rich.live import Live

        shown = stack.enter_context(Live(console=Console(highlight=False), auto_refresh=False))
        yield lambda columns, rows: shown.update(_rich(columns, rows), refresh=True)


def _rich(columns: Sequence[str], rows: Rows) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    is_narrow = shutil.get_terminal_size().columns < _WIDE
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, caption=_NARROW if is_narrow and rows and "PEER" in columns else None
    )
    for name in columns:
        justify: Any = "right" if name in _NUMBERS else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name in _WHOLE)
    for row in rows:
        cells = [
            _short(cell) if is_narrow and name == "PEER" else cell for name, cell in zip(columns, row, strict=True)
        ]
        # Text: what strangers say of themselves is not markup.
        styles = (_STYLES.get(cell, "") if name in _STATES else "" for name, cell in zip(columns, cells, strict=True))
        table.add_row(*(Text(cell, style) for cell, style in zip(cells, styles, strict=True)))
    return table


def _short(peer_id: str) -> str:
    return f"{peer_id[:8]}..{peer_id[-6:]}"


def _plain(columns: Sequence[str], rows: Rows) -> str:
    widths = [max(len(cell) for cell in cells) for cells in zip(columns, *rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (columns, *rows))
    return "\n".join(line.rstrip() for line in lines)
