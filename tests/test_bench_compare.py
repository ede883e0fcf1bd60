"""The benchmark that compares ww with others, at the smallest size: what it prints and writes, not how fast it is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def compare(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run it; return its exit code, its rows and what it says for people."""
    command = [sys.executable, str(ROOT / "bench" / "compare.py"), "--quick", "--rounds", "1", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_ww_and_a_pool_are_measured_alike_and_written_down(tmp_path: Path) -> None:
    code, rows, said = compare(
        "--parts", "systems", "--systems", "ww-http,processpool", "--cases", "noop,single", "--noops", "200",
        "--write-docs", str(tmp_path),
    )  # fmt: skip
    assert [row for row in rows if "error" in row] == []
    assert code == 0
    measured = {(row["system"], row["case"]): row for row in rows if "system" in row}
    assert set(measured) == {(system, case) for system in ("ww-http", "processpool") for case in ("noop", "single")}
    for (_, case), row in measured.items():
        assert row["count"] == (200 if case == "noop" else 50)
        assert row["runs_per_s"] > 0
        assert case == "noop" or 0 < row["p50_ms"] <= row["p99_ms"]
    assert "| ww, HTTP |" in said
    assert [json.loads(line) for line in (tmp_path / "compare.jsonl").read_text().splitlines()] == rows
    assert "ProcessPoolExecutor" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "compare.svg").read_text().startswith("<svg ")


def test_simulated_workers_say_what_a_run_costs() -> None:
    code, rows, _ = compare("--parts", "scale", "--scale", "2")
    assert code == 0
    (row,) = (row for row in rows if row["case"] == "scale")
    assert row["workers"] == 2
    assert row["ideal_per_s"] == 20
    assert row["cpu_us"] > 0
    assert row["limit_per_s"] > 0
    assert 0 < row["share"] <= 1.1


def test_a_missing_package_is_one_line(tmp_path: Path) -> None:
    # A package of that name that imports one which is nowhere: what is there differs from machine to machine.
    (tmp_path / "ray.py").write_text("import no_such_package")
    command = [sys.executable, "-m", "bench.comparison.driver", "ray", '{"cases": [], "sizes": {}, "round": 0}']
    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=50
    )
    assert json.loads(done.stdout)["error"] == "no_such_package is not installed: scripts/setup bench"
    assert done.stderr == ""
    assert done.returncode == 1


@pytest.mark.parametrize(("option", "value"), [("--systems", "spark"), ("--cases", "nothing"), ("--scale", "0")])
def test_what_is_not_known_is_refused(option: str, value: str) -> None:
    code, rows, said = compare(option, value)
    assert code == 2
    assert rows == []
    assert "Traceback" not in said
