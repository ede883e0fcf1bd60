"""The benchmark of Python functions, at the smallest size: what it prints and writes, not how fast it is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SYSTEMS = ("ww", "ww-100", "processpool")


def functions(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run it; return its exit code, its rows and what it says for people."""
    command = [sys.executable, str(ROOT / "bench" / "functions.py"), "--quick", "--rounds", "1", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.timeout(120)
def test_ww_and_a_pool_are_measured_alike_and_written_down(tmp_path: Path) -> None:
    code, rows, said = functions("--systems", ",".join(SYSTEMS), "--write-docs", str(tmp_path))
    assert [row for row in rows if "error" in row] == []
    assert code == 0
    measured = {(row["system"], row["case"]): row for row in rows if "system" in row}
    assert set(measured) == {(system, case) for system in SYSTEMS for case in ("first", "noop", "millisecond", "call")}
    for (_, case), row in measured.items():
        assert case == "first" or row["count"] == {"noop": 1000, "millisecond": 500, "call": 30}[case]
        assert case not in ("noop", "millisecond") or row["calls_per_s"] > 0
        assert case != "call" or 0 < row["p50_ms"] <= row["p99_ms"]
    assert "| ww, each call in a fresh sandbox |" in said
    assert [json.loads(line) for line in (tmp_path / "functions.jsonl").read_text().splitlines()] == rows
    assert "ProcessPoolExecutor" in (tmp_path / "functions.md").read_text()


@pytest.mark.parametrize(("option", "value"), [("--systems", "spark"), ("--cases", "nothing")])
def test_what_is_not_known_is_refused(option: str, value: str) -> None:
    code, rows, said = functions(option, value)
    assert code == 2
    assert rows == []
    assert "Traceback" not in said
