"""Whose a task is: who may see it, list it, cancel it, and how many one may have."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.test_events import worked
from tests.gateway.test_http import NOOP_SHA256, Gateway, form, open_gateway
from ww.gateway.caller import Caller, Quota, Scope
from ww.gateway.perimeter import Perimeter
from ww.gateway.quota import Quotas

pytestmark = pytest.mark.anyio

BOTH = frozenset({Scope.READ, Scope.SUBMIT})
CALLERS = {
    b"alice": Caller("alice", BOTH),
    b"bob": Caller("bob", BOTH, Quota(tasks_max=1)),
    b"admin": Caller("admin", frozenset({Scope.ADMIN})),
}


class Known:
    def caller(self, secret: bytes) -> tuple[Caller | None, str]:
        return CALLERS.get(secret), ""


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    perimeter = Perimeter(tokens=Known())
    async with open_gateway(tmp_path, perimeter=perimeter) as gateway:
        perimeter.quotas = Quotas(gateway.scheduler.task, gateway.scheduler.open_tasks, gateway.clock.now)
        yield gateway


async def ask(gateway: Gateway, who: str, method: str, path: str, **request: Any) -> httpx.Response:
    return await gateway.client.request(method, path, headers={"Authorization": f"Bearer {who}"}, **request)


async def added(gateway: Gateway, who: str, id: str) -> dict[str, Any]:
    answer = await ask(gateway, who, "POST", "/tasks", files=form(id=id))
    assert answer.status_code == 201, answer.text
    task: dict[str, Any] = answer.json()
    return task


async def ids(gateway: Gateway, who: str, query: str = "") -> list[str]:
    return [task["id"] for task in (await ask(gateway, who, "GET", f"/tasks{query}")).json()]


async def test_a_task_is_its_owners_and_an_admins(gateway: Gateway) -> None:
    assert (await added(gateway, "alice", "a"))["owner"] == "alice"
    await added(gateway, "bob", "b")
    await gateway.end("a", 0)
    for path in (
        "/tasks/a",
        "/tasks/a?wait=1",
        "/tasks/a/runs",
        "/tasks/a/results",
        "/tasks/a/runs/0",
        "/tasks/a/runs/0/artifacts",
    ):
        answer = await ask(gateway, "bob", "GET", path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert answer.json()["detail"] == "no task 'a'", "as one that is not there"
    for who in ("alice", "admin"):
        assert (await ask(gateway, who, "GET", "/tasks/a/runs/0")).status_code == 200
        assert (await ask(gateway, who, "GET", "/tasks/a")).status_code == 200


async def test_lists_leave_out_what_is_others(gateway: Gateway) -> None:
    for number in range(4):
        await added(gateway, "alice", f"a{number}")
    await added(gateway, "bob", "b")
    await added(gateway, "alice", "a4")
    assert await ids(gateway, "alice") == ["a4", "a3", "a2", "a1", "a0"]
    assert await ids(gateway, "alice", "?limit=2&after=a3") == ["a2", "a1"]
    assert await ids(gateway, "bob", "?limit=1") == ["b"]
    assert await ids(gateway, "bob", "?status=queued") == ["b"]
    assert len(await ids(gateway, "admin")) == 6
    assert (await ask(gateway, "bob", "GET", "/tasks?after=a3")).status_code == 404


async def test_nobody_cancels_anothers(gateway: Gateway) -> None:
    await added(gateway, "alice", "a")
    assert (await ask(gateway, "bob", "DELETE", "/tasks/a")).status_code == 404
    assert (await ask(gateway, "alice", "GET", "/tasks/a")).json()["status"] == "queued"
    assert (await ask(gateway, "admin", "DELETE", "/tasks/a")).json()["status"] == "cancelled"
    assert (await ask(gateway, "bob", "DELETE", "/tasks/a")).status_code == 404, "nor when it has ended"


async def test_an_id_of_anothers_is_taken(gateway: Gateway) -> None:
    await added(gateway, "alice", "a")
    answer = await ask(gateway, "bob", "POST", "/tasks", files=form(id="a"))
    assert answer.status_code == 409
    assert (await ask(gateway, "alice", "POST", "/tasks", files=form(id="a"))).status_code == 200
    await added(gateway, "bob", "b")  # what was refused was not counted


async def test_a_quota_is_429_with_its_name(gateway: Gateway) -> None:
    await added(gateway, "bob", "b")
    answer = await ask(gateway, "bob", "POST", "/tasks", files=form(id="b2"))
    assert answer.status_code == 429
    assert "tasks_max" in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) > 0
    assert (await ask(gateway, "bob", "POST", "/tasks", files=form(id="b"))).status_code == 200, "it is there"
    await added(gateway, "alice", "a")
    await ask(gateway, "bob", "DELETE", "/tasks/b")
    gateway.clock.advance(1)
    await added(gateway, "bob", "b2")


async def test_refusals_are_problems_with_what_they_need(gateway: Gateway) -> None:
    answer = await gateway.client.get("/tasks")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert (answer.json()["code"], answer.headers["content-type"]) == ("unauthorized", "application/problem+json")
    answer = await ask(gateway, "bob", "DELETE", f"/modules/sha256:{'0' * 64}")
    assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")
    assert (await gateway.client.get("/healthz")).status_code == 200
    assert (await gateway.client.get("/readyz")).status_code == 200


async def test_who_asks_again_at_its_quota_is_told_that_its_task_is_there(gateway: Gateway) -> None:
    await added(gateway, "bob", "first")
    await gateway.scheduler.cancel("first")
    await added(gateway, "bob", "second")
    for id in ("first", "second"):
        answer = await ask(gateway, "bob", "POST", "/tasks", files=form(id=id))
        assert (answer.status_code, answer.json()["id"]) == (200, id)
    answer = await ask(gateway, "bob", "POST", "/tasks", files=form(id="third"))
    assert answer.status_code == 429
    answer = await ask(gateway, "bob", "POST", "/tasks", files=form(id="first", repeats=2))
    assert answer.status_code == 409


@pytest.mark.usefixtures("kj_loop")
async def test_a_workers_modules_are_told_to_those_whose_tasks_name_them(gateway: Gateway) -> None:
    await added(gateway, "alice", "a")
    async with worked(gateway):
        ((entry, _),) = gateway.scheduler.pool.workers()
        entry.modules[NOOP_SHA256] = None
        for who, modules in (("alice", [f"sha256:{NOOP_SHA256}"]), ("bob", []), ("admin", [f"sha256:{NOOP_SHA256}"])):
            (worker,) = (await ask(gateway, who, "GET", "/workers")).json()
            assert worker["modules"] == modules, who
