"""Where a store's rows are in a test, whatever its database: opened as stores, looked at and changed past them."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from tests.gateway import stored
from tests.gateway.postgres_server import Server
from ww.clock import Clock
from ww.gateway.postgres.address import PostgresAddress, read_address
from ww.gateway.postgres.session import PostgresConfig
from ww.gateway.postgres.store import PostgresStore
from ww.gateway.store import Store, StoreConfig

_numbers = itertools.count(1)


class Place(Protocol):
    """What one store keeps."""

    def open(self, config: StoreConfig | None = None, clock: Clock | None = None) -> Any:
        """Return the store, to be opened."""

    async def rows(self, query: str) -> list[Any]:
        """Ask the database past the store, as another process would."""

    async def change(self, *statements: str) -> None:
        """Change the database past the store."""

    async def refuse(self, action: str, words: str) -> None:
        """Have the database refuse an action, such as `INSERT ON tasks`, with those words."""

    async def take(self, action: str) -> None:
        """Have it take that again."""


class SqlitePlace:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, config: StoreConfig | None = None, clock: Clock | None = None) -> Store:
        return Store(self.path, config, clock)

    async def rows(self, query: str) -> list[Any]:
        return stored.rows(self.path, query)

    async def change(self, *statements: str) -> None:
        stored.change(self.path, *statements)

    async def refuse(self, action: str, words: str) -> None:
        await self.change(f"CREATE TRIGGER refusing BEFORE {action} BEGIN SELECT RAISE(ABORT, '{words}'); END")

    async def take(self, action: str) -> None:
        await self.change("DROP TRIGGER refusing")


class PostgresPlace:
    """A schema of its own."""

    def __init__(self, server: Server, schema: str = "") -> None:
        self.server = server
        self.schema = schema or f"test_{next(_numbers)}"

    @property
    def address(self) -> PostgresAddress:
        return PostgresAddress(self.server.url, str(self.server.folder), "ww", schema=self.schema)

    def open(self, config: StoreConfig | None = None, clock: Clock | None = None, **postgres: Any) -> PostgresStore:
        return PostgresStore(self.address, config, clock, PostgresConfig(**postgres))

    async def rows(self, query: str) -> list[Any]:
        connection = await self._connect()
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    async def change(self, *statements: str) -> None:
        connection = await self._connect()
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def refuse(self, action: str, words: str, sqlstate: str = "P0001") -> None:
        how = f"RAISE EXCEPTION '{words}' USING ERRCODE = '{sqlstate}'"
        await self.change(
            f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {how}; END $$",
            f"CREATE TRIGGER refusing BEFORE {action} FOR EACH ROW EXECUTE FUNCTION refuse()",
        )

    async def take(self, action: str) -> None:
        await self.change(f"DROP TRIGGER refusing ON {action.rpartition(' ')[2]}", "DROP FUNCTION refuse")

    async def _connect(self) -> Any:
        url = read_address(self.server.url).url
        return await asyncpg.connect(url, server_settings={"search_path": self.schema})


async def until_rows(place: Place, query: str, condition: Callable[[list[Any]], bool]) -> None:
    """Return when a condition holds for what the database says; fail when it does not within a bound."""
    async with asyncio.timeout(20):
        while not condition(await place.rows(query)):  # noqa: ASYNC110 a database tells nobody
            await asyncio.sleep(0.01)
