"""The database file: its tables, the versions before them, and how it is opened.

Holds the schema and the migrations. Must not know what is asked of it: store.py does. A file that is damaged is refused
when it is opened, with the newest backup's name, since whatever were written to it could be lost.
"""

import json
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from ww.errors import StoreError, UsageError
from ww.gateway.segments import directory_of, numbers_in

log = logging.getLogger("ww.gateway")

VERSION: Final = 6
_SCHEMA: Final = """
CREATE TABLE store (id INTEGER PRIMARY KEY CHECK (id = 1), serial INTEGER NOT NULL);
INSERT INTO store VALUES (1, 0);
CREATE TABLE tasks (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  spec TEXT NOT NULL,
  repeats INTEGER NOT NULL,
  created_at REAL NOT NULL,
  finished_at REAL,
  cancelled INTEGER NOT NULL DEFAULT 0,
  succeeded INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0,
  owner TEXT NOT NULL DEFAULT '',
  reason TEXT NOT NULL DEFAULT '',
  module TEXT NOT NULL DEFAULT '',
  files TEXT NOT NULL DEFAULT '',
  inputs TEXT NOT NULL DEFAULT '',
  spec_bytes INTEGER NOT NULL DEFAULT 0,
  spec_payload INTEGER,
  result_bytes INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE runs (
  position INTEGER PRIMARY KEY,
  task INTEGER NOT NULL,
  run INTEGER NOT NULL,
  state TEXT NOT NULL,
  worker TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  queued_at REAL NOT NULL,
  started_at REAL,
  finished_at REAL NOT NULL,
  reason TEXT NOT NULL,
  detail TEXT NOT NULL,
  result TEXT,
  exit_code INTEGER,
  stdout BLOB NOT NULL,
  stderr BLOB NOT NULL,
  stdout_truncated INTEGER NOT NULL,
  stderr_truncated INTEGER NOT NULL,
  wall_s REAL NOT NULL,
  cpu_s REAL NOT NULL,
  memory_bytes INTEGER NOT NULL,
  memory_limit_bytes INTEGER NOT NULL,
  fuel INTEGER,
  queue_s REAL NOT NULL,
  compile_s REAL NOT NULL,
  instantiate_s REAL NOT NULL,
  files_bytes INTEGER NOT NULL,
  artifacts TEXT NOT NULL,
  artifacts_bytes INTEGER NOT NULL,
  stdout_payload INTEGER,
  stderr_payload INTEGER
);
CREATE UNIQUE INDEX runs_of_task ON runs (task, run);
CREATE INDEX runs_latest ON runs (task, position);
CREATE INDEX runs_artifacts ON runs (artifacts) WHERE artifacts <> '';
"""
# What version 3 has and version 2 had not, beside columns.
_SINCE_3: Final = """
CREATE INDEX tasks_open ON tasks (number, result_bytes) WHERE finished_at IS NULL;
CREATE INDEX tasks_ended ON tasks (finished_at, result_bytes) WHERE finished_at IS NOT NULL;
CREATE INDEX tasks_of_owner ON tasks (owner, number);
CREATE INDEX tasks_module ON tasks (module);
CREATE INDEX tasks_files ON tasks (files) WHERE files <> '';
CREATE TABLE payloads (
  id INTEGER PRIMARY KEY,
  task INTEGER NOT NULL,
  segment INTEGER NOT NULL,
  start INTEGER NOT NULL,
  length INTEGER NOT NULL,
  crc INTEGER NOT NULL
);
CREATE INDEX payloads_of_task ON payloads (task);
CREATE INDEX payloads_in_segment ON payloads (segment, start, length);
CREATE TABLE forgetting (task INTEGER PRIMARY KEY);
"""
# What version 4 has and version 3 had not, beside columns.
_SINCE_4: Final = "CREATE INDEX tasks_inputs ON tasks (inputs) WHERE inputs <> '';"
# What makes a database of each version one of the next.
_MIGRATIONS: Final = {
    1: """
ALTER TABLE runs ADD COLUMN fuel INTEGER;
ALTER TABLE runs ADD COLUMN queue_s REAL NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN compile_s REAL NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN instantiate_s REAL NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN files_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN artifacts TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN artifacts_bytes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX runs_artifacts ON runs (artifacts) WHERE artifacts <> '';
UPDATE tasks SET spec = iif(
  spec ->> 'entry' = '',
  json_set(spec, '$.kind', 'command'),
  json_set(spec, '$.kind', 'function', '$.arguments',
    json_array(coalesce(spec ->> 'input', 0), coalesce(spec ->> 'difficulty', 0)))
);
""",
    2: f"""
CREATE TABLE store (id INTEGER PRIMARY KEY CHECK (id = 1), serial INTEGER NOT NULL);
INSERT INTO store VALUES (1, 0);
ALTER TABLE tasks ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN module TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN files TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN spec_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN spec_payload INTEGER;
ALTER TABLE tasks ADD COLUMN result_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN stdout_payload INTEGER;
ALTER TABLE runs ADD COLUMN stderr_payload INTEGER;
UPDATE tasks SET
  owner = coalesce(spec ->> 'owner', ''),
  module = coalesce(spec ->> 'module', ''),
  files = coalesce(spec ->> 'files', ''),
  spec_bytes = length(CAST(spec AS BLOB)),
  result_bytes = (
    SELECT coalesce(sum(256 + length(stdout) + length(stderr) + length(detail) + coalesce(length(result), 0)), 0)
    FROM runs WHERE task = number
  );
DROP INDEX tasks_open;
DROP INDEX tasks_ended;
{_SINCE_3}
""",
    3: f"ALTER TABLE tasks ADD COLUMN inputs TEXT NOT NULL DEFAULT ''; {_SINCE_4}",
    # A spec of version 5 may have grants, depth and parent, which an older ww would stumble over.
    4: "",
    # One of version 6 may have replicas and quorum.
    5: "",
}
# Looked at as a whole when it is opened; it takes about 2 s a GiB.
_QUICK_CHECK_BYTES_MAX: Final = 1 << 30
_BACKUPS: Final = "backups"
_BACKUPS_MAX: Final = 32


