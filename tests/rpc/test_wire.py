"""Errors as bytes: what crosses to a peer when something fails here tells nothing of this machine's insides."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ww import errors, schema
from ww.caps.channel import Channel
from ww.caps.facets import SenderServer
from ww.caps.value import TEXT
from ww.errors import NotFound, ProtocolMismatch, RemoteError, UsageError, WwError
from ww.identity import Identity
from ww.net.memory import MemoryTransport, Network
from ww.net.multiaddr import Multiaddr
from ww.net.transport import Listener, Stream
from ww.node import LOOPBACK
from ww.rpc import errors as rpc_errors
from ww.rpc.errors import _tree, call
from ww.rpc.vat import Connection, Vat

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

SECRET = "hunter2"
TELL_TALES = ("Traceback", "/", ".py", "line ", "0x", SECRET)


def all_kinds(kind: type[WwError] = WwError) -> list[type[WwError]]:
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(found for child in children for found in all_kinds(child))]


class TappedTransport(MemoryTransport):
    """Keeps what the streams that it accepts send."""

    def __init__(self, network: Network, identity: Identity) -> None:
        super().__init__(network, identity)
        self.sent = bytearray()

    async def serve(self, address: Multiaddr, on_stream: Callable[[Stream], None]) -> Any:
        def tapped(stream: Stream) -> None:
            write = stream.write

            def keep_and_write(data: bytes) -> None:
                self.sent += data
                write(data)

            stream.write = keep_and_write  # type: ignore[method-assign]
            on_stream(stream)

        listener: Listener = await super().serve(address, tapped)
        return listener


class FailingWorker(schema.worker.Worker.Server):  # type: ignore[misc]
    """Fails in the way that the digest names."""

    async def load_context(self, context: Any) -> None:
        way = bytes(context.params.digest).decode()
        await getattr(self, way)(context)

    async def bug(self, context: Any) -> None:
        raise RuntimeError(f"cannot open {Path(__file__)}: {SECRET}")

    async def bug_in_a_group(self, context: Any) -> None:
        raise ExceptionGroup(SECRET, [OSError(2, SECRET, str(Path(__file__)))])

    async def bug_that_cannot_be_formatted(self, context: Any) -> None:
        class Unspeakable(Exception):
            def __str__(self) -> str:
                raise RuntimeError(SECRET)

        raise Unspeakable

    async def wrong_result(self, context: Any) -> None:
        context.results.program = SECRET

    async def unknown_result(self, context: Any) -> None:
        context.results.hunter2 = 1

    async def cancelled(self, context: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel(SECRET)
        await asyncio.sleep(0)

    async def call_of_nothing(self, context: Any) -> None:
        await context.params.blob.size()

    async def caused(self, context: Any) -> None:
        try:
            await self.bug(context)
        except RuntimeError as error:
            raise UsageError("expected something else") from error

    async def many_lines(self, context: Any) -> None:
        raise UsageError("expected\nsomething\r\nelse\0")


class RaisingWorker(schema.worker.Worker.Server):  # type: ignore[misc]
    """Raises the error that has the code which the digest names."""

    async def load_context(self, context: Any) -> None:
        code = bytes(context.params.digest).decode()
        raise next(kind for kind in all_kinds() if kind.code == code)("what was wrong and what was expected")


class NothingDone(schema.worker.Group.Server):  # type: ignore[misc]
    """Serves an interface and has none of its methods."""


class Serving:
    """A vat whose exports fail, and a connection to it, of which every byte that comes back is kept."""

    def __init__(self, transport: TappedTransport, connection: Connection, again: Callable[[], Any]) -> None:
        self._transport = transport
        self.connection = connection
        self.dial_again = again

    async def error_of(self, failing: Awaitable[Any]) -> WwError:
        """Return what a call fails with, if what crossed says nothing that is nobody's business."""
        with pytest.raises(WwError) as error:
            await call(failing)
        self.check()
        for tell_tale in TELL_TALES:
            assert tell_tale not in str(error.value)
        return error.value

    def check(self) -> None:
        """Fail if any text that was sent tells too much. Numbers may look like one character, so four are a text."""
        texts = [text.decode() for text in re.findall(rb"[\x20-\x7e\n\t]{4,}", self._transport.sent)]
        assert texts, "nothing came back that could be looked at"
        for tell_tale in TELL_TALES:
            assert not [text for text in texts if tell_tale in text]

    @property
    def sent(self) -> bytes:
        return bytes(self._transport.sent)


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    network, here, there, elsewhere = Network(), *(Identity.generate() for _ in range(3))
    transport = TappedTransport(network, here)
    async with (
        Vat(here, transport) as vat,
        Vat(there, MemoryTransport(network, there)) as peer,
        Vat(elsewhere, MemoryTransport(network, elsewhere)) as other,
    ):
        channel = Channel(TEXT)
        vat.export("failing", lambda _: FailingWorker())
        vat.export("raising", lambda _: RaisingWorker())
        vat.export("empty", lambda _: NothingDone())
        vat.export("channel", lambda _: SenderServer(channel))
        vat.export("broken", lambda _: {}[SECRET])
        addresses = await vat.listen(LOOPBACK)

        async def dial() -> Connection:
            return await other.dial(vat.peer_id, addresses)

        async with await peer.dial(vat.peer_id, addresses) as connection:
            yield Serving(transport, connection, dial)


