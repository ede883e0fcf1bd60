"""Modules and zips into a module store, as an upload that nobody examines."""

from collections.abc import Awaitable, Callable

from ww.gateway.modules import ModuleStore


async def store_module(
    modules: ModuleStore, data: bytes, in_use: Callable[[], Awaitable[set[str]]], digest: str = ""
) -> None:
    """Store a module, under another digest than its own where one is given."""
    with modules.upload(in_use) as upload:
        upload.write(data)
        await upload.finish()
        upload.digest = digest or upload.digest
        await upload.keep()


async def store_files(modules: ModuleStore, data: bytes, in_use: Callable[[], Awaitable[set[str]]]) -> None:
    """Store a zip."""
    with modules.upload_files(in_use) as upload:
        upload.write(data)
        await upload.finish()
        await upload.keep()
