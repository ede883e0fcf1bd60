"""The table of members: the order of arrival does not matter, and nothing old brings anybody back."""

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ww.cluster.membership import Beat, Facts, Membership, MembershipConfig
from ww.discovery.packet import HEARTBEAT_BYTES_MAX, Heartbeat, Load, Packet, Survey, Writer, read
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr

IDENTITIES = [Identity.generate() for _ in range(3)]
OWN = Identity.generate()
TTL_MS = 10_000
Said = tuple[Packet, bytes]


def table(identity: Identity = OWN, **config: float) -> Membership:
    settings = MembershipConfig(**config)  # type: ignore[arg-type]
    return Membership(Writer(identity, "ww", 1), settings, random.Random(1))


def said(peer: PeerId, incarnation: int, sequence: int, heartbeat: Heartbeat, namespace: str = "ww") -> Said:
    """Make a packet as it is after its signature was checked."""
    content = f"{peer} {incarnation} {sequence} {heartbeat}".encode()
    return Packet(peer, namespace, incarnation, sequence, heartbeat), content


def hear(membership: Membership, what: Said, now: float = 0.0, **settings: float) -> bool:
    return membership.receive(*what, now, **settings)  # type: ignore[arg-type]


def shown(membership: Membership, now: float = 0.0) -> dict[PeerId, Heartbeat]:
    return {record.peer_id: record.shown for record in membership.members(now)}


@st.composite
def utterances(draw: st.DrawFn) -> list[Said]:
    """What some peers say over some lives: whole, abridged, both under one number, and goodbyes."""
    spoken = []
    for identity in IDENTITIES:
        for incarnation in range(1, draw(st.integers(1, 3)) + 1):
            for sequence in range(1, draw(st.integers(1, 4)) + 1):
                meta = (("life", str(incarnation)), ("number", str(sequence)))
                whole = Heartbeat(TTL_MS, "worker", "host", meta, (), Load(sequence))
                abridged = Heartbeat(TTL_MS, "worker", "host", (), (), Load(sequence), abridged=True)
                leaving = Heartbeat(0, "worker")
                versions = draw(st.sampled_from([[whole], [abridged], [whole, abridged], [leaving]]))
                spoken += [said(identity.peer_id, incarnation, sequence, version) for version in versions]
    return spoken


@settings(max_examples=300)
@given(st.data())
def test_the_order_of_arrival_does_not_matter(data: st.DataObject) -> None:
    spoken = data.draw(utterances())
    tables = []
    for _ in range(2):
        heard = data.draw(st.permutations(spoken + data.draw(st.lists(st.sampled_from(spoken), max_size=5))))
        membership = table()
        for what in heard:
            hear(membership, what)
        tables.append(membership)
    one, two = tables
    assert shown(one) == shown(two)
    assert one.digest() == two.digest()


@settings(max_examples=200)
@given(utterances(), st.randoms())
def test_two_that_give_each_other_what_the_other_lacks_see_the_same(spoken: list[Said], rng: random.Random) -> None:
    one, two = table(Identity.generate()), table(Identity.generate())
    for membership in (one, two):
        for what in rng.sample(spoken, rng.randint(0, len(spoken))):
            hear(membership, what)
    exchange(one, two, one.lacking(two.digest(), 0.0), two.lacking(one.digest(), 0.0))
    assert {peer for peer, _ in shown(one).items()} == {peer for peer, _ in shown(two).items()}
    versions = one.version, two.version
    exchange(one, two, one.lacking(two.digest(), 0.0), two.lacking(one.digest(), 0.0))
    later = said(IDENTITIES[0].peer_id, 9, 9, Heartbeat(TTL_MS, "worker"))
    assert hear(one, later)
    changed = list(one.since(versions[0]))
    assert later[0].sender in {record.peer_id for record in changed}
    exchange(one, two, changed, [])
    assert {peer for peer, _ in shown(one).items()} == {peer for peer, _ in shown(two).items()}


def exchange(one: Membership, two: Membership, to_two: Sequence[object], to_one: Sequence[object]) -> None:
    for target, records in ((two, to_two), (one, to_one)):
        for record in records:
            packet = Packet(record.peer_id, "ww", *record.position, record.heartbeat)  # type: ignore[attr-defined]
            target.receive(packet, record.data, 0.0)  # type: ignore[attr-defined]


