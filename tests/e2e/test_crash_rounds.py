"""kill -9 of the gateway, of workers and of both, over and over, under load: what was accepted is kept, and done once.

WW_CRASH_ROUNDS says how many rounds, WW_CRASH_SEED repeats the choices of a run that failed; what happens in between is
the machine's.
"""

import contextlib
import json
import os
import random
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.crash_load import Load, Order, load_on, unchanging
from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import Gateway, Worker, wait_until

ROUNDS = int(os.environ.get("WW_CRASH_ROUNDS", "50"))
SEED = int(os.environ.get("WW_CRASH_SEED") or random.randrange(2**32))
CLIENTS = 4
CALLS_A_ROUND = 48
WORKERS = 2
# How long after an answer the kill comes, at most: a few commits, a few runs.
DELAY_MAX_S = 0.03
POSTED_AGAIN_MAX = 300
BOUND_S = 60.0
# Nothing may be forgotten, which by default happens to all but the latest tasks.
OPTIONS = ("--keep", "100000000")


class Rounds:
    """The nodes that are killed, and what is chosen for each round."""

    def __init__(self, cluster: CleanCluster, source: random.Random) -> None:
        self._cluster = cluster
        self._source = source
        self.gateway: Gateway = cluster.gateway(*OPTIONS)
        self._listen = ("--listen", f"/ip4/127.0.0.1/tcp/{self.gateway.peer_port}")
        self.workers: list[Worker] = [cluster.worker(self.gateway) for _ in range(WORKERS)]
        self.killed: Counter[str] = Counter()

    def once(self, load: Load) -> None:
        """Give the clients work, kill somebody in its midst, and start it again."""
        answered = load.done
        victims = self._source.choices((("gateway",), ("worker",), ("gateway", "worker")), (5, 3, 2))[0]
        after, delay_s = self._source.randrange(CALLS_A_ROUND), self._source.uniform(0, DELAY_MAX_S)
        number = self._source.randrange(WORKERS)
        load.give(CALLS_A_ROUND)
        wait_until(lambda: load.is_done(answered + after), f"{after} answers", BOUND_S)
        time.sleep(delay_s)  # the point is to be at no event
        nodes: list[Gateway | Worker] = [self.gateway if who == "gateway" else self.workers[number] for who in victims]
        self._source.shuffle(nodes)
        for node in nodes:
            self._lose(node)
        if "gateway" in victims:
            self.gateway = self._cluster.gateway(*self._listen, *OPTIONS, http=self.gateway.http)
        if "worker" in victims:
            self.workers[number] = self._cluster.worker(self.gateway)
        wait_until(load.is_done, "all calls are answered", BOUND_S)

    def _lose(self, node: Gateway | Worker) -> None:
        self._cluster.lose(node)
        self.killed[type(node).__name__] += 1
        assert "Traceback" not in node.log


@pytest.mark.timeout(120 + 20 * ROUNDS)
def test_what_was_accepted_is_done_once_whoever_is_killed(tmp_path: Path) -> None:
    with clean_cluster_in(tmp_path) as cluster:
        try:
            rounds = Rounds(cluster, random.Random(SEED))
            with load_on(rounds.gateway.http, SEED, CLIENTS) as load:
                for _ in range(ROUNDS):
                    rounds.once(load)
                log, tried_again = load.log, check(rounds.gateway, load)
                print(  # noqa: T201
                    f"seed {SEED}, {ROUNDS} rounds: killed {dict(rounds.killed)}, accepted {len(log.accepted)} tasks,"
                    f" {log.unsure} calls broke off, {log.reposted} tasks posted again, {log.cancelled} cancelled,"
                    f" {tried_again} runs were tried again"
                )
                if ROUNDS >= 50:
                    assert log.unsure, "no gateway was killed in the midst of a call"
                    assert tried_again, "no worker was killed in the midst of a run"
            check_database(cluster.state / "gateway" / "ww.db", load)
        except BaseException as error:
            error.add_note(f"to repeat: WW_CRASH_SEED={SEED} WW_CRASH_ROUNDS={ROUNDS}")
            raise


def check(gateway: Gateway, load: Load) -> int:
    """Wait until all is done, and hold what the gateway shows against what the clients were told.

    Returns how many runs lost a worker, as far as the last gateway knows.
    """
    ended = {}
    for id, (order, created_at) in load.log.accepted.items():
        ended[id] = task = gateway.ended(id, BOUND_S)
        assert (task["id"], task["created_at"]) == (id, created_at)
        whole = task | {"results": all_results(gateway, id)} if order.runs else task
        check_task(whole, order, may_be_cancelled=id in load.log.asked_to_cancel)
    for id, before in load.log.ended.items():
        assert unchanging(ended[id]) == before, f"{id} has ended and changed"
    with httpx.Client(base_url=f"http://{gateway.http}", timeout=BOUND_S) as client:
        again = random.Random(SEED).sample(sorted(ended), min(len(ended), POSTED_AGAIN_MAX))
        for id in again:
            load.post_again(client, id)
            assert gateway.task(id) == ended[id], "posting it again changes nothing"
    return sum(result["attempts"] > 1 for task in ended.values() for result in task["results"])


def all_results(gateway: Gateway, id: str) -> list[Any]:
    """Return the results of all runs of a task, of which the task itself shows the latest."""
    answer = gateway.client.get(f"/tasks/{id}/results", params={"follow": "false"})
    found = [json.loads(line) for line in answer.text.splitlines() if line]
    positions = [result["position"] for result in found]
    assert positions == sorted(set(positions)), id
    return found


def check_task(task: Any, order: Order, *, may_be_cancelled: bool) -> None:
    """Hold a task that has ended against what was posted."""
    results = task["results"]
    runs = [result["run"] for result in results]
    assert len(set(runs)) == len(runs), f"{task['id']} has a run with two results"
    wrong = [
        result
        for result in results
        if result["state"] != "cancelled"
        and any(result[name] != value for name, value in order.expected_of(result["run"]).items())
    ]
    assert not wrong, f"{task['id']}: expected {order.expected_of(wrong[0]['run'])}, got {wrong[0]}"
    succeeded = sum(result["state"] == "succeeded" for result in results)
    assert task["completions"] == task["runs"]["succeeded"] == succeeded
    if task["status"] == "cancelled":
        assert may_be_cancelled, f"{task['id']} is cancelled, for which nobody asked"
        return
    assert sorted(runs) == list(range(order.repeats)), f"{task['id']} has ended without results of all its runs"
    assert task["status"] == order.expected["state"]
    assert sum(task["runs"].values()) == order.repeats


def check_database(path: Path, load: Load) -> None:
    """Look for ourselves: what was accepted is there, and nothing twice."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert {id for (id,) in connection.execute("SELECT id FROM tasks")} == set(load.log.accepted)
        twice = "SELECT task, run, count(*) FROM runs GROUP BY task, run HAVING count(*) > 1"
        assert connection.execute(twice).fetchall() == []
        stray = "SELECT count(*) FROM runs LEFT JOIN tasks ON tasks.number = runs.task WHERE tasks.id IS NULL"
        assert connection.execute(stray).fetchone() == (0,)
        sums = "SELECT id, (SELECT count(*) FROM runs WHERE task = number) FROM tasks WHERE NOT cancelled"
        for id, results in connection.execute(sums):
            assert results == load.log.accepted[id][0].repeats, id
