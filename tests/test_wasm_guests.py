"""The guests of wasm/: their known answers, and that their bytes are what their sources give."""

import importlib.metadata
import re
import subprocess
from pathlib import Path

import pytest
import wasmtime

from tests.guests import ROOT, guest

TOOLCHAIN = re.search(r"ziglang==(\S+)\"", (ROOT / "pyproject.toml").read_text())


def installed_toolchain() -> str | None:
    try:
        return importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        return None


@pytest.mark.parametrize(
    ("given", "answers"),
    [(0, [1, 3, 563, 2832, 69732]), (1, [1, 25, 467, 2823, 72608]), (7, [1, 19, 198, 7379, 54822])],
)
def test_the_hash_puzzle_has_its_known_answers(given: int, answers: list[int]) -> None:
    store = wasmtime.Store()
    instance = wasmtime.Instance(store, wasmtime.Module(store.engine, guest("hash")), [])
    run = instance.exports(store)["run"]
    assert isinstance(run, wasmtime.Func)
    assert [run(store, given, difficulty) for difficulty in range(5)] == answers


@pytest.mark.timeout(300)
@pytest.mark.skipif(
    TOOLCHAIN is None or installed_toolchain() != TOOLCHAIN[1],
    reason="rebuilding needs the recorded compiler: scripts/setup guests",
)
def test_a_rebuild_gives_the_same_bytes(tmp_path: Path) -> None:
    subprocess.run([ROOT / "scripts" / "build-guests", "--out", tmp_path], check=True, capture_output=True)
    kept = {path.relative_to(ROOT / "wasm"): path.read_bytes() for path in (ROOT / "wasm").rglob("*.wasm")}
    rebuilt = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.wasm")}
    assert sorted(rebuilt) == sorted(kept)
    for path, data in kept.items():
        assert rebuilt[path] == data, path
