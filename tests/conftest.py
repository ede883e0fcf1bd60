"""What every test may use: one event loop kind, pycapnp's loop in it, and bounded waiting."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import capnp
import pytest

from tests.gateway.postgres_server import Server, running_server, why_no_server


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def kj_loop() -> AsyncIterator[None]:
    async with capnp.kj_loop():
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server, started once for all tests that use it."""
    if why_no_server():
        pytest.skip(why_no_server())
    with running_server() as server:
        yield server


async def until(condition: Callable[[], bool], bound_s: float = 10.0) -> None:
    """Return when condition holds; fail when it does not within the bound."""
    async with asyncio.timeout(bound_s):
        while not condition():  # noqa: ASYNC110 what is waited for has no event
            await asyncio.sleep(0.001)
