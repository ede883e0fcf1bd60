"""The HTTP interface from outside: what is answered, and that it is what the disk has.

No worker is connected, so that what is submitted stays queued; results are put into the store as the scheduler does.
What is refused: test_http_refusals.py, which uses this file's gateway.
"""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from starlette.types import ASGIApp

from tests.components import NOOP as COMPONENT
from tests.guests import guest, wat, zipped
from ww.clock import ManualClock
from ww.gateway.artifacts import ArtifactStore
from ww.gateway.grid import Boards
from ww.gateway.http import HttpConfig, HttpGateway
from ww.gateway.live import Live
from ww.gateway.modules import ModuleStore
from ww.gateway.perimeter import Perimeter
from ww.gateway.request import RequestLimits
from ww.gateway.scheduler import Scheduler, SchedulerConfig
from ww.gateway.store import Store, TaskRow
from ww.gateway.task import Outcome, RunResult, RunState, Spec

pytestmark = pytest.mark.anyio

NOOP: Final = guest("noop")
NOOP_SHA256: Final = hashlib.sha256(NOOP).hexdigest()
HASH_SHA256: Final = hashlib.sha256(guest("hash")).hexdigest()
BASE_URL: Final = "http://127.0.0.1:8080"
WALL: Final = 1_700_000_000.0
ABOUT: Final = {"peer": "12D3KooW", "namespace": "ww", "meta": {"rack": "7"}}
BOUND_S: Final = 20.0

TASK_KEYS: Final = (
    "id name owner description complete completions duration start delay repeats priority cpus labels retries"
    " replicas quorum input difficulty args kind entry memory output"
    " module files dirs files_max artifacts artifacts_max deterministic seed fuel cpu_seconds spread batch"
    " grants depth parent"
    " status reason runs results results_url created_at finished_at next_run_at"
)
RESULT_KEYS: Final = (
    "run state result exit_code stdout stderr stdout_bytes stderr_bytes stdout_truncated stderr_truncated reason detail"
    " worker attempts queued_at"
    " started_at finished_at wall_seconds cpu_seconds memory_bytes memory_limit_bytes queue_seconds compile_seconds"
    " instantiate_seconds fuel files_bytes artifacts_url artifacts_bytes"
)

Parts = list[tuple[str, tuple[str | None, bytes]]]


def form(
    wasm: bytes | None = NOOP, stdin_file: bytes | None = None, files: bytes | None = None, **fields: Any
) -> Parts:
    """Make the parts of a submission; a list gives a field several times."""
    parts: Parts = [] if wasm is None else [("wasm", ("guest.wasm", wasm))]
    if stdin_file is not None:
        parts.append(("stdin", ("input.bin", stdin_file)))
    if files is not None:
        parts.append(("files", ("files.zip", files)))
    for name, value in fields.items():
        values = value if isinstance(value, list) else [value]
        parts += [(name, (None, each if isinstance(each, bytes) else str(each).encode())) for each in values]
    return parts


@dataclass
class Gateway:
    """A gateway's HTTP side without a network, and what it stands on."""

    app: ASGIApp
    client: httpx.AsyncClient
    store: Store
    scheduler: Scheduler
    modules: ModuleStore
    artifacts: ArtifactStore
    clock: ManualClock
    directory: Path
    live: Live
    boards: Boards

    async def post(self, **parts: Any) -> httpx.Response:
        """Submit a task."""
        return await self.client.post("/tasks", files=form(**parts))

    async def added(self, **parts: Any) -> dict[str, Any]:
        """Submit a task that is taken, and return it."""
        return await self.json("/tasks", 201, "POST", files=form(**parts))

    async def json(self, path: str, status: int = 200, method: str = "GET", **request: Any) -> Any:
        """Return what is answered, which must have that status."""
        answer = await self.client.request(method, path, **request)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def ids(self, query: str = "") -> list[str]:
        return [task["id"] for task in await self.json(f"/tasks{query}")]

    async def end(self, id: str, *runs: int, state: RunState = RunState.SUCCEEDED, **outcome: Any) -> None:
        """Put results on disk."""
        row = await self.store.task(id)
        assert row is not None
        results = [
            RunResult(
                run=run,
                state=state,
                outcome=Outcome(**outcome),
                worker="w",
                attempts=1,
                queued_at=WALL,
                started_at=WALL + 0.5,
                finished_at=WALL + 1.25,
            )
            for run in runs
        ]
        await self.store.add_results([(row.number, result) for result in results])

    def module_files(self) -> set[str]:
        return {path.name for path in (self.directory / "modules").iterdir()}

    def artifact_files(self) -> set[str]:
        return {path.name for path in (self.directory / "artifacts").iterdir()}