def a_beat(sequence: int, incarnation: int = 1, **said_of_itself: object) -> Said:
    heartbeat = Heartbeat(TTL_MS, "worker", **said_of_itself)  # type: ignore[arg-type]
    return said(IDENTITIES[0].peer_id, incarnation, sequence, heartbeat)


PEER = IDENTITIES[0].peer_id


def test_nothing_old_brings_anybody_back() -> None:
    old = [a_beat(sequence) for sequence in range(1, 5)]
    left, expired, lost, restarted = (table() for _ in range(4))
    for membership in (left, expired, lost, restarted):
        for what in old:
            assert hear(membership, what)
            assert not hear(membership, what)
        assert PEER in shown(membership)
    hear(left, said(PEER, 1, 5, Heartbeat(0, "worker")))
    expired.poll(11.0)
    lost.lose(PEER)
    hear(restarted, said(PEER, 2, 1, Heartbeat(0, "worker")))
    for membership, now in ((left, 0.0), (expired, 11.0), (lost, 0.0), (restarted, 0.0)):
        for what in old:
            assert not hear(membership, what, now)
            assert shown(membership, now) == {}


def test_a_restart_under_the_same_key_counts_at_once() -> None:
    membership = table()
    hear(membership, a_beat(500, incarnation=3, host="before"))
    notable = membership.notable
    assert hear(membership, a_beat(1, incarnation=4, host="after"))
    assert shown(membership)[PEER].host == "after"
    assert membership.notable > notable


def test_who_says_nothing_for_its_ttl_is_gone_and_that_is_noted() -> None:
    membership = table()
    hear(membership, a_beat(1), now=100.0)
    assert PEER in shown(membership, 109.9)
    assert membership.next_poll() == 110.0
    assert PEER not in shown(membership, 110.0)
    notable = membership.notable
    membership.poll(110.0)
    assert membership.notable > notable
    assert membership.next_poll() == float("inf")
    assert hear(membership, a_beat(2), now=111.0)
    assert PEER in shown(membership, 111.0)


def test_what_was_said_a_while_ago_lives_the_shorter() -> None:
    membership = table()
    hear(membership, a_beat(1), now=100.0, age_s=9.0)
    assert PEER in shown(membership, 100.9)
    assert PEER not in shown(membership, 101.0)


def test_a_ttl_of_years_is_not_believed() -> None:
    membership = table(ttl_max_s=600.0)
    hear(membership, said(PEER, 1, 1, Heartbeat(2**32 - 1, "worker")))
    assert PEER in shown(membership, 599.0)
    assert PEER not in shown(membership, 600.0)


def test_who_is_lost_is_back_as_soon_as_it_says_something_later() -> None:
    membership = table()
    hear(membership, a_beat(5))
    assert membership.lose(PEER)
    assert not membership.lose(PEER), "nothing new"
    assert shown(membership) == {}
    assert not membership.lose(PEER, (1, 3))
    assert hear(membership, a_beat(6))
    assert PEER in shown(membership)
    assert not membership.lose(PEER, (1, 5)), "it has said something later"
    assert PEER in shown(membership)
    assert not membership.lose(IDENTITIES[1].peer_id), "nobody knows it"
    assert not membership.lose(OWN.peer_id)


def test_other_packets_namespaces_and_ones_own_are_not_listened_to() -> None:
    membership = table()
    heartbeat = Heartbeat(TTL_MS, "worker")
    assert not hear(membership, said(PEER, 1, 1, heartbeat, namespace="other"))
    assert not hear(membership, said(OWN.peer_id, 9, 9, heartbeat))
    assert not membership.receive(Packet(PEER, "ww", 1, 1, Survey(1, 255)), b"", 0.0)
    assert shown(membership) == {}


def test_what_an_abridged_heartbeat_leaves_out_is_taken_from_the_whole_one_of_that_life() -> None:
    membership = table()
    where = (Multiaddr("ip4", "192.0.2.1", 1),)
    hear(membership, a_beat(1, meta=(("a", "b"),), addresses=where))
    hear(membership, a_beat(2, load=Load(1), abridged=True))
    assert shown(membership)[PEER] == Heartbeat(TTL_MS, "worker", "", (("a", "b"),), where, Load(1), abridged=True)
    hear(membership, a_beat(1, incarnation=2, abridged=True))
    assert shown(membership)[PEER].meta == ()


