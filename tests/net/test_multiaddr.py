"""Addresses in their text form."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ww.errors import UsageError
from ww.identity import Identity
from ww.net.multiaddr import Multiaddr, MulticastGroup

PEER = Identity.generate().peer_id


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/127.0.0.1/tcp/0",
        "/ip4/192.0.2.7/tcp/65535",
        "/ip6/::1/tcp/9100",
        "/dns/gateway.example/tcp/9100",
        f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}",
    ],
)
def test_an_address_survives_its_text_form(text: str) -> None:
    assert str(Multiaddr.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "127.0.0.1:80", "/ip4/127.0.0.1", "/ip4/127.0.0.1/tcp/", "/ip4/127.0.0.1/tcp/65536",
        "/ip4/127.0.0.1/tcp/-1", "/ip4/127.0.0.1/udp/80", "/ip4/::1/tcp/80", "/ip6/127.0.0.1/tcp/80",
        "/ip4/1.2.3/tcp/80", "/dns/a b/tcp/80", "/ip4/127.0.0.1/tcp/80/p2p/nobody", "/ip4/127.0.0.1/tcp/80/p2p",
        "x/ip4/127.0.0.1/tcp/80", "/ip4/127.0.0.1/tcp/80/", "/unix/tmp/tcp/1", "/ip4/127.0.0.1/tcp/\u0663",
    ],
)  # fmt: skip
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        Multiaddr.parse(text)


@given(st.text(alphabet="/ip46dnstcp2:.0127aX%", max_size=60))
def test_no_text_gets_another_error_out_of_the_parser(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert str(Multiaddr.parse(text))


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("/ip4/127.8.8.8/tcp/1", True), ("/ip6/::1/tcp/1", True), ("/dns/localhost/tcp/1", True),
        ("/ip4/0.0.0.0/tcp/1", False), ("/ip6/::/tcp/1", False), ("/dns/example/tcp/1", False),
        ("/ip4/192.0.2.1/tcp/1", False),
    ],
)  # fmt: skip
def test_loopback_is_what_only_this_machine_reaches(text: str, loopback: bool) -> None:
    assert Multiaddr.parse(text).is_loopback is loopback


@pytest.mark.parametrize(
    "text",
    ["/ip4/239.255.88.22/udp/8822/multicast", "/ip4/224.0.0.1/udp/1/multicast/eth0",
     "/ip6/ff02::8822/udp/8822/multicast", "/ip6/ff02::1/udp/65535/multicast/en-0.1:2"],
)  # fmt: skip
def test_a_multicast_group_is_read_as_it_is_written(text: str) -> None:
    assert str(MulticastGroup.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "239.255.88.22", "/ip4/239.255.88.22/udp/8822", "/ip4/10.0.0.1/udp/8822/multicast",
     "/ip4/239.1.1.1/tcp/8822/multicast", "/ip4/239.1.1.1/udp/0/multicast", "/ip4/239.1.1.1/udp/65536/multicast",
     "/ip4/239.1.1.1/udp/x/multicast", "/ip4/239.1.1.1/udp/8822/multicast/", "/ip4/239.1.1.1/udp/8822/multicast/a/b",
     "/ip4/239.1.1.1/udp/8822/multicast/a b", "/ip6/239.1.1.1/udp/1/multicast", "/ip4/ff02::1/udp/1/multicast",
     "/dns/a/udp/1/multicast", "/ip4/239.1.1.1/udp/8822/unicast", "x" * 500],
)  # fmt: skip
def test_what_is_no_multicast_group_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no multicast group: expected /ip4/GROUP"):
        MulticastGroup.parse(text)
