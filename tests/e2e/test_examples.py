"""The examples as people start them: with nothing there, and with a gateway that is named. What they print is right."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Cluster
from tests.guests import ROOT

TEXTS = {
    "one.txt": "The cat sat on the mat.\nThe dog did not: the dog ran.",
    "more/two.txt": "A cat, a dog, a mat; and the end",
}
EXPECTED = {
    "pythagorean.py": ["3² + 4² = 5²", "20² + 21² = 29²", "11 triples with no side above 30"],
    "pi.py": ["pi is about 3.14254, by 1,000,000 points in 50 calls"],
    "sieve.py": ["148,933 primes below 2,000,000, the largest is 1,999,993"],
    "wordcount.py": ["22 words in 2 files, 12 of them different", "      5 the"],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the guest is made, and compiled, once for all."""
    path = tmp_path_factory.mktemp("cache")
    environment = os.environ | {"XDG_CACHE_HOME": str(path)}
    subprocess.run([sys.executable, "-m", "ww", "python", "build"], cwd=ROOT, env=environment, check=True, timeout=100)
    return path


@pytest.fixture
def cluster(cluster: Cluster, cache: Path, tmp_path: Path) -> Iterator[Cluster]:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    cluster.environment |= {"XDG_CACHE_HOME": str(cache), "TMPDIR": str(temporary)}
    yield cluster
    assert os.listdir(temporary) == []


def run(cluster: Cluster, name: str, *arguments: str, directory: Path) -> list[str]:
    """Start an example from another directory, and return what it prints."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments], cwd=directory, env=cluster.environment,
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "nothing but what it has to say"
    return done.stdout.splitlines()


def check(cluster: Cluster, name: str, tmp_path: Path) -> None:
    arguments: tuple[str, ...] = ()
    if name == "wordcount.py":
        for path, text in TEXTS.items():
            (tmp_path / "texts" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "texts" / path).write_text(text)
        arguments = ("texts", "*.txt")
    lines = run(cluster, name, *arguments, directory=tmp_path)
    for line in EXPECTED[name]:
        assert any(re.fullmatch(re.escape(line), each) for each in lines), lines


def test_all_examples_are_tested() -> None:
    assert sorted(EXPECTED) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", EXPECTED)
def test_with_nothing_there(cluster: Cluster, name: str, tmp_path: Path) -> None:
    check(cluster, name, tmp_path)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", EXPECTED)
def test_with_a_gateway_that_is_named(cluster: Cluster, name: str, tmp_path: Path) -> None:
    gateway = cluster.gateway()
    cluster.worker(gateway)
    cluster.environment["WW_GATEWAY"] = gateway.peer_id
    check(cluster, name, tmp_path)
    assert gateway.client.get("/tasks").json(), "it was asked"
