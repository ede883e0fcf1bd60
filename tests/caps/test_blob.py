"""Bytes by reference: read whole and in order, and not more of them than anybody needs."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ww import schema
from ww.caps.blob import READ_BYTES_MAX, BlobServer, fetch
from ww.errors import NotFound, Overloaded, UsageError
from ww.identity import Identity
from ww.net.memory import MemoryTransport, Network
from ww.node import LOOPBACK
from ww.rpc.errors import call
from ww.rpc.vat import Vat

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

DATA = os.urandom(1_300_000)


@pytest.fixture
async def blob(tmp_path: Path) -> AsyncIterator[Any]:
    """A blob that another vat serves."""
    network, serving, calling = Network(), Identity.generate(), Identity.generate()
    (tmp_path / "file").write_bytes(DATA)
    async with (
        Vat(serving, MemoryTransport(network, serving)) as there,
        Vat(calling, MemoryTransport(network, calling)) as here,
    ):
        there.export("blob", lambda peer: BlobServer(tmp_path / "file"))
        async with await here.dial(serving.peer_id, await there.listen(LOOPBACK)) as connection:
            yield await connection.connect("blob", schema.worker.Blob)


async def test_a_blob_is_read_whole_and_in_order(blob: Any) -> None:
    assert b"".join([data async for data in fetch(blob, bytes_max=len(DATA))]) == DATA


async def test_a_blob_of_more_bytes_than_are_wanted_is_not_read(blob: Any) -> None:
    with pytest.raises(UsageError, match=f"a blob of {len(DATA)} bytes: at most"):
        await anext(fetch(blob, bytes_max=len(DATA) - 1))


async def test_a_part_of_it_and_what_is_beyond_its_end(blob: Any) -> None:
    assert (await call(blob.read(offset=5, count=10))).data == DATA[5:15]
    assert (await call(blob.read(offset=len(DATA) - 3, count=10))).data == DATA[-3:]
    assert (await call(blob.read(offset=len(DATA), count=10))).data == b""


async def test_a_read_is_bounded(blob: Any) -> None:
    with pytest.raises(UsageError, match="at most 1048576 a call"):
        await call(blob.read(offset=0, count=READ_BYTES_MAX + 1))


async def test_bytes_that_are_gone(blob: Any, tmp_path: Path) -> None:
    (tmp_path / "file").unlink()
    for promise in (blob.size(), blob.read(offset=0, count=1)):
        with pytest.raises(NotFound, match="not there any more") as error:
            await call(promise)
        assert str(tmp_path) not in str(error.value)


async def test_who_reads_for_ever_is_not_answered_for_ever(blob: Any) -> None:
    reads = [call(blob.read(offset=0, count=READ_BYTES_MAX)) for _ in range(10)]
    with pytest.raises(Overloaded, match="2 times over"):
        await asyncio.gather(*reads)
