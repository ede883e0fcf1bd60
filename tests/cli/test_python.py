"""`ww python`, with a tool of the tests' own in place of componentize-py."""

import json
from pathlib import Path

import pytest

import ww.python.build as module
from tests.python.tools import Tool
from ww.cli import main


@pytest.fixture(autouse=True)
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    return Tool(tmp_path, monkeypatch)


def test_it_is_built_and_its_path_printed(tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, calls in (([], 1), ([], 1), (["--force"], 2)):
        assert main(["python", "build", "--cache", str(tmp_path / "cache"), *words]) == 0
        assert tool.calls == calls
        assert Path(capsys.readouterr().out.strip()).is_file()


def test_the_list_of_modules_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in ((["--json"], json.dumps(["json", "math"]) + "\n"), ([], "json\nmath\n")):
        assert main(["python", "modules", "--cache", str(tmp_path / "cache"), *words]) == 0
        assert capsys.readouterr().out == expected


def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_TOOL", "componentize-py-that-nobody-has")
    assert main(["python", "build", "--cache", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "ww: Python functions need componentize-py, which is not installed: pip install 'ww[python]'\n"
    )
