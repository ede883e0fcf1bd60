"""The client against a real gateway in this process: submit, list, wait, cancel; both shells are alike."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.gateway.test_http import BASE_URL, NOOP, NOOP_SHA256, Gateway, open_gateway
from tests.guests import guest
from ww.client import AsyncClient, Client, Retry
from ww.client.native import AsyncNativeClient, NativeClient
from ww.errors import BadModule, Conflict, NotFound, Overloaded, UsageError
from ww.gateway.task import RunState

pytestmark = pytest.mark.anyio


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path, tasks_max=300) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[AsyncClient]:
    transport = httpx.ASGITransport(gateway.app, raise_app_exceptions=False)
    async with AsyncClient(BASE_URL, transport=transport, retry=Retry(retries=1, retry_after_most_s=0)) as client:
        yield client


def test_all_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(each).parameters)
            for name, each in vars(kind).items()
            if inspect.isfunction(each) and not name.startswith("_") and name not in ("close", "aclose")
        }

    assert methods(Client) == methods(AsyncClient)
    for native in (NativeClient, AsyncNativeClient):
        assert methods(Client).items() <= methods(native).items()


async def test_running_one_is_submitting_it_and_taking_its_results(client: AsyncClient) -> None:
    results = client.run(guest("noop"), id="run", start_s=1000.0, repeats=2)
    coming = asyncio.ensure_future(anext(results))
    while not [task.id async for task in client.tasks()]:  # noqa: ASYNC110 it is asked over HTTP
        await asyncio.sleep(0)
    await client.cancel("run")
    # Runs that never began have no results.
    with pytest.raises(StopAsyncIteration):
        await coming


async def test_a_task_with_all_kinds_of_fields(client: AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("hello")
    task = await client.submit(
        guest("files"), id="t", description="d", args=["a", "b"], env={"K": "V"}, stdin=b"\xff", files=tmp_path / "in",
        artifacts=["out"], dirs=["/"], repeats=2, start_s=1.5, delay_s=0.25, duration_s=5, complete=7,
        memory_bytes=1 << 20, output_bytes=100, files_bytes_max=1000, artifacts_bytes_max=500, cpu_seconds=2,
        fuel=10**9, deterministic=True, seed=9,
    )  # fmt: skip
    assert (task.id, task.status, task.description, task.args) == ("t", "scheduled", "d", ("a", "b"))
    assert (task.start_s, task.delay_s, task.duration_s, task.repeats) == (1.5, 0.25, 5.0, 2)
    assert (task.memory_bytes, task.output_bytes, task.complete, task.completions) == (1 << 20, 100, 7, 7)
    assert (task.files_bytes_max, task.artifacts_bytes_max, task.artifacts) == (1000, 500, ("out",))
    assert (task.cpu_seconds, task.fuel, task.deterministic, task.seed) == (2.0, 10**9, True, 9)
    assert task.files is not None
    assert task == await client.task("t")


async def test_the_same_id_again_is_the_same_task_and_a_conflict_otherwise(client: AsyncClient) -> None:
    first = await client.submit(NOOP, id="t", input=1)
    assert await client.submit(NOOP, id="t", input=1) == first
    with pytest.raises(Conflict):
        await client.submit(NOOP, id="t", input=2)
    assert [task.id async for task in client.tasks()] == ["t"]


async def test_refusals_name_the_field(client: AsyncClient) -> None:
    for refused, field in ((client.submit(NOOP, repeats=0), "repeats"), (client.submit(NOOP, id="a/b"), "id")):
        with pytest.raises(UsageError) as error:
            await refused
        assert error.value.field == field
    with pytest.raises(BadModule):
        await client.submit(b"no module")
    with pytest.raises(NotFound, match="stored here"):
        await client.submit(f"sha256:{NOOP_SHA256}")
    with pytest.raises(NotFound, match="no task 'none'"):
        await client.task("none")


async def test_lists_come_whole(client: AsyncClient, gateway: Gateway) -> None:
    ids = [(await client.submit(NOOP, repeats=230)).id for _ in range(3)]
    assert [task.id async for task in client.tasks()] == ids[::-1]
    assert [task.id async for task in client.tasks(limit=2)] == ids[:0:-1]
    assert [task.id async for task in client.tasks(after=ids[1])] == ids[:1]
    assert [task.id async for task in client.tasks(status="failed")] == []
    await gateway.end(ids[0], *range(225), stdout=b"\xffx")
    results = [result async for result in client.results(ids[0])]
    assert [result.run for result in results] == list(range(225))
    assert {result.stdout for result in results} == {b"\xffx"}
    assert [result.run async for result in client.results(ids[0], after=219, limit=3)] == [220, 221, 222]
    assert (await client.result(ids[0], 7)).state == "succeeded"
    assert (await client.result(ids[0], 229)).state == "queued"


async def test_artifacts(client: AsyncClient, gateway: Gateway) -> None:
    await client.submit(NOOP, id="t", repeats=2)
    await gateway.end("t", 0, state=RunState.FAILED, reason="trap")
    for run in (0, 1):
        with pytest.raises(NotFound):
            await client.artifacts("t", run)


async def test_cancelling_and_waiting(client: AsyncClient) -> None:
    await client.submit(NOOP, id="t")
    assert not (await client.wait("t", timeout_s=0)).has_ended
    waiting = asyncio.ensure_future(client.wait("t"))
    assert (await client.cancel("t")).status == "cancelled"
    assert (await client.cancel("t")).status == "cancelled"
    assert (await waiting).status == "cancelled"


async def test_a_full_gateway_is_asked_again_and_then_said(client: AsyncClient, gateway: Gateway) -> None:
    for _ in range(300):
        await gateway.added()
    with pytest.raises(Overloaded, match="300"):
        await client.submit(NOOP)


async def test_who_is_there(client: AsyncClient) -> None:
    assert await client.workers() == []
    health = await client.health()
    assert (health.peer, health.meta) == ("12D3KooW", {"rack": "7"})
