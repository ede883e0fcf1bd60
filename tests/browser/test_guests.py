"""Guests end in a tab and in Deno as they end with a Python worker, and a tab goes on after each."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.browser.chromium import Chromium
from tests.browser.tabs import Tab, join, origin_of, results
from tests.e2e.leftovers import clean_cluster_in
from tests.e2e.processes import Gateway
from tests.e2e.test_known_answers import ANSWERS
from tests.guests import GROW_4_GIB, ROOT, START_WITH_4_GIB, UNREACHABLE, conformance_guest, guest
from tests.sandbox.test_conformance import ARGS, ENV

RECURSION = (ROOT / "wasm" / "hostile" / "recursion.wasm").read_bytes()
PLACES = ["place=python", "kind=browser", "kind=deno"]
# What a run's end looks like to whoever submitted it, wherever it ran.
SEEN = (
    "state", "result", "exit_code", "stdout", "stdout_bytes", "stdout_truncated", "stderr", "stderr_bytes",
    "stderr_truncated", "reason",
)  # fmt: skip


class World(NamedTuple):
    """A gateway with a worker of each kind, in the order of PLACES."""

    gateway: Gateway
    tab: Tab
    places: list[str]


@pytest.fixture(scope="module")
def world(chromium: Chromium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    has_deno = (ROOT / ".venv" / "bin" / "deno").exists() or shutil.which("deno")
    with clean_cluster_in(tmp_path_factory.mktemp("cluster")) as cluster:
        gateway = cluster.gateway()
        cluster.worker(gateway, "--meta", "place=python")
        if has_deno:
            cluster.worker(gateway, "--runtime", "deno", "--gateway", origin_of(gateway))
        with chromium.profile(origin_of(gateway)) as profile:
            tab = join(chromium, profile, gateway)
            yield World(gateway, tab, PLACES if has_deno else PLACES[:2])


def everywhere(world: World, wasm: bytes, **fields: Any) -> list[dict[str, Any]]:
    """Run a guest once in each place, and return what is seen of it."""
    tasks = [world.gateway.post(wasm, labels=place, **fields) for place in world.places]
    workers = {
        place: worker["peer"] for place in world.places for worker in world.gateway.workers() if is_at(worker, place)
    }
    seen = []
    for place, task in zip(world.places, tasks, strict=True):
        (result,) = world.gateway.ended(task["id"])["results"]
        assert result["worker"] == workers[place]
        seen.append({name: result[name] for name in SEEN})
    return seen


def is_at(worker: Any, place: str) -> bool:
    name, _, value = place.partition("=")
    return bool(worker["labels"].get(name) == value)


def test_the_hash_puzzle_has_the_same_answers_everywhere(world: World) -> None:
    told = {}
    for place in world.places:
        for input, answers in ANSWERS.items():
            for difficulty in range(len(answers)):
                task = world.gateway.post(guest("hash"), input=input, difficulty=difficulty, labels=place)
                told[place, input, difficulty] = task["id"]
    wanted = {key: str(ANSWERS[key[1]][key[2]]) for key in told}
    assert {key: world.gateway.ended(id)["results"][0]["result"] for key, id in told.items()} == wanted


def test_a_command_has_stdin_arguments_environment_and_exit_code_everywhere(world: World) -> None:
    fields = {"args": ["first", "żółw 🐢", ""], "env": ["EXIT=7", "NAME=ż=w"], "stdin": "from stdin\n" * 3}
    seen = everywhere(world, guest("echo"), **fields)
    assert seen == [seen[0]] * len(seen)
    assert seen[0]["stdout"] == "first żółw 🐢 \n" + "from stdin\n" * 3
    assert seen[0]["stderr"] == "EXIT=7\nNAME=ż=w\n"
    assert (seen[0]["state"], seen[0]["reason"], seen[0]["exit_code"]) == ("failed", "exit", 7)


@pytest.mark.parametrize(
    ("wasm", "fields", "reason"),
    [
        pytest.param(UNREACHABLE, {"input": 0, "difficulty": 0}, "trap", id="trap"),
        pytest.param(GROW_4_GIB, {"input": 0, "difficulty": 0}, "trap", id="memory that is refused"),
        pytest.param(START_WITH_4_GIB, {"input": 0, "difficulty": 0}, "memory", id="too much memory to start with"),
        pytest.param(guest("echo"), {"stdin": "x" * 5000, "output": 1000}, None, id="output limit"),
        pytest.param(guest("spin"), {"input": 0, "duration": 0.5}, "deadline", id="deadline"),
        pytest.param(RECURSION, {"entry": "plain", "input": 0, "difficulty": 0}, "trap", id="recursion"),
        pytest.param(conformance_guest("exit"), {}, None, id="exit"),
        pytest.param(conformance_guest("stdio"), {"stdin": "the input\n"}, "exit", id="stdio"),
        pytest.param(
            conformance_guest("process"), {"args": ARGS, "env": [f"{k}={v}" for k, v in ENV]}, None, id="process"
        ),
    ],
)
def test_an_end_is_the_same_everywhere(world: World, wasm: bytes, fields: dict[str, Any], reason: str | None) -> None:
    seen = everywhere(world, wasm, **fields)
    assert seen == [seen[0]] * len(seen)
    assert seen[0]["reason"] == reason


def test_an_infinite_loop_in_a_tab_ends_at_its_deadline_and_the_tab_goes_on(world: World) -> None:
    loop = world.gateway.post(guest("spin"), input=0, duration=0.5, labels="kind=browser")
    after = world.gateway.post(guest("hash"), input=0, difficulty=3, labels="kind=browser")
    (stopped,) = world.gateway.ended(loop["id"])["results"]
    assert (stopped["reason"], stopped["attempts"], stopped["worker"]) == ("deadline", 1, world.tab.peer_id)
    (result,) = world.gateway.ended(after["id"])["results"]
    assert (result["result"], result["worker"], result["attempts"]) == ("2832", world.tab.peer_id, 1)


def test_what_is_cancelled_stops_in_a_tab(chromium: Chromium, world: World) -> None:
    task = world.gateway.post(guest("spin"), input=0, repeats=2, labels="kind=browser")
    chromium.until(lambda: world.gateway.task(task["id"])["status"] == "running", "it runs")
    assert world.gateway.client.delete(f"/tasks/{task['id']}").status_code == 200
    assert world.gateway.ended(task["id"])["status"] == "cancelled"
    after = world.gateway.post(guest("hash"), input=1, difficulty=2, labels="kind=browser")
    assert world.gateway.ended(after["id"])["results"][0]["result"] == "467"


def test_each_run_of_a_batch_in_a_tab_has_its_own_input(world: World, tmp_path: Path) -> None:
    lines = "".join(f'{{"stdin": "input {run}", "args": ["{run}"]}}\n' for run in range(300))
    answer = world.gateway.client.post(
        "/tasks", data={"labels": "kind=browser"}, files={"wasm": guest("echo"), "tasks": ("tasks.ndjson", lines)}
    )
    assert answer.status_code == 201, answer.text
    assert world.gateway.ended(answer.json()["id"])["status"] == "succeeded"
    told = results(world.gateway, answer.json()["id"])
    assert [each["stdout"] for each in told] == [f"{run}\ninput {run}" for run in range(300)]
