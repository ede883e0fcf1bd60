"""Interfaces: which lead where, and what others are told of them."""

from ww.discovery.interface import Interface, reachable_by, reachable_from_afar
from ww.net.multiaddr import Multiaddr

EVERYWHERE = [Multiaddr("ip4", "0.0.0.0", 9100)]


def interface(name: str, *hosts: str) -> Interface:
    return Interface(name, 1, tuple(Multiaddr("ip4", host, 0) for host in hosts))


def test_loopback_with_a_further_address_is_still_loopback() -> None:
    lo, eth0 = interface("lo", "127.0.0.1", "10.255.255.254"), interface("eth0", "192.0.2.7")
    assert lo.is_loopback
    assert not eth0.is_loopback
    assert not interface("none").is_loopback
    assert reachable_from_afar([lo, eth0], EVERYWHERE) == (Multiaddr("ip4", "192.0.2.7", 9100),)
    assert Multiaddr("ip4", "127.0.0.1", 9100) in reachable_by(lo, EVERYWHERE)


def test_nobody_afar_is_told_of_loopback() -> None:
    listening = [Multiaddr("ip4", "127.0.0.1", 9100), Multiaddr("ip4", "192.0.2.7", 9100)]
    assert reachable_from_afar([interface("eth0", "192.0.2.7")], listening) == (listening[1],)
