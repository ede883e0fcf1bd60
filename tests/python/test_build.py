import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ww.python.build as module
from tests.python.tools import Tool
from ww.errors import StoreError, UsageError
from ww.python.build import BuildFailed, build, component_path


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    return Tool(tmp_path, monkeypatch)


def test_it_is_built_once_and_then_found(tool: Tool, tmp_path: Path) -> None:
    said: list[str] = []
    first = build(tmp_path / "cache", say=said.append)
    again = build(tmp_path / "cache", say=said.append)
    assert first.path == again.path
    assert (first.was_there, again.was_there, tool.calls, len(said)) == (False, True, 1, 1)
    assert first.modules() == ["json", "math"]
    assert sorted(path.suffix for path in first.path.parent.iterdir()) == [".json", ".lock", ".wasm"]
    build(tmp_path / "cache", is_forced=True)
    assert tool.calls == 2


def test_other_sources_are_another_component(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [build(tmp_path).path]
    for number in range(6):
        monkeypatch.setattr(module, "_FILES", dict(module._FILES) | {f"more{number}.py": "errors.py"})
        paths.append(build(tmp_path).path)
    assert len(set(paths)) == 7
    assert paths[-1].exists()
    assert not paths[0].exists()  # only the latest are kept
    assert len(list(tmp_path.glob("python/*.wasm"))) == len(list(tmp_path.glob("python/*.json"))) == 4


def test_of_several_at_once_one_builds(tool: Tool, tmp_path: Path) -> None:
    # The lock is of the open file: threads hold it against each other as processes do.
    with ThreadPoolExecutor(4) as pool:
        paths = {each.path for each in pool.map(build, [tmp_path] * 4)}
    assert len(paths) == 1
    assert tool.calls == 1


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("raise SystemExit('Error: no such\\nworld at /secret')", "could not be built: world at /secret"),
        ("pass", "could not be built: componentize-py exited with 0"),
        ("import pathlib; pathlib.Path('made.wasm').write_bytes(b'x')", "was built without a list of its modules"),
        ("import os, sys; print(os.getcwd(), file=sys.stderr); sys.exit(2)", r"could not be built: \.$"),
    ],
)
def test_a_build_that_fails_says_so_and_leaves_nothing(tool: Tool, tmp_path: Path, script: str, message: str) -> None:
    tool.write(f"def script():\n    {script}\n")
    with pytest.raises(BuildFailed, match=message) as caught:
        build(tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "cache" / "python").iterdir()] == ["build.lock"]


def test_without_the_tool_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TOOL", "componentize-py-that-nobody-has")
    with pytest.raises(UsageError, match=r"pip install 'ww\[python\]'"):
        build(tmp_path)


def test_a_cache_that_cannot_be_written_is_an_error_in_one_line(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be kept in the cache: Not a directory"):
        build(tmp_path / "file")


def test_asking_for_the_component_says_that_it_takes_time(
    tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert component_path(tmp_path).is_file()
    component_path(tmp_path)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("ww: building the sandbox's Python")
    assert printed.err.count("\n") == 1


def test_the_real_one_has_the_standard_library() -> None:
    pytest.importorskip("componentize_py")
    component_path()
    built = build()
    assert {"json", "math", "asyncio", "re", "dataclasses", "statistics", "sqlite3", "zlib"} <= set(built.modules())
    assert not {"tkinter", "idlelib", "numpy", "antigravity"} & set(built.modules())
    assert built.path.read_bytes()[:8] == b"\0asm\r\0\1\0"  # a component
    assert stat.S_ISREG(built.path.stat().st_mode)
