"""What peers may do with a gateway's tasks: two vats in one process, and a worker whose answers are the test's."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.gateway.native import Native, native_gateway
from tests.gateway.scheduling import next_run
from tests.guests import digest_of, function, guest, wat, zipped
from ww import schema
from ww.caps.blob import BytesBlobServer
from ww.errors import BadModule, Conflict, Draining, NotAdmitted, NotFound, Overloaded, StoreError, UsageError
from ww.gateway.caller import Quota
from ww.gateway.native_intake import TasksConfig
from ww.gateway.request import RequestLimits
from ww.identity import Identity
from ww.net.memory import MemoryTransport
from ww.records import Input, read_input, spans, write_input
from ww.rpc.admission import Closed, Only
from ww.rpc.errors import call
from ww.rpc.vat import Vat

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop"), pytest.mark.timeout(30)]

NOOP = guest("noop")
ECHO = guest("echo")


async def inputs_of(native: Native, id: str) -> list[Input]:
    """Return what was stored for the runs of a batch."""
    row = await native.gateway.store.task(id)
    assert row is not None
    data = native.gateway.modules.inputs_path(row.spec.inputs).read_bytes()
    records = await native.intake.inputs.records(row.spec.inputs, range(row.spec.repeats))
    assert data.startswith(b"".join(each for each in records if isinstance(each, bytes)))
    found = []
    for record in records:
        whole = record if isinstance(record, bytes) else record.read()
        ((start, end),) = spans(whole)
        found.append(read_input(whole, start, end))
    return found


async def test_a_task_is_on_disk_when_it_is_taken_and_its_result_comes(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        await native.gateway.worker(is_quick=True)
        task = await client.submit(NOOP, id="a", input=4)
        assert (task.id, task.owner) == ("a", f"peer:{client._link._vat.peer_id}")
        assert await native.gateway.store.task("a") is not None
        (result,) = [each async for each in client.stream("a")]
        assert (result.run, result.state, result.attempts) == (0, "succeeded", 1)
        assert result.json["result"] == result.result == "4"
        ended = await client.wait("a")
        assert (ended.status, ended.results[0].result) == ("succeeded", "4")
        # And again, from the store, by those who come late.
        for found in (
            [each async for each in client.results("a")],
            [each async for each in client.stream("a", order="input")],
        ):
            assert [(each.result, each.position) for each in found] == [("4", result.position)]
        assert (await client.result("a", 0)).result == "4"
        assert [each.run async for each in client.stream("a", order="input")] == [0]


async def test_a_short_run_is_one_flight(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        await native.gateway.worker(is_quick=True)
        assert [each.result async for each in client.run(NOOP, input=7)] == ["7"]


async def test_a_module_is_sent_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client, native.client() as other:
        reads: list[str] = []
        monkeypatch.setattr(native.intake, "module", _counting(native.intake.module, reads))
        await client.submit(NOOP, id="a")
        await client.submit(NOOP, id="b")
        await other.submit(NOOP, id="c")
        assert len(reads) == 1
        # It was removed behind the client's back.
        await client.cancel("a"), await client.cancel("b"), await other.cancel("c")
        native.gateway.modules.path(digest_of(NOOP).hex()).unlink()
        await client.submit(NOOP, id="d")
        assert len(reads) == 2


def _counting(take: Any, calls: list[str]) -> Any:
    async def counted(blob: Any, upload: Any, wanted: str, caller: Any) -> None:
        calls.append(wanted)
        await take(blob, upload, wanted, caller)

    return counted


async def test_what_is_wrong_is_said_with_its_field_and_leaves_nothing(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        for fields, name, says in (
            ({"priority": 1000}, "priority", "is not a whole number from -100 to 100"),
            ({"env": {"A=B": "C\0"}}, "env", "NUL"),
            ({"entry": "x" * 300}, "entry", "1 to 200 characters"),
            ({"args": ["x" * 70_000]}, None, "larger than"),
            ({"files": b"no zip"}, "files", "zip"),
            ({"replicas": 3}, "deterministic", "2 of 3 replicas must agree"),
        ):
            with pytest.raises(UsageError, match=says) as caught:
                await client.submit(NOOP, **fields)
            assert caught.value.field == name
        with pytest.raises(BadModule):
            await client.submit(b"no module")
        with pytest.raises(NotFound, match="no module"):
            await client.submit("sha256:" + "0" * 64)
        with pytest.raises(NotFound):
            await client.task("none")
        with pytest.raises(UsageError, match="order"):
            [each async for each in client.stream("none", order="any")]
        await client.submit(NOOP, id="a", input=1)
        await client.submit(NOOP, id="a", input=1)
        with pytest.raises(Conflict) as conflict:
            await client.submit(NOOP, id="a", input=2)
        assert conflict.value.field == "id"
        assert not native.uploads()
        assert len([each async for each in client.tasks()]) == 1


async def test_bytes_of_another_module_are_refused(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        tasks = await client._link.tasks()
        with pytest.raises(BadModule, match="not those of"):
            await call(tasks.submit(module=bytes(32), wasm=BytesBlobServer(NOOP)))
        with pytest.raises(UsageError, match="32 of a sha256"):
            await call(tasks.submit(module=b"short"))
        for fields in (b"no end", b"a\0", b"\xff\0a\0"):
            with pytest.raises(UsageError, match="fields: expected"):
                await call(tasks.submit(module=bytes(32), fields=fields))
        assert not native.uploads()


async def test_peers_see_their_own_tasks_and_the_operator_all(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as one, native.client() as other:
        await one.submit(NOOP, id="a", input=1)
        for attempt in (other.task("a"), other.cancel("a"), other.wait("a"), other.result("a", 0)):
            with pytest.raises(NotFound):
                await attempt
        assert [each async for each in other.tasks()] == []
        with pytest.raises(Conflict):
            await other.submit(NOOP, id="a", input=1)
        async with native.client(native.gateway._identity) as operator:
            assert [task.id async for task in operator.tasks()] == ["a"]
            assert (await operator.cancel("a")).status == "cancelled"
        assert (await one.wait("a")).status == "cancelled"


async def test_a_peer_may_hold_so_much(tmp_path: Path) -> None:
    config = TasksConfig(quota=Quota(tasks_max=1, runs_max=10))
    async with (
        native_gateway(tmp_path, tasks=config) as native,
        native.client(retries=0) as one,
        native.client() as two,
    ):
        await one.submit(NOOP, id="a")
        with pytest.raises(Overloaded, match=r"the peer 12D3KooW.* may hold 1 tasks"):
            await one.submit(NOOP, id="b")
        await one.submit(NOOP, id="a")  # is there
        with pytest.raises(Overloaded, match="10 runs"):
            await native.client(retries=0).submit_batch(NOOP, [b""] * 11)
        await two.submit(NOOP, id="c")


async def test_who_is_not_admitted_is_told_why(tmp_path: Path) -> None:
    async with native_gateway(tmp_path, admission=Closed("see --tasks-admit")) as native, native.client() as client:
        with pytest.raises(NotAdmitted, match="tasks: see --tasks-admit"):
            await client.submit(NOOP)
    friend = Identity.generate()
    async with (
        native_gateway(tmp_path / "b", admission=Only(friend.peer_id)) as native,
        native.client(friend) as client,
    ):
        await client.submit(NOOP)


async def test_cancelled_while_it_runs(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        worker = await native.gateway.worker()
        await client.submit(NOOP, id="a", repeats=3)
        await next_run(worker)
        telling = asyncio.ensure_future(_all(client.stream("a")))
        task = await client.cancel("a")
        # Those that never began have no result.
        assert (task.status, [(each.run, each.state) for each in await telling]) == ("cancelled", [(0, "cancelled")])
        await until(lambda: worker.runs[0].cancels == 1)


async def _all(results: Any) -> list[Any]:
    return [each async for each in results]


async def test_results_come_while_the_task_runs_and_over_a_lost_connection(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        worker = await native.gateway.worker(slots=1)
        worker.offers_again = True
        await client.submit(NOOP, id="a", repeats=4)
        results = client.stream("a")
        seen = []
        for count in range(1, 5):
            await until(lambda: len(worker.open_runs) >= 1)
            worker.open_runs[0].end()
            seen.append(await anext(results))
            if count == 2:
                client._link.drop()
        assert sorted(each.run for each in seen) == [0, 1, 2, 3]
        assert await anext(results, None) is None


async def test_results_by_input_wait_for_those_before(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        worker = await native.gateway.worker(slots=2)
        await client.submit(NOOP, id="a", repeats=2)
        await until(lambda: len(worker.runs) == 2)
        results = client.stream("a", order="input")
        first = asyncio.ensure_future(anext(results))
        worker.runs[1].end()
        async with aclosing(client.stream("a")) as by_end:
            # Either may have come to the worker first.
            if (await anext(by_end)).run == 1:
                assert not first.done()
        worker.runs[0].end()
        assert (await first).run == 0
        assert (await anext(results)).run == 1
        assert await anext(results, None) is None


async def test_events_are_told_to_the_end(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        await native.gateway.worker(is_quick=True)
        await client.submit(NOOP, id="a", input=3)
        events = [event async for event in client.events("a")]
        assert [event.run.result for event in events if event.run is not None and event.run.has_ended] == ["3"]
        assert events[-1].task is not None
        assert events[-1].task.status == "succeeded"
        again = [event async for event in client.events("a", after=events[-1].position)]
        assert [event.task.status for event in again if event.task] == ["succeeded"]


async def test_what_the_gateway_is(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        worker = await native.gateway.worker(slots=2)
        assert [each.peer for each in await client.workers()] == [worker.peer_id]
        assert (await client.health()).peer == "x"
        assert (await client.ready()).is_ready
        digest = await client.upload(NOOP)
        assert await client.upload(NOOP) == digest
        assert (await client.submit(digest)).module == digest
        with pytest.raises(NotFound):
            await client.upload("sha256:" + "0" * 64)


# Batches.


async def test_a_batch_is_stored_as_it_was_given(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        runs = [b"one", "two", {}, {"stdin": "three", "name": "n", "args": ["x"], "env": {"B": "2"}}, {"input": 5}]
        task = await client.submit_batch(ECHO, runs, id="a", env={"A": "1"}, args=["all"], difficulty=9)
        assert (task.repeats, task.status) == (5, "queued")
        one, two, three, four, five = await inputs_of(native, "a")
        assert (one.stdin, two.stdin, three) == (b"one", b"two", Input())
        assert (four.stdin, four.name, four.env) == (b"three", "n", [("A", "1"), ("B", "2")])
        assert (four.args, five.args) == (["9", "x"], ["5", "9", "all"])
        again = await client.submit_batch(ECHO, runs, id="a", env={"A": "1"}, args=["all"], difficulty=9)
        assert again.created_at == task.created_at
        with pytest.raises(Conflict):
            await client.submit_batch(ECHO, runs[:4], id="a", env={"A": "1"}, args=["all"], difficulty=9)


async def test_functions_get_numbers(tmp_path: Path) -> None:
    wide = wat('(func (export "f") (param i64 f64 i32))')
    async with native_gateway(tmp_path) as native, native.client() as client:
        await client.submit_batch(NOOP, [{"input": 3}, {"difficulty": 2}, {}], id="a", input=1)
        assert [each.arguments for each in await inputs_of(native, "a")] == [(3, 0), (1, 2), None]
        narrow = function("local.get 0")
        await client.submit_batch(narrow, [{"input": 2**32 - 1}], id="c")
        assert [each.arguments for each in await inputs_of(native, "c")] == [(-1, 0)]
        await client.submit_batch(wide, [{"args": ["-1", "0.5", "7"]}], id="b", entry="f")
        ((first, half, last),) = [each.arguments for each in await inputs_of(native, "b")]
        assert (first, half, last) == (-1, 0x3FE0000000000000, 7)
        for run, says in (
            ({"args": ["1", "2"]}, r"tasks\[1\].args: 'f' takes \(i64, f64, i32\), 2 were given"),
            ({"args": ["1", "x", "2"]}, r"tasks\[1\].args: parameter 2 of 'f' is f64: 'x'"),
            ({}, r"tasks\[1\].args: 'f' takes \(i64, f64, i32\), 0 were given"),
            ({"stdin": "x"}, r"tasks\[1\].args: 'f' takes \(i64, f64, i32\), 0 were given"),
        ):
            with pytest.raises(UsageError, match=says) as caught:
                await client.submit_batch(wide, [{"args": ["1", "2", "3"]}, run], entry="f")
            assert caught.value.field == "tasks[1].args"


async def test_runs_that_bring_files_make_a_file_system(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        task = await client.submit_batch(ECHO, [{"files": zipped(a=b"1")}, b"none"], id="a")
        assert (task.dirs, task.files_bytes_max) == (("/",), 256 << 20)
        assert (await inputs_of(native, "a"))[0].files == zipped(a=b"1")
        with pytest.raises(UsageError, match=r"tasks\[1\]\.files: ") as caught:
            await client.submit_batch(ECHO, [b"", {"files": b"no zip"}])
        assert caught.value.field == "tasks[1].files"


@pytest.mark.parametrize(
    ("records", "says"),
    [
        (b"", "expected at least one run"),
        (b"\1\0\0\0", "cut off"),
        (b"\xff\xff\xff\xff", r"tasks\[0\]: 4294967295 bytes, at most"),
        (b"\1\0\0\0\x80", "unknown flag"),
        (b"\0\0\0\0", "empty"),
        (b"\1\0\0\0\0" + b"\2\0\0\0\0x", r"tasks\[1\]: .*another length"),
        (write_input(Input(arguments=(1, 2))), r"tasks\[0\].arguments: the guest is no function"),
        (write_input(Input(seed=3)), r"tasks\[0\].seed: given without deterministic"),
        (write_input(Input(stdin=b"x" * 101)), r"tasks\[0\].stdin: 101 bytes, at most 100"),
        (write_input(Input(args=["x" * 70_000])), r"tasks\[0\].* larger than 65536"),
        (write_input(Input(env=[("A", "1"), ("A", "2")])), r"tasks\[0\].env: a name is given more than once"),
        (write_input(Input(env=[("A=", "1")])), r"tasks\[0\].env: .* is no name of a variable"),
        (write_input(Input(name="x" * 1025)), r"tasks\[0\].name: 1025 characters"),
        (write_input(Input()) * 11, "more than 10 runs"),
    ],
)
async def test_hostile_records(tmp_path: Path, records: bytes, says: str) -> None:
    limits = RequestLimits(stdin_max_bytes=100, runs_max=10)
    async with native_gateway(tmp_path, limits) as native, native.client() as client:
        digest = await client.upload(ECHO)
        tasks = await client._link.tasks()
        batch = tasks.batch(module=bytes.fromhex(digest[7:])).batch
        adding = asyncio.ensure_future(call(batch.add(records=records)))
        with pytest.raises(UsageError, match=says):
            await call(batch.finish())
        await asyncio.gather(adding, return_exceptions=True)
        assert [each async for each in client.tasks()] == []
        assert not native.uploads()


async def test_records_may_be_cut_anywhere(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        digest = await client.upload(ECHO)
        tasks = await client._link.tasks()
        records = b"".join(write_input(Input(stdin=b"%d" % n)) for n in range(20))
        begun = await call(tasks.batch(module=bytes.fromhex(digest[7:]), fields=b"id\0a\0"))
        assert (begun.kind, list(begun.parameters)) == ("command", [])
        for start in range(0, len(records), 7):
            await call(begun.batch.add(records=records[start : start + 7]))
        assert (await call(begun.batch.finish())).created
        assert [each.stdin for each in await inputs_of(native, "a")] == [b"%d" % n for n in range(20)]
        with pytest.raises(UsageError, match="finished"):
            await call(begun.batch.add(records=b""))


async def test_a_large_batch_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        digest = await client.upload(ECHO)
        tasks = await client._link.tasks()
        begun = await call(tasks.batch(module=bytes.fromhex(digest[7:])))
        await call(begun.batch.add(records=write_input(Input(stdin=bytes(500_000)))))
        assert native.uploads()
        del begun
        client._link.drop()
        await until(lambda: not native.uploads())
        assert not native.intake._arriving


async def test_batches_have_bounds(tmp_path: Path) -> None:
    config, limits = TasksConfig(arriving_max=1), RequestLimits(batch_bytes_max=1000)
    async with native_gateway(tmp_path, limits, tasks=config) as native, native.client(retries=0) as client:
        with pytest.raises(UsageError, match="the runs hold more than 1000 bytes"):
            await client.submit_batch(ECHO, [bytes(600)] * 2)
        with pytest.raises(UsageError, match="repeats: given beside"):
            await client.submit_batch(ECHO, [b""], repeats=2)
        with pytest.raises(UsageError, match="spread: everywhere is one run on each worker"):
            await client.submit_batch(ECHO, [b""], spread="everywhere")
        with pytest.raises(UsageError, match=r"tasks\[0\].memory: no field of one run"):
            await client.submit_batch(ECHO, [{"memory": 1}])
        await until(lambda: not native.intake._arriving)
        digest = await client.upload(ECHO)
        tasks = await client._link.tasks()
        begun = await call(tasks.batch(module=bytes.fromhex(digest[7:])))
        with pytest.raises(Overloaded, match="on their way in"):
            await client.submit_batch(ECHO, [b""])
        del begun
        await until(lambda: not native.intake._arriving)
        await client.submit_batch(ECHO, [b""])


async def test_a_batch_over_a_lost_connection(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        lost = 0

        class Runs(list[bytes]):
            def __iter__(self) -> Any:
                nonlocal lost
                yield from super().__iter__()
                lost += 1
                if lost == 1:
                    client._link.drop()

        task = await client.submit_batch(ECHO, Runs([b"a", b"b"]), id="a")
        assert (task.repeats, lost) == (2, 2)
        lost = 0
        with pytest.raises(UsageError, match="cannot be read twice"):
            await client.submit_batch(ECHO, iter(Runs([b"a", b"b"])))


async def test_a_batch_of_runs_that_come_by_and_by(tmp_path: Path) -> None:
    async def runs() -> Any:
        for n in range(600):
            yield b"%d" % n

    async with native_gateway(tmp_path) as native, native.client() as client:
        await client.submit_batch(ECHO, runs(), id="a")
        assert [each.stdin for each in await inputs_of(native, "a")] == [b"%d" % n for n in range(600)]


async def test_all_results_of_a_batch_come_with_their_names(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        await native.gateway.worker(slots=2, is_quick=True)
        await client.submit_batch(ECHO, [{"name": f"n{n}", "stdin": b""} for n in range(300)], id="a")
        results = [each async for each in client.stream("a")]
        assert sorted(each.run for each in results) == list(range(300))
        assert all(each.json["name"] == f"n{each.run}" for each in results)
        assert [each.run async for each in client.stream("a", order="input", after=290)] == list(range(291, 300))
        positions = [each.json["position"] for each in results]
        assert positions == sorted(positions)
        rest = [each.run async for each in client.stream("a", after=positions[199])]
        assert rest == [each.run for each in results[200:]]


async def test_a_gateway_that_stops_says_so(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client(retries=0) as client:
        await client.submit(NOOP, id="a")
        streaming = asyncio.ensure_future(anext(client.stream("a")))
        await until(lambda: "a" in native.gateway.scheduler.watches.readers)
        native.http.stop()
        with pytest.raises(Draining):
            await streaming
        with pytest.raises(Draining):
            await client.submit(NOOP, id="b")


async def test_an_id_that_is_said_to_be_new_and_is_not(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        await native.gateway.worker(is_quick=True)
        await client.submit(NOOP, id="a", input=1)
        await client.wait("a")
        task = await client.submit(NOOP, id="a", input=1)
        assert task.status == "succeeded"
        with pytest.raises(Conflict):
            await client.submit(NOOP, id="a", input=2)
        assert not native.gateway.store.health()


async def test_a_worker_of_another_policy_is_no_client(tmp_path: Path) -> None:
    """What is exported to members alone is not for guests, and the other way round."""
    async with native_gateway(tmp_path, admission=Closed("no")) as native:
        identity = Identity.generate()
        async with (
            Vat(identity, MemoryTransport(native.gateway._network, identity)) as vat,
            await vat.dial(native.gateway._identity.peer_id, [native.gateway.address]) as connection,
        ):
            with pytest.raises(NotAdmitted):
                await connection.connect("tasks", schema.tasks.Tasks)
            assert await connection.connect("registry", schema.worker.Registry)


async def test_the_store_may_refuse(tmp_path: Path) -> None:
    class Full:
        def require_room(self) -> None:
            raise StoreError("nothing new is taken: full")

    async with native_gateway(tmp_path) as native, native.client(retries=0) as client:
        native.intake.perimeter.readiness = Full()  # type: ignore[assignment]
        with pytest.raises(StoreError, match="full"):
            await client.submit(NOOP)
        native.intake.perimeter.readiness = None


async def test_who_names_a_task_of_another_does_not_hide_it(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client, native.client() as other:
        await native.gateway.worker(is_quick=True)
        await client.submit(NOOP, id="a", input=1)
        await client.wait("a")

        async def name() -> None:
            with pytest.raises(Conflict):
                await anext(other.run(NOOP, id="a", input=2))

        naming = [asyncio.ensure_future(name()) for _ in range(20)]
        while not all(each.done() for each in naming):
            assert (await client.task("a")).status == "succeeded"
        await asyncio.gather(*naming)


async def test_an_order_that_has_no_name_is_refused(tmp_path: Path) -> None:
    async with native_gateway(tmp_path) as native, native.client() as client:
        await client.submit(NOOP, id="a", input=1)
        asked = (await client._link.tasks()).task(id="a").task.results_request()
        asked.order = 7
        with pytest.raises(UsageError, match="order: expected"):
            await call(asked.send())


async def test_what_reads_the_store_while_the_gateway_stops_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with native_gateway(tmp_path) as native, native.client(retries=0) as client:
        await native.gateway.worker(is_quick=True)
        await client.submit(NOOP, id="a", input=1)
        await client.wait("a")
        native.intake.latest.clear()

        async def closed(*_: object, **__: object) -> None:
            raise StoreError("the database cannot be read: it is closed")

        for name in ("task", "tasks", "results_by_run"):
            monkeypatch.setattr(native.gateway.store, name, closed)
        asked: list[Callable[[], Awaitable[object]]] = [
            lambda: client.task("a"),
            lambda: anext(client.results("a")),
            lambda: anext(client.tasks()),
        ]
        for ask in asked:
            with pytest.raises(StoreError):
                await ask()
        native.gateway.scheduler.watches.close()
        for ask in asked:
            with pytest.raises(Draining):
                await ask()
