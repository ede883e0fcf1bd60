"""The benchmark of a tab, Deno and Python, at the smallest size: what it prints and writes, not how fast it is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import why_not
from tests.guests import ROOT

CASES = {"noop", "single", "hash"}


def browser(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run it; return its exit code, its rows and what it says for people."""
    command = [sys.executable, str(ROOT / "bench" / "browser.py"), "--quick", "--rounds", "1", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=55)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can")
def test_a_tab_and_python_are_measured_alike_and_written_down(tmp_path: Path) -> None:
    code, rows, said = browser("--workers", "tab,python", "--write-docs", str(tmp_path))
    assert [row for row in rows if "error" in row] == []
    assert code == 0, said
    measured = {(row["system"], row["case"]): row for row in rows if "system" in row}
    assert set(measured) == {(system, case) for system in ("tab", "python") for case in CASES}
    assert measured["tab", "hash"]["hashes"] == measured["python", "hash"]["hashes"]
    for system in ("tab", "python"):
        assert 0 < measured[system, "single"]["p50_ms"] <= measured[system, "single"]["p99_ms"]
        assert measured[system, "noop"]["runs_per_s"] > 0
    goals = [row for row in rows if row["case"] == "goal"]
    assert len(goals) == 2
    assert "| a tab of Chromium |" in said
    assert [json.loads(line) for line in (tmp_path / "browser.jsonl").read_text().splitlines()] == rows
    assert "| a tab of Chromium |" in (tmp_path / "browser.md").read_text()


def test_what_is_not_known_is_refused() -> None:
    code, rows, said = browser("--workers", "tab,phone")
    assert (code, rows) == (2, [])
    assert "'phone' is none of tab, deno, python" in said