@asynccontextmanager
async def open_gateway(
    directory: Path,
    *,
    kind: type[Store] = Store,
    modules_kind: type[ModuleStore] = ModuleStore,
    modules_bytes_max: int = 1 << 30,
    artifacts_bytes_max: int = 1 << 30,
    limits: RequestLimits | None = None,
    http: HttpConfig | None = None,
    about: Mapping[str, Any] = ABOUT,
    perimeter: Perimeter | None = None,
    **config: Any,
) -> AsyncIterator[Gateway]:
    """Open a gateway on a directory, as serve.py does; config is the scheduler's."""
    clock = ManualClock(wall=WALL)
    modules = modules_kind(directory / "modules", quota_bytes=modules_bytes_max)
    artifacts = ArtifactStore(directory / "artifacts", quota_bytes=artifacts_bytes_max)
    async with (
        asyncio.timeout(BOUND_S),
        kind(directory / "ww.db") as store,
        Scheduler(store, modules, artifacts, clock, SchedulerConfig(**config)) as scheduler,
    ):
        parts = scheduler, store, modules, artifacts, clock
        side = HttpGateway(*parts, limits or RequestLimits(), http or HttpConfig(), lambda: about, perimeter)
        # An unexpected error is answered, and then raised again for the server's log.
        transport = httpx.ASGITransport(app := side.app(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as client:
            yield Gateway(app, client, store, scheduler, modules, artifacts, clock, directory, side.live, side.boards)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path) as gateway:
        yield gateway


# Submitting.


async def test_the_readme_form_makes_a_task(gateway: Gateway) -> None:
    fields = {"description": "Hash puzzle", "complete": 0, "duration": 5, "start": 1, "delay": 2, "repeats": 3}
    answer = await gateway.post(wasm=guest("hash"), id="task1", input=0, difficulty=3, **fields)
    assert (answer.status_code, answer.headers["location"]) == (201, "/tasks/task1")
    assert answer.headers["content-type"] == "application/json"
    task = answer.json()
    assert task.keys() == set(TASK_KEYS.split())
    assert task | fields | {"id": "task1", "input": 0, "difficulty": 3} == task
    assert (task["module"], task["entry"], task["args"]) == (f"sha256:{HASH_SHA256}", "run", [])
    assert (task["status"], task["completions"], task["results"]) == ("scheduled", 0, [])
    assert task["runs"] == {
        "scheduled": 3, "queued": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0,
    }  # fmt: skip
    assert task["results_url"] == "/tasks/task1/runs"
    assert datetime.fromisoformat(task["created_at"]).timestamp() == WALL
    assert datetime.fromisoformat(task["next_run_at"]).timestamp() == WALL + 1
    assert task["finished_at"] is None
    assert gateway.module_files() == {f"{HASH_SHA256}.wasm"}
    assert await gateway.json("/tasks/task1") == task
    assert await gateway.json("/tasks") == [task]


async def test_what_is_not_said_is_filled_in(gateway: Gateway) -> None:
    task = await gateway.added()
    assert (task["status"], task["runs"]["queued"], task["duration"]) == ("queued", 1, 60.0)
    assert (task["input"], task["difficulty"], task["description"]) == (None, None, "")


async def test_a_location_leads_to_the_task(gateway: Gateway) -> None:
    answer = await gateway.post(id="a:b.c-d_e")
    assert await gateway.json(answer.headers["location"]) == answer.json()
    assert await gateway.json(answer.json()["results_url"]) == []


async def test_env_and_stdin_arrive_and_are_never_shown(gateway: Gateway) -> None:
    fields = {"args": ["b", "a"], "env": ["K=s3cret", "L="], "stdin_file": b"s3cret\0\xff"}
    answer = await gateway.post(wasm=guest("echo"), id="t", **fields)
    assert answer.status_code == 201
    assert answer.json()["args"] == ["b", "a"]
    for text in (answer.text, (await gateway.client.get("/tasks")).text):
        assert "s3cret" not in text
    row = await gateway.store.task("t")
    assert row is not None
    assert (row.spec.env, row.spec.stdin) == ((("K", "s3cret"), ("L", "")), b"s3cret\0\xff")
    assert row.spec.entry == ""


@pytest.mark.parametrize("stdin", [b"", b"text", "\u56db".encode(), b"\0\xff\xfe binary", b"\r\n--x\r\n"])
async def test_stdin_is_the_same_bytes_as_text_or_as_a_file(gateway: Gateway, stdin: bytes) -> None:
    await gateway.added(id="text", stdin=stdin)
    await gateway.added(id="file", stdin_file=stdin)
    assert [row.spec.stdin for row in await gateway.store.tasks(limit=2)] == [stdin, stdin]


async def test_a_module_that_is_stored_may_be_named(gateway: Gateway) -> None:
    await gateway.added(id="first")
    task = await gateway.added(id="second", wasm=None, module=f"sha256:{NOOP_SHA256}", input=1)
    assert (task["module"], task["entry"]) == (f"sha256:{NOOP_SHA256}", "run")
    assert gateway.module_files() == {f"{NOOP_SHA256}.wasm"}


async def test_a_module_larger_than_memory_for_uploads_is_taken_whole(gateway: Gateway) -> None:
    module = NOOP + b"\0\x83\x80\x80\x01" + b"\x01x" + bytes((2 << 20) + 1)  # a custom section of 2 MiB
    task = await gateway.added(wasm=module)
    assert gateway.modules.path(task["module"].removeprefix("sha256:")).stat().st_size == len(module)


async def test_a_body_of_exactly_the_limit_is_taken(tmp_path: Path) -> None:
    request = httpx.Request("POST", BASE_URL, files=form(id="t"))
    body = request.read()
    async with open_gateway(tmp_path, http=HttpConfig(upload_bytes_max=len(body))) as gateway:
        await gateway.json("/tasks", 201, "POST", content=body, headers=request.headers)


# What a run is given and may use.

ZIP: Final = zipped(data__a=b"one", data__b=b"two")
ZIP_SHA256: Final = hashlib.sha256(ZIP).hexdigest()
COMMAND: Final = guest("echo")
REACTOR: Final = wat('(memory (export "memory") 1) (func (export "_start")) (func (export "ProcessStdio") (param i32))')


async def spec_of(gateway: Gateway, id: str) -> Spec:
    row = await gateway.store.task(id)
    assert row is not None
    return row.spec


async def test_files_are_kept_beside_modules_and_named_by_the_task(gateway: Gateway) -> None:
    fields = {"dirs": ["/data/", "tmp"], "artifacts": "out", "files_max": 5000, "artifacts_max": 4000}
    task = await gateway.added(id="t", wasm=COMMAND, files=ZIP, **fields)
    shown = {"files": f"sha256:{ZIP_SHA256}", "dirs": ["/data", "tmp"], "artifacts": ["out"], "files_max": 5000}
    assert task | shown | {"artifacts_max": 4000, "kind": "command"} == task
    assert f"{ZIP_SHA256}.zip" in gateway.module_files()
    assert await gateway.modules.read_files(ZIP_SHA256) == ZIP
    spec = await spec_of(gateway, "t")
    assert (spec.files, spec.files_bytes, spec.artifact_bytes) == (ZIP_SHA256, 5000, 4000)
    assert (await gateway.post(id="t", wasm=COMMAND, files=ZIP, **fields)).status_code == 200
    assert (await gateway.post(id="t", wasm=COMMAND, files=zipped(a=b""), **fields)).status_code == 409


async def test_without_files_there_is_no_file_system(gateway: Gateway) -> None:
    task = await gateway.added(id="t", wasm=COMMAND)
    nothing = {"files": None, "dirs": [], "artifacts": [], "files_max": None, "artifacts_max": None}
    assert task | nothing == task
    assert len(gateway.module_files()) == 1


async def test_files_larger_than_memory_for_uploads_are_taken_whole(gateway: Gateway) -> None:
    content = random.Random(1).randbytes((3 << 20) + 1)
    data = zipped(a=content)
    task = await gateway.added(id="t", wasm=COMMAND, files=data)
    assert await gateway.modules.read_files(task["files"].removeprefix("sha256:")) == data


async def test_an_exported_function_may_have_files(gateway: Gateway) -> None:
    task = await gateway.added(id="t", files=ZIP)
    assert (task["kind"], task["files"]) == ("function", f"sha256:{ZIP_SHA256}")


async def test_limits_and_determinism_are_shown(gateway: Gateway) -> None:
    fields = {"deterministic": "true", "seed": 2**64 - 1, "fuel": 10**15, "cpu_seconds": "1.5"}
    task = await gateway.added(id="t", **fields)
    assert task | {"deterministic": True, "seed": 2**64 - 1, "fuel": 10**15, "cpu_seconds": 1.5} == task
    task = await gateway.added(id="u")
    assert task | {"deterministic": False, "seed": None, "fuel": None, "cpu_seconds": None} == task


@pytest.mark.parametrize(
    ("wasm", "kind", "entry"),
    [(NOOP, "function", "run"), (COMMAND, "command", None), (REACTOR, "reactor", None), (COMPONENT, "component", None)],
)
async def test_a_task_shows_of_what_kind_its_guest_is(
    gateway: Gateway, wasm: bytes, kind: str, entry: str | None
) -> None:
    task = await gateway.added(id="t", wasm=wasm)
    assert (task["kind"], task["entry"]) == (kind, entry)
    again = await gateway.added(id="u", wasm=None, module=task["module"])
    assert (again["kind"], again["entry"]) == (kind, entry)


async def test_a_function_is_called_by_name_with_numbers(gateway: Gateway) -> None:
    module = wat('(func (export "f") (param i32 f64) (result f32) (f32.const 1))')
    task = await gateway.added(id="t", wasm=module, entry="f", args=["-7", "0.5"])
    assert (task["kind"], task["entry"], task["args"]) == ("function", "f", ["-7", "0.5"])
    assert (await spec_of(gateway, "t")).arguments == (-7, 0x3FE0000000000000)


# Artifacts.


async def with_artifacts(gateway: Gateway, id: str, *runs: int, data: bytes = ZIP) -> None:
    """Have runs of a task end with artifacts."""
    digest = hashlib.sha256(data).hexdigest()

    async def in_use() -> set[str]:
        return set()

    await gateway.artifacts.keep(data, digest, in_use)
    await gateway.end(id, *runs, artifacts=digest, artifacts_bytes=len(data))


async def test_artifacts_are_one_zip_a_run(gateway: Gateway) -> None:
    await gateway.added(id="a:b", wasm=COMMAND, artifacts="out", repeats=2)
    large = zipped(out=random.Random(1).randbytes(1 << 20))
    await with_artifacts(gateway, "a:b", 1, data=large)
    (shown,) = await gateway.json("/tasks/a%3Ab/runs")
    assert (shown["artifacts_url"], shown["artifacts_bytes"]) == ("/tasks/a%3Ab/runs/1/artifacts", len(large))
    answer = await gateway.client.get(shown["artifacts_url"])
    assert (answer.status_code, answer.content) == (200, large)
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="a_b-1.zip"'
    assert answer.headers["content-length"] == str(len(large))
    assert answer.headers["x-content-type-options"] == "nosniff"
    head = await gateway.client.head(shown["artifacts_url"])
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(large)))


