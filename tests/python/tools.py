"""A tool of the tests' own in place of componentize-py."""

from pathlib import Path

import pytest

import ww.python.build as module
from ww.python.guest.standard import LIST_BEGIN, LIST_END

# Stands for componentize-py: writes what a component has to have, and notes that it was called.
TOOL = f"""
import os, pathlib, sys
def script():
    pathlib.Path({{log!r}}).open("a").write("called\\n")
    words = sys.argv
    assert pathlib.Path("app/ww/python/guest/runtime.py").is_file()
    made = {LIST_BEGIN!r} + b'["json", "math"]' + {LIST_END!r}
    pathlib.Path(words[words.index("--output") + 1]).write_bytes(b"\\0asm" + made)
"""


class Tool:
    """A componentize-py of the tests' own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = folder / "log"
        self._path = folder / "tool.py"
        self._monkeypatch = monkeypatch
        self.write(TOOL.format(log=str(self.log)))

    def write(self, text: str) -> None:
        self._path.write_text(text)
        run = f"import sys, runpy; runpy.run_path({str(self._path)!r})['script']()"
        self._monkeypatch.setattr(module, "_TOOL_CALL", run)

    @property
    def calls(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0
