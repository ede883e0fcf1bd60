"""The cluster that a program has of its own: there when nothing else is, gone with the program, however that ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import BOUND_S, Cluster, Program, children_of, is_running, sandboxes_of, wait_until
from tests.guests import ROOT

BEGIN = """
import json, os, sys, threading
from pathlib import Path
from tests.e2e.opened import open_client

def run(opened, number):
    return [each.result for each in opened.client.run(Path("wasm/noop/noop.wasm"), input=number)]

import signal
# As a terminal starts it; what runs in the background is started without.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
go = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: go.set())
opened = open_client()
print(json.dumps({"where": opened.where, "found": run(opened, 4)}), flush=True)
"""


@pytest.fixture
def cluster(cluster: Cluster, tmp_path: Path) -> Cluster:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    cluster.environment["TMPDIR"] = str(temporary)
    return cluster


def script(cluster: Cluster, rest: str) -> Program:
    return cluster.program(command=("-c", BEGIN + rest))


def folders(cluster: Cluster) -> list[str]:
    return sorted(os.listdir(cluster.environment["TMPDIR"]))


def nodes_of(program: Program) -> dict[str, int]:
    """Return the pids of the gateway and the worker of a program."""
    found = {}
    for pid in children_of(program.pid):
        words = (Path("/proc") / str(pid) / "cmdline").read_bytes().decode().split("\0")
        if "ww.cli.kept" in words:
            found[words[words.index("ww.cli.kept") + 2]] = pid
    return found


def test_nothing_is_left_of_it(cluster: Cluster) -> None:
    program = script(cluster, "")
    said = json.loads(program.stdout_line())
    assert said["found"] == ["4"]
    assert "embedded gateway" in said["where"]
    assert program.wait() == 0, program.log
    assert program.lines == []
    assert folders(cluster) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_with_a_program_that_is_killed(cluster: Cluster, number: signal.Signals) -> None:
    program = script(cluster, "threading.Event().wait()")
    program.stdout_line()
    nodes = nodes_of(program)
    assert sorted(nodes) == ["gateway", "worker"]
    sandboxes = sandboxes_of(nodes["worker"])
    assert sandboxes
    program.send(number)
    program.wait()
    wait_until(lambda: not any(map(is_running, (*nodes.values(), *sandboxes))), "its processes are gone")
    wait_until(lambda: folders(cluster) == [], "its folder is gone")


def test_ctrl_c_is_the_programs(cluster: Cluster) -> None:
    # As a terminal does: to the whole group of the program.
    rest = """
import signal
try:
    os.killpg(0, signal.SIGINT)
    threading.Event().wait()
except KeyboardInterrupt:
    print(run(opened, 5), flush=True)
"""
    process = subprocess.run(
        [sys.executable, "-c", BEGIN + rest], cwd=ROOT, env=cluster.environment, capture_output=True, text=True,
        timeout=60, start_new_session=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[1] == "['5']"
    assert folders(cluster) == []


def test_one_for_all_threads(cluster: Cluster) -> None:
    rest = """
places = {opened.where}
threads = [threading.Thread(target=lambda: places.add(open_client().where)) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(places), flush=True)
opened.close()
print(run(open_client(), 6), flush=True)
"""
    program = script(cluster, rest)
    assert [program.stdout_line() for _ in range(3)][1:] == ["1", "['6']"]
    assert program.wait() == 0, program.log


def test_a_forked_child_does_not_end_it_nor_keep_it(cluster: Cluster) -> None:
    rest = """
import time
from concurrent.futures import ThreadPoolExecutor
ended = os.fork()
if not ended:
    sys.exit(0)                # with all that a program does at its end
os.waitpid(ended, 0)
print(run(opened, 5), flush=True)
own = os.fork()
if not own:
    mine = open_client()
    print(mine.where != opened.where, run(mine, 6), flush=True)
    sys.exit(0)
os.waitpid(own, 0)
staying = os.fork()
if not staying:
    os.close(1)
    os.close(2)
    threading.Event().wait()
print(staying, flush=True)
os._exit(0)
"""
    program = script(cluster, rest)
    lines = [program.stdout_line() for _ in range(4)]
    try:
        assert lines[1:3] == ["['5']", "True ['6']"], program.log
        program.wait()
        assert is_running(int(lines[3]))
        wait_until(lambda: folders(cluster) == [], "its folder is gone, though a child lives on")
    finally:
        os.kill(int(lines[3]), signal.SIGKILL)


@pytest.mark.parametrize("name", ["gateway", "worker"])
def test_what_dies_of_it_is_replaced(cluster: Cluster, name: str) -> None:
    program = script(cluster, "go.wait(); print(run(opened, 5), flush=True)")
    program.stdout_line()
    pid = nodes_of(program)[name]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: nodes_of(program).get(name, pid) != pid, "another is there")
    program.send(signal.SIGUSR1)
    assert program.stdout_line().strip() == "['5']"
    assert program.wait() == 0, program.log
    assert f"the embedded {name} has ended and is replaced: SIGKILL; it said last: " in program.log
    assert folders(cluster) == []


def test_one_that_dies_again_and_again_ends_it(cluster: Cluster) -> None:
    rest = """
from ww.errors import PeerError
go.wait()
print(opened.problem(), flush=True)
print(run(open_client(), 7), flush=True)
"""
    program = script(cluster, rest)
    program.stdout_line()
    seen = set()
    while len(seen) < 4:
        pid = wait_until(lambda: nodes_of(program).get("worker"), "a worker is there")
        if pid not in seen:
            seen.add(pid)
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: folders(cluster) == [], "the cluster has ended")
    program.send(signal.SIGUSR1)
    assert "the embedded worker ends again and again" in program.stdout_line()
    assert program.stdout_line() == "['7']", "the next one who asks has another"


def test_strangers_are_not_let_in(cluster: Cluster) -> None:
    rest = """
from ww.client.native import LinkConfig, NativeClient
from ww.client.call import Retry
from ww.errors import PeerError
folder = opened.where.partition("logs: ")[2].rstrip(")")
addresses = {name: open(f"{folder}/peers/ww/{name}").read().split() for name in os.listdir(folder + "/peers/ww")}
for peer_id, where in addresses.items():
    config = LinkConfig(addresses=where, multicast=False, state_directory="/nowhere")
    with NativeClient(peer_id, config, retry=Retry(retries=0)) as stranger:
        try:
            stranger.workers()
            print("let in")
        except PeerError as error:
            print(type(error).__name__)
sys.stdout.flush()
"""
    program = script(cluster, rest)
    assert [program.stdout_line() for _ in range(3)][1:] == ["NotAdmitted"] * 2, program.log
    assert program.wait() == 0, program.log


@pytest.mark.parametrize("what", ["folder", "cache"])
def test_one_line_says_why_it_does_not_start(cluster: Cluster, tmp_path: Path, what: str) -> None:
    program = """
from ww.errors import WwError
from tests.e2e.opened import open_client
try:
    open_client()
except WwError as error:
    print(type(error).__name__, error)
"""
    file = tmp_path / "file"
    file.write_text("")
    if what == "folder":
        cluster.environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(file))
        cluster.environment["WW_SLOTS"] = "no"
    else:
        cluster.environment["WW_CACHE"] = str(file)
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=cluster.environment, capture_output=True, text=True,
        timeout=BOUND_S, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    (line,) = said.stdout.splitlines()
    assert line.startswith("PeerError the embedded worker"), line
    assert ("WW_SLOTS" if what == "folder" else "cache") in line
    assert str(tmp_path) not in line