async def test_results_say_what_a_run_used(gateway: Gateway) -> None:
    await gateway.added(id="t", repeats=2)
    used = {"fuel": 12, "queue_s": 0.5, "compile_s": 0.25, "instantiate_s": 0.125, "files_bytes": 77}
    await gateway.end("t", 0, result="1.5", **used)
    await gateway.end("t", 1)
    first, second = await gateway.json("/tasks/t/runs")
    shown = {"fuel": 12, "queue_seconds": 0.5, "compile_seconds": 0.25, "instantiate_seconds": 0.125}
    assert first | shown | {"files_bytes": 77, "result": "1.5"} == first
    assert (second["fuel"], second["artifacts_url"], second["artifacts_bytes"]) == (None, None, 0)


# The same id again.


async def test_the_same_submission_again_is_the_same_task(gateway: Gateway) -> None:
    first = await gateway.post(id="t", repeats=2)
    again = await gateway.post(id="t", repeats=2)
    by_name = await gateway.post(id="t", repeats=2, wasm=None, module=f"sha256:{NOOP_SHA256}")
    assert [answer.status_code for answer in (first, again, by_name)] == [201, 200, 200]
    assert first.json() == again.json() == by_name.json()
    assert again.headers["location"] == first.headers["location"]
    assert await gateway.ids() == ["t"]