class Damaged(StoreError):
    """The database is not what was written."""


def connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """Open a database, which is there, to write. What one commits is on disk on return."""
    connection = _connect(path, "rw", busy_timeout_s)
    try:
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # what is older gets it by `_bring_up`
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        # What a long reader made of the log does not stay.
        connection.execute(f"PRAGMA journal_size_limit={64 << 20}")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_read_only(path: Path, busy_timeout_s: float = 10.0) -> sqlite3.Connection:
    """Open a database beside whoever writes to it."""
    return _connect(path, "ro", busy_timeout_s)


def _connect(path: Path, mode: str, busy_timeout_s: float) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=busy_timeout_s, check_same_thread=False)


def open_database(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """Open the database at path, made when it is not there, and bring it up to VERSION.

    StoreError when it is damaged or the disk refuses, UsageError when it is of another ww's version.
    """
    payloads = directory_of(path)
    if numbers_in(payloads) and (not path.exists() or path.stat().st_size == 0):
        # To begin anew here would remove what nobody names any more.
        gone = "is not there, but its payloads are"
        raise Damaged(f"the database {path.name} {gone} ({payloads.name}); {advice(path)}")
    try:
        # SQLite gives the files beside it the permissions that it finds here.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise StoreError(f"the database {path.name} cannot be opened: {error.strerror}") from None
    try:
        connection = connect(path, busy_timeout_s)
        try:
            require_sound(connection, path)
            _bring_up(connection, path.name)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        if is_damage(error):
            raise Damaged(f"the database {path.name} cannot be opened: {error}; {advice(path)}") from None
        raise StoreError(f"the database {path.name} cannot be opened: {error}") from None
    return connection


def require_sound(connection: sqlite3.Connection, path: Path) -> None:
    """Raise Damaged when what the database holds is not what was written to it, as far as a look of seconds tells."""
    if path.stat().st_size > _QUICK_CHECK_BYTES_MAX:
        log.info("the database %s is large and was not looked through: ww db check does", path.name)
        return
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        line = " ".join(str(found).split())[:200]
        raise Damaged(f"the database {path.name} cannot be opened: it is damaged ({line}); {advice(path)}")


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file is not what was written."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _bring_up(connection: sqlite3.Connection, name: str) -> None:
    """Make a database what this version reads. Each step is done or not: a gateway may be killed here."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        connection.executescript(f"BEGIN; {_SCHEMA} {_SINCE_3} {_SINCE_4} PRAGMA user_version = {VERSION}; COMMIT;")
        return
    while version in _MIGRATIONS:
        connection.executescript(f"BEGIN; {_MIGRATIONS[version]} PRAGMA user_version = {version + 1}; COMMIT;")
        version += 1
    if version != VERSION:
        raise UsageError(
            f"the database {name} has version {version}, this ww reads version {VERSION}:"
            " use another --state or another ww"
        )
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] == 0:
        try:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("VACUUM")
        except sqlite3.Error as error:
            log.warning("the database %s does not give room back to the disk yet: %s", name, error)


# Backups.


def note_backup(database: Path, backup: Path) -> None:
    """Remember, beside the database, where a backup of it is. Raises OSError."""
    notes = database.with_name(_BACKUPS)
    known = [other for other in _noted(database) if other != backup.absolute()]
    lines = [json.dumps(str(path)) for path in [*known, backup.absolute()][-_BACKUPS_MAX:]]
    part = notes.with_suffix(".part")
    part.write_text("\n".join(lines) + "\n")
    part.chmod(0o600)
    os.replace(part, notes)


def newest_backup(database: Path) -> Path | None:
    """Return the newest backup that is known of and still there."""
    candidates = [*_noted(database), *database.parent.glob("*.backup"), *database.parent.parent.glob("*.backup")]
    times = {}
    for path in candidates:
        try:
            times[path] = path.stat().st_mtime
        except OSError:
            continue
    return max(times, key=times.__getitem__, default=None)


def advice(database: Path) -> str:
    """Say what to do about a damaged database."""
    backup = newest_backup(database)
    if backup is None:
        return "no backup of it is known; move it away, and its payloads, to begin anew"
    return f"the newest backup is {backup}: ww db restore brings it back into another --state"


def _noted(database: Path) -> list[Path]:
    try:
        lines = database.with_name(_BACKUPS).read_text().splitlines()[-_BACKUPS_MAX:]
        return [Path(json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError):
        return []


def is_there(path: Path) -> bool:
    """Whether a database of this version is at path. StoreError when something else is."""
    if not path.exists():
        return False
    try:
        with closing(connect_read_only(path)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise StoreError(f"the database {path.name} cannot be read: {error}") from None
    if version != VERSION:
        raise UsageError(f"the database {path.name} has version {version}, expected {VERSION}: start its gateway once")
    return True
