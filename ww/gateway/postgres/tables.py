"""The tables in PostgreSQL, in a schema of their own, and the versions before them.

Holds the schema and the migrations. Must not know what is asked of them: store.py does. They are those of database.py
but for payloads, which lie in the rows: the server keeps what is large apart by itself, and its backups have it then.
"""

from typing import Final

import asyncpg

from ww.errors import StoreError, UsageError
from ww.gateway.postgres.session import Session, line

# A migration for each version, from nothing: the first one makes version 1.
STEPS: Final[list[str]] = [
    """
CREATE TABLE store (
  id integer PRIMARY KEY CHECK (id = 1),
  version integer NOT NULL,
  epoch bigint NOT NULL,
  serial bigint NOT NULL
);
INSERT INTO store VALUES (1, 0, 0, 0);
CREATE TABLE tasks (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id text NOT NULL CONSTRAINT tasks_id UNIQUE,
  spec text NOT NULL,
  stdin bytea NOT NULL,
  repeats bigint NOT NULL,
  created_at double precision NOT NULL,
  finished_at double precision,
  cancelled boolean NOT NULL DEFAULT false,
  succeeded bigint NOT NULL DEFAULT 0,
  failed bigint NOT NULL DEFAULT 0,
  owner text NOT NULL,
  reason text NOT NULL DEFAULT '',
  module text NOT NULL,
  files text NOT NULL,
  result_bytes bigint NOT NULL DEFAULT 0
);
ALTER TABLE tasks ALTER COLUMN stdin SET STORAGE EXTERNAL;
CREATE INDEX tasks_open ON tasks (number) INCLUDE (result_bytes) WHERE finished_at IS NULL;
CREATE INDEX tasks_ended ON tasks (finished_at, number) INCLUDE (result_bytes) WHERE finished_at IS NOT NULL;
CREATE INDEX tasks_of_owner ON tasks (owner, number);
CREATE INDEX tasks_module ON tasks (module);
CREATE INDEX tasks_files ON tasks (files) WHERE files <> '';
CREATE TABLE runs (
  position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  task bigint NOT NULL,
  run bigint NOT NULL,
  state text NOT NULL,
  worker text NOT NULL,
  attempts bigint NOT NULL,
  queued_at double precision NOT NULL,
  started_at double precision,
  finished_at double precision NOT NULL,
  reason text NOT NULL,
  detail text NOT NULL,
  result text,
  exit_code bigint,
  stdout bytea NOT NULL,
  stderr bytea NOT NULL,
  stdout_truncated boolean NOT NULL,
  stderr_truncated boolean NOT NULL,
  wall_s double precision NOT NULL,
  cpu_s double precision NOT NULL,
  memory_bytes bigint NOT NULL,
  memory_limit_bytes bigint NOT NULL,
  fuel bigint,
  queue_s double precision NOT NULL,
  compile_s double precision NOT NULL,
  instantiate_s double precision NOT NULL,
  files_bytes bigint NOT NULL,
  artifacts text NOT NULL,
  artifacts_bytes bigint NOT NULL,
  CONSTRAINT runs_of_task UNIQUE (task, run)
);
ALTER TABLE runs ALTER COLUMN stdout SET STORAGE EXTERNAL, ALTER COLUMN stderr SET STORAGE EXTERNAL;
CREATE INDEX runs_latest ON runs (task, position);
CREATE INDEX runs_artifacts ON runs (artifacts) WHERE artifacts <> '';
CREATE TABLE forgetting (task bigint PRIMARY KEY);
""",
    """
ALTER TABLE tasks ADD COLUMN inputs text NOT NULL DEFAULT '';
CREATE INDEX tasks_inputs ON tasks (inputs) WHERE inputs <> '';
""",
    # A spec may have grants, depth and parent, which an older ww would stumble over.
    "SELECT 1",
    # And replicas and quorum.
    "SELECT 1",
]


async def version_of(session: Session, schema: str) -> int | None:
    """Return the version of the tables in a schema, 0 where there are none, None where there is no schema."""
    if not await session.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = $1", schema):
        return None
    names = {name for (name,) in await session.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema)}
    if names and "store" not in names:
        raise UsageError(f"the schema {schema} has tables of something else: name another with --store-schema")
    if not names:
        return 0
    try:
        found: int | None = await session.fetchval("SELECT version FROM store")
    except asyncpg.PostgresError as error:
        raise StoreError(f"the schema {schema} cannot be read: {line(error)}") from None
    return found


async def make_schema(session: Session, schema: str) -> None:
    """Have the schema there, so that it can be locked."""
    if await session.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = $1", schema):
        return
    try:
        await session.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    except asyncpg.UniqueViolationError:
        return  # another one that starts at this moment made it
    except asyncpg.PostgresError as error:
        raise StoreError(f"the schema {schema} cannot be made: {line(error)}") from None


async def bring_up(session: Session, schema: str) -> None:
    """Make the tables what this version reads. Each step is done or not: a gateway may be killed here."""
    version = await version_of(session, schema) or 0
    require_known(version, schema)
    while version < len(STEPS):
        step = STEPS[version]
        version += 1
        try:
            await session.execute(f"BEGIN; {step}; UPDATE store SET version = {version}; COMMIT")
        except asyncpg.PostgresError as error:
            raise StoreError(f"the tables in the schema {schema} cannot be made: {line(error)}") from None


def require_known(version: int, schema: str) -> None:
    """Raise UsageError when tables are of a later ww."""
    if version > len(STEPS):
        raise UsageError(
            f"the schema {schema} has version {version}, this ww reads version {len(STEPS)}:"
            " use another --store-schema or another ww"
        )