async def test_the_same_submission_is_known_after_its_end_and_after_a_restart(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        await gateway.added(id="t")
        await gateway.end("t", 0)
    async with open_gateway(tmp_path) as gateway:
        answer = await gateway.post(id="t")
        assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
        assert (await gateway.post(id="t", input=1)).status_code == 409


async def test_two_at_a_time_with_the_same_id_make_one_task(gateway: Gateway) -> None:
    answers = await asyncio.gather(*(gateway.post(id="t") for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [201]
    assert await gateway.ids() == ["t"]


async def test_of_two_at_a_time_with_the_same_id_and_other_content_one_is_taken(gateway: Gateway) -> None:
    answers = await asyncio.gather(gateway.post(id="t", input=1), gateway.post(id="t", input=2))
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    taken = next(answer.json() for answer in answers if answer.status_code == 201)
    assert await gateway.json("/tasks") == [taken]


# Watching.


async def test_without_tasks_the_list_is_empty(gateway: Gateway) -> None:
    answer = await gateway.client.get("/tasks")
    assert (answer.status_code, answer.json()) == (200, [])


async def test_tasks_are_listed_newest_first_a_page_at_a_time(gateway: Gateway) -> None:
    for i in range(5):
        await gateway.added(id=f"t{i}")
    assert await gateway.ids() == ["t4", "t3", "t2", "t1", "t0"]
    assert await gateway.ids("?limit=2") == ["t4", "t3"]
    assert await gateway.ids("?limit=2&after=t3") == ["t2", "t1"]
    assert await gateway.ids("?after=t0") == []


async def test_tasks_are_listed_by_status(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        for i in range(12):
            await gateway.added(id=f"t{i}", start=i % 2)
        await gateway.end("t0", 0)
        await gateway.end("t1", 0, state=RunState.FAILED, reason="trap")
        await gateway.json("/tasks/t2", 200, "DELETE")
    async with open_gateway(tmp_path) as gateway:
        assert await gateway.ids("?status=succeeded") == ["t0"]
        assert await gateway.ids("?status=failed") == ["t1"]
        assert await gateway.ids("?status=cancelled") == ["t2"]
        assert await gateway.ids("?status=running") == []
        assert await gateway.ids("?status=queued") == ["t10", "t8", "t6", "t4"]
        assert await gateway.ids("?status=scheduled&limit=2") == ["t11", "t9"]
        assert await gateway.ids("?status=scheduled&limit=3&after=t9") == ["t7", "t5", "t3"]


async def test_what_is_scheduled_is_queued_when_its_time_comes(gateway: Gateway) -> None:
    await gateway.added(id="t", start=10, delay=10, repeats=3)
    gateway.clock.advance(20)
    task = await gateway.json("/tasks/t")
    assert (task["status"], task["runs"]["queued"], task["runs"]["scheduled"]) == ("queued", 2, 1)
    states = [(await gateway.json(f"/tasks/t/runs/{run}"))["state"] for run in range(3)]
    assert states == ["queued", "queued", "scheduled"]


async def test_an_ended_task_is_shown_with_its_results(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        await gateway.added(id="t", repeats=3, complete=5)
        outcome = {"exit_code": 0, "stdout": b"\xff!", "stderr": "\u56db".encode(), "wall_s": 0.5, "cpu_s": 0.25}
        await gateway.end("t", 0, result="-7", memory_bytes=65536, memory_limit_bytes=1 << 20, **outcome)
        await gateway.end("t", 2)
        await gateway.end("t", 1, state=RunState.FAILED, reason="trap", detail="unreachable", stdout_truncated=True)
    async with open_gateway(tmp_path) as gateway:
        task = await gateway.json("/tasks/t")
        first = await gateway.json("/tasks/t/runs/0")
        runs = await gateway.json("/tasks/t/runs")
    assert (task["status"], task["completions"], task["next_run_at"]) == ("failed", 7, None)
    assert (task["runs"]["succeeded"], task["runs"]["failed"], sum(task["runs"].values())) == (2, 1, 3)
    assert [each["run"] for each in task["results"]] == [1, 2, 0]
    assert datetime.fromisoformat(task["finished_at"]).timestamp() == WALL + 1.25
    positions = [each.pop("position") for each in runs]
    assert [positions[run] for run in (0, 2, 1)] == sorted(positions)
    assert runs == sorted(task["results"], key=lambda each: each["run"])
    assert all(each.keys() - {"stdout_base64"} == set(RESULT_KEYS.split()) for each in runs)
    assert first == runs[0] | {"position": positions[0]}
    assert (first["state"], first["result"], first["exit_code"], first["worker"]) == ("succeeded", "-7", 0, "w")
    assert (first["stdout"], first["stdout_base64"], first["stderr"]) == ("", "/yE=", "\u56db")
    assert "stderr_base64" not in first
    assert (first["wall_seconds"], first["cpu_seconds"], first["reason"]) == (0.5, 0.25, None)
    assert (first["memory_bytes"], first["memory_limit_bytes"]) == (65536, 1 << 20)
    assert (runs[1]["reason"], runs[1]["detail"], runs[1]["stdout_truncated"]) == ("trap", "unreachable", True)


async def test_runs_come_by_number_a_page_at_a_time_and_the_latest_hundred_with_the_task(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        await gateway.added(id="t", repeats=200)
        await gateway.end("t", *range(150))
    async with open_gateway(tmp_path) as gateway:
        assert len(await gateway.json("/tasks/t/runs")) == 100
        assert [each["run"] for each in await gateway.json("/tasks/t/runs?limit=2&after=147")] == [148, 149]
        assert await gateway.json("/tasks/t/runs?after=149") == []
        shown = [each["run"] for each in (await gateway.json("/tasks/t"))["results"]]
        assert shown == list(range(149, 49, -1))


async def test_a_run_without_a_result_says_where_it_is(gateway: Gateway) -> None:
    await gateway.added(id="t", repeats=2, delay=5)
    assert await gateway.json("/tasks/t/runs/0") == {"run": 0, "state": "queued"}
    assert await gateway.json("/tasks/t/runs/1") == {"run": 1, "state": "scheduled"}
    await gateway.json("/tasks/t", 200, "DELETE")
    assert await gateway.json("/tasks/t/runs/1") == {"run": 1, "state": "cancelled"}


async def test_the_gateway_says_who_it_is_and_who_works_for_it(gateway: Gateway) -> None:
    assert await gateway.json("/healthz") == {"status": "ok", **ABOUT}
    assert await gateway.json("/workers") == []


async def test_a_get_may_wait_for_the_end(gateway: Gateway) -> None:
    await gateway.added(id="t")
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(gateway.json(f"/tasks/t?wait={seconds}")) for seconds in (60, 59)]
        await gateway.json("/tasks")
        assert not any(each.done() for each in waiting)
        cancelled = await gateway.json("/tasks/t", 200, "DELETE")
    assert [each.result() for each in waiting] == [cancelled, cancelled]
    assert await gateway.json("/tasks/t?wait=60") == cancelled


# Cancelling.


async def test_delete_cancels_and_may_be_repeated(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        await gateway.added(id="t", repeats=3)
        gateway.clock.advance(7)
        task = await gateway.json("/tasks/t", 200, "DELETE")
        assert task.keys() == set(TASK_KEYS.split())
        assert (task["status"], task["runs"]["cancelled"], task["next_run_at"]) == ("cancelled", 3, None)
        assert datetime.fromisoformat(task["finished_at"]).timestamp() == WALL + 7
        gateway.clock.advance(7)
        assert await gateway.json("/tasks/t", 200, "DELETE") == task
        assert await gateway.json("/tasks/t") == task
    async with open_gateway(tmp_path) as gateway:
        assert await gateway.json("/tasks/t") == task


async def test_two_deletes_at_a_time_cancel_once(gateway: Gateway) -> None:
    await gateway.added(id="t")
    first, second = await asyncio.gather(*(gateway.json("/tasks/t", 200, "DELETE") for _ in range(2)))
    assert first == second == await gateway.json("/tasks/t")


async def test_a_task_that_has_ended_is_not_cancelled_any_more(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        await gateway.added(id="t")
        await gateway.end("t", 0)
    async with open_gateway(tmp_path) as gateway:
        assert (await gateway.json("/tasks/t", 200, "DELETE"))["status"] == "succeeded"


# At the same time. What is shown must be true at some moment of the request.


class SlowStore(Store):
    """A store that answers when a test lets it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.may_answer_add = asyncio.Event()
        self.may_cancel = asyncio.Event()
        self.was_added = asyncio.Event()
        self.after_read: Callable[[], Awaitable[None]] | None = None

    async def add_task(self, spec: Spec, created_at: float) -> int:
        number = await super().add_task(spec, created_at)
        self.was_added.set()
        await self.may_answer_add.wait()
        return number

    async def cancel_task(self, *arguments: Any) -> Any:
        await self.may_cancel.wait()
        return await super().cancel_task(*arguments)

    async def task(self, id: str) -> TaskRow | None:
        return await self._read_by(await super().task(id))

    async def tasks(self, **values: Any) -> list[TaskRow]:
        return await self._read_by(await super().tasks(**values))

    async def _read_by(self, found: Any) -> Any:
        if found and (then := self.after_read) is not None:
            self.after_read = None
            await then()
        return found

    async def let_others_read(self) -> None:
        """Return when what was asked for before has been read: the store has one reader."""
        for _ in range(10):
            await self.modules()


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[tuple[Gateway, SlowStore]]:
    async with open_gateway(tmp_path, kind=SlowStore) as gateway:
        assert isinstance(gateway.store, SlowStore)
        gateway.store.may_cancel.set()
        yield gateway, gateway.store


@pytest.mark.parametrize(("path", "key"), [("/tasks", "status"), ("/tasks/t", "status"), ("/tasks/t/runs/0", "state")])
async def test_a_task_that_is_just_being_added_does_not_show_as_ended(
    slow: tuple[Gateway, SlowStore], path: str, key: str
) -> None:
    gateway, store = slow
    async with asyncio.TaskGroup() as group:
        posting = group.create_task(gateway.post(id="t"))
        await store.was_added.wait()
        getting = group.create_task(gateway.json(path))
        await store.let_others_read()
        store.may_answer_add.set()
    assert posting.result().status_code == 201
    got = getting.result()
    assert [each[key] for each in (got if isinstance(got, list) else [got])] in (["queued"], [])


async def test_a_delete_of_a_task_that_is_just_being_added_cancels_it(slow: tuple[Gateway, SlowStore]) -> None:
    gateway, store = slow
    async with asyncio.TaskGroup() as group:
        group.create_task(gateway.post(id="t"))
        await store.was_added.wait()
        deleting = group.create_task(gateway.json("/tasks/t", 200, "DELETE"))
        await store.let_others_read()
        store.may_answer_add.set()
    assert deleting.result()["status"] == "cancelled"
    assert (await gateway.json("/tasks/t"))["status"] == "cancelled"


@pytest.mark.parametrize("path", ["/tasks", "/tasks/t"])
async def test_a_task_that_ends_while_it_is_read_shows_as_it_was_or_is(
    slow: tuple[Gateway, SlowStore], path: str
) -> None:
    gateway, store = slow
    store.may_answer_add.set()
    await gateway.added(id="t")
    store.after_read = lambda: gateway.scheduler.cancel("t")
    got = await gateway.json(path)
    for task in got if isinstance(got, list) else [got]:
        assert task["status"] in ("queued", "cancelled")
        assert task["runs"][task["status"]] == 1
        assert (task["finished_at"] is None) == (task["status"] == "queued")


async def test_a_cancel_does_not_show_before_it_is_on_disk(slow: tuple[Gateway, SlowStore]) -> None:
    gateway, store = slow
    store.may_answer_add.set()
    await gateway.added(id="t")
    store.may_cancel.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(gateway.json("/tasks/t", 200, "DELETE"))
        await store.let_others_read()
        shown = await gateway.json("/tasks/t")
        store.may_cancel.set()
    assert shown["status"] == "queued"