class Speaker:
    """A table whose own heartbeats are noted, with the time."""

    def __init__(self, **config: float) -> None:
        self.membership = table(**config)
        self.now = 0.0
        self.said: list[tuple[float, Heartbeat]] = []

    def run_until(self, end: float) -> None:
        while (due := self.membership.next_poll()) <= end:
            self.now = max(self.now, due)
            self._note(self.membership.poll(self.now))
        self.now = end

    def _note(self, beat: Beat | None) -> None:
        if beat is not None:
            packet = read(beat.whole, HEARTBEAT_BYTES_MAX)
            assert isinstance(packet, Packet)
            assert isinstance(packet.content, Heartbeat)
            self.said.append((self.now, packet.content))


def test_a_node_says_that_it_is_there_each_third_to_half_of_its_ttl() -> None:
    speaker = Speaker(ttl_s=12.0)
    speaker.run_until(50.0)
    assert speaker.said == [], "it has nothing to say yet"
    speaker.membership.announce(Facts("worker", "host"), 50.0)
    speaker.run_until(1050.0)
    times = [at for at, _ in speaker.said]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert times[0] == 50.0
    assert all(4.0 <= gap <= 6.0 for gap in gaps)
    assert len({round(gap, 3) for gap in gaps}) > 50, "at random, so that nodes do not speak together"


def test_news_of_itself_goes_out_at_once_and_load_at_most_once_a_second() -> None:
    speaker = Speaker(ttl_s=1000.0)
    speaker.membership.announce(Facts("worker"), 0.0)
    speaker.run_until(10.0)
    speaker.membership.announce(Facts("worker", "renamed"), 10.0)
    speaker.membership.announce(Facts("worker", "renamed"), 10.0)
    speaker.run_until(10.0)
    assert [(at, heartbeat.host) for at, heartbeat in speaker.said] == [(0.0, ""), (10.0, "renamed")]
    for tenth in range(101, 150):
        speaker.membership.set_load(Load(1000, tenth), tenth / 10)
        speaker.run_until(tenth / 10)
    times = [at for at, _ in speaker.said]
    assert times == [0.0, 10.0, 11.0, 12.0, 13.0, 14.0]
    speaker.membership.set_load(Load(1000, 149), 14.9)
    speaker.run_until(20.0)
    speaker.membership.set_load(Load(1000, 149), 20.0)
    speaker.run_until(100.0)
    assert [at for at, _ in speaker.said][6:] == [15.0], "load that stays as it is, is no news"


def test_a_goodbye_is_the_last_word() -> None:
    speaker = Speaker()
    assert speaker.membership.leave(0.0) is None, "it was never there"
    speaker.membership.announce(Facts("worker"), 0.0)
    speaker.run_until(1.0)
    other = table(IDENTITIES[0])
    beat = speaker.membership.leave(1.0)
    assert beat is not None
    packet = read(beat.datagram)
    assert isinstance(packet, Packet)
    other.receive(packet, beat.datagram, 1.0)
    assert shown(other, 1.0) == {}
    assert shown(speaker.membership, 1.0) == {}
    assert speaker.membership.next_poll() == float("inf") or speaker.membership.poll(1e9) is None


def many(count: int, start: int = 0) -> list[Said]:
    peers = (PeerId(number.to_bytes(32, "big")) for number in range(start, start + count))
    return [said(peer, 1, 1, Heartbeat(TTL_MS, "worker")) for peer in peers]


def test_a_flood_of_new_peers_does_not_push_members_out_nor_fill_the_memory() -> None:
    membership = table(peers_max=50)
    for what in many(200):
        hear(membership, what)
    assert len(membership.digest()) == 50
    assert membership.refused == 150
    first = set(shown(membership))
    assert first == {packet.sender for packet, _ in many(50)}
    # Gone, they make room, but what they said last is remembered as long as there is room for it.
    membership.poll(20.0)
    for what in many(200, start=1000):
        hear(membership, what, now=20.0)
    assert len(shown(membership, 20.0)) == 50
    assert len(membership.digest()) == 100
    assert first <= set(membership.digest())
    membership.poll(40.0)
    for what in many(200, start=2000):
        hear(membership, what, now=40.0)
    assert len(membership.digest()) == 100
    assert len(shown(membership, 40.0)) == 50


