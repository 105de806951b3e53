"""Whose a request is that came through a balancer: its word counts, the word of others does not."""

from __future__ import annotations

import pytest

from router.relay.fronts import CACHE_ENTRIES, FrontError, Fronts
from router.wire.limits import Limits
from router.wire.request_head import RequestHead, parse_request
from tests.router.rig import answering, running


def head(*lines: str) -> RequestHead:
    return parse_request("\r\n".join(["GET / HTTP/1.1", "Host: h", *lines, "", ""]).encode(), Limits())


@pytest.mark.parametrize(
    ("peer", "lines", "address", "scheme"),
    [
        ("10.0.0.7", ["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https"], "192.0.2.1", "https"),
        # Nobody's word but a balancer's.
        ("10.0.1.7", ["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https"], "10.0.1.7", "http"),
        # What the client itself claimed stands before what the balancer saw.
        ("10.0.0.7", ["X-Forwarded-For: 198.51.100.9, 192.0.2.1"], "192.0.2.1", "http"),
        ("10.0.0.7", ["X-Forwarded-For: 198.51.100.9", "X-Forwarded-For: 192.0.2.1"], "192.0.2.1", "http"),
        # A chain of balancers.
        ("10.0.0.7", ["X-Forwarded-For: 192.0.2.1,10.0.0.3 ,  10.0.0.4"], "192.0.2.1", "http"),
        ("10.0.0.7", ["X-Forwarded-For: 10.0.0.3"], "10.0.0.3", "http"),
        # Nothing that makes sense: as far as it does.
        ("10.0.0.7", [], "10.0.0.7", "http"),
        ("10.0.0.7", ["X-Forwarded-For: "], "10.0.0.7", "http"),
        ("10.0.0.7", ["X-Forwarded-For: unknown", "X-Forwarded-Proto: ftp"], "10.0.0.7", "http"),
        ("10.0.0.7", ["X-Forwarded-For: evil\tname, 10.0.0.3"], "10.0.0.3", "http"),
        ("10.0.0.7", ["X-Forwarded-For: " + "10.0.0.3," * 2000 + "10.0.0.4"], "10.0.0.3", "http"),
        # IPv6, and IPv4 in its clothes.
        ("2001:db8::7", ["X-Forwarded-For: 2001:DB8:1::1"], "2001:db8:1::1", "http"),
        ("::ffff:10.0.0.7", ["X-Forwarded-For: 192.0.2.1"], "192.0.2.1", "http"),
        ("unix", ["X-Forwarded-For: 192.0.2.1"], "unix", "http"),
    ],
)
def test_whose_it_is(peer: str, lines: list[str], address: str, scheme: str) -> None:
    fronts = Fronts(["10.0.0.0/24", "2001:db8::/48"])
    for _ in range(2):  # The second time from memory.
        found, told = fronts.client_of(head(*lines), peer.encode(), b"http")
        assert found.decode() == address
        assert told == f"\r\nX-Forwarded-For: {address}\r\nX-Forwarded-Proto: {scheme}\r\n\r\n".encode()


@pytest.mark.parametrize("text", ["", "front.test", "10.0.0.7/24", "10.0.0.0/33"])
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(FrontError, match="write it like"):
        Fronts([text])


def test_what_is_remembered_has_a_bound() -> None:
    fronts = Fronts(["10.0.0.7"])
    for number in range(2 * CACHE_ENTRIES):
        one = head(f"X-Forwarded-For: 192.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        fronts.client_of(one, b"10.0.0.7", b"http")
    assert len(fronts._known) <= CACHE_ENTRIES


async def test_requests_of_several_clients_on_one_connection() -> None:
    async with running({"a": answering()}) as rig:
        rig.plane.fronts = Fronts(["127.0.0.1"])
        client = await rig.client()
        for address in ("192.0.2.1", "192.0.2.2", None):
            line = f"X-Forwarded-For: {address}\r\n" if address else ""
            await client.ask(f"GET / HTTP/1.1\r\nHost: h\r\n{line}\r\n".encode())
        told = [request for request, _ in rig.sets["a"].requests]
        for got, address in zip(told, ("192.0.2.1", "192.0.2.2", "127.0.0.1"), strict=True):
            assert got.count(b"X-Forwarded-For: ") == 1
            assert f"X-Forwarded-For: {address}\r\n".encode() in got


async def test_without_a_balancer_nobody_s_word_counts() -> None:
    async with running({"a": answering()}) as rig:
        await rig.ask(b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
        assert b"X-Forwarded-For: 127.0.0.1\r\n" in rig.sets["a"].requests[0][0]


async def test_the_client_s_address_chooses_the_set() -> None:
    more = "  key: [client]"
    async with running({"a": answering(), "b": answering()}, weights={"a": 50, "b": 50}, more=more) as rig:
        rig.plane.fronts = Fronts(["127.0.0.1"])
        client = await rig.client()
        for number in range(40):
            line = f"X-Forwarded-For: 192.0.2.{number % 20}"
            await client.ask(f"GET / HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n".encode())
        seen: dict[bytes, set[str]] = {}
        for name, fake in rig.sets.items():
            for request, _ in fake.requests:
                address = request.partition(b"X-Forwarded-For: ")[2].partition(b"\r\n")[0]
                seen.setdefault(address, set()).add(name)
        assert all(len(names) == 1 for names in seen.values())
        assert len(set.union(*seen.values())) == 2
