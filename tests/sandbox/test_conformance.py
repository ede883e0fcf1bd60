"""WASI preview 1 as guests see it through the pool: every function, what it does and what it refuses.

Where wasmtime and the specification differ, the guests (wasm/conformance) hold what wasmtime does and say so; what ww
replaces of wasmtime is held to the specification.
"""

import io
import zipfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.guests import CONFORMANCE, conformance_guest
from tests.sandbox.test_pool import LIMITS, Sandbox
from ww import wasm_inspect
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import SandboxPool

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

ARGS = ["first", 'the "second" arg', "", "żółw 🐢", "new\nline", "--=x"]
ENV = [("a", "text"), ("b", 'escap " ing'), ("c", "new\nline"), ("EMPTY", ""), ("U", "żółw 🐢"), ("E", "x=y")]
PREOPENED = [[], ["fs-tests.dir"], ["one", "other/inner", "z"]]
# Of errno.
FAULT, INVAL, NOMEM, OVERFLOW = 21, 28, 48, 61
# What wasm/conformance/trap.c exits with when a pointer that is not aligned did no harm.
UNALIGNED = 100


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=1, limits=LIMITS) as pool:
        yield Sandbox(pool, cache)


def folders(names: Sequence[str] = ()) -> bytes:
    """Return a zip with those folders, all of them empty."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(f"{name}/", b"")
    return data.getvalue()


async def run(sandbox: Sandbox, name: str, dirs: Sequence[str] = (), **say: Any) -> Any:
    module = conformance_guest(name)
    return await sandbox.run(module, duration_s=60.0, files=folders(dirs), dirs=list(dirs), **say)


def ended(outcome: Any) -> tuple[str, int, str, bytes]:
    return outcome.reason, outcome.exit_code, bytes(outcome.stderr).decode(), bytes(outcome.stdout)


WELL = ("ok", 0, "", b"")


def test_together_the_guests_call_every_function() -> None:
    called = {
        wish.name
        for name in CONFORMANCE
        for wish in wasm_inspect.inspect(conformance_guest(name)).imports
        if wish.module == "wasi_snapshot_preview1"
    }
    assert called == set(wasm_inspect._WASI)


@pytest.mark.parametrize("name", CONFORMANCE)
def test_every_guest_is_a_command(name: str) -> None:
    assert wasm_inspect.guest_of(wasm_inspect.inspect(conformance_guest(name))).kind is wasm_inspect.Kind.COMMAND


async def test_arguments_environment_clocks_and_random_numbers(sandbox: Sandbox) -> None:
    env = [{"key": key, "value": value} for key, value in ENV]
    assert ended(await run(sandbox, "process", args=ARGS, env=env)) == WELL


async def test_open_files_and_folders(sandbox: Sandbox) -> None:
    assert ended(await run(sandbox, "files")) == WELL


async def test_paths(sandbox: Sandbox) -> None:
    assert ended(await run(sandbox, "paths")) == WELL


async def test_paths_within_a_named_folder(sandbox: Sandbox) -> None:
    assert ended(await run(sandbox, "paths", ["fs-tests.dir"])) == WELL


async def test_every_way_to_open_a_path(sandbox: Sandbox) -> None:
    assert ended(await run(sandbox, "open")) == WELL


@pytest.mark.parametrize("dirs", PREOPENED)
async def test_preopened_folders_and_their_listing(sandbox: Sandbox, dirs: list[str]) -> None:
    assert ended(await run(sandbox, "dirs", dirs, args=dirs or ["/"])) == WELL


async def test_stdio_and_sockets(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "stdio", stdin=b"the input\n")
    assert ended(outcome) == ("ok", 0, "", b"one two three\n")


@pytest.mark.parametrize("stdin", [b"the input\n", b"", b"x" * 100_000])
async def test_waiting_for_clocks_and_descriptors(sandbox: Sandbox, stdin: bytes) -> None:
    assert ended(await run(sandbox, "poll", stdin=stdin)) == WELL


@pytest.mark.parametrize("code", [0, 1, 2, 33, 125, 126, 127, 128, 134, 255, 256, 65536, 2**31 - 1, 2**31, 2**32 - 1])
async def test_exit_codes(sandbox: Sandbox, code: int) -> None:
    outcome = await run(sandbox, "exit", args=[str(code)])
    assert ended(outcome) == ("exit" if code else "ok", code, "", b"before")
    assert outcome.exit_code is not None


async def test_an_exit_from_deep_down_and_a_plain_return(sandbox: Sandbox) -> None:
    assert ended(await run(sandbox, "exit", args=["deep"])) == ("exit", 77, "", b"before")
    outcome = await run(sandbox, "exit")
    assert ended(outcome) == WELL
    assert outcome.exit_code is not None


async def test_calls_that_no_correct_program_makes_end_the_guest_or_are_refused(sandbox: Sandbox) -> None:
    cases = (await run(sandbox, "trap")).exit_code
    env = [{"key": "a", "value": "text"}]
    assert cases > 70
    wrong = {}
    for case in range(cases):
        reason, code, stderr, stdout = ended(await run(sandbox, "trap", args=[str(case)], env=env))
        refused = reason == "exit" and code in (FAULT, INVAL, NOMEM, OVERFLOW, UNALIGNED)
        if not (reason == "trap" or refused) or stderr or stdout:
            wrong[case] = (reason, code, stderr, stdout)
    assert not wrong