@pytest.mark.parametrize("version", [0, 1, 7])
def test_what_changed_since_a_version_is_told_oldest_change_last(version: int) -> None:
    membership = table()
    for what in many(5):
        hear(membership, what)
    changed = list(membership.since(version))
    assert [record.version for record in changed] == sorted((v for v in range(version + 1, 6)), reverse=True)


@pytest.mark.parametrize("ages", list(itertools.permutations([0.0, 3.0, 9.9])))
def test_a_heartbeat_counts_from_when_it_was_said_by_whatever_way_it_comes(ages: Sequence[float]) -> None:
    membership, peer = table(), IDENTITIES[0].peer_id
    for age_s in ages:
        hear(membership, said(peer, 1, 1, Heartbeat(TTL_MS, "worker")), now=100.0, age_s=age_s)
    assert peer in shown(membership, 109.9)
    assert peer not in shown(membership, 110.1)
    assert membership.poll(110.1) is None
    assert membership.next_poll() == float("inf")


def test_repeating_what_a_peer_said_keeps_it_in_the_table_no_longer() -> None:
    membership, peer = table(), IDENTITIES[0].peer_id
    for now in range(9):
        hear(membership, said(peer, 1, 1, Heartbeat(TTL_MS, "worker")), now=float(now))
    assert peer not in shown(membership, 10.1)


def test_what_was_old_when_it_first_came_keeps_nobody_out() -> None:
    membership, peer = table(), IDENTITIES[0].peer_id
    hear(membership, said(peer, 1, 1, Heartbeat(TTL_MS, "worker")), now=5.0, age_s=4e6)
    assert hear(membership, said(peer, 1, 1, Heartbeat(TTL_MS, "worker")), now=5.0)
    assert peer in shown(membership, 5.0)


def test_nobody_is_lost_before_it_has_spoken() -> None:
    membership, peer = table(), IDENTITIES[0].peer_id
    hear(membership, said(peer, 1, 1, Heartbeat(TTL_MS, "worker")))
    assert membership.lose(peer, (2**64 - 1, 2**64 - 1))
    assert peer not in shown(membership)
    hear(membership, said(peer, 1, 2, Heartbeat(TTL_MS, "worker")))
    assert peer in shown(membership)


def test_who_is_connected_has_a_place_and_strangers_do_not() -> None:
    membership, connected = table(peers_max=5), IDENTITIES[0].peer_id
    for what in many(8):
        hear(membership, what)
    assert len(shown(membership)) == 5
    membership.connected = {connected}
    assert hear(membership, said(connected, 1, 1, Heartbeat(TTL_MS, "worker")))
    assert connected in shown(membership)
    assert len(shown(membership)) == 5


def test_the_bytes_of_all_heartbeats_are_bounded() -> None:
    membership, connected = table(bytes_max=2000), IDENTITIES[0].peer_id
    large = [said(packet.sender, 1, 1, Heartbeat(TTL_MS, "w", "h" * 200)) for packet, _ in many(20)]
    for what in large:
        hear(membership, what)
    kept = len(shown(membership))
    assert 0 < kept < 8
    membership.connected = {connected}
    assert hear(membership, said(connected, 1, 1, Heartbeat(TTL_MS, "w", "h" * 200)))
    assert len(shown(membership)) == kept
    membership.poll(20.0)
    for what in many(20, start=500):
        hear(membership, said(what[0].sender, 1, 1, Heartbeat(TTL_MS, "w", "h" * 200)), now=20.0)
    assert len(shown(membership, 20.0)) == kept, "who is gone makes room"


def test_goodbyes_of_strangers_are_neither_shown_nor_notable() -> None:
    membership = table()
    for packet, _ in many(100):
        hear(membership, said(packet.sender, 1, 1, Heartbeat(0, "worker")))
    assert membership.notable == 0
    assert shown(membership) == {}
