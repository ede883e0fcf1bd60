"""The commands that ask a gateway, without one: usage, addresses, tokens, and what they do not import."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_cli import refused, ww
from tests.guests import ROOT
from ww.identity import Identity

NOBODY = "http://127.0.0.1:1"
SECRET = "wwt-a.secret_token"
COMMANDS = [["tasks"], ["status", "t"], ["logs", "t"], ["cancel", "t"], ["workers"], ["run", "wasm/noop/noop.wasm"]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["status"], ["ww status: ", "one task's id"]),
        (["status", "a", "--id", "b"], ["one task's id"]),
        (["cancel"], ["ID"]),
        (["logs"], ["ID"]),
        (["logs", "t", "--run", "-1"], ["--run", "'-1' is not a whole number from 0"]),
        (["tasks", "--status", "done"], ["--status", "'done'", "succeeded"]),
        (["tasks", "--limit", "0"], ["--limit"]),
        (["tasks", "--gateway", "localhost:8080"], ["--gateway", "expected http://HOST:PORT"]),
        (["run", "a.wasm", "--spread", "wide"], ["--spread", "'wide' is not one of pull, roundrobin"]),
        (["tasks", "--gateway", "true"], ["--gateway", "'true'"]),
        (["tasks", "--token", SECRET], ["--token-file, or WW_TOKEN"]),
        (["tasks", "--token-file", "/nowhere/token"], ["token file token: No such file"]),
        (["run"], ["FILE"]),
        (["run", "a.wasm", "--fly"], ["--fly", "--"]),
        (["run", "a.wasm", "--input", "x"], ["--input", "'x' is not a whole number from 0"]),
        (["run", "a.wasm", "--priority", "high"], ["--priority"]),
        (["run", "a.wasm", "--memory", "lots"], ["--memory", "'lots' is no size"]),
        (["run", "a.wasm", "--env", "=x"], ["--env", "expected NAME or NAME=VALUE"]),
        (["run", "a.wasm", "--env", "WW_NOT_SET"], ["--env", "has no value here"]),
        (["run", "a.wasm", "--label", "gpu"], ["--label", "KEY=VALUE"]),
        (["run", "a.wasm", "--out", "x"], ["--out", "--artifact"]),
        (["run", "a.wasm", "--out", "x", "--artifact", "y", "--detach"], ["--out", "not --detach"]),
    ],
)
def test_wrong_usage_is_one_line_and_2(tmp_path: Path, arguments: list[str], says: list[str]) -> None:
    done = ww(tmp_path, *arguments, WW_GATEWAY=NOBODY)
    refused(done, 2, *says)
    assert SECRET not in done.stderr


@pytest.mark.parametrize("arguments", COMMANDS)
def test_without_a_gateway_they_say_so_in_one_line(tmp_path: Path, arguments: list[str]) -> None:
    done = ww(tmp_path, *arguments, "--gateway", NOBODY)
    refused(done, 125 if arguments[0] == "run" else 1, f"ww: no gateway at {NOBODY}: connection refused")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "none.wasm"], ["wasm: none.wasm: No such file or directory"]),
        (["run", "wasm"], ["wasm: wasm: Is a directory"]),
        (["run", "sha256:12"], ["module: 'sha256:12' is not sha256: and 64 hex digits"]),
        (["run", "wasm/noop/noop.wasm", "--stdin", "none"], ["stdin: none: No such file or directory"]),
        (["run", "wasm/noop/noop.wasm", "--files", "none"], ["files: none: No such file or directory"]),
        (["run", "wasm/noop/noop.wasm", "--out", "wasm", "--artifact", "/"], ["out: wasm is not empty"]),
        (["run", "wasm/noop/noop.wasm", "--env", "A=1", "--env", "A=2"], ["env: a name is given more than once"]),
    ],
)
def test_what_cannot_be_sent_is_said_without_asking(tmp_path: Path, arguments: list[str], says: list[str]) -> None:
    refused(ww(tmp_path, *arguments, WW_GATEWAY=NOBODY), 125, *says)


def test_the_variable_of_the_launcher_is_no_address(tmp_path: Path) -> None:
    for said in ("true", "FALSE", "1", ""):
        refused(ww(tmp_path, "tasks", "--gateway", NOBODY, WW_GATEWAY=said), 1, NOBODY)
        assert ww(tmp_path, "tasks", "--help", WW_GATEWAY=said).returncode == 0
    refused(ww(tmp_path, "tasks", WW_GATEWAY="maybe"), 2, "WW_GATEWAY", "'maybe'")


def test_a_token_is_kept(tmp_path: Path) -> None:
    far = "http://192.0.2.1:8080"
    refused(ww(tmp_path, "tasks", "--gateway", far, WW_TOKEN=SECRET), 1, far, "plain HTTP", "insecure")
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o644)
    refused(ww(tmp_path, "tasks", "--token-file", str(file)), 2, "token file token", "0600")
    file.chmod(0o600)
    refused(ww(tmp_path, "tasks", "--gateway", NOBODY, "--token-file", str(file)), 1, "connection refused")
    # That variable is a gateway's.
    refused(ww(tmp_path, "tasks", "--gateway", NOBODY, WW_TOKEN_FILE="/nowhere"), 1, "connection refused")
    file.write_text('[[token]]\nname = "a"\n')
    done = ww(tmp_path, "tasks", "--token-file", str(file))
    refused(done, 2, "that is no token")
    for said in (done.stderr, ww(tmp_path, "tasks", WW_TOKEN="a b").stderr):
        assert "a b" not in said


def test_certificates_that_are_none(tmp_path: Path) -> None:
    refused(ww(tmp_path, "tasks", "--gateway", "https://127.0.0.1:1", "--ca", "none.pem"), 1, "none.pem: No such file")


PEER = str(Identity.generate().peer_id)
TICKET = "wwt1-0123abcd-secretsecret"


def write_secret(path: Path, content: str) -> str:
    path.write_text(content)
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--gateway", NOBODY, "--lan"], ["--lan: expected --gateway PEER_ID"]),
        (["--gateway", NOBODY, "--key", "k"], ["--key: expected --gateway PEER_ID"]),
        (["--gateway", PEER, "--ca", "c"], ["--ca: expected --gateway http://"]),
        (["--gateway", PEER, "--insecure"], ["--insecure: expected --gateway http://"]),
        (["--gateway", PEER, "--addr", "x"], ["'x' is no address"]),
        (["--gateway", PEER, "--discover", "x"], ["'x' is no multicast group"]),
        (["--gateway", PEER[:-1]], ["peer id"]),
        (["--gateway", "/ip4/127.0.0.1/tcp/1"], ["expected .../p2p/PEER_ID"]),
        (["--gateway", PEER, "--no-multicast"], [PEER, "does not answer in namespace 'ww'"]),
        (["--gateway", f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}", "--no-multicast"], ["127.0.0.1"]),
        (["--gateway", PEER, "--ticket-file", "none"], ["ticket file none: No such file"]),
    ],
)
def test_what_a_peer_and_http_are_asked_with(tmp_path: Path, arguments: list[str], says: list[str]) -> None:
    refused(ww(tmp_path, "tasks", *arguments), 1, *says)


def test_variables_of_the_other_kind_are_for_others(tmp_path: Path) -> None:
    refused(ww(tmp_path, "tasks", "--gateway", NOBODY, WW_LAN="1", WW_KEY="k", WW_NS="lab"), 1, "connection refused")
    refused(ww(tmp_path, "tasks", "--gateway", PEER, WW_NO_MULTICAST="1", WW_TOKEN=SECRET, WW_CA="c"), 1, "not answer")


def test_a_ticket_is_no_argument_and_never_repeated(tmp_path: Path) -> None:
    for text, code in ((f"/p2p/{PEER}/ticket/{TICKET}", 2), (TICKET, 2), (f"x{TICKET}", 2)):
        done = ww(tmp_path, "tasks", "--gateway", text)
        refused(done, code, "--gateway")
        assert "secretsecret" not in done.stderr
    for text, says in (
        (f"/p2p/{PEER}x/ticket/{TICKET}", "peer id"),
        (TICKET, "whose ticket"),
        (f"x{TICKET}", "expected"),
    ):
        done = ww(tmp_path, "tasks", WW_GATEWAY=text)
        assert (done.returncode, says in done.stderr, done.stderr.count("\n")) in ((1, True, 1), (2, True, 1)), (
            done.stderr
        )
        assert "secretsecret" not in done.stderr


def test_a_ticket_file_says_which_gateway(tmp_path: Path) -> None:
    file = write_secret(tmp_path / "ticket", f"/p2p/{PEER}/ticket/{TICKET}\n")
    refused(ww(tmp_path, "tasks", "--ticket-file", file, WW_NO_MULTICAST="1"), 1, PEER, "does not answer")
    for other in (str(Identity.generate().peer_id), NOBODY):
        refused(ww(tmp_path, "tasks", "--ticket-file", file, "--gateway", other), 1, "the ticket is of", PEER)
    alone = write_secret(tmp_path / "alone", TICKET)
    refused(ww(tmp_path, "tasks", "--ticket-file", alone), 1, "ticket file alone: expected .../p2p/PEER_ID/ticket/")


@pytest.mark.parametrize("command", ["run", "map", "tasks", "status", "logs", "cancel", "workers"])
def test_they_start_without_nodes_capabilities_and_sandboxes(command: str) -> None:
    program = (
        "import sys\nfrom ww.cli import main\ntry:\n main([sys.argv[1], '--help'])\nexcept SystemExit:\n pass\n"
        "heavy = {'capnp', 'wasmtime', 'starlette', 'uvicorn', 'cryptography', 'zeroconf'}\n"
        "sys.exit(f'imported: {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, command], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_launcher_is_not_confused_by_an_address(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "cmd/scheduler.py", "--help"],
        cwd=ROOT, env={"WW_GATEWAY": "http://127.0.0.1:8080", "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()[:3]) == (0, ["usage:", "ww", "worker"])
