"""Caps how much one caller counts in a cohort, so that one user's broken requests decide no release. Pure, bounded.

A caller is known by two names: the sticky key, and the client's address. Each is capped by itself: who takes another
key for every request still has one address. Both are told apart by 12 bits: two that share these share a cap, which
costs some evidence and no truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final, Protocol
from zlib import crc32

BUCKETS: Final = 4096
SHARE: Final = 0.01
"""Maximum share of a cohort's counted requests that one key or address may have; below the usual margin of two
points."""
FAIR_SHARES: Final = 2.0
"""With few keys, one may have this many times the average of all."""
FEW: Final = 3
"""Number of requests that always count."""


class Caller(Protocol):
    """The part of `choice.Choice` that is needed here."""

    key: int

    @property
    def head(self) -> Any:
        """The request's head, whose `facts` know the client's address; None: nobody looked."""


class Share:
    """The counted requests of one cohort, by key or by address."""

    __slots__ = ("_beside", "_by_bucket", "total")

    def __init__(self, beside: Share | None = None) -> None:
        """`beside`: the requests that count already, with which those here are compared."""
        self._beside = beside
        self._by_bucket: dict[int, int] = {}
        self.total = 0
        """Number of requests that count."""

    def room(self, name: int) -> bool:
        """Return True while this name does not have its share."""
        mine = self._by_bucket.get(name % BUCKETS, 0)
        if mine < FEW:
            return True
        total, names = self.total, len(self._by_bucket)
        if self._beside is not None:
            total += self._beside.total
            names = max(names, len(self._beside._by_bucket))
        return mine < max(FAIR_SHARES * total / names, SHARE * total)

    def admit(self, name: int) -> bool:
        """Count one more of this name, and return True, unless it has its share already."""
        if not self.room(name):
            return False
        self.add(name)
        return True

    def add(self, name: int) -> None:
        """Count one more."""
        bucket = name % BUCKETS
        self._by_bucket[bucket] = self._by_bucket.get(bucket, 0) + 1
        self.total += 1

    def release(self, name: int) -> None:
        """One of this name counts no longer."""
        bucket = name % BUCKETS
        left = self._by_bucket[bucket] - 1
        self.total -= 1
        if left:
            self._by_bucket[bucket] = left
        else:
            del self._by_bucket[bucket]


class Networks:
    """Networks whose every address stands for many clients, such as a gateway's: these have no share of their own."""

    __slots__ = ("_known", "_networks")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._networks = tuple(ip_network(text) for text in texts)
        self._known: dict[str, bool] = {}

    def __contains__(self, client: str) -> bool:
        if not self._networks:
            return False
        known = self._known.get(client)
        if known is None:
            if len(self._known) >= BUCKETS:
                self._known.clear()
            known = self._known[client] = self._has(client)
        return known

    def _has(self, client: str) -> bool:
        try:
            address = ip_address(client)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)


class Shares:
    """The shares of keys and of addresses, in one cohort."""

    __slots__ = ("_shared", "addresses", "keys")

    def __init__(self, beside: Shares | None = None, shared: Networks | None = None) -> None:
        """`beside`: as of `Share`. `shared`: addresses that are capped by their keys alone; those of `beside` by
        default."""
        self._shared: Networks = shared or (beside._shared if beside is not None else Networks())
        self.keys: Share = Share(None if beside is None else beside.keys)
        self.addresses: Share = Share(None if beside is None else beside.addresses)

    def admit(self, caller: Caller) -> bool:
        """Count one more of this caller's requests, and return True, unless key or address have their share."""
        if not self.keys.room(caller.key):
            return False
        address = self._address_of(caller)
        if address is not None:
            if not self.addresses.room(address):
                return False
            self.addresses.add(address)
        self.keys.add(caller.key)
        return True

    def release(self, caller: Caller) -> None:
        """A request that was admitted counts no longer."""
        self.keys.release(caller.key)
        address = self._address_of(caller)
        if address is not None:
            self.addresses.release(address)

    def _address_of(self, caller: Caller) -> int | None:
        """The number of the client's network; None: unknown, or shared."""
        if caller.head is None:
            return None
        client: str = caller.head.facts.client
        return None if client in self._shared else network_of(client)


def network_of(client: str) -> int | None:
    """A number for the network that one client commands: an IPv4 address, or the first 64 bits of an IPv6 one, of which
    everybody has a whole network. None: no address."""
    if ":" in client:
        return _network_of_six(client)
    # Not parsed: that would cost more than all other counting, and the text comes from a socket or a parser.
    return crc32(client.encode()) if "." in client else None


@lru_cache(maxsize=BUCKETS)
def _network_of_six(client: str) -> int | None:
    try:
        address = IPv6Address(client)
    except ValueError:
        return None
    mapped = address.ipv4_mapped
    return crc32(address.packed[:8]) if mapped is None else network_of(str(mapped))
