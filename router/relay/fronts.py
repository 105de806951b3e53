"""Balancers in front of the router whose X-Forwarded-For is believed. Pure.

From any other client `X-Forwarded-For` is only a claim, and is dropped. A balancer keeps its connections and sends
requests of many clients on each, so the client of a request is known only from its head.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from router.errors import RouterError
from router.wire.request_head import RequestHead, client_lines

MOST_HOPS: Final = 16
CACHE_ENTRIES: Final = 4096
_SCHEMES: Final = (b"http", b"https")


class FrontError(RouterError):
    """The text is no address of a balancer in front."""


class Fronts:
    """The balancers' networks, such as `10.0.0.7` or `10.0.0.0/24`. Raises `FrontError`."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = []
        for text in networks:
            try:
                self._networks.append(ip_network(text))
            except ValueError as error:
                raise FrontError(
                    f"{text!r} is no address of a balancer in front: {error}; write it like 10.0.0.7 or 10.0.0.0/24"
                ) from None
        self._known: dict[tuple[bytes, bytes, bytes], tuple[bytes, bytes]] = {}

    def client_of(self, head: RequestHead, peer: bytes, scheme: bytes) -> tuple[bytes, bytes]:
        """Return the client's address, and the header lines that tell it to a set.

        `peer` and `scheme` are the connection's own. They count unless the peer is a balancer that names a valid
        client.
        """
        # There may be several lines; they count as one, in their order (RFC 9110, 5.3).
        claimed = b",".join(field[2] for field in head.fields if field[1] == b"x-forwarded-for")
        proto = head.get(b"x-forwarded-proto") or b""
        key = (peer, claimed, proto)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= CACHE_ENTRIES:
                self._known.clear()
            found = self._known[key] = self._read(peer, claimed, proto, scheme)
        return found

    def _read(self, peer: bytes, claimed: bytes, proto: bytes, scheme: bytes) -> tuple[bytes, bytes]:
        address = peer
        if self._trusts(_address(peer)):
            # Each hop adds the address that it got the request from: the last one that is no balancer of ours is the
            # client.
            for hop in reversed(claimed.rsplit(b",", MOST_HOPS)[-MOST_HOPS:]):
                known = _address(hop.strip())
                if known is None:
                    break
                address = str(known).encode()
                if not self._trusts(known):
                    break
            if proto in _SCHEMES:
                scheme = proto
        return address, client_lines(address, scheme)

    def _trusts(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def _address(text: bytes) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text.decode("ascii"))
    except ValueError:
        return None
    # A socket for both families shows IPv4 addresses in this form.
    return getattr(found, "ipv4_mapped", None) or found
