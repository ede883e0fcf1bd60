"""The survey without sockets: who answers whom, what is dropped, and how soon somebody is found."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.simulation import Network
from ww.discovery.packet import ANY_DISTANCE, Drop, Packet, Response, Survey, Writer, read, write
from ww.discovery.survey import SurveyConfig, Surveyor, is_within
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr

HERE, THERE = Multiaddr("ip4", "10.0.0.1", 9100), Multiaddr("ip4", "10.0.0.2", 9100)


class Node:
    """A surveyor and its key."""

    def __init__(self, address: Multiaddr, namespace: str = "ww", incarnation: int = 1, **config: float) -> None:
        self.identity = Identity.generate()
        self.address = address
        self.surveyor = self.again(namespace, incarnation, **config)

    def again(self, namespace: str = "ww", incarnation: int = 1, **config: float) -> Surveyor:
        settings = SurveyConfig(**config)  # type: ignore[arg-type]
        return Surveyor(Writer(self.identity, namespace, incarnation), config=settings, rng=random.Random(1))

    def receive(self, data: bytes, now: float) -> bytes | None:
        return self.surveyor.receive(data, now, (self.address,)).answer


def one(packets: list[bytes]) -> bytes:
    (packet,) = packets
    return packet


def test_a_wanted_peer_answers_and_is_found() -> None:
    seeker, wanted, other = Node(HERE), Node(THERE), Node(THERE)
    search = seeker.surveyor.look_for(wanted.identity.peer_id, 0.0)
    survey = one(seeker.surveyor.poll(0.0))
    assert other.receive(survey, 0.0) is None
    answer = wanted.receive(survey, 0.0)
    assert answer is not None
    assert seeker.receive(answer, 0.01) is None
    assert search.is_over
    assert search.found == {wanted.identity.peer_id: (THERE,)}
    assert seeker.surveyor.next_poll() is None
    assert seeker.surveyor.poll(10.0) == []


def test_a_search_goes_on_until_somebody_answers_and_slows_down() -> None:
    seeker = Node(HERE, packets_per_s=1000.0)
    seeker.surveyor.look_for(None, 0.0)
    now, times = 0.0, []
    while len(times) < 40:
        next_poll = seeker.surveyor.next_poll()
        assert next_poll is not None
        now = next_poll
        times += [now for _ in seeker.surveyor.poll(now)]
    assert times[10] < 1.0
    assert all(3.0 < later - earlier < 7.0 for earlier, later in itertools.pairwise(times[30:]))


def test_a_search_widens_until_it_reaches_everybody() -> None:
    seeker = Node(HERE)
    seeker.surveyor.look_for(None, 0.0)
    distances = []
    for now in range(6):
        packet = read(one(seeker.surveyor.poll(float(now))))
        assert isinstance(packet, Packet)
        assert isinstance(packet.content, Survey)
        distances.append(packet.content.distance)
    assert distances == sorted(distances)
    assert distances[0] == 58, "16 of a thousand"
    assert distances[-1] == ANY_DISTANCE


def test_an_address_change_is_in_the_next_answer() -> None:
    seeker, node = Node(HERE), Node(HERE)
    for address in (HERE, THERE):
        node.address = address
        search = seeker.surveyor.look_for(node.identity.peer_id, 0.0)
        answer = node.receive(one(seeker.surveyor.poll(0.0)), 0.0)
        assert answer is not None
        seeker.receive(answer, 0.0)
        assert search.found[node.identity.peer_id] == (address,)


def test_what_is_dropped_is_counted_by_its_reason() -> None:
    node, stranger, seeker = Node(HERE), Node(THERE, namespace="other"), Node(THERE)
    surveyor = node.surveyor
    surveyor.look_for(None, 0.0)
    own = one(surveyor.poll(0.0))
    stranger.surveyor.look_for(node.identity.peer_id, 0.0)
    seeker.surveyor.look_for(node.identity.peer_id, 0.0)
    survey = one(seeker.surveyor.poll(0.0))
    unasked = write(seeker.identity, "ww", 1, 2, Response(12345, (THERE,)))
    forged = bytearray(survey)
    forged[100] ^= 1  # of the signature
    for data, reason in (
        (own, Drop.OWN),
        (one(stranger.surveyor.poll(0.0)), Drop.OTHER_NAMESPACE),
        (b"garbage", Drop.MALFORMED),
        (bytes(600), Drop.TOO_LARGE),
        (bytes(forged), Drop.BAD_SIGNATURE),
        (unasked, Drop.NOT_ASKED_FOR),
    ):
        assert node.receive(data, 0.0) is None
        assert surveyor.dropped == {**surveyor.dropped, reason: 1}
    assert node.receive(survey, 0.0) is not None
    assert node.receive(survey, 0.0) is None
    assert surveyor.dropped[Drop.REPLAYED] == 1


def test_a_recorded_answer_is_no_answer_to_a_later_search() -> None:
    seeker, wanted = Node(HERE), Node(THERE)
    first = seeker.surveyor.look_for(wanted.identity.peer_id, 0.0)
    recorded = wanted.receive(one(seeker.surveyor.poll(0.0)), 0.0)
    assert recorded is not None
    seeker.surveyor.stop(first)
    second = seeker.surveyor.look_for(wanted.identity.peer_id, 1.0)
    seeker.surveyor.poll(1.0)
    seeker.receive(recorded, 1.0)
    assert not second.is_over
    assert seeker.surveyor.dropped[Drop.NOT_ASKED_FOR] == 1


def test_a_restart_under_the_same_key_is_accepted_at_once_and_what_was_before_is_not() -> None:
    node, peer = Node(HERE), Node(THERE)
    peer.surveyor.look_for(node.identity.peer_id, 0.0)
    before = [one(peer.surveyor.poll(float(now))) for now in range(3)]
    assert node.receive(before[2], 0.0) is not None
    restarted = peer.again(incarnation=2)
    restarted.look_for(node.identity.peer_id, 0.0)
    assert node.receive(one(restarted.poll(0.0)), 0.0) is not None
    assert node.receive(before[1], 0.0) is None
    assert node.surveyor.dropped == {Drop.REPLAYED: 1}


@given(st.lists(st.integers(1, 200), max_size=100))
def test_no_order_of_arrival_lets_a_packet_in_twice(sequences: list[int]) -> None:
    node, peer = Node(HERE, packets_per_s=1e6, packets_burst=1e6), Node(THERE)
    answered = [
        sequence
        for sequence in sequences
        if node.receive(write(peer.identity, "ww", 1, sequence, Survey(1, ANY_DISTANCE)), 0.0)
    ]
    assert len(answered) == len(set(answered))
    assert not sequences or sequences[0] in answered


def test_a_flood_of_surveys_gets_few_answers() -> None:
    node, peer = Node(HERE, packets_per_s=10.0, packets_burst=20.0), Node(THERE)
    surveys = (write(peer.identity, "ww", 1, sequence, Survey(1, ANY_DISTANCE)) for sequence in range(1, 201))
    answers = sum(node.receive(data, 0.0) is not None for data in surveys)
    assert answers == 20
    assert node.surveyor.suppressed == 180
    late = write(peer.identity, "ww", 1, 500, Survey(1, ANY_DISTANCE))
    assert node.receive(late, 1.0) is not None


@pytest.mark.parametrize(
    ("one_end", "other_end", "distance", "within"),
    [(0, 0, 0, True), (0, 1, 0, False), (0, 1, 1, True), (5, 4, 1, True), (0, 2**63, 63, False), (0, 2**63, 64, True),
     (0, 2**64 - 1, 255, True), (2**40, 0, 40, False), (2**40, 0, 41, True)],
)  # fmt: skip
def test_distance_is_the_xor_of_the_keys_ends(one_end: int, other_end: int, distance: int, within: bool) -> None:
    one, other = (PeerId(bytes(24) + end.to_bytes(8, "big")) for end in (one_end, other_end))
    assert is_within(one, other, distance) is within
    assert is_within(other, one, distance) is within


@pytest.mark.parametrize("nodes", [2, 5, 40])
def test_somebody_is_found_within_a_second_over_a_lossy_network(nodes: int) -> None:
    network = Network(nodes, loss=0.1, rng=random.Random(nodes))
    for for_one in (False, True) * 20:
        assert network.search(for_one=for_one, bound_s=1.0).packets < 60


def test_more_datagrams_than_a_node_looks_at_are_dropped() -> None:
    node, peer = Node(HERE, received_per_s=10.0, packets_per_s=1e6, packets_burst=1e6), Node(THERE)
    surveys = [write(peer.identity, "ww", 1, sequence, Survey(1, ANY_DISTANCE)) for sequence in range(1, 31)]
    assert sum(node.receive(data, 0.0) is not None for data in surveys) == 10
    assert node.surveyor.dropped == {Drop.TOO_MANY: 20}
    assert node.receive(write(peer.identity, "ww", 1, 99, Survey(1, ANY_DISTANCE)), 1.0) is not None


def test_keys_that_were_not_heard_before_are_looked_at_less_often() -> None:
    node = Node(HERE, newcomers_per_s=10.0, newcomers_burst=20.0, packets_per_s=1e6, packets_burst=1e6)
    known = Node(THERE)
    node.receive(write(known.identity, "ww", 1, 1, Survey(1, ANY_DISTANCE)), 0.0)
    strangers = [write(Identity.generate(), "ww", 1, 1, Survey(1, ANY_DISTANCE)) for _ in range(40)]
    assert sum(node.receive(data, 0.0) is not None for data in strangers) == 19
    assert node.receive(write(known.identity, "ww", 1, 2, Survey(1, ANY_DISTANCE)), 0.0) is not None
    assert node.receive(write(Identity.generate(), "ww", 1, 1, Survey(1, ANY_DISTANCE)), 0.2) is not None


def test_garbage_takes_no_signed_packets_place() -> None:
    node, peer = Node(HERE, received_per_s=10.0), Node(THERE)
    for _ in range(100):
        node.receive(b"garbage", 0.0)
    assert node.receive(write(peer.identity, "ww", 1, 1, Survey(1, ANY_DISTANCE)), 0.0) is not None


def test_everybody_is_asked_ever_slower_until_it_is_enough() -> None:
    node, peers = Node(HERE), [Node(THERE), Node(HERE)]
    search = node.surveyor.look_for_everybody(0.0)
    for peer in peers:
        now = node.surveyor.next_poll() or 0.0
        (asked,) = node.surveyor.poll(now)
        answer = peer.receive(asked, now)
        assert answer is not None, "whoever it is"
        node.receive(answer, now)
    assert set(search.found) == {peer.identity.peer_id for peer in peers}
    due = []
    for _ in range(5):
        due.append(node.surveyor.next_poll() or 0.0)
        assert node.surveyor.poll(due[-1])
    pauses = [later - earlier for earlier, later in itertools.pairwise(due)]
    assert pauses == sorted(pauses)
    node.surveyor.stop(search)
    assert node.surveyor.next_poll() is None


def test_a_search_for_one_is_not_filled_by_others() -> None:
    node, peer = Node(HERE), Node(THERE)
    search = node.surveyor.look_for(peer.identity.peer_id, 0.0)
    (asked,) = node.surveyor.poll(0.0)
    packet = read(asked)
    assert isinstance(packet, Packet)
    assert isinstance(packet.content, Survey)
    for _ in range(10):
        node.receive(write(Identity.generate(), "ww", 1, 1, Response(packet.content.nonce, ())), 0.0)
    assert search.found == {}
    assert node.surveyor.dropped == {Drop.NOT_ASKED_FOR: 10}
    node.receive(write(peer.identity, "ww", 1, 1, Response(packet.content.nonce, ())), 0.0)
    assert search.is_over
