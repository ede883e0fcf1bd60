"""The native client against real gateways and workers: who may come, what survives, how large."""

import asyncio
import gc
import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Cluster, Gateway, wait_busy, wait_until
from tests.e2e.test_admission import done
from tests.guests import guest
from ww.client.call import Retry
from ww.client.native import AsyncNativeClient, LinkConfig, NativeClient
from ww.errors import NotAdmitted, NotFound, PeerError, PeerMismatch, UsageError
from ww.identity import Identity

NOOP = guest("noop")
ECHO = guest("echo")
QUICK = Retry(retries=2, first_s=0.01)


def client_of(cluster: Cluster, target: str, **settings: Any) -> NativeClient:
    retry = settings.pop("retry", None)
    config = LinkConfig(**{"state_directory": cluster.state, "multicast": False} | settings)
    return NativeClient(target, config, retry=retry)


@pytest.fixture
def gateway(cluster: Cluster) -> Gateway:
    gateway = cluster.gateway()
    cluster.worker(gateway)
    return gateway


def test_by_peer_id_and_by_address(cluster: Cluster, gateway: Gateway, tmp_path: Path) -> None:
    for target, state in ((gateway.peer_id, cluster.state), (gateway.address, tmp_path / "none")):
        with client_of(cluster, target, state_directory=state) as client:
            assert client.health().peer == gateway.peer_id
            assert [each.result for each in client.run(NOOP, input=4)] == ["4"]
            task = client.submit(ECHO, stdin=b"hello")
            assert [each.stdout for each in client.stream(task.id)] == [b"hello"]
            assert client.wait(task.id).status == "succeeded"
    assert gateway.task(task.id)["owner"].startswith("peer:12D3")


def test_found_by_a_survey(cluster: Cluster, gateway: Gateway, tmp_path: Path) -> None:
    group = cluster.environment["WW_DISCOVER"]
    config = LinkConfig(state_directory=tmp_path / "none", groups=[group])
    with NativeClient(gateway.peer_id, config) as client:
        assert client.ready().is_ready


def test_in_programs_with_a_loop_of_their_own(cluster: Cluster, gateway: Gateway) -> None:
    async def main() -> list[str | None]:
        config = LinkConfig(state_directory=cluster.state, multicast=False)
        # Two at a time share what they need of the loop; one may be used while the other is closed.
        async with AsyncNativeClient(gateway.peer_id, config) as one:
            async with AsyncNativeClient(gateway.peer_id, config) as other:
                await other.health()
                found = [each.result async for each in one.run(NOOP, input=1)]
            with client_of(cluster, gateway.peer_id) as third:
                found += [each.result for each in third.run(NOOP, input=2)]
            return found + [each.result async for each in one.run(NOOP, input=3)]

    assert asyncio.run(main()) == ["1", "2", "3"]


def test_threads_share_one(cluster: Cluster, gateway: Gateway) -> None:
    found: list[str | None] = []
    with client_of(cluster, gateway.peer_id) as client:

        def use(number: int) -> None:
            found.extend(each.result for each in client.run(NOOP, input=number))

        threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(map(str, found)) == sorted(map(str, range(8)))
    with pytest.raises(UsageError, match="closed"):
        client.health()
    client.close()


def test_payloads_of_100_kb_in_and_out(cluster: Cluster, gateway: Gateway) -> None:
    with client_of(cluster, gateway.peer_id) as client:
        data = bytes(range(256)) * 400
        task = client.submit(ECHO, stdin=data, repeats=20, output_bytes=1 << 20)
        results = list(client.stream(task.id))
        assert len(results) == 20
        assert all(each.stdout == data for each in results)
        assert [each.run for each in client.stream(task.id, order="input")] == list(range(20))


def test_a_gateway_killed_in_the_middle(cluster: Cluster, tmp_path: Path) -> None:
    key = tmp_path / "client.key"
    gateway = cluster.gateway("--listen", "/ip4/127.0.0.1/tcp/0")
    worker = cluster.worker(gateway)
    with client_of(cluster, gateway.peer_id, key=key, retry=Retry(retries=60, most_s=0.5)) as client:
        task = client.submit(guest("spin"), input=150, repeats=8)
        results = client.stream(task.id)
        seen = [next(results).run for _ in range(2)]
        gateway.send(signal.SIGKILL)
        gateway.wait()
        again = cluster.gateway("--listen", "/ip4/127.0.0.1/tcp/0")
        assert again.peer_id == gateway.peer_id
        seen += [each.run for each in results]
        # Those without a result on disk ran again, and each has one.
        assert sorted(seen) == list(range(8))
        assert client.wait(task.id).status == "succeeded"
        assert client.submit(guest("spin"), id=task.id, input=150, repeats=8).id == task.id
    assert worker.pid


