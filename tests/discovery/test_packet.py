"""Datagrams: what is written is read, and no bytes get an exception out of the reader."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ww import schema
from ww.discovery.packet import (
    HEARTBEAT_BYTES_MAX,
    PACKET_BYTES_MAX,
    Content,
    Drop,
    Heartbeat,
    Load,
    Packet,
    Response,
    Survey,
    Writer,
    read,
    unpack,
    write,
)
from ww.errors import UsageError
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr

IDENTITY = Identity.generate()
OTHER = Identity.generate().peer_id
numbers = st.integers(0, 2**64 - 1)
surveys = st.builds(Survey, numbers, st.integers(0, 255), st.sampled_from([None, OTHER]))
addresses = st.builds(lambda host, port: Multiaddr("ip4", str(host), port), st.ip_addresses(v=4), st.integers(0, 65535))
responses = st.builds(Response, numbers, st.lists(addresses, max_size=4).map(tuple))
texts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=20)
small = st.integers(0, 2**32 - 1)
heartbeats = st.builds(
    Heartbeat,
    ttl_ms=small,
    role=texts,
    host=texts,
    meta=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    addresses=st.lists(addresses, max_size=3).map(tuple),
    load=st.builds(Load, small, small, small),
    abridged=st.booleans(),
)
namespaces = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)


def packet(content: Content) -> bytes:
    return write(IDENTITY, "ww", 3, 4, content)


@given(namespaces, numbers, numbers, surveys | responses | heartbeats)
def test_what_is_written_is_read(namespace: str, incarnation: int, sequence: int, content: Content) -> None:
    data = write(IDENTITY, namespace, incarnation, sequence, content)
    assert read(data, HEARTBEAT_BYTES_MAX) == Packet(IDENTITY.peer_id, namespace, incarnation, sequence, content)


@given(namespaces, numbers, surveys | responses | heartbeats)
def test_what_a_node_says_fits_a_datagram(namespace: str, incarnation: int, content: Content) -> None:
    data = Writer(IDENTITY, namespace, incarnation).write(content)
    assert len(data) <= PACKET_BYTES_MAX
    assert isinstance(read(data), Packet)


@given(st.binary(max_size=600))
def test_no_bytes_get_an_exception_out_of_the_reader(data: bytes) -> None:
    assert isinstance(read(data), Drop)


@settings(max_examples=500)
@given(st.data())
def test_no_change_to_a_packet_goes_unnoticed(data: st.DataObject) -> None:
    changed = bytearray(packet(data.draw(surveys | responses | heartbeats)))
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    got = read(bytes(changed), HEARTBEAT_BYTES_MAX)
    # What is left is padding of the envelope, which says nothing.
    assert isinstance(got, Drop) or got.sender == IDENTITY.peer_id


@given(st.binary(max_size=300))
def test_no_signed_body_gets_an_exception_out_of_the_reader(body: bytes) -> None:
    envelope = schema.discovery.Envelope.new_message(
        peer=IDENTITY.peer_id.public_key, signature=IDENTITY.sign(b"ww-survey", body), body=body
    )
    assert isinstance(read(envelope.to_bytes()), Drop | Packet)


def test_another_domains_signature_is_none() -> None:
    body = b"anything"
    envelope = schema.discovery.Envelope.new_message(
        peer=IDENTITY.peer_id.public_key, signature=IDENTITY.sign(b"ww-other", body), body=body
    )
    assert read(envelope.to_bytes()) is Drop.BAD_SIGNATURE


def test_another_key_under_the_same_signature_is_none() -> None:
    with schema.discovery.Envelope.from_bytes(packet(Survey(1, 255))) as envelope:
        forged = envelope.as_builder()
    forged.peer = OTHER.public_key
    assert read(forged.to_bytes()) is Drop.BAD_SIGNATURE


def test_a_datagram_that_is_too_large_is_not_looked_at() -> None:
    assert read(bytes(PACKET_BYTES_MAX + 1)) is Drop.TOO_LARGE


def test_addresses_that_do_not_fit_are_left_out() -> None:
    long = tuple(Multiaddr("dns", f"{'a' * 60}.{'b' * 60}.example{n}.org", 9000) for n in range(6))
    got = read(Writer(IDENTITY, "ww", 1).write(Response(1, long)))
    assert isinstance(got, Packet)
    assert isinstance(got.content, Response)
    assert 0 < len(got.content.addresses) < 6
    assert got.content.addresses == long[: len(got.content.addresses)]


def test_a_namespace_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="too long"):
        Writer(IDENTITY, "n" * 400, 1).write(Survey(1, 255, PeerId(bytes(32))))


def test_a_heartbeat_is_whole_for_connections_and_abridged_for_datagrams() -> None:
    meta = tuple((f"key{number}", "v" * 200) for number in range(64))
    where = tuple(Multiaddr("ip4", "192.168.100.200", 10_000 + number) for number in range(8))
    heartbeat = Heartbeat(10_000, "worker", "a-host.example.org", meta, where, Load(8, 3, 1))
    whole, short = (
        read(data, HEARTBEAT_BYTES_MAX) for data in Writer(IDENTITY, "ww", 1).write_heartbeat(heartbeat)[:2]
    )
    assert isinstance(whole, Packet)
    assert isinstance(short, Packet)
    assert whole.content == heartbeat
    assert isinstance(short.content, Heartbeat)
    assert short.sequence == whole.sequence
    assert short.content.abridged
    assert (short.content.load, short.content.host) == (heartbeat.load, heartbeat.host)
    assert short.content.addresses == where[: len(short.content.addresses)]
    assert len(short.content.addresses) >= 3


@given(st.sampled_from(["role", "host"]), st.sampled_from(["\n", "\x1b[31m", "x" * 300]))
def test_texts_for_people_are_short_and_printable(field: str, text: str) -> None:
    assert read(packet(Heartbeat(1, **{field: text})), HEARTBEAT_BYTES_MAX) is Drop.MALFORMED


def signed(body: bytes) -> bytes:
    envelope = schema.discovery.Envelope.new_message(
        peer=IDENTITY.peer_id.public_key, signature=IDENTITY.sign(b"ww-survey", body), body=body
    )
    return bytes(envelope.to_bytes())


def body_of(content: Content) -> bytes:
    with schema.discovery.Envelope.from_bytes(packet(content)) as envelope:
        return bytes(envelope.body)


@settings(max_examples=500)
@given(surveys | responses | heartbeats, st.data())
def test_what_a_liar_signs_gets_no_exception_out_of_the_reader(content: Content, data: st.DataObject) -> None:
    body = bytearray(body_of(content))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] = data.draw(st.integers(0, 255))
    del body[data.draw(st.integers(1, len(body))) :]
    assert isinstance(read(signed(bytes(body)), HEARTBEAT_BYTES_MAX), Packet | Drop)


@given(st.binary(max_size=300))
def test_any_bytes_that_are_signed_get_no_exception_out_of_the_reader(body: bytes) -> None:
    assert isinstance(read(signed(body), HEARTBEAT_BYTES_MAX), Packet | Drop)


def test_a_body_that_announces_more_than_it_has_is_malformed() -> None:
    # Two segments, of one word and of five, and the second is not there: pycapnp's own reader aborts the process.
    body = bytes((0x11, 1, 1, 0x01, 5, 0x00, 0x00))
    assert unpack(body, 100) == bytes((1, 0, 0, 0, 1, 0, 0, 0, 5, *bytes(7), *bytes(8)))
    assert read(signed(body)) is Drop.MALFORMED


@given(surveys | responses | heartbeats)
def test_unpacking_undoes_packing(content: Content) -> None:
    said = schema.discovery.Packet.new_message(namespace="x" * 40)
    if isinstance(content, Heartbeat):
        said.init("heartbeat").meta = [{"key": key, "value": value} for key, value in content.meta]
    packed = said.to_bytes_packed()
    said.clear_write_flag()
    assert unpack(packed, 4096) == said.to_bytes()


@pytest.mark.parametrize(
    "packed", [b"\x01", b"\x00", b"\xff" + bytes(8), b"\xff" + bytes(8) + b"\x01", b"\x00\xff" * 9]
)
def test_what_is_cut_short_or_too_long_is_not_unpacked(packed: bytes) -> None:
    with pytest.raises(ValueError, match="cut short"):
        unpack(packed, 4096)
