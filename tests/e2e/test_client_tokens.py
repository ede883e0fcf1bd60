"""Tokens from the client: none, a wrong one, one that may not do what it is used for, and every way to name one. None
is ever shown."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import BOUND_S, Gateway
from tests.guests import ROOT, guest
from ww.client import Client, Retry
from ww.errors import NotAllowed, NotFound

ONCE = Retry(retries=0)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path) as cluster:
        yield cluster


def ww(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "ww", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=BOUND_S, check=False,
    )  # fmt: skip


def make_token(cluster: CleanCluster, file: Path, name: str, *scopes: str) -> str:
    options = [word for scope in scopes for word in ("--scope", scope)]
    done = ww(cluster.environment, "token", "create", name, "--file", str(file), *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def client_of(gateway: Gateway, token: str | None) -> Client:
    return Client(f"http://{gateway.http}", token=token, retry=ONCE)


def test_tokens(cluster: CleanCluster, tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    first = make_token(cluster, file, "first", "read", "submit")
    second = make_token(cluster, file, "second", "read")
    gateway = cluster.gateway("--token-file", str(file))
    with client_of(gateway, first) as client, client_of(gateway, second) as other:
        task = client.submit(guest("noop"), start_s=1000)
        assert task.owner == "first"
        assert [each.id for each in client.tasks()] == [task.id]
        assert list(other.tasks()) == []
        with pytest.raises(NotFound):
            other.task(task.id)
        with pytest.raises(NotAllowed, match="second"):
            other.submit(guest("noop"))
    for token in (None, "wrong", f"{first}x"):
        with client_of(gateway, token) as client:
            for ask in (client.workers, lambda client=client: client.submit(guest("noop"))):
                with pytest.raises(NotAllowed) as refused:
                    ask()
                assert "\n" not in str(refused.value)
                assert token is None or token not in str(refused.value)
    assert first not in gateway.log
    assert second not in gateway.log

    environment = cluster.environment | {"WW_GATEWAY": f"http://{gateway.http}"}
    done = ww(environment, "tasks")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text(f"{first}\n")
    for variables, arguments in (
        ({"WW_TOKEN": first}, []),
        ({}, ["--token-file", str(secret)]),
    ):
        done = ww(environment | variables, "tasks", *arguments)
        assert done.returncode == 0, done.stderr
        assert task.id in done.stdout
    done = ww(environment | {"WW_TOKEN": second}, "run", "wasm/noop/noop.wasm")
    assert done.returncode == 125
    assert second not in done.stderr
    os.unlink(secret)
