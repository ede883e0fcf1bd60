"""The artifacts of runs: zips that came from workers, by sha256.

Holds what is examined before it is kept, since workers are not trusted. Must not know who wants them. The folder:
content.py.
"""

import asyncio
import hashlib
from pathlib import Path
from typing import BinaryIO, Final

from ww import archive
from ww.errors import NotFound, PeerError, UsageError
from ww.gateway.content import ContentStore, InUse, Sort
from ww.gateway.upload import Upload

_ZIP: Final = Sort(".zip", "artifacts: the zip")
# Of a zip at all: how many are made is for the worker to limit.
_COUNT_MAX: Final = 65_534


class ArtifactStore:
    """A folder of zips, `<sha256 hex>.zip` each."""

    def __init__(self, directory: Path, *, quota_bytes: int) -> None:
        """Keep artifacts in directory, which is made when it is not there, and at most quota_bytes of them."""
        self._content = ContentStore(directory, quota_bytes=quota_bytes)

    async def examine(self, data: bytes, *, bytes_max: int) -> str:
        """Return the digest of what a worker sent, storing nothing.

        PeerError when it is no zip that unpacks to at most bytes_max.
        """
        return await asyncio.to_thread(_examine, data, bytes_max)

    async def keep(self, data: bytes, digest: str, in_use: InUse) -> None:
        """Store an examined zip: see Upload.keep."""
        with Upload.whole(self._content, _ZIP, in_use, data, digest) as upload:
            await upload.keep()

    def path(self, digest: str) -> Path:
        """Say where the zip of that digest (hex) is, if it is there."""
        return self._content.path(digest, _ZIP)

    async def open(self, digest: str) -> BinaryIO:
        """Open a stored zip. NotFound when it is not here."""
        try:
            return await asyncio.to_thread(self._content.path(digest, _ZIP).open, "rb")
        except OSError:
            raise NotFound("these artifacts are not stored here any more") from None


def _examine(data: bytes, bytes_max: int) -> str:
    try:
        archive.check(data, bytes_max=bytes_max, count_max=_COUNT_MAX)
    except UsageError as error:
        raise PeerError(f"the worker sent artifacts that were not asked for: {error}") from None
    return hashlib.sha256(data).hexdigest()
