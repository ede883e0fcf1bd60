"""The peer in TypeScript against pycapnp: what crosses, in which order, and that both let go of it."""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import until
from tests.gateway.peers import Door, open_door
from ww import schema
from ww.caps.blob import BytesBlobServer, fetch
from ww.errors import Draining, ProtocolMismatch, RemoteError
from ww.rpc.errors import call

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

WEB: Final = Path(__file__).parents[2] / "web"
LARGE: Final = os.urandom(1 << 10) * (30 << 10)  # 30 MiB
_BUNDLER: Final = WEB / "node_modules/.bin/rolldown"


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examinee, bundled."""
    if shutil.which("node") is None or not _BUNDLER.exists():
        pytest.skip("web/ is not installed here: scripts/web")
    made = tmp_path_factory.mktemp("script") / "examinee.mjs"
    words = [_BUNDLER, WEB / "test/rpc/examinee.ts", "--file", made, "--platform", "neutral"]
    for name in ("fs", "path", "process"):
        words += ["--external", f"node:{name}"]
    subprocess.run(words, cwd=WEB, check=True, capture_output=True)
    return made


class Examinee:
    """The worker that a script offered."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        self.runs = self._runs("exam")

    def _runs(self, entry: str, blob: Any = None) -> Any:
        loading = self.worker.load(digest=b"\0" * 32, **({} if blob is None else {"blob": blob}))
        return loading.program.task(invocation={"entry": entry}).runs

    def begin(self, exercise: str, *large: Any) -> Any:
        request = self.runs.start_request()
        request.inputs = exercise.encode()
        listed = request.init("large", len(large))
        for place, blob in enumerate(large):
            listed[place] = blob
        return request.send()

    async def do(self, exercise: str, *large: Any) -> Any:
        async with asyncio.timeout(20):
            return await call(self.begin(exercise, *large))

    async def said(self, exercise: str, *large: Any) -> str:
        return bytes((await self.do(exercise, *large)).outcomes).decode()

    async def seen(self) -> list[str]:
        found: list[str] = json.loads(await self.said("seen"))
        return found

    async def sees(self, *words: str) -> None:
        async with asyncio.timeout(10):
            while not set(words) <= set(await self.seen()):  # noqa: ASYNC110 it is in another process
                await asyncio.sleep(0.005)


class _Sender(schema.channel.Sender.Server):  # type: ignore[misc]
    def __init__(self, offered: list[Any]) -> None:
        self._offered = offered

    async def send_context(self, context: Any) -> None:
        offer = context.params.value.as_struct(schema.worker.Offer)
        self._offered.append(offer.worker)
        assert offer.depth == 3


class _Registry(schema.worker.Registry.Server):  # type: ignore[misc]
    def __init__(self, told: list[Any]) -> None:
        self._told = told

    async def register_context(self, context: Any) -> None:
        info = context.params.info
        self._told.append(({label.key: label.value for label in info.labels}, list(info.lacks)))
        self._told.append(context.params._has("pulse"))