BUGS = [name for name, member in vars(FailingWorker).items() if name.startswith(("bug", "wrong", "unknown", "call"))]


@pytest.mark.parametrize("way", BUGS)
async def test_what_nobody_raised_on_purpose_is_remote_and_says_no_more(
    serving: Serving, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await serving.connection.connect("failing", schema.worker.Worker)
    error = await serving.error_of(worker.load(way.encode()))
    assert type(error) is RemoteError
    assert str(error) == "the peer failed to answer; its log says why"
    assert "a call failed here" in caplog.text


async def test_an_export_that_cannot_be_made_is_remote(serving: Serving) -> None:
    assert type(await serving.error_of(serving.connection.link.exports.connect("broken"))) is RemoteError


async def test_a_handler_that_was_cancelled_there_is_remote(serving: Serving) -> None:
    worker = await serving.connection.connect("failing", schema.worker.Worker)
    error = await serving.error_of(worker.load(b"cancelled"))
    assert type(error) is RemoteError
    assert "was cancelled" in str(error)


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.__name__)
async def test_an_error_raised_on_purpose_arrives_as_itself(serving: Serving, kind: type[WwError]) -> None:
    worker = await serving.connection.connect("raising", schema.worker.Worker)
    error = await serving.error_of(worker.load(kind.code.encode()))
    assert type(error) is kind
    assert str(error) == "what was wrong and what was expected"
    assert f"ww:{kind.code}: ".encode() in serving.sent


async def test_every_error_has_a_code_of_its_own() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, WwError)]
    assert set(all_kinds()) == set(kinds)
    assert len({kind.code for kind in kinds}) == len(kinds)


async def test_the_cause_of_an_error_stays_here(serving: Serving) -> None:
    worker = await serving.connection.connect("failing", schema.worker.Worker)
    error = await serving.error_of(worker.load(b"caused"))
    assert (type(error), str(error)) == (UsageError, "expected something else")


async def test_a_message_is_one_line_of_what_can_be_printed(serving: Serving) -> None:
    worker = await serving.connection.connect("failing", schema.worker.Worker)
    assert str(await serving.error_of(worker.load(b"many_lines"))) == "expected something  else "


async def test_an_argument_of_another_type_is_misuse(serving: Serving) -> None:
    sender = await serving.connection.connect("channel", schema.channel.Sender)
    error = await serving.error_of(sender.send(schema.worker.Offer.new_message()))
    assert (type(error), str(error)) == (UsageError, "the value cannot be read: expected text")


async def test_a_method_of_an_interface_that_is_not_served_is_another_version(serving: Serving) -> None:
    worker = (await serving.connection.link.exports.connect("failing")).capability.as_interface(schema.channel.Sender)
    assert type(await serving.error_of(worker.send("text"))) is ProtocolMismatch


async def test_a_method_that_the_server_does_not_have_is_remote(serving: Serving) -> None:
    group = await serving.connection.connect("empty", schema.worker.Group)
    assert type(await serving.error_of(group.cancel())) is RemoteError


async def test_a_name_that_is_not_exported_is_not_found(serving: Serving) -> None:
    assert type(await serving.error_of(serving.connection.link.exports.connect("nothing"))) is NotFound


async def test_a_call_on_what_was_not_found_fails_as_that_did(serving: Serving) -> None:
    found = serving.connection.link.exports.connect("nothing")
    early = found.capability.cast_as(schema.worker.Group).cancel()
    assert type(await serving.error_of(early)) is NotFound
    assert type(await serving.error_of(found)) is NotFound


@pytest.mark.parametrize("frame", [bytes(64), b"\0\0\0\0\1\0\0\0" + b"\x20" * 8], ids=["zeros", "no pointer"])
async def test_who_does_not_speak_capnp_is_told_no_more(serving: Serving, frame: bytes) -> None:
    before = len(serving.sent)
    async with await serving.dial_again() as connection:
        assert connection.link is not serving.connection.link
        connection.link._stream.write(frame)
        await connection.wait_closed()
    assert len(serving.sent) > before
    serving.check()


async def test_failures_are_logged_seldom(caplog: pytest.LogCaptureFixture) -> None:
    seldom = rpc_errors._Seldom()
    assert [seldom.may_log(now=1000.0 + number / 100) for number in range(100)] == [True] * 20 + [False] * 80
    assert caplog.text == ""
    assert seldom.may_log(now=1061.0)
    assert "80 more calls failed here" in caplog.text


async def test_an_error_that_somebody_derives_for_themselves_is_not_what_a_peer_is_taken_to_mean() -> None:
    """Its code is its parent's: whichever was imported last would be what a peer's error becomes."""

    class Private(errors.StoreError):
        pass

    assert _tree(WwError)["store"] is errors.StoreError
    assert Private.code == "store"
