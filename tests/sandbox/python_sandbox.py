"""A pool with the Python component of tests in it, which is compiled once a machine: that takes seconds."""

import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.python_components import kept_folder, python_component
from ww import component_core
from ww.sandbox.calls import Calls
from ww.sandbox.invocation import Invocation, Result, RunLimits
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import SandboxPool

NAME = "user:function"


class PythonSandbox:
    """A pool, and the digest of the component in its cache."""

    def __init__(self, pool: SandboxPool, cache: ModuleCache, digest: bytes, code: str) -> None:
        self.pool = pool
        self.cache = cache
        self.digest = digest
        self.code = code

    def invocation(self, text: str, code: str | None = None, **given: Any) -> Invocation:
        """Return what has the guest evaluate text, after it has executed code."""
        code = self.code if code is None else code
        return Invocation(**{"args": (NAME,), "stdin": text.encode(), "code": code.encode() or b"\n"} | given)

    def limits(self, **limits: Any) -> RunLimits:
        return RunLimits(**{"duration_s": 30.0, "memory_bytes": 256 << 20, "output_bytes": 1 << 20} | limits)

    async def run(
        self, text: str, code: str | None = None, *, calls: Calls | None = None, env: Any = (), **limits: Any
    ) -> Result:
        given = {name: limits.pop(name) for name in ("args", "deterministic", "seed") if name in limits}
        wanted = self.limits(**limits)
        invocation = self.invocation(text, code, env=env, **given)
        if wanted.is_metered(invocation):
            await prepare(self.pool, self.cache, self.digest, metered=True)
        return await self.pool.run(self.digest, invocation, wanted, calls)

    async def group(self, *texts: str, code: str | None = None, **limits: Any) -> list[Result]:
        invocations = [self.invocation(text, code) for text in texts]
        return await self.pool.run_group(self.digest, invocations, self.limits(**limits))


@cache
def _compiler() -> str:
    """Name what compiles it, as it is in this checkout."""
    root = Path(component_core.__file__).parent
    sources = [*root.glob("wasm_*.py"), root / "component_core.py", root / "sandbox" / "artefact.py"]
    sources += [root / "sandbox" / "program.py", root / "sandbox" / "python_compile.py"]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sorted(sources))).hexdigest()[:8]


@asynccontextmanager
async def open_sandbox(
    tmp_path: Path, *, code: str = "", slots: int = 1, **options: Any
) -> AsyncIterator[PythonSandbox]:
    data = python_component()
    modules = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    digest = hashlib.sha256(data).digest()
    async with modules.writer(digest) as writer:
        await writer.write(data)
    async with SandboxPool(modules, slots=slots, **options) as pool:
        await prepare(pool, modules, digest, metered=False)
        yield PythonSandbox(pool, modules, digest, code)


async def prepare(pool: SandboxPool, cache: ModuleCache, digest: bytes, *, metered: bool) -> None:
    """Have it compiled, unless a test before did."""
    there = cache.artefact_path(digest, metered)
    kept = kept_folder() / f"{_compiler()}-{there.name}"
    if kept.exists():
        shutil.copy(kept, there)
    await pool.prepare(digest, metered=metered)
    if not kept.exists():
        part = kept.with_suffix(f".{os.getpid()}")
        shutil.copy(there, part)
        part.replace(kept)
