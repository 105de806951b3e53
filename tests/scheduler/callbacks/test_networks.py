"""Which addresses callbacks may reach."""

from __future__ import annotations

import pytest

from scheduler.callbacks.networks import Networks

PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",  # compatible with IPv4
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1",  # translated
    "64:ff9b::7f00:1",  # NAT64
    "64:ff9b:1::a00:1",
    "100::1",  # discard
    "2001::7f00:1",  # Teredo
    "2001:2::1",
    "2001:db8::1",
    "2002:7f00:1::1",  # 6to4
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["1.1.1.1", "93.184.215.14", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_special_addresses_are_out_of_reach(address: str) -> None:
    assert not Networks().may_reach(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_within_reach(address: str) -> None:
    assert Networks().may_reach(address)


def test_a_network_that_is_allowed_is_within_reach_and_no_other() -> None:
    networks = Networks(("10.1.0.0/16", "fd00::/8"))
    assert networks.may_reach("10.1.255.1")
    assert networks.may_reach("::ffff:10.1.0.1")
    assert networks.may_reach("fd12::1")
    assert not networks.may_reach("10.2.0.1")
    assert not networks.may_reach("127.0.0.1")


@pytest.mark.parametrize("network", ["10.1.0.1/16", "ten", "10.0.0.0/33"])
def test_what_is_no_network_is_refused(network: str) -> None:
    with pytest.raises(ValueError, match=network):
        Networks((network,))
