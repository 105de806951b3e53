"""Which set a key belongs to: weighted rendezvous hashing. Pure and immutable.

Every set with weight above 0 draws a number from the request's key and its own name, and the smallest
`-ln(draw) / weight` wins. So shares follow the weights, a changed weight moves only the keys that it must, a set
that is away loses only its own keys (they return with it), and every process and every router instance that
holds the same weights makes the same choice without talking.
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Final

import msgspec

WEIGHT_TOTAL: Final = 10_000
"""Weights are integers in hundredths of a percent; a table's weights add up to exactly this."""

_MASK: Final = (1 << 64) - 1
_UNIT: Final = 2.0**-53
_GROUP_SIZE: Final = 4
"""Where this many sets have one weight on average, those of equal weight are compared by their draws alone, without a
logarithm each."""


class SetState(enum.StrEnum):
    """The work that operators allow a set: `ready` any, `drain` only tasks that it owns, `maint` none."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


class SetEntry(msgspec.Struct, frozen=True):
    """One set as the table knows it. `max_inflight` bounds the requests that this router has open there;
    `operator_token_file` holds the token with which the router asks it for its metrics.

    `service` is its name in the service registry, "" for a set whose address is in the file alone. `host` is "" while
    nobody has told the address yet.
    """

    name: str
    host: str
    port: int
    state: SetState = SetState.READY
    max_inflight: int | None = None
    operator_token_file: str | None = None
    service: str = ""

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}" if self.host else ""


def key_hash(key: bytes) -> int:
    """64 bits from a sticky key; the same in every process, version and machine."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def random_key() -> int:
    """The key of a request that has none: its own, so that percentages hold for traffic from one address."""
    return random.getrandbits(64)


def draw(seed: int, key: int) -> float:
    """A uniform number in (0, 1) from a seed and a key (the finalizer of splitmix64)."""
    x = seed ^ key
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return (((x ^ (x >> 31)) >> 11) + 0.5) * _UNIT


class Weights:
    """Immutable weights of sets, in hundredths of a percent. Sets of weight 0 are never chosen. If `exact` is given,
    draws use it, in any unit, and `shares` are its rounded percentages."""

    __slots__ = ("_drawers", "_exact", "_groups", "entries", "shares")

    def __init__(
        self,
        entries: Mapping[str, SetEntry],
        shares: Mapping[str, int],
        exact: Mapping[str, float] | None = None,
    ) -> None:
        self.shares = dict(shares)
        self._exact = self.shares if exact is None else dict(exact)
        self.entries = tuple(entries[name] for name, share in self._exact.items() if share > 0)
        self._drawers = tuple(
            (key_hash(b"set\0" + entry.name.encode()), -1.0 / self._exact[entry.name], entry)
            for entry in self.entries
        )
        self._groups: tuple[tuple[float, tuple[tuple[int, SetEntry], ...]], ...] = ()
        groups: dict[float, list[tuple[int, SetEntry]]] = {}
        for seed, factor, entry in self._drawers:
            groups.setdefault(factor, []).append((seed, entry))
        if len(groups) * _GROUP_SIZE <= len(self._drawers):
            self._groups = tuple((factor, tuple(members)) for factor, members in groups.items())

    def home(self, key: int) -> SetEntry | None:
        """The set that the weights alone give to `key`; None when every weight is 0."""
        drawers = self._drawers
        if len(drawers) == 1:
            return drawers[0][2]
        if self._groups:
            return self._home_of_groups(key)
        best = math.inf
        winner = None
        log = math.log
        for seed, factor, entry in drawers:
            # As in `draw`, without the call.
            x = seed ^ key
            x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
            x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
            score = log((((x ^ (x >> 31)) >> 11) + 0.5) * _UNIT) * factor
            if score < best:
                best = score
                winner = entry
        return winner

    def _home_of_groups(self, key: int) -> SetEntry | None:
        """Like `home`: among sets of one weight, the highest draw has the lowest score."""
        best = math.inf
        winner = None
        for factor, members in self._groups:
            highest = -1
            first = None
            for seed, entry in members:
                x = seed ^ key
                x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
                x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
                x ^= x >> 31
                if x > highest:
                    highest = x
                    first = entry
            score = math.log(((highest >> 11) + 0.5) * _UNIT) * factor
            if score < best:
                best = score
                winner = first
        return winner

    def among(self, key: int, usable: Callable[[SetEntry], bool]) -> SetEntry | None:
        """The set for `key` among the usable ones: home where that is one of them."""
        best = math.inf
        winner = None
        for seed, factor, entry in self._drawers:
            score = math.log(draw(seed, key)) * factor
            if score < best and usable(entry):
                best = score
                winner = entry
        return winner

    def narrowed(self, part: Callable[[SetEntry], float]) -> Weights:
        """These weights with each set's times `part` of it (0: left out), as health has it now.

        Who is left keeps its proportion to the others, so that only the keys of those that lost weight move.
        """
        parts = {entry.name: self._exact[entry.name] * part(entry) for entry in self.entries}
        left = {name: share for name, share in parts.items() if share > 0}
        shares = {name: self.shares[name] for name in left}
        return Weights({entry.name: entry for entry in self.entries}, shares, left)

    def over(self, entries: Mapping[str, SetEntry]) -> Weights:
        """The same weights of `entries`, which have the same names."""
        return Weights(entries, self.shares, self._exact)

    def percentages(self) -> dict[str, float]:
        """Each set's part of what is drawn, in percent; sets of weight 0 are left out."""
        total = sum(self._exact.values())
        return {name: 100.0 * share / total for name, share in self._exact.items() if share > 0}


def shares_of(weights: Weights, keys: Iterable[int]) -> dict[str, int]:
    """How many of `keys` each set is home to; for diffs and tests."""
    counts = dict.fromkeys(weights.shares, 0)
    for key in keys:
        entry = weights.home(key)
        if entry is not None:
            counts[entry.name] += 1
    return counts
