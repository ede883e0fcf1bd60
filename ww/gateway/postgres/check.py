"""Whether what a gateway keeps in PostgreSQL is whole: its rows, and the files in the state directory that they name.

Holds the look alone, which changes nothing and may be taken beside a running gateway. That the server's own files are
whole is for the server to say (data checksums, pg_amcheck); here every value is read once, which finds what it can.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from ww.errors import StoreError
from ww.gateway import rows
from ww.gateway.integrity import FILES, MISSED, defect_of_file
from ww.gateway.postgres.address import PostgresAddress
from ww.gateway.postgres.session import FAILURES, PostgresConfig, Session, connect, line
from ww.gateway.postgres.tables import STEPS, require_known, version_of

_AT_ONCE: Final = 256
# Each finds what must not be, with the words for it.
_CONTRADICTIONS: Final = (
    (
        "SELECT id, succeeded, failed FROM tasks WHERE reason = '' AND (succeeded, failed) <>"
        " (SELECT count(*) FILTER (WHERE state = 'succeeded'), count(*) FILTER (WHERE state = 'failed')"
        " FROM runs WHERE task = number) ORDER BY number",
        "task {0}: it counts {1} runs as succeeded and {2} as failed, its results say otherwise",
    ),
    (
        "SELECT id FROM tasks WHERE finished_at IS NULL AND succeeded + failed >= repeats ORDER BY number",
        "task {0}: all its runs have ended, it has not",
    ),
    (
        "SELECT task, count(*) FROM runs WHERE NOT EXISTS (SELECT FROM tasks WHERE number = task)"
        " AND NOT EXISTS (SELECT FROM forgetting WHERE forgetting.task = runs.task) GROUP BY task ORDER BY task",
        "{1} results are of no task (its number was {0})",
    ),
)
# Large values lie apart, and are looked at by no query but one that wants them.
_READ_ALL: Final = "SELECT count(length(md5(stdout) || md5(stderr))) FROM runs"


async def check(address: PostgresAddress, directory: Path) -> AsyncIterator[str]:
    """Yield a line for each thing that is not as it should be.

    StoreError when the server cannot be asked or there are no tables, UsageError when they are another version's.
    """
    # Every value is read: that takes as long as it takes.
    session = await connect(address, PostgresConfig(timeout_s=86_400.0), to_write=False)
    try:
        version = await version_of(session, address.schema)
        if not version:
            raise StoreError(f"there is no store in the schema {address.schema}: see --store and --store-schema")
        require_known(version, address.schema)
        if version < len(STEPS):
            raise StoreError(f"the schema {address.schema} has version {version}: start its gateway once")
        async with session.transaction(isolation="repeatable_read", readonly=True):
            async for defect in _of_rows(session):
                yield defect
            named = [
                (f"{folder}/{digest}{suffix}", digest)
                for table, column, folder, suffix in FILES
                for (digest,) in await session.fetch(f"SELECT DISTINCT {column} FROM {table} WHERE {column} <> ''")
            ]
        for name, digest in named:
            defect = await asyncio.to_thread(defect_of_file, directory / name, digest)
            if defect and await _is_wanted(session, digest, is_there=(directory / name).exists()):
                yield f"{name}: {defect}"
    except FAILURES as error:
        raise StoreError(f"the database cannot be read: {line(error)}") from None
    finally:
        session.terminate()


async def _of_rows(session: Session) -> AsyncIterator[str]:
    for query, words in _CONTRADICTIONS:
        async for row in session.cursor(query, prefetch=_AT_ONCE):
            yield words.format(*row)
    async for id, text, stdin in session.cursor("SELECT id, spec, stdin FROM tasks ORDER BY number", prefetch=_AT_ONCE):
        if defect := _of_spec(id, text, stdin):
            yield defect
    await session.fetchval(_READ_ALL)


def _of_spec(id: str, text: str, stdin: bytes) -> str:
    try:
        spec = rows.parts_to_spec(text, stdin)
    except (ValueError, TypeError, KeyError):
        return f"task {id}: what was submitted cannot be read"
    return "" if spec.id == id else f"task {id}: what was submitted says {spec.id}"


async def _is_wanted(session: Session, digest: str, *, is_there: bool) -> bool:
    """Whether a row names that file, and somebody misses it: see integrity.is_wanted."""
    missed = dict.fromkeys(MISSED, "") if is_there else MISSED
    queries = [f"SELECT 1 FROM {table} WHERE {column} = $1{missed[table]}" for table, column, _, _ in FILES]
    return await session.fetchval(f"{' UNION ALL '.join(queries)} LIMIT 1", digest) is not None


async def contents(address: PostgresAddress) -> dict[str, int]:
    """Count what there is, for people."""
    session = await connect(address, PostgresConfig(), to_write=False)
    try:
        counts: dict[str, Any] = {
            name: await session.fetchval(f"SELECT count(*) FROM {table}")
            for name, table in (("tasks", "tasks"), ("results", "runs"))
        }
    except FAILURES as error:
        raise StoreError(f"the database cannot be read: {line(error)}") from None
    finally:
        session.terminate()
    return counts
