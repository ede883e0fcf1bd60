"""Where peers are: what an operator said first, then what nodes of this machine wrote down."""

import asyncio
import os
from pathlib import Path

import pytest

from ww.address_book import AddressBook
from ww.errors import UsageError
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr

PEER, OTHER = Identity.generate().peer_id, Identity.generate().peer_id
HERE = Multiaddr.parse("/ip4/127.0.0.1/tcp/9100")


def test_a_node_is_found_where_it_wrote_itself_down(tmp_path: Path) -> None:
    AddressBook(tmp_path / "peers").publish(PEER, [HERE])
    assert AddressBook(tmp_path / "peers").lookup(PEER) == [HERE]
    assert AddressBook(tmp_path / "peers").lookup(OTHER) == []


def test_a_node_that_left_is_not_found(tmp_path: Path) -> None:
    book = AddressBook(tmp_path)
    book.publish(PEER, [HERE])
    book.withdraw(PEER)
    book.withdraw(PEER)
    assert book.lookup(PEER) == []
    assert list(tmp_path.iterdir()) == []


def test_static_addresses_come_first_and_only_for_whom_they_name(tmp_path: Path) -> None:
    anybody, named = Multiaddr.parse("/ip4/127.0.0.1/tcp/1"), Multiaddr.parse("/dns/a.example/tcp/2").of_peer(PEER)
    book = AddressBook(tmp_path, [anybody, named])
    book.publish(PEER, [HERE])
    assert book.lookup(PEER) == [anybody, named, HERE]
    assert book.lookup(OTHER) == [anybody]


def test_a_node_that_listens_everywhere_is_found_on_loopback(tmp_path: Path) -> None:
    book = AddressBook(tmp_path)
    book.publish(PEER, [Multiaddr.parse("/ip4/0.0.0.0/tcp/7"), Multiaddr.parse("/ip6/::/tcp/8")])
    assert [str(address) for address in book.lookup(PEER)] == ["/ip4/127.0.0.1/tcp/7", "/ip6/::1/tcp/8"]


@pytest.mark.parametrize("content", [b"garbage\n", b"\xff\xfe", b"/ip4/1.2.3.4/tcp/1\n" * 100_000, b""])
def test_a_damaged_file_is_no_address_and_no_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / str(PEER)).write_bytes(content)
    found = AddressBook(tmp_path).lookup(PEER)
    assert len(found) < 1000


def test_a_folder_that_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="the state directory cannot be written"):
        AddressBook(tmp_path / "file" / "peers").publish(PEER, [HERE])


def test_what_was_heard_comes_last_and_the_latest_of_it_first(tmp_path: Path) -> None:
    there, elsewhere = Multiaddr.parse("/ip4/192.0.2.1/tcp/1"), Multiaddr.parse("/ip4/192.0.2.2/tcp/1")
    book = AddressBook(tmp_path)
    book.publish(PEER, [HERE])
    for address in (there, elsewhere, there):
        book.learn(PEER, [address])
    assert book.lookup(PEER) == [HERE, there, elsewhere]
    assert book.learned(PEER) == [there, elsewhere]
    assert book.learned(OTHER) == []


def test_what_could_not_be_reached_is_forgotten(tmp_path: Path) -> None:
    book = AddressBook(tmp_path, [HERE])
    there, elsewhere = Multiaddr.parse("/ip4/192.0.2.1/tcp/1"), Multiaddr.parse("/ip4/192.0.2.2/tcp/1")
    book.learn(PEER, [there])
    book.learn(PEER, [elsewhere], is_signed=False)
    for address in (HERE, there, elsewhere):
        book.forget(PEER, address)
    book.forget(OTHER, there)
    assert book.lookup(PEER) == [HERE], "but not what an operator said"


def test_what_is_heard_has_limits(tmp_path: Path) -> None:
    book = AddressBook(tmp_path)
    for port in range(1, 100):
        book.learn(PEER, [Multiaddr("ip4", "192.0.2.1", port)])
        book.learn(PEER, [Multiaddr("ip4", "192.0.2.2", port)], is_signed=False)
    assert [(a.host, a.port) for a in book.learned(PEER)] == [
        *(("192.0.2.1", port) for port in range(99, 91, -1)),
        *(("192.0.2.2", port) for port in range(99, 95, -1)),
    ], "what was signed comes first, and nothing else drives it out"
    for number in range(5000):
        book.learn(PeerId(number.to_bytes(32, "big")), [HERE])
    assert book.learned(PEER) == []
    assert book.learned(PeerId((4999).to_bytes(32, "big"))) == [HERE]


@pytest.mark.anyio
async def test_who_waits_to_hear_of_a_peer_is_woken(tmp_path: Path) -> None:
    book = AddressBook(tmp_path)
    waiting = [asyncio.ensure_future(book.heard_of(PEER)) for _ in range(2)]
    await asyncio.sleep(0)
    book.learn(OTHER, [HERE])
    await asyncio.sleep(0)
    assert not any(wait.done() for wait in waiting)
    book.learn(PEER, [HERE])
    await asyncio.wait_for(asyncio.gather(*waiting), 5)


def test_the_nodes_of_this_machine_are_listed(tmp_path: Path) -> None:
    book = AddressBook(tmp_path / "peers")
    assert book.registered() == []
    book.publish(PEER, [HERE])
    book.publish(OTHER, [HERE])
    (tmp_path / "peers" / "garbage").write_text("x")
    os.utime(tmp_path / "peers" / str(PEER), (1, 1))
    assert book.registered() == [OTHER, PEER]