def test_cancel_stops_the_guest(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway)
    with client_of(cluster, gateway.peer_id) as client, client_of(cluster, gateway.peer_id) as stranger:
        task = client.submit(guest("spin"), input=60_000)
        wait_busy(worker)
        with pytest.raises(NotFound):
            stranger.cancel(task.id)
        assert client.cancel(task.id).status == "cancelled"
        assert [(each.run, each.state) for each in client.stream(task.id)] == [(0, "cancelled")]
        assert [each.result for each in client.run(NOOP, input=1)] == ["1"]


def test_a_batch(cluster: Cluster, gateway: Gateway) -> None:
    with client_of(cluster, gateway.peer_id) as client:
        task = client.submit_batch(NOOP, [{"input": number} for number in range(200)])
        assert task.repeats == 200
        assert sorted(each.run for each in client.stream(task.id)) == list(range(200))
        assert client.submit_batch(NOOP, ({"input": number} for number in range(3))).repeats == 3


# Who may.


def test_a_worker_s_policy_is_not_a_client_s(cluster: Cluster, tmp_path: Path) -> None:
    worker, client, both = (Identity.load(tmp_path / f"{name}.key") for name in ("worker", "client", "both"))
    (tmp_path / "workers").write_text(f"{worker.peer_id}\n{both.peer_id}\n")
    (tmp_path / "clients").write_text(f"{client.peer_id}\n{both.peer_id}\n")
    for identity in (worker, client, both):
        identity.close()
    admit = ("--admit", f"allow:{tmp_path / 'workers'}")
    gateway = cluster.gateway(*admit, "--tasks-admit", f"allow:{tmp_path / 'clients'}")
    joined = cluster.program("worker", "--dial", gateway.peer_id, "--key", str(tmp_path / "worker.key"), "--slots", "1")
    joined.logged("joined gateway")
    refused = cluster.program("worker", "--dial", gateway.peer_id, "--key", str(tmp_path / "client.key"))
    refused.logged("registry: .*not")
    with client_of(cluster, gateway.peer_id, key=tmp_path / "both.key") as allowed:
        assert [each.result for each in allowed.run(NOOP, input=1)] == ["1"]
    with (
        client_of(cluster, gateway.peer_id, key=tmp_path / "worker.key") as worker_s,
        pytest.raises(NotAdmitted, match="tasks: "),
    ):
        worker_s.submit(NOOP)
    with client_of(cluster, gateway.peer_id) as nobody, pytest.raises(NotAdmitted, match="refuses this node"):
        nobody.submit(NOOP)


@pytest.mark.parametrize("option", ["--admit", "--token-file"])
def test_closed_unless_said_otherwise(cluster: Cluster, tmp_path: Path, option: str) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(done(cluster, "token", "create", "ci", "--out", str(tmp_path / "secret")))
    tokens.chmod(0o600)
    gateway = cluster.gateway(option, "open" if option == "--admit" else str(tokens))
    with client_of(cluster, gateway.peer_id) as client, pytest.raises(NotAdmitted, match="see its --tasks-admit"):
        client.submit(NOOP)
    with client_of(cluster, gateway.peer_id, key=cluster.state / "gateway.key") as operator:
        assert operator.submit(NOOP).owner is None


def test_a_ticket_for_tasks_is_not_one_for_work(cluster: Cluster, tmp_path: Path) -> None:
    gateway = cluster.gateway("--admit", "ticket", "--tasks-admit", "ticket")
    tickets = {}
    for purpose in ("work", "tasks"):
        file = tmp_path / purpose
        done(cluster, "ticket", "create", "--for", purpose, "--out", str(file))
        tickets[purpose] = file.read_text().strip()
    assert {ticket["for"] for ticket in json.loads(done(cluster, "ticket", "ls", "--json"))} == {"work", "tasks"}
    worker = cluster.program("worker", "--ticket-file", str(tmp_path / "work"), "--slots", "1")
    worker.logged("joined gateway")
    with client_of(cluster, tickets["tasks"]) as client:
        assert [each.result for each in client.run(NOOP, input=1)] == ["1"]
    with client_of(cluster, tickets["tasks"]) as late, pytest.raises(NotAdmitted, match="as often as it may be"):
        late.health()
    (tmp_path / "tasks").unlink()
    done(cluster, "ticket", "create", "--for", "tasks", "--out", str(tmp_path / "tasks"))
    other = cluster.program("worker", "--ticket-file", str(tmp_path / "tasks"), "--slots", "1")
    other.logged("registry: ")
    assert len(gateway.workers()) == 1


def test_a_banned_peer_is_out(cluster: Cluster, tmp_path: Path) -> None:
    gateway = cluster.gateway()
    key = tmp_path / "client.key"
    with client_of(cluster, gateway.peer_id, key=key, retry=QUICK) as client:
        task = client.submit(NOOP)
        peer_id = (task.owner or "").removeprefix("peer:")
        done(cluster, "peers", "ban", peer_id)
        with pytest.raises(NotAdmitted, match="banned"):
            client.task(task.id)
        done(cluster, "peers", "ban", peer_id, "--lift")
        wait_until(lambda: client.task(task.id).id == task.id)


