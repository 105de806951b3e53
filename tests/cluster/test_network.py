"""The hosts and wires of the rig: what it says of the weather is what programs on the hosts meet."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator

import pytest

from tests.cluster.network import Network, why_not
from tests.cluster.switch import CUT, FAIR, Directions, Order, Weather

pytestmark = pytest.mark.skipif(bool(why := why_not()), reason=why or "-")

A, B = "10.77.0.1", "10.77.0.2"
PATIENCE_S = 60.0


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(("a", "b", "c")) as network:
        yield network


def packet(source: str, target: str) -> bytes:
    """The head of an IPv4 packet, as far as a switch looks."""
    return bytes([0x45]) + bytes(11) + socket.inet_aton(source) + socket.inet_aton(target)


class Pair:
    """Two hosts that send each other datagrams."""

    def __init__(self, network: Network, a: str, b: str) -> None:
        self.a, self.b = (self._socket(network, host) for host in (a, b))

    def _socket(self, network: Network, host: str) -> socket.socket:
        def bound() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((network.address(host), 0))
            made.settimeout(PATIENCE_S)
            return made

        return network.on(host, bound)

    def tell(self, words: bytes) -> None:
        self.a.sendto(words, self.b.getsockname())

    def hears(self, words: bytes) -> None:
        assert self.b.recv(100) == words


def test_hosts_reach_each_other_and_nothing_else(network: Network) -> None:
    pair = Pair(network, "a", "b")
    pair.tell(b"hello")
    pair.hears(b"hello")
    with pytest.raises(OSError, match="unreachable"):
        network.on("a", lambda: socket.create_connection(("192.0.2.1", 80), 1))


def test_a_cut_is_silent_one_way_or_both(network: Network) -> None:
    to_b, to_a, to_c = (Pair(network, *hosts) for hosts in (("a", "b"), ("c", "a"), ("b", "c")))
    network.change("a", "b", CUT)
    to_b.tell(b"lost")
    to_a.tell(b"first")
    to_a.hears(b"first")
    network.cut("a")
    to_a.tell(b"lost")
    to_c.tell(b"the others talk")
    to_c.hears(b"the others talk")
    network.heal("a")
    to_b.tell(b"again")
    to_b.hears(b"again")
    to_a.tell(b"again")
    to_a.hears(b"again")


def test_a_stream_survives_a_bad_wire(network: Network) -> None:
    body = random.Random(1).randbytes(200_000)
    bad = Weather(delay_s=0.005, jitter_s=0.02, loss=0.05)
    network.change("a", "b", bad)
    network.change("b", "a", bad)
    listener = network.on("b", lambda: socket.create_server((network.address("b"), 80)))
    sender = network.on("a", lambda: socket.create_connection((network.address("b"), 80), PATIENCE_S))
    receiver, _ = listener.accept()
    receiver.settimeout(PATIENCE_S)
    sender.settimeout(PATIENCE_S)
    got = bytearray()
    for start in range(0, len(body), 20_000):
        sender.sendall(body[start : start + 20_000])
        while len(got) < start + 20_000:
            got += receiver.recv(1 << 16)
    assert got == body
    for each in (listener, sender, receiver):
        each.close()


def test_late_packets_overtake_each_other(network: Network) -> None:
    pair = Pair(network, "a", "b")
    network.change("a", "b", Weather(delay_s=0.001, jitter_s=0.2))
    sent = [b"%d" % number for number in range(100)]
    began = time.monotonic()
    for each in sent:
        pair.tell(each)
    heard = [pair.b.recv(100) for _ in sent]
    assert sorted(heard) == sorted(sent)
    assert heard != sent
    assert time.monotonic() - began >= 0.001


def test_the_same_seed_gives_the_same_weather() -> None:
    def fates() -> list[float | None]:
        directions = Directions(random.Random(7))
        directions.obey(Order(A, B, Weather(delay_s=0.01, jitter_s=0.01, loss=0.5)))
        return [directions.late_by(packet(A, B)) for _ in range(50)]

    assert fates() == fates()
    assert None in fates()


def test_an_order_is_about_one_direction_until_the_next() -> None:
    directions = Directions(random.Random(7))
    order = Order(A, B, CUT)
    directions.obey(Order.of(order.line()))
    assert directions.late_by(packet(A, B)) is None
    assert directions.late_by(packet(B, A)) == 0.0
    directions.obey(Order(A, B, FAIR))
    assert directions.late_by(packet(A, B)) == 0.0
