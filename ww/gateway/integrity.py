"""Whether what a gateway keeps is whole: its database, the payloads beside it, the files that they name.

Holds the look alone, which changes nothing and may be taken beside a running gateway. Must not repair anything.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from ww.errors import StoreError
from ww.gateway import rows, segments
from ww.gateway.database import connect_read_only, is_damage, is_there
from ww.gateway.segments import Extent

DATABASE: Final = "ww.db"
# Where a file is that a column names by its sha256, below a gateway's directory.
FILES: Final = (
    ("tasks", "module", "modules", ".wasm"),
    ("tasks", "files", "modules", ".zip"),
    ("tasks", "inputs", "modules", ".inputs"),
    ("runs", "artifacts", "artifacts", ".zip"),
)
MISSED: Final = {"tasks": " AND finished_at IS NULL", "runs": ""}
"""Of which rows of a table a file is missed that is not there."""
_STRUCTURE_DEFECTS_MAX: Final = 100
_READ_BYTES: Final = 1 << 20
# Each finds what must not be, with the words for it. NULL, which names no payload, is NOT IN an empty table.
_CONTRADICTIONS: Final = (
    (
        "SELECT id, succeeded, failed FROM tasks WHERE reason = '' AND (succeeded, failed) <>"
        " (SELECT coalesce(sum(state = 'succeeded'), 0), coalesce(sum(state = 'failed'), 0)"
        " FROM runs WHERE task = number)",
        "task {0}: it counts {1} runs as succeeded and {2} as failed, its results say otherwise",
    ),
    (
        "SELECT id FROM tasks WHERE finished_at IS NULL AND succeeded + failed >= repeats",
        "task {0}: all its runs have ended, it has not",
    ),
    (
        "SELECT task, count(*) FROM runs WHERE task NOT IN (SELECT number FROM tasks)"
        " AND task NOT IN (SELECT task FROM forgetting) GROUP BY task",
        "{1} results are of no task (its number was {0})",
    ),
    (
        "SELECT id, task FROM payloads WHERE task NOT IN (SELECT number FROM tasks)"
        " AND task NOT IN (SELECT task FROM forgetting)",
        "payload {0} is of no task (its number was {1})",
    ),
    (
        "SELECT tasks.id, run FROM runs, tasks WHERE number = task"
        " AND (stdout_payload IS NOT NULL AND stdout_payload NOT IN (SELECT id FROM payloads)"
        " OR stderr_payload IS NOT NULL AND stderr_payload NOT IN (SELECT id FROM payloads))",
        "task {0}, run {1}: its output is not there",
    ),
    (
        "SELECT id FROM tasks WHERE spec_payload IS NOT NULL AND spec_payload NOT IN (SELECT id FROM payloads)",
        "task {0}: what was submitted is not there",
    ),
)


def defects(directory: Path) -> Iterator[str]:
    """Yield a line for each thing that is not as it should be in a gateway's directory.

    StoreError when there is no database, UsageError when it is another version's.
    """
    database = directory / DATABASE
    try:
        if not is_there(database):
            raise StoreError("there is no database here: see --state")
        with segments.shared(segments.directory_of(database)), closing(connect_read_only(database)) as connection:
            connection.execute("BEGIN")  # one moment of it, whatever is written meanwhile
            yield from _defects_of(connection, segments.directory_of(database))
    except sqlite3.Error as error:
        if not is_damage(error):
            raise StoreError(f"the database {DATABASE} cannot be read: {error}") from None
        yield f"the database: {error}"
        return
    yield from _missing_files(directory)


def _defects_of(connection: sqlite3.Connection, payloads: Path) -> Iterator[str]:
    structure = [line for (line,) in connection.execute(f"PRAGMA integrity_check({_STRUCTURE_DEFECTS_MAX})")]
    if structure != ["ok"]:
        yield from (f"the database: {' '.join(str(line).split())}" for line in structure)
        return
    for query, words in _CONTRADICTIONS:
        yield from (words.format(*row) for row in connection.execute(query))
    yield from _bad_specs(connection)
    yield from _bad_payloads(connection, payloads)


def _bad_specs(connection: sqlite3.Connection) -> Iterator[str]:
    for id, text in connection.execute("SELECT id, spec FROM tasks WHERE spec_payload IS NULL"):
        try:
            spec = rows.text_to_spec(text)
        except (ValueError, TypeError, KeyError):
            yield f"task {id}: what was submitted cannot be read"
        else:
            if spec.id != id:
                yield f"task {id}: what was submitted says {spec.id}"


def _bad_payloads(connection: sqlite3.Connection, directory: Path) -> Iterator[str]:
    query = "SELECT id, task, segment, start, length, crc FROM payloads ORDER BY segment, start"
    for payload, task, *place in connection.execute(query):
        _, defect = segments.look(directory, Extent(*place))
        (id,) = connection.execute("SELECT id FROM tasks WHERE number = ?", (task,)).fetchone() or (None,)
        if defect and id is not None:
            yield f"task {id}: payload {payload}, in segment {place[0]} at {place[1]}, {defect}"


def _missing_files(directory: Path) -> Iterator[str]:
    """Look at the files that rows name. What a running gateway forgot since, and removed, is none."""
    with closing(connect_read_only(directory / DATABASE)) as connection:
        for table, column, folder, suffix in FILES:
            for digest in digests(connection, table, column):
                path = directory / folder / f"{digest}{suffix}"
                defect = defect_of_file(path, digest)
                if defect and is_wanted(connection, table, column, digest, is_there=path.exists()):
                    yield f"{folder}/{path.name}: {defect}"


def digests(connection: sqlite3.Connection, table: str, column: str) -> list[str]:
    """Return the sha256s of files that a column names."""
    return [digest for (digest,) in connection.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} <> ''")]


def is_wanted(connection: sqlite3.Connection, table: str, column: str, digest: str, *, is_there: bool) -> bool:
    """Whether a column names that file, and somebody misses it: what ended tasks were run with may be removed."""
    query = f"SELECT 1 FROM {table} WHERE {column} = ?{'' if is_there else MISSED[table]} LIMIT 1"
    return connection.execute(query, (digest,)).fetchone() is not None


def defect_of_file(path: Path, digest: str) -> str:
    """Say what is wrong with a file that is named by its sha256, or nothing."""
    hashing = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_READ_BYTES):
                hashing.update(piece)
    except FileNotFoundError:
        return "it is named and is not there"
    except OSError as error:
        return f"it cannot be read: {(error.strerror or 'the disk refuses').lower()}"
    return "" if hashing.hexdigest() == digest else "it is not what its name says"


def contents(directory: Path) -> dict[str, int]:
    """Count what there is, for people. Read-only."""
    with closing(connect_read_only(directory / DATABASE)) as connection:
        return {
            name: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for name, table in (("tasks", "tasks"), ("results", "runs"), ("payloads", "payloads"))
        }