def test_another_peer_at_the_address(cluster: Cluster, tmp_path: Path) -> None:
    gateway = cluster.gateway()
    other = Identity.generate().peer_id
    address = gateway.address.replace(gateway.peer_id, str(other))
    with client_of(cluster, address, retry=QUICK) as client, pytest.raises(PeerMismatch):
        client.health()
    with client_of(cluster, str(other), retry=QUICK) as client, pytest.raises(PeerError, match="does not answer"):
        client.health()


# The command line.


def test_a_user_s_commands_are_known_by_one_key(cluster: Cluster, tmp_path: Path) -> None:
    gateway = cluster.gateway("--admit", "ticket", "--tasks-admit", "ticket", "--listen", "/ip4/127.0.0.1/tcp/0")
    for purpose, name in (("work", "worker"), ("tasks", "mine"), ("tasks", "other")):
        where = str(tmp_path / name)
        done(cluster, "ticket", "create", "--for", purpose, "--addr", _address(gateway), "--out", where)
    cluster.program("worker", "--ticket-file", str(tmp_path / "worker"), "--slots", "1").logged("joined gateway")
    # Of another user, who has none of the gateway's keys.
    own, others = ("--state", str(tmp_path / "a")), ("--state", str(tmp_path / "b"))
    ticket = ("--ticket-file", str(tmp_path / "mine"))
    assert done(cluster, "run", "wasm/noop/noop.wasm", "--input", "4", "--id", "t", *own, *ticket) == "4\n"
    # By its key alone from now on, and by an address.
    by_address = ("--gateway", f"{_address(gateway)}/p2p/{gateway.peer_id}")
    assert "peer:12D3KooW" in done(cluster, "status", "t", *own, *by_address)
    assert done(cluster, "logs", "t", *own, *by_address) == "4\n"
    assert "t" in done(cluster, "tasks", *own, *ticket)
    listed = done(cluster, "tasks", *others, "--ticket-file", str(tmp_path / "other"), "--json")
    assert listed == "[]\n", "others do not see it"
    rows = json.loads(done(cluster, "peers", "ls", "--json"))
    assert sorted((bool(row["ticket"]), bool(row["tasks_ticket"])) for row in rows) == [
        (False, True), (False, True), (True, False),
    ]  # fmt: skip
    shown = done(cluster, "peers", "ls")
    assert (shown.count(" (work) "), shown.count(" (tasks) ")) == (1, 2)
    # The gateway's own user sees all.
    assert '"id": "t"' in done(cluster, "tasks", "--gateway", gateway.peer_id, "--json")


def _address(gateway: Gateway) -> str:
    return f"/ip4/127.0.0.1/tcp/{gateway.peer_port}"


def test_a_forked_process_is_told_to_make_its_own(cluster: Cluster, gateway: Gateway) -> None:
    program = f"""
import os, sys
from ww.client.native import LinkConfig, NativeClient
from ww.errors import UsageError

config = LinkConfig(state_directory={str(cluster.state)!r}, multicast=False)
client = NativeClient({gateway.peer_id!r}, config)
client.health()
if not (child := os.fork()):
    try:
        client.health()
    except UsageError as error:
        assert "forked" in str(error)
        with NativeClient({gateway.peer_id!r}, config) as own:
            own.health()
        sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
client.health()
"""
    assert cluster.program(program, command=("-c",)).wait() == 0


def test_what_is_collected_in_the_client_s_own_thread_does_not_wait_for_itself(
    cluster: Cluster, gateway: Gateway
) -> None:
    client = client_of(cluster, gateway.peer_id)
    thread = client._thread
    stream = client.stream(client.submit(NOOP, repeats=2000).id)
    next(stream)
    circle: list[Any] = [client, stream]
    circle.append(circle)
    gc.disable()
    try:
        del client, stream, circle
        thread._loop.call_soon_threadsafe(gc.collect)
        thread._thread.join(5)
    finally:
        gc.enable()
    assert not thread._thread.is_alive()


def test_a_client_that_cannot_have_a_loop_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_loop(main: Any, **_: Any) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("ww.client.native_sync.run_loop", no_loop)
    with pytest.raises(OSError, match="Too many"):
        NativeClient(str(Identity.generate().peer_id))


def test_an_interruption_that_comes_when_a_call_was_just_sent_keeps_nobody(
    cluster: Cluster, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client_of(cluster, gateway.peer_id) as client:
        task = client.submit(guest("spin"), input=0)
        results = client.stream(task.id)
        begin = client._thread.begin

        def interrupted(work: Any) -> Any:
            begin(work)
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(client._thread, "begin", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(results)
        assert client.cancel(task.id).status == "cancelled"