@contextlib.asynccontextmanager
async def running(
    script: Path, door: Door, runtime: str, *, stderr: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    words = {"deno": ["deno", "run", "--quiet", "-A"], "node": ["node", "--no-warnings", "--experimental-websocket"]}
    program, *options = words[runtime]
    # Deno is there as a package of the environment's, where it is.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if (found := shutil.which(program, path=path)) is None:
        pytest.skip(f"no {program} here")
    pipe = asyncio.subprocess.PIPE
    words_after = (script, door.url, str(door.identity.peer_id))
    process = await asyncio.create_subprocess_exec(
        found, *options, *words_after, stdout=pipe, stderr=pipe if stderr else None
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def examined(script: Path, runtime: str = "deno") -> AsyncIterator[tuple[Examinee, Door, Any]]:
    offered: list[Any] = []
    told: list[Any] = []
    async with open_door() as door:
        door.vat.export("channel", lambda _: _Sender(offered))
        door.vat.export("registry", lambda _: _Registry(told))
        async with running(script, door, runtime) as process:
            await until(lambda: bool(offered), 20)
            assert told == [({"kind": "of kind", "größe": "of größe"}, ["files", "fuel"]), False]
            yield Examinee(offered.pop()), door, process


@pytest.mark.parametrize("runtime", ["deno", "node"])
async def test_calls_are_made_ahead_of_answers_and_in_order(script: Path, runtime: str) -> None:
    async with examined(script, runtime) as (examinee, _, _process):
        # Nothing of this has been answered yet: program and runs are in the results of calls that are under way.
        notes = [examinee.begin(f"note {number}") for number in range(300)]
        echoes = [examinee.begin(f"echo {number}") for number in range(300)]
        for number, echo in enumerate(echoes):
            assert bytes((await call(echo)).outcomes).decode() == str(number)
        await asyncio.gather(*(call(note) for note in notes))
        seen = await examinee.seen()
        assert seen[:3] == ["load", "task exam", "0"] or seen[:4] == ["load", "task exam", "not_found", "0"]
        assert [word for word in seen if word.isdigit()] == [str(number) for number in range(300)]
        # And so on what was read meanwhile from here.
        runs = examinee._runs("read", BytesBlobServer(LARGE[: 3 << 20]))
        request = runs.start_request()
        request.inputs = b"echo done"
        assert bytes((await call(request.send())).outcomes) == b"done"
        del notes, echoes, echo, request, runs


async def test_what_goes_by_way_of_the_gateway_to_where_it_came_from_keeps_its_order(script: Path) -> None:
    class Mirror(schema.worker.Worker.Server):  # type: ignore[misc]
        def __init__(self, program: Any) -> None:
            self._program = program

        async def load_context(self, context: Any) -> None:
            await asyncio.sleep(0.02)  # what is called on the answer arrives before it
            context.results.program = self._program

    async with examined(script) as (examinee, _, _process):
        program = (await call(examinee.worker.load(digest=b"\0" * 32))).program
        mirror = schema.worker.Worker._new_client(Mirror(program)).cast_as(schema.worker.Blob)
        assert await examinee.said("mirror", mirror) == "true true true true true"
        assert [word for word in await examinee.seen() if " e" in word and word != "task exam"] == [
            f"task e{number}" for number in range(5)
        ]
        del program, mirror


async def test_what_fails_is_told_and_secrets_are_not(script: Path) -> None:
    async with examined(script) as (examinee, _, _process):
        with pytest.raises(Draining, match="said on purpose"):
            await examinee.do("fail")
        with pytest.raises(RemoteError) as remote:
            await examinee.do("crash")
        assert "secret" not in str(remote.value)
        with pytest.raises(ProtocolMismatch):
            await call(examinee.worker.cast_as(schema.worker.Blob).size())
        assert await examinee.said("nulls", BytesBlobServer(b"")) == "calls true large 1 false"
        assert "was released" in await examinee.said("dropped", BytesBlobServer(b""))


async def test_large_data_goes_both_ways(script: Path) -> None:
    async with examined(script) as (examinee, _, _process):
        half = len(LARGE) // 2
        digest = bytes(
            (await examinee.do("digest", *(BytesBlobServer(LARGE[at : at + half]) for at in (0, half)))).outcomes
        )
        assert digest == hashlib.sha256(LARGE).digest()
        answer = await examinee.do(f"produce {len(LARGE)}")
        for blob in answer.large:
            got = b"".join([data async for data in fetch(blob, bytes_max=len(LARGE))])
            assert got == bytes(place * 7 & 255 for place in range(256)) * (half // 256)
        del answer, blob
        await examinee.sees("blob released")
        assert len((await examinee.do(f"inline {16 << 20}")).outcomes) == 16 << 20


async def test_what_nobody_refers_to_is_let_go_on_both_sides(script: Path) -> None:
    gone: list[str] = []

    class Kept(BytesBlobServer):
        def __del__(self) -> None:
            gone.append("kept")

    async with examined(script) as (examinee, _, process):
        await examinee.do("keep", Kept(b"kept"))
        assert bytes((await examinee.do("use")).outcomes) == hashlib.sha256(b"kept").digest()
        # It comes back as what it is, and can be called.
        assert (await call((await examinee.do("back")).large[0].size())).bytes == 4
        assert not gone
        await examinee.do("drop")
        await until(lambda: gone == ["kept"])
        other = Examinee(examinee.worker)
        assert await other.said("echo x") == "x"
        assert "runs released" not in await examinee.seen()
        del other
        await examinee.sees("runs released", "program released")
        assert "worker released" not in await examinee.seen()
        del examinee  # what was had of it refers to it too, here
        assert await asyncio.wait_for(process.stdout.readline(), 10) == b"worker released\n"


async def test_calls_are_given_up_from_either_side(script: Path) -> None:
    class Slow(schema.worker.Blob.Server):  # type: ignore[misc]
        async def size_context(self, context: Any) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                given_up.set()

    given_up = asyncio.Event()
    async with examined(script) as (examinee, _, _process):
        stalled = examinee.begin("stall")
        await examinee.sees("stalled")
        assert "aborted" not in await examinee.seen()
        del stalled
        await examinee.sees("aborted")
        assert await examinee.said("giveUp", Slow()) == "gave up"
        await asyncio.wait_for(given_up.wait(), 10)
        group = (await examinee.do("group")).group
        more = group.more()
        await call(group.cancel(runs=b"\1\2"))
        await examinee.sees("cancel 1,2")
        del more, group
        await examinee.sees("group released")


async def test_why_the_door_is_closed_is_told(script: Path) -> None:
    async with open_door(closed_because="nobody today") as door, running(script, door, "deno", stderr=True) as process:
        _, errors = await asyncio.wait_for(process.communicate(), 20)
        assert b"CapabilityError: nobody today" in errors


async def test_either_side_notices_that_the_other_is_gone(script: Path) -> None:
    async with examined(script) as (_examinee, door, process):
        process.send_signal(signal.SIGKILL)
        await until(lambda: not door.vat.served and door.sockets.count == 0)
    async with examined(script) as (examinee, door, process):
        await examinee.sees("not_found")
        for peer in list(door.vat.peers):
            peer.hang_up()
        output, _ = await asyncio.wait_for(process.communicate(), 10)
        assert output.splitlines()[-1].startswith(b"closed: ")
        assert process.returncode == 0
