"""Batches over HTTP: each way in makes the same task, each run is given what it says; what is refused leaves nothing.

No worker is connected: what runs would be given is read from the inputs file. With one: tests/e2e/test_batches.py.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.gateway.test_http import BASE_URL, NOOP, NOOP_SHA256, Gateway, form, open_gateway
from tests.guests import guest, wat, zipped
from ww.gateway.caller import Caller, Quota
from ww.gateway.http import HttpConfig
from ww.gateway.inputs import Inputs
from ww.gateway.perimeter import Perimeter
from ww.gateway.quota import Quotas
from ww.gateway.request import RequestLimits
from ww.gateway.task import Spec
from ww.records import Input, read_input

pytestmark = pytest.mark.anyio

COMMAND: Final = guest("files")
LINES: Final = {"Content-Type": "application/x-ndjson"}
ADD: Final = wat('(func (export "add") (param i32 f64) (result i32) local.get 0)')
PARENT: Final = {"wasm_base64": base64.b64encode(COMMAND).decode()}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path) as gateway:
        yield gateway


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def lines(parent: Any, runs: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in ({"parent": parent}, *runs))


async def spec_of(gateway: Gateway, id: str) -> Spec:
    row = await gateway.store.task(id)
    assert row is not None
    return row.spec


async def given(gateway: Gateway, id: str) -> list[Input]:
    """Return what each run of a batch is given."""
    spec = await spec_of(gateway, id)
    found = await Inputs(gateway.modules.inputs_path).records(spec.inputs, range(spec.repeats))
    return [read_input(each if isinstance(each, bytes) else each.read()) for each in found]


async def post_lines(gateway: Gateway, parent: Any, runs: Iterable[Any], status: int = 201) -> Any:
    return await gateway.json("/tasks", status, "POST", content=lines(parent, runs), headers=LINES)


async def refused(gateway: Gateway, says: str, status: int = 422, **request: Any) -> Any:
    """Send a batch that is refused; nothing of it stays."""
    answer = await gateway.client.post("/tasks", **request)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert says in problem["detail"], problem
    assert "\n" not in problem["detail"]
    assert await gateway.ids() == []
    assert gateway.module_files() == set()
    return problem


RUNS: Final[list[dict[str, Any]]] = [
    {},
    {"args": ["x", "\u00e9"], "env": {"B": "2", "C": "3"}},
    {"stdin": "t\u00e9xt"},
    {"stdin_base64": b64(b"\0\xff"), "name": "in/second.bin"},
    {"input": 5, "difficulty": "7", "stdin": None},
    {"seed": 2**64 - 1},
]
COMMON: Final = {"args": ["a"], "env": {"A": "1", "B": "1"}, "deterministic": True, "input": 3, "stdin": "all"}
GIVEN: Final = [
    Input(),
    Input(args=["3", "x", "\u00e9"], env=[("A", "1"), ("B", "2"), ("C", "3")]),
    Input(stdin="t\u00e9xt".encode()),
    Input(stdin=b"\0\xff", name="in/second.bin"),
    Input(args=["5", "7", "a"]),
    Input(seed=2**64 - 1),
]


async def test_each_way_in_makes_the_same_batch(gateway: Gateway) -> None:
    task = await post_lines(gateway, {"id": "t", **PARENT, **COMMON}, RUNS)
    assert (task["repeats"], task["batch"], task["spread"], task["args"]) == (6, True, "pull", ["a"])
    assert task["runs"]["queued"] == 6
    assert await given(gateway, "t") == GIVEN
    spec = await spec_of(gateway, "t")
    assert (spec.stdin, spec.argv, spec.seed) == (b"all", ("3", "a"), 0)
    assert gateway.module_files() == {f"{spec.module}.wasm", f"{spec.inputs}.inputs"}
    # The others are the same task, so that they are answered with it.
    whole = {"parent": {"id": "t", **PARENT, **COMMON}, "tasks": RUNS}
    assert await gateway.json("/tasks", 200, "POST", json=whole) == task
    fields = {"id": "t", "args": "a", "env": ["A=1", "B=1"], "deterministic": "true", "input": 3, "stdin": "all"}
    tasks = ("tasks", ("inputs.ndjson", b"\r\n".join(json.dumps(run).encode() for run in RUNS)))
    for parts in ([*form(COMMAND, **fields), tasks], [tasks, *form(COMMAND, **fields)]):
        assert await gateway.json("/tasks", 200, "POST", files=parts) == task
    by_name = {"id": "t", "module": f"sha256:{spec.module}", **COMMON}
    assert await post_lines(gateway, by_name, RUNS, 200) == task
    assert gateway.module_files() == {f"{spec.module}.wasm", f"{spec.inputs}.inputs"}
    problem = await post_lines(gateway, by_name, RUNS[:-1], 409)
    assert problem["code"] == "conflict"
    assert len(gateway.module_files()) == 2, "what is not taken on leaves nothing"


async def test_a_zip_is_a_run_for_each_file_in_its_order(gateway: Gateway) -> None:
    inputs = zipped(b="second", c__d=b"", a=b"\0" * 1000, **{"e": b"x" * 100})
    parts = [("inputs", ("inputs.zip", inputs)), *form(COMMAND, id="t")]
    task = await gateway.json("/tasks", 201, "POST", files=parts)
    assert task["repeats"] == 4
    assert [(each.name, each.stdin) for each in await given(gateway, "t")] == [
        ("b", b"second"), ("c/d", b""), ("a", b"\0" * 1000), ("e", b"x" * 100),
    ]  # fmt: skip


async def test_json_without_tasks_is_one_run(gateway: Gateway) -> None:
    parent = {"id": "t", "wasm_base64": b64(guest("hash")), "input": 1, "labels": {"a": "b"}, "env": {"K": "v=w"}}
    task = await gateway.json("/tasks", 201, "POST", json={"parent": parent})
    assert (task["repeats"], task["batch"], task["input"], task["labels"]) == (1, False, 1, {"a": "b"})
    again = form(guest("hash"), id="t", input=1, labels="a=b", env="K=v=w")
    assert await gateway.json("/tasks", 200, "POST", files=again) == task


async def test_functions_are_called_with_what_each_run_says(gateway: Gateway) -> None:
    runs = [{"args": ["1", "2.5"]}, {"input": 7, "args": ["-1"]}, {"args": ["-1", "nan"]}]
    await post_lines(gateway, {"id": "t", "wasm_base64": b64(ADD), "entry": "add"}, runs)
    first, second, third = await given(gateway, "t")
    assert (first.arguments, first.args) == ((1, 0x4004000000000000), ["1", "2.5"])
    assert second.arguments == (7, -(2**63) + 0x3FF0000000000000)
    assert third.arguments is not None
    assert len((await spec_of(gateway, "t")).arguments) == 2
    hashed = {"id": "u", "wasm_base64": b64(guest("hash")), "difficulty": 3}
    await post_lines(gateway, hashed, [{"input": 5}, {}, {"difficulty": 1}])
    assert [each.arguments for each in await given(gateway, "u")] == [(5, 3), None, (0, 1)]


async def test_a_run_that_brings_files_gives_all_a_file_system(gateway: Gateway) -> None:
    files = zipped(data=b"x")
    runs = [{}, {"files_base64": b64(files)}]
    await post_lines(gateway, {"id": "t", **PARENT, "files_max": 5000}, runs)
    spec = await spec_of(gateway, "t")
    assert (spec.dirs, spec.files_bytes, spec.files) == (("/",), 5000, "")
    assert [each.files for each in await given(gateway, "t")] == [None, files]
    await post_lines(gateway, {"id": "u", **PARENT, "artifacts": ["out"]}, runs)
    spec = await spec_of(gateway, "u")
    assert (spec.dirs, spec.artifacts, spec.files_bytes) == ((), ("out",), 256 << 20)
    await post_lines(gateway, {"id": "v", **PARENT}, [{}])
    assert (await spec_of(gateway, "v")).files_bytes == 0


async def test_many_lines_in_pieces_of_any_size(gateway: Gateway) -> None:
    count = 3000
    body = lines({"id": "t", **PARENT}, ({"stdin": "i" * (run % 300), "name": str(run)} for run in range(count)))

    async def pieces() -> AsyncIterator[bytes]:
        at = 0
        for size in [1] * 100 + [7, 4096, 65536] * 100:
            yield body[at : at + size]
            at += size
        yield body[at:].rstrip(b"\n")

    task = await gateway.json("/tasks", 201, "POST", content=pieces(), headers=LINES)
    assert task["repeats"] == count
    found = await given(gateway, "t")
    assert [(each.name, len(each.stdin or b"")) for each in found] == [(str(run), run % 300) for run in range(count)]


async def test_large_lines_are_read_too(gateway: Gateway) -> None:
    inputs = [bytes([run]) * (1 << 20) for run in range(3)]
    await post_lines(gateway, {"id": "t", **PARENT}, [{"stdin_base64": b64(each)} for each in inputs])
    assert [each.stdin for each in await given(gateway, "t")] == inputs


BAD_RUNS: Final = [
    ({"args": "a"}, "tasks[1].args: expected an array of texts"),
    ({"args": [1]}, "tasks[1].args: expected an array of texts"),
    ({"args": ["a\0"]}, "tasks[1].args: holds a NUL character"),
    ({"args": ["\ud800"]}, "tasks[1].args: is not Unicode text"),
    ({"args": ["a" * 70_000]}, "tasks[1]: the text fields together are larger than 65536 bytes"),
    ({"env": ["A=1"]}, "tasks[1].env: expected an object of texts"),
    ({"env": {"A=": "1"}}, "tasks[1].env: 'A=' is no name of a variable"),
    ({"env": {"": "1"}}, "tasks[1].env: '' is no name of a variable"),
    ({"env": {"A": "\0"}}, "tasks[1].env: holds a NUL character"),
    ({"stdin": 5}, "tasks[1].stdin: expected text"),
    ({"stdin": "\udcff"}, "tasks[1].stdin: is not Unicode text"),
    ({"stdin": "x" * 1_000_001}, "tasks[1].stdin: 1000001 bytes, at most 1000000 are taken"),
    ({"stdin": "x", "stdin_base64": "eA=="}, "tasks[1].stdin: given as text and as base64"),
    ({"stdin_base64": "?"}, "tasks[1].stdin_base64: is not base64"),
    ({"files_base64": "AAAA"}, "tasks[1].files: the files are no zip, or not all of one"),
    ({"files": "AAAA"}, "tasks[1].files: expected files_base64"),
    ({"input": -1}, "tasks[1].input: '-1' is not a whole number"),
    ({"input": 2**63}, "tasks[1].input: '9223372036854775808' is not a whole number"),
    ({"input": True}, "tasks[1].input: expected a whole number"),
    ({"input": 1.5}, "tasks[1].input: expected a whole number"),
    ({"seed": 1}, "tasks[1].seed: given without deterministic=true in parent"),
    ({"name": "n" * 1025}, "tasks[1].name: 1025 characters, at most 1024"),
    ({"memory": 5}, "tasks[1].memory: is the same for all runs, it belongs in parent"),
    ({"repeats": 5}, "tasks[1].repeats: is the same for all runs, it belongs in parent"),
    ({"colour": 5}, "tasks[1]: 'colour': no such field of a run; known are args difficulty env"),
    ([], "tasks[1]: expected an object"),
    ("x", "tasks[1]: expected an object"),
    (None, "tasks[1]: expected an object"),
]


@pytest.mark.parametrize(("run", "says"), BAD_RUNS, ids=lambda each: str(each)[:40])
async def test_what_is_wrong_with_a_run_is_named(tmp_path: Path, run: Any, says: str) -> None:
    async with open_gateway(tmp_path, limits=RequestLimits(stdin_max_bytes=1_000_000)) as gateway:
        body = lines(PARENT, [{}, run, {}])
        problem = await refused(gateway, says, content=body, headers=LINES)
        assert problem["field"].startswith(says.partition(":")[0])
        tasks = ("tasks", ("t", b"".join(body.splitlines(keepends=True)[1:])))
        await refused(gateway, says, files=[*form(COMMAND), tasks])
        text = json.dumps({"parent": PARENT, "tasks": [{}, run, {}]})
        await refused(gateway, says, content=text, headers={"Content-Type": "application/json"})


BAD_LINES: Final = [
    (b"[" * 100_000, "it is nested too deeply"),
    (b'{"a":' * 50_000, "it is nested too deeply"),
    (b'{"input": NaN}', "NaN is no number of JSON"),
    (b'{"input": -Infinity}', "-Infinity is no number of JSON"),
    (b'{"input": 1e999}', "a number is too large"),
    (b'{"input": ' + b"9" * 5000 + b"}", "a number has too many digits"),
    (b'{"input": 1, "input": 1}', "an object names a member twice"),
    (b'{"stdin": "\xff"}', "it is not UTF-8"),
    (b"\xef\xbb\xbf{}", "it is cut off or malformed"),
    (b"{", "it is cut off or malformed"),
    (b"{} {}", "it is cut off or malformed"),
    (b"\0", "it is cut off or malformed"),
]


@pytest.mark.parametrize(("line", "says"), BAD_LINES, ids=lambda each: str(each)[:30])
async def test_a_line_that_means_nothing_is_named(gateway: Gateway, line: bytes, says: str) -> None:
    whole = f"tasks[1]: the line is no JSON that can be read: {says}"
    await refused(gateway, whole, content=lines(PARENT, [{}]) + line + b"\n{}\n", headers=LINES)
    await refused(gateway, f"the first line is no JSON that can be read: {says}", content=line, headers=LINES)
    await refused(
        gateway, f"the body is no JSON that can be read: {says}", content=line,
        headers={"Content-Type": "application/json"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("parent", "runs", "says"),
    [
        ({**PARENT, "repeats": 2}, [{}], "repeats: given beside runs of a batch"),
        ({**PARENT, "spread": "everywhere"}, [{}], "spread: everywhere is one run on each worker; expected it without"),
        ({**PARENT, "spread": "sideways"}, [{}], "spread: 'sideways' is not one of pull roundrobin random everywhere"),
        ({**PARENT, "colour": 1}, [{}], "'colour': no such field"),
        ({**PARENT, "env": {"A=B": "c"}}, [{}], "env: 'A=B' is no name"),
        ({**PARENT, "tasks": "x"}, [{}], "tasks: is text here; expected a file part of a form"),
        ({**PARENT, "files_max": 5}, [{}], "files_max: given without files, dirs or artifacts"),
        ({}, [{}], "wasm: missing"),
        ({"wasm_base64": "AAAA"}, [{}], "wasm: not WebAssembly"),
        (PARENT, [], "tasks: none are given; expected at least one run"),
        ([], [{}], "parent: expected an object of fields"),
        ({"wasm_base64": b64(ADD), "entry": "add"}, [{"args": ["1", "2"]}, {}],
         "tasks[1].args: 'add' takes (i32, f64), 0 were given"),
        ({"wasm_base64": b64(ADD), "entry": "add"}, [{"args": ["1", "x"]}],
         "tasks[0].args: parameter 2 of 'add' is f64: 'x' is not a decimal number"),
    ],
)  # fmt: skip
async def test_what_is_wrong_with_all_runs_is_named(gateway: Gateway, parent: Any, runs: Any, says: str) -> None:
    await refused(gateway, says, content=lines(parent, runs), headers=LINES)
    await refused(gateway, says, json={"parent": parent, "tasks": runs})


async def test_bodies_that_are_no_batch(gateway: Gateway) -> None:
    for body in (b"", b"\n\n", b"{}\n", b"[]", b"5"):
        await refused(gateway, "parent: missing; expected {", content=body, headers=LINES)
    await refused(gateway, "'x': no such member beside parent", json={"parent": PARENT, "x": 1})
    await refused(gateway, "tasks: expected an array of objects", json={"parent": PARENT, "tasks": {}})
    body = lines(PARENT, [{}]).replace(b'{"parent"', b'{"tasks": [], "parent"', 1)
    await refused(gateway, "'tasks': no such member beside parent", content=body, headers=LINES)
    some = ("x", b"{}")
    await refused(gateway, "given beside tasks", files=[*form(COMMAND), ("tasks", some), ("inputs", some)])
    await refused(gateway, "given more than once", files=[*form(COMMAND), ("tasks", some), ("tasks", some)])
    await refused(gateway, "tasks: is a text field; expected a file part", files=form(COMMAND, tasks="{}"))
    await refused(gateway, "repeats: given beside", files=[*form(COMMAND, repeats=1), ("tasks", some)])
    await refused(gateway, "tasks: none are given", files=[*form(COMMAND), ("tasks", ("x", b""))])
    await refused(gateway, "spread: everywhere", files=form(COMMAND, repeats=2, spread="everywhere"))


async def test_zips_that_are_no_inputs(tmp_path: Path) -> None:
    limits = RequestLimits(stdin_max_bytes=1000, runs_max=3)
    async with open_gateway(tmp_path, limits=limits) as gateway:
        for data, says in (
            (b"", "inputs: the file is empty; expected a zip"),
            (b"nonsense", "inputs: the files are no zip"),
            (zipped(), "tasks: none are given"),
            (zipped(a=bytes(1001)), "inputs: the zip's entry 'a' has 1001 bytes, the limit is 1000"),
            (zipped(a=b"1", b=b"2", c=b"3", d=b"4"), "inputs: the zip has 4 entries, the limit is 3"),
            (zipped(a=b"x" * 500)[:-30], "inputs: the files are no zip"),
        ):
            await refused(gateway, says, files=[*form(COMMAND), ("inputs", ("i.zip", data))])
        damaged = bytearray(zipped(a=b"0123456789" * 20))
        damaged[40] ^= 0xFF
        await refused(
            gateway, "inputs: the zip's entry 'a'", files=[*form(COMMAND), ("inputs", ("i.zip", bytes(damaged)))]
        )


async def test_a_batch_over_a_limit(tmp_path: Path) -> None:
    limits = RequestLimits(runs_max=3, line_bytes_max=20_000, batch_bytes_max=100_000, json_bytes_max=50_000)
    async with open_gateway(tmp_path, limits=limits) as gateway:
        small = {"module": f"sha256:{NOOP_SHA256}"}
        tiny = {"wasm_base64": b64(NOOP)}
        many = lines(tiny, [{}] * 4)
        await refused(gateway, "tasks: more than 3 runs are given, the limit (--max-runs)", content=many, headers=LINES)
        long = lines(tiny, [{}, {"stdin": "x" * 20_000}])
        says = "tasks[1]: the line has more than 20000 bytes (--line-max)"
        await refused(gateway, says, content=long, headers=LINES)
        await refused(gateway, says, files=[*form(COMMAND), ("tasks", ("t", long.partition(b"\n")[2]))])
        says = "parent: the line has more than 20000 bytes (--line-max)"
        await refused(gateway, says, content=lines(tiny | {"name": "x" * 20_000}, [{}]), headers=LINES)
        await refused(
            gateway, "larger than 100000 bytes, the limit (--batch-max)", 413, content=bytes(100_001), headers=LINES
        )

        async def endless() -> AsyncIterator[bytes]:
            yield lines(tiny, [])
            while True:
                yield b"\n" * 10_000

        says = "larger than 100000 bytes, the limit (--batch-max)"
        await refused(gateway, says, 413, content=endless(), headers=LINES)
        blank = ("tasks", ("t", b"\n" * 100_001))
        await refused(gateway, says, 413, files=[*form(COMMAND), blank])
        says = "larger than 50000 bytes, the limit (--json-max)"
        await refused(gateway, says, 413, json={"parent": small, "tasks": [{"stdin": "x" * 50_000}]})
    # What all have is counted with each that adds to it.
    limits = RequestLimits(batch_bytes_max=100_000)
    async with open_gateway(tmp_path / "b", limits=limits) as gateway:
        runs = [{"env": {"B": "2"}}] * 100
        body = lines(PARENT | {"env": {"A": "1" * 5000}}, runs)
        says = "tasks: the runs hold more than 100000 bytes, the limit (--batch-max)"
        await refused(gateway, says, content=body, headers=LINES)


async def test_a_batch_that_breaks_off_or_takes_too_long_leaves_nothing(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield lines(PARENT, [{"stdin": "x" * 100_000}] * 20)
        begun.set()
        await asyncio.Event().wait()

    async with open_gateway(tmp_path, http=HttpConfig(batch_timeout_s=0.2, batches_max=1)) as gateway:
        for _ in range(2):
            await refused(gateway, "the body took longer than 0.2 s", 408, content=stuck(), headers=LINES)
        begun.clear()
        sending = asyncio.create_task(gateway.client.post("/tasks", content=stuck(), headers=LINES))
        await begun.wait()
        second = await gateway.client.post("/tasks", content=lines(PARENT, [{}]), headers=LINES)
        assert (second.status_code, second.headers["retry-after"]) == (429, "1")
        assert "1 batches are being read, the limit (--batches)" in second.text
        assert (await sending).status_code == 408
        assert gateway.module_files() == set()

    async with open_gateway(tmp_path, http=HttpConfig(upload_timeout_s=0.2, batches_max=1)) as gateway:
        for _ in range(2):
            await refused(gateway, "nothing of the body came for 0.2 s", 408, content=stuck(), headers=LINES)
        assert gateway.module_files() == set()

    async def leaving(*_: Any) -> dict[str, Any]:
        return messages.pop(0)

    async with open_gateway(tmp_path) as gateway:
        messages = [
            {"type": "http.request", "body": lines(PARENT, [{}] * 10), "more_body": True},
            {"type": "http.disconnect"},
        ]
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = httpx.Request("POST", f"{BASE_URL}/tasks", headers=LINES)
        await gateway.app(
            {
                "type": "http", "method": "POST", "path": "/tasks", "raw_path": b"/tasks", "query_string": b"",
                "headers": [(name.lower(), value) for name, value in scope.headers.raw], "scheme": "http",
                "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080), "http_version": "1.1", "root_path": "",
            },
            leaving,
            send,
        )  # fmt: skip
        assert sent == []
        assert (await gateway.ids(), gateway.module_files()) == ([], set())


async def test_no_room_for_inputs_is_said_and_nothing_stays(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, modules_bytes_max=1 << 20) as gateway:
        runs = [{"stdin": "x" * 100_000}] * 20
        problem = await refused(gateway, "has no room", 429, content=lines(PARENT, runs), headers=LINES)
        assert problem["detail"].startswith("tasks: the inputs")
        await post_lines(gateway, PARENT, runs[:5])


async def test_the_runs_of_a_batch_count_towards_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caller = Caller("a", quota=Quota(runs_max=5))
    monkeypatch.setattr("ww.gateway.posting.caller_of", lambda _: caller)
    perimeter = Perimeter()
    async with open_gateway(tmp_path, perimeter=perimeter) as gateway:
        perimeter.quotas = Quotas(gateway.scheduler.task, gateway.scheduler.open_tasks, gateway.clock.now)
        await post_lines(gateway, {**PARENT, "id": "four"}, [{}] * 4)
        problem = await post_lines(gateway, PARENT, [{"stdin": "x"}] * 2, 429)
        assert "may hold 5 runs of tasks that have not ended (runs_max); with this it would be 6" in problem["detail"]
        assert len(gateway.module_files()) == 2
        await post_lines(gateway, PARENT, [{}])


async def test_a_batch_is_there_after_a_restart_with_its_inputs(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        task = await post_lines(gateway, {"id": "t", **PARENT, "spread": "random"}, RUNS[:3])
    async with open_gateway(tmp_path, modules_bytes_max=len(COMMAND) + 1000) as gateway:
        assert await gateway.json("/tasks/t") == task
        # Room is made by removing what nobody names: not these.
        await gateway.post(wasm=NOOP)
        assert len(await given(gateway, "t")) == 3
        assert task["spread"] == "random"
