"""The routing table: which set gets a request, and why. Pure, immutable, swapped whole.

Choice is weighted rendezvous hashing: every set with weight above 0 draws a number from the request's key and
its own name, and the smallest `-ln(draw) / weight` wins. So shares follow the weights, a changed weight moves
only the keys that it must, a set that is away loses only its own keys (they return with it), and every
process and every router instance that holds the same table makes the same choice without talking.
"""

from __future__ import annotations

import enum
import math
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

from .health import HealthPolicy
from .retry import RetryPolicy

WEIGHT_TOTAL = 10_000
"""Weights are integers in hundredths of a percent; a table's weights add up to exactly this."""

_MASK = (1 << 64) - 1
_UNIT = 2.0**-53


class SetState(enum.StrEnum):
    """What operators allow a set: `ready` everything, `drain` only tasks that it owns, `maint` nothing."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


def key_hash(key: bytes) -> int:
    """64 bits from a sticky key; the same in every process, version and machine."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def random_key() -> int:
    """The key of a request that has none: its own, so that percentages hold for traffic from one address."""
    return random.getrandbits(64)


def _draw(seed: int, key: int) -> float:
    """A uniform number in (0, 1) from a set's seed and a key (the finalizer of splitmix64)."""
    x = seed ^ key
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    x ^= x >> 31
    return ((x >> 11) + 0.5) * _UNIT


@dataclass(frozen=True, slots=True)
class SetEntry:
    """One set as the table knows it. `max_inflight` bounds the requests that this router has open there."""

    name: str
    host: str
    port: int
    state: SetState = SetState.READY
    max_inflight: int | None = None

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}"


class Weights:
    """An immutable share of sets, in hundredths of a percent. Sets of weight 0 are never chosen."""

    __slots__ = ("_drawers", "entries", "shares")

    def __init__(self, entries: Mapping[str, SetEntry], shares: Mapping[str, int]) -> None:
        self.shares = dict(shares)
        self.entries = tuple(entries[name] for name, share in shares.items() if share > 0)
        self._drawers = tuple(
            (key_hash(b"set\0" + entry.name.encode()), -1.0 / shares[entry.name], entry)
            for entry in self.entries
        )

    def home(self, key: int) -> SetEntry | None:
        """The set that the weights alone give to `key`; None when every weight is 0."""
        drawers = self._drawers
        if len(drawers) == 1:
            return drawers[0][2]
        best = math.inf
        winner = None
        log = math.log
        for seed, factor, entry in drawers:
            # As in _draw, without the call.
            x = seed ^ key
            x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
            x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
            score = log((((x ^ (x >> 31)) >> 11) + 0.5) * _UNIT) * factor
            if score < best:
                best = score
                winner = entry
        return winner

    def among(self, key: int, usable: Callable[[SetEntry], bool]) -> SetEntry | None:
        """The set for `key` among the usable ones: home where that is one of them."""
        best = math.inf
        winner = None
        for seed, factor, entry in self._drawers:
            score = math.log(_draw(seed, key)) * factor
            if score < best and usable(entry):
                best = score
                winner = entry
        return winner


class KeySource(enum.StrEnum):
    """Where a sticky key may come from."""

    HEADER = "header"
    ACCOUNT = "account"
    IMAGE = "image"
    CLIENT = "client"


_HEADER_SOURCE = KeySource.HEADER


@dataclass(frozen=True, slots=True)
class KeyPart:
    """One source of the sticky key; `header` is the lower-case name for HEADER, else empty."""

    source: KeySource
    header: bytes = b""


class Facts(Protocol):
    """What rules and keys may look at in one request. Texts are what the client sent, decoded, never
    trusted."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def account(self) -> str: ...
    @property
    def image(self) -> str | None: ...
    @property
    def client(self) -> str: ...
    @property
    def header(self) -> Callable[[bytes], bytes | None]:
        """The value of the first header of a lower-case name."""


class MatchKind(enum.StrEnum):
    EXACT = "exact"
    PREFIX = "prefix"
    IN = "in"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class Match:
    """A test of one text: equal to, starting with, one of, or matched whole by a regular expression."""

    kind: MatchKind
    text: str = ""
    texts: frozenset[str] = frozenset()
    pattern: re.Pattern[str] | None = None

    def __call__(self, value: str | None) -> bool:
        if value is None:
            return False
        if self.kind is MatchKind.EXACT:
            return value == self.text
        if self.kind is MatchKind.PREFIX:
            return value.startswith(self.text)
        if self.kind is MatchKind.IN:
            return value in self.texts
        return self.pattern is not None and self.pattern.fullmatch(value) is not None


class IfDown(enum.StrEnum):
    """What a rule's request gets when none of its sets can take it: a 503, or the default weights."""

    FAIL = "fail"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Rule:
    """The first rule whose every test holds gives the weights. `headers` are (lower-case name, test)."""

    name: str
    weights: Weights
    if_down: IfDown = IfDown.DEFAULT
    headers: tuple[tuple[bytes, Match], ...] = ()
    account: Match | None = None
    image: Match | None = None
    path: Match | None = None
    method: Match | None = None

    def matches(self, facts: Facts) -> bool:
        if self.account is not None and not self.account(facts.account):
            return False
        if self.image is not None and not self.image(facts.image):
            return False
        if self.path is not None and not self.path(facts.path):
            return False
        if self.method is not None and not self.method(facts.method):
            return False
        for name, match in self.headers:
            value = facts.header(name)
            if value is None or not match(value.decode("latin-1")):
                return False
        return True


@dataclass(frozen=True, slots=True)
class Table:
    """One version of the operators' file, ready to route with."""

    version: int
    sets: Mapping[str, SetEntry]
    default: Weights
    rules: tuple[Rule, ...] = ()
    key_parts: tuple[KeyPart, ...] = (KeyPart(KeySource.HEADER, b"x-user-id"),)
    health: HealthPolicy = field(default_factory=HealthPolicy)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    changed_by: str = ""
    changed_why: str = ""
    digest: str = ""
    """SHA-256 of the file's bytes, hexadecimal."""

    def rule_for(self, facts: Facts) -> Rule | None:
        """The first rule that matches."""
        for rule in self.rules:
            if rule.matches(facts):
                return rule
        return None

    def sticky_key(self, facts: Facts, idempotency_key: bytes | None = None) -> int:
        """The first key part that the request has; a random key where it has none."""
        if idempotency_key is not None:
            return key_hash(
                b"idem\0" + facts.account.encode("utf-8", "surrogateescape") + b"\0" + idempotency_key
            )
        for part in self.key_parts:
            if part.source is _HEADER_SOURCE:
                value = facts.header(part.header)
                if value:
                    return key_hash(value)
            elif part.source is KeySource.ACCOUNT:
                return key_hash(b"account\0" + facts.account.encode("utf-8", "surrogateescape"))
            elif part.source is KeySource.IMAGE:
                if facts.image:
                    return key_hash(b"image\0" + facts.image.encode("utf-8", "surrogateescape"))
            else:
                return key_hash(b"client\0" + facts.client.encode())
        return random_key()

    def owner(self, task_id: str) -> SetEntry | None:
        """The set that a task's id names: all before its first dash. None: no such set here."""
        return self.sets.get(task_id.partition("-")[0])


def shares_of(weights: Weights, keys: Iterable[int]) -> dict[str, int]:
    """How many of `keys` each set is home to; for diffs and tests."""
    counts = dict.fromkeys(weights.shares, 0)
    for key in keys:
        entry = weights.home(key)
        if entry is not None:
            counts[entry.name] += 1
    return counts
