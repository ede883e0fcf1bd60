"""What `ww gateway` understands of its options."""

import argparse
import logging
from pathlib import Path

import pytest

from ww.cli import gateway
from ww.cli.gateway import keep
from ww.cli.native import guests, tasks_admission, tasks_config, warn_of_open
from ww.cli.options import node_config
from ww.cli.parser import Parser
from ww.errors import UsageError
from ww.gateway.caller import Quota
from ww.identity import Identity
from ww.rpc.admission import Closed

PEER = Identity.generate().peer_id


def options(state: Path, *arguments: str) -> argparse.Namespace:
    parser = Parser()
    gateway.add_to(parser)
    found: argparse.Namespace = parser.parse_args(["--state", str(state), *arguments])
    return found


# Peers that give work.


@pytest.mark.parametrize(
    ("arguments", "is_for_all"),
    [
        ([], True),
        (["--listen", "/ip4/127.0.0.1/tcp/9100"], True),
        (["--tasks-admit", "open", "--admit", "ticket"], True),
        (["--tasks-admit", "open", "--listen", "/ip4/0.0.0.0/tcp/0"], True),
        (["--admit", "open"], False),
        (["--lan", "--admit", "ticket"], False),
        (["--token-file", "FILE"], False),
        (["--listen", "/ip4/0.0.0.0/tcp/0"], False),
        (["--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/192.0.2.1/tcp/0"], False),
        (["--tasks-admit", "ticket"], False),
        (["--tasks-admit", "allow:FILE"], False),
    ],
)
@pytest.mark.anyio
async def test_who_may_give_work(tmp_path: Path, arguments: list[str], is_for_all: bool) -> None:
    (tmp_path / "file").write_text(f"{Identity.generate().peer_id}\n")
    given = [text.replace("FILE", str(tmp_path / "file")) for text in arguments]
    policy = tasks_admission(options(tmp_path, *given))
    assert (policy is None or await policy.refusal(PEER) is None) == is_for_all
    # Who may connect for nothing else is who a policy names, not everybody whom it refuses.
    assert (guests(policy) is None) == (policy is None or isinstance(policy, Closed))


def test_what_a_peer_may_hold(tmp_path: Path) -> None:
    config = tasks_config(options(tmp_path))
    assert config.quota == Quota(None, None, None)
    config = tasks_config(
        options(
            tmp_path, "--peer-tasks-max", "3", "--peer-runs-max", "40", "--peer-tasks-bytes-max", "5K",
            "--peer-arriving", "6", "--arrive-timeout", "7m", "--tail-max", "8M", "--upload-max", "9M",
        )
    )  # fmt: skip
    assert config.quota == Quota(3, 40, 5 << 10)
    assert (config.arriving_max, config.arrive_timeout_s, config.tail_bytes_max) == (6, 420.0, 8 << 20)
    assert config.module_bytes_max == 9 << 20


@pytest.mark.parametrize("text", ["", "opens", "allow:", "tickets", "allow:/nowhere/at all"])
def test_a_policy_that_is_none(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options(tmp_path, f"--tasks-admit={text}")
    (line,) = capsys.readouterr().err.splitlines()
    assert "--tasks-admit" in line


@pytest.mark.parametrize(
    ("arguments", "is_told"),
    [
        (["--tasks-admit", "open"], False),
        (["--tasks-admit", "open", "--listen", "/ip4/0.0.0.0/tcp/9100", "--admit", "ticket"], True),
        (["--tasks-admit", "open", "--lan", "--admit", "ticket"], True),
        (["--tasks-admit", "ticket", "--lan", "--admit", "open"], False),
        (["--lan", "--admit", "open"], False),
    ],
)
def test_a_gateway_that_works_for_everybody_says_so(
    tmp_path: Path, arguments: list[str], is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    arguments_of = options(tmp_path, *arguments)
    with caplog.at_level(logging.WARNING):
        warn_of_open(arguments_of, node_config(arguments_of, None, "gateway", None).listen)
    assert ("--tasks-admit open: whoever reaches /ip4/0.0.0.0/tcp/" in caplog.text) == is_told
    assert bool(caplog.records) == is_told


# What is kept.


@pytest.mark.parametrize(
    ("text", "kept"),
    [("10000", 10_000), ("1", 1), ("7d", 7 * 86_400.0), ("1.5h", 5400.0), ("30s", 30.0), ("10m", 600.0)],
)
def test_what_is_kept_is_a_number_of_tasks_or_a_time_with_a_unit(text: str, kept: float) -> None:
    assert (keep(text), type(keep(text))) == (kept, type(kept))


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "7 d", "7w", "d", "1e3", "\u0663"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as error:
        keep(text)
    assert "\n" not in str(error.value)
