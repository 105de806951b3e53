"""The routing table: one version of the operators' file, ready to route with. Pure, immutable, swapped whole."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from router.routing.discovery import Discovery
from router.routing.log_policy import AccessLogPolicy
from router.routing.plan import Plan
from router.routing.policies import HealthPolicy, RetryPolicy
from router.routing.rules import Facts, IfDown, Match, MatchKind, Rule, RuleBook
from router.routing.timeouts import Timeouts
from router.routing.weights import (
    WEIGHT_TOTAL,
    SetEntry,
    SetState,
    Weights,
    draw,
    key_hash,
    random_key,
    shares_of,
)

__all__ = [
    "WEIGHT_TOTAL",
    "Facts",
    "IfDown",
    "KeyPart",
    "KeySource",
    "Match",
    "MatchKind",
    "Rule",
    "SetEntry",
    "SetState",
    "Table",
    "Weights",
    "draw",
    "key_hash",
    "shares_of",
]


class KeySource(enum.StrEnum):
    """Where a sticky key may come from."""

    HEADER = "header"
    ACCOUNT = "account"
    IMAGE = "image"
    CLIENT = "client"


_HEADER_SOURCE: Final = KeySource.HEADER


class KeyPart(msgspec.Struct, frozen=True):
    """One source of the sticky key; `header` is the lower-case name for HEADER, else empty."""

    source: KeySource
    header: bytes = b""


class Table(msgspec.Struct, frozen=True):
    """One version of the operators' file, ready to route with."""

    version: int
    sets: Mapping[str, SetEntry]
    default: Weights
    rules: tuple[Rule, ...] = ()
    key_parts: tuple[KeyPart, ...] = (KeyPart(KeySource.HEADER, b"x-user-id"),)
    health: HealthPolicy = msgspec.field(default_factory=HealthPolicy)
    retry: RetryPolicy = msgspec.field(default_factory=RetryPolicy)
    timeouts: Timeouts = msgspec.field(default_factory=Timeouts)
    access_log: AccessLogPolicy = msgspec.field(default_factory=AccessLogPolicy)
    rollout: Plan | None = None
    discovery: Discovery | None = None
    changed_by: str = ""
    changed_why: str = ""
    digest: str = ""
    """SHA-256 of the file's bytes, hexadecimal."""
    book: RuleBook = msgspec.field(default_factory=lambda: RuleBook(()))
    """The rules, indexed: always made from `rules`."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "book", RuleBook(self.rules))

    def rule_for(self, facts: Facts) -> Rule | None:
        """The first rule that matches."""
        return self.book.find(facts)

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
