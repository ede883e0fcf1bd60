"""Membranes: what a reference does not allow cannot be done through it, nor through anything obtained by it."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import capnp
import pytest

from tests.caps.holders import World
from tests.conftest import until
from ww import schema
from ww.caps.channel import Channel
from ww.caps.facets import SenderServer, WholeServer
from ww.caps.membrane import attenuate, revocable
from ww.caps.value import TEXT
from ww.errors import NotAllowed, Revoked, UsageError
from ww.rpc.connection import Connection
from ww.rpc.errors import call

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop"), pytest.mark.timeout(30)]

TREE: Any = capnp.load(
    str(Path(__file__).with_name("tree.capnp")), imports=[str(Path(capnp.__file__).resolve().parent.parent)]
)


class Node(TREE.Node.Server):  # type: ignore[misc, name-defined]
    """A node of a tree that gives itself away in every place a schema has for it."""

    def __init__(self, name: str = "root") -> None:
        self.name = name
        self.heard: list[str] = []
        self.forever = asyncio.Event()

    async def who_context(self, context: Any) -> None:
        context.results.name = self.name

    async def secret_context(self, context: Any) -> None:
        context.results.name = f"secret of {self.name}"

    async def give_context(self, context: Any) -> None:
        where, results = context.params.where, context.results
        child = Node(f"{self.name}/{where}")
        if where == "field":
            results.node = child
        elif where == "struct":
            results.init("held").node = child
            results.held.label = "label"
        elif where == "nested":
            results.init("held").init("inner").node = child
        elif where == "union":
            results.init("held").aNode = child
        elif where == "group":
            results.init("held").group.node = child
        elif where == "list":
            results.init("nodes", 2)[1] = child
        elif where == "structs":
            results.init("many", 1)[0].node = child
        elif where == "lists":
            results.init("nested", 1).init(0, 1)[0] = child
        elif where == "any":
            results.any = TREE.Held.new_message(node=child)
        elif where == "untyped":
            results.untyped = child

    async def tell_context(self, context: Any) -> None:
        """Call back who was given, and hand it this very node."""
        answer = await call(context.params.listener.hear(node=self))
        self.heard.append((await call(answer.reply.who())).name)

    async def wait_context(self, context: Any) -> None:
        await self.forever.wait()


def reach(answer: Any, where: str) -> Any:
    return {
        "field": lambda: answer.node, "struct": lambda: answer.held.node, "nested": lambda: answer.held.inner.node,
        "union": lambda: answer.held.aNode, "group": lambda: answer.held.group.node, "list": lambda: answer.nodes[1],
        "structs": lambda: answer.many[0].node, "lists": lambda: answer.nested[0][0],
    }[where]()  # fmt: skip


PLACES = ("field", "struct", "nested", "union", "group", "list", "structs", "lists")


@pytest.fixture(params=["local", "memory", "tls"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with World(request.param) as world:
        yield world


async def elsewhere(world: World, reference: Any, interface: Any) -> Any:
    """Hand a reference to somebody, who uses it from its own node."""
    if not world.is_remote:
        return reference
    world.names += 1
    name = f"reference{world.names}"
    world.owner.export(name, lambda _: reference)
    world.friend = world.friend or await world.somebody()
    connection = world.friend.connection
    assert isinstance(connection, Connection)
    return await connection.connect(name, interface)


@pytest.mark.parametrize("where", PLACES)
async def test_only_what_is_allowed_works_also_on_what_is_reached(world: World, where: str) -> None:
    node = await elsewhere(world, attenuate(Node(), allow={"Node.who", "Node.give"}), TREE.Node)
    for _ in range(3):
        assert (await call(node.who())).name.startswith("root")
        with pytest.raises(NotAllowed, match=r"Node\.secret"):
            await call(node.secret())
        node = reach(await call(node.give(where)), where)


@pytest.mark.parametrize("where", PLACES)
async def test_a_revoked_reference_and_all_that_was_reached_by_it_is_dead(world: World, where: str) -> None:
    inside = Node()
    reference, revoke = revocable(inside)
    node = await elsewhere(world, reference, TREE.Node)
    reached = [node]
    for _ in range(2):
        reached.append(reach(await call(reached[-1].give(where)), where))
    assert (await call(reached[-1].secret())).name == f"secret of root/{where}/{where}"
    waiting = asyncio.ensure_future(call(reached[-1].wait()))
    await call(node.who())
    revoke()
    revoke()
    with pytest.raises(Revoked):
        await waiting
    for reference in reached:
        with pytest.raises(Revoked):
            await call(reference.who())


async def test_revoking_lets_go_of_what_is_behind() -> None:
    inside = Node()
    gone = weakref.ref(inside)
    reference, revoke = revocable(inside)
    await call(reference.who())
    del inside
    gc.collect()
    assert gone() is not None
    revoke()
    await until(lambda: gc.collect() >= 0 and gone() is None)
    with pytest.raises(Revoked):
        await call(reference.who())


async def test_other_fields_come_as_they_are() -> None:
    reference, _ = revocable(Node())
    answer = await call(reference.give("struct"))
    assert answer.held.label == "label"
    assert answer.held.which() == "number"
    assert not answer._has("nodes")


@pytest.mark.parametrize("where", ["any", "untyped"])
async def test_what_cannot_be_seen_into_is_refused(world: World, where: str) -> None:
    node = await elsewhere(world, attenuate(Node(), allow={"Node.give"}), TREE.Node)
    with pytest.raises(NotAllowed, match="cannot be seen into"):
        await call(node.give(where))


async def test_what_cannot_be_seen_into_can_be_described(world: World) -> None:
    types = {"Node.give.any": TREE.Held, "Node.give.untyped": TREE.Node}
    node = await elsewhere(world, attenuate(Node(), {"Node.give", "Node.who"}, types), TREE.Node)
    held = (await call(node.give("any"))).any.as_struct(TREE.Held)
    untyped = (await call(node.give("untyped"))).untyped.as_interface(TREE.Node)
    for reached in (held.node, untyped):
        assert (await call(reached.who())).name.startswith("root/")
        with pytest.raises(NotAllowed):
            await call(reached.secret())


class Listener(TREE.Listener.Server):  # type: ignore[misc, name-defined]
    """Is handed a node from inside, by a call from inside."""

    def __init__(self) -> None:
        self.node: Any = None
        self.own = Node("outside")

    async def hear_context(self, context: Any) -> None:
        self.node = context.params.node
        context.results.reply = self.own


async def test_what_is_handed_to_a_callback_is_no_way_around(world: World) -> None:
    inside, listener = Node(), Listener()
    node = await elsewhere(world, attenuate(inside, allow={"Node.tell", "Node.who"}), TREE.Node)
    await call(node.tell(listener=listener))
    assert inside.heard == ["outside"], "what comes from outside may be called from inside"
    assert (await call(listener.node.who())).name == "root"
    with pytest.raises(NotAllowed):
        await call(listener.node.secret())


async def test_a_callback_dies_with_the_reference() -> None:
    listener = Listener()
    reference, revoke = revocable(Node())
    await call(reference.tell(listener=listener))
    revoke()
    with pytest.raises(Revoked):
        await call(listener.node.who())


@pytest.mark.parametrize(
    ("allow", "types", "says"),
    [({"Node.fly"}, {}, "Node.fly"), ({"Bird.who"}, {}, "expected some of"),
     (set(), {"Node.give.all": TREE.Held}, "no field"), (set(), {"Held.any": TREE.Held}, "no field")],
)  # fmt: skip
async def test_names_that_cannot_be_reached_are_refused(allow: set[str], types: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        attenuate(Node(), allow, types)


async def test_methods_are_named_by_what_extends_or_is_extended() -> None:
    for name in ("Whole.close", "Closer.close"):
        channel = Channel(TEXT)
        whole = attenuate(WholeServer(channel), allow={name})
        with pytest.raises(NotAllowed):
            await call(whole.receive())
        await call(whole.close())
        assert channel.core.is_closed


async def test_workers_and_their_programs_through_membranes(world: World) -> None:
    class Runs(schema.worker.Runs.Server):  # type: ignore[misc]
        async def start_context(self, context: Any) -> None:
            context.results.ended, context.results.outcomes = True, context.params.inputs * 2

    class Program(schema.worker.Program.Server):  # type: ignore[misc]
        async def task_context(self, context: Any) -> None:
            context.results.runs = Runs()

    class Worker(schema.worker.Worker.Server):  # type: ignore[misc]
        async def load_context(self, context: Any) -> None:
            assert context.params.digest == b"d" * 32
            context.results.program = Program()

    reference, revoke = revocable(Worker())
    worker = await elsewhere(world, reference, schema.worker.Worker)
    program = (await call(worker.load(digest=b"d" * 32))).program
    runs = (await call(program.task(invocation={"arguments": [21], "entry": "run"}))).runs
    answer = await call(runs.start(inputs=b"ab"))
    assert (answer.ended, answer.outcomes) == (True, b"abab")
    pipelined = worker.load(digest=b"d" * 32).program.task(invocation={"arguments": [4]}).runs.start(inputs=b"c")
    assert (await call(pipelined)).outcomes == b"cc"
    revoke()
    with pytest.raises(Revoked):
        await call(program.task(invocation={"arguments": [21]}))


async def test_a_call_that_is_cancelled_is_cancelled_inside(world: World) -> None:
    channel = Channel(TEXT)
    sender = attenuate(SenderServer(channel), {"Sender.send"}, {"Sender.send.value": schema.worker.Offer})
    sender = await elsewhere(world, sender, schema.channel.Sender)
    request = sender.send_request()
    sending = asyncio.ensure_future(call(request.send()))
    await until(lambda: len(channel.core._sends) == 1 or sending.done())
    sending.cancel()
    await until(lambda: len(channel.core._sends) == 0)


@pytest.mark.parametrize("field", ["many", "nested"])
async def test_a_list_of_millions_is_refused_before_it_is_copied(field: str) -> None:
    class Flood(TREE.Node.Server):  # type: ignore[misc, name-defined]
        async def give_context(self, context: Any) -> None:
            if field == "many":
                context.results.init("many", 70_000)
            else:
                context.results.init("nested", 1).init(0, 70_000)

    reference, _ = revocable(Flood())
    with pytest.raises(NotAllowed, match="more than 65536 elements"):
        await call(reference.give("x"))


async def test_lists_count_together() -> None:
    class Flood(TREE.Node.Server):  # type: ignore[misc, name-defined]
        async def give_context(self, context: Any) -> None:
            lists = context.results.init("nested", 10)
            for number in range(10):
                lists.init(number, 10_000)

    reference, _ = revocable(Flood())
    with pytest.raises(NotAllowed, match="more than 65536 elements"):
        await call(reference.give("x"))


@pytest.mark.parametrize("interface", ["Both", "Derived"])
async def test_a_name_that_stands_for_two_methods_allows_none(interface: str) -> None:
    server = type("Server", (getattr(TREE, interface).Server,), {})()
    with pytest.raises(UsageError, match="declared twice"):
        attenuate(server, allow={"Base.read"} if interface == "Derived" else {"One.get"})
    revocable(server)


def loaded(name: str) -> Any:
    """Load a schema beside others that have the same ids."""
    path = str(Path(__file__).with_name(name))
    return capnp.SchemaParser().load(path, imports=[str(Path(capnp.__file__).resolve().parent.parent)])


async def test_what_a_newer_schema_holds_does_not_slip_through_an_older_one() -> None:
    older, newer = loaded("older.capnp"), loaded("newer.capnp")

    class Leaf(newer.Leaf.Server):  # type: ignore[misc, name-defined]
        pass

    class Giver(newer.Giver.Server):  # type: ignore[misc, name-defined]
        async def plain_context(self, context: Any) -> None:
            context.results.plain = newer.Plain.new_message(name="known", leaf=Leaf())

        async def numbers_context(self, context: Any) -> None:
            numbers = context.results.init("numbers", 2)
            numbers[0].leaf, numbers[1].value = Leaf(), 5

    reference, _ = revocable(newer.Giver._new_client(Giver()).cast_as(older.Giver))
    giver = reference.cast_as(newer.Giver)
    plain = (await call(giver.plain())).plain
    assert (plain.name, plain._has("leaf")) == ("known", False)
    numbers = (await call(giver.numbers())).numbers
    assert [(number.value, number._has("leaf")) for number in numbers] == [(0, False), (5, False)]


async def test_an_answer_that_comes_just_before_revoking_gives_nothing() -> None:
    go = asyncio.Event()

    class Slow(TREE.Node.Server):  # type: ignore[misc, name-defined]
        async def give_context(self, context: Any) -> None:
            await go.wait()
            context.results.node = Node("late")

    for turns in range(12):
        go.clear()
        reference, revoke = revocable(Slow())
        giving = asyncio.ensure_future(call(reference.give("x")))
        for _ in range(6):
            await asyncio.sleep(0)
        go.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        revoke()
        try:
            late = (await giving).node
        except Revoked:
            continue
        with pytest.raises(Revoked):
            await call(late.who())


async def test_a_select_does_not_go_around_a_membrane(world: World) -> None:
    secret, own = Channel(TEXT), Channel(TEXT)
    reference, revoke = revocable(WholeServer(secret))
    whole = await elsewhere(world, reference, schema.channel.Whole)
    asking = await elsewhere(world, schema.channel.Whole._new_client(WholeServer(own)), schema.channel.Whole)
    for kind in ("receive", "send"):
        request = asking.select_request()
        request.mayWait = True
        case = request.init("cases", 1)[0]
        if kind == "receive":
            case.receive = whole.cast_as(schema.channel.Receiver)
        else:
            case.init("send").sender = whole.cast_as(schema.channel.Sender)
        with pytest.raises(NotAllowed, match="no case of a select"):
            await call(request.send())
    revoke()
