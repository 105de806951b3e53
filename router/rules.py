"""Rules: tests of a request's header, account, image, path and method, looked up rather than tried one by one.

The first rule whose every test holds wins. Of a thousand rules nearly all fail by one test of equality or
prefix; those are found by dictionary, and only rules that consist of regular expressions are tried in turn.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from .weights import Weights


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

    def tests(self) -> tuple[tuple[Source, Match], ...]:
        """Every test with its source, those first that tell most requests apart."""
        named: tuple[tuple[Source, Match | None], ...] = (
            *(((name), match) for name, match in self.headers),
            ("account", self.account),
            ("image", self.image),
            ("path", self.path),
            ("method", self.method),
        )
        return tuple((source, match) for source, match in named if match is not None)


Source = bytes | str
"""A header's lower-case name (bytes), or `account`, `image`, `path`, `method`."""
_LOOKED_UP = (MatchKind.EXACT, MatchKind.IN, MatchKind.PREFIX)


class RuleBook:
    """The rules of a table, indexed: every rule stands under one of its tests."""

    __slots__ = ("_indices", "_tried", "rules")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        indices: dict[Source, _Index] = {}
        tried: list[tuple[int, Source, Callable[[str], object] | None, Rule]] = []
        for number, rule in enumerate(self.rules):
            tests = rule.tests()
            # Nearly every request has the same method: a rule stands under it only if it tests nothing else.
            telling = [test for test in tests if test[0] != "method"] or tests
            found = next(
                ((source, match) for kind in _LOOKED_UP for source, match in telling if match.kind is kind),
                None,
            )
            if found is not None:
                indices.setdefault(found[0], _Index()).add(number, found[1], rule, alone=len(tests) == 1)
            elif tests:
                source, match = tests[0]
                tried.append((number, source, match.pattern.fullmatch if match.pattern else None, rule))
            else:
                tried.append((number, "method", None, rule))
        self._indices = tuple((source, index) for source, index in indices.items())
        self._tried = tuple(tried)

    def find(self, facts: Facts) -> Rule | None:
        """The first rule that matches."""
        best = len(self.rules)
        winner = None
        for source, index in self._indices:
            text = _text(facts, source)
            if text is not None:
                number, rule = index.first(text, best, facts)
                if rule is not None:
                    best, winner = number, rule
        if self._tried:
            last: Source = b""
            text = None
            for number, source, test, rule in self._tried:
                if number >= best:
                    break
                if source != last:
                    text = _text(facts, source)
                    last = source
                if text is not None and (test is None or test(text)) and rule.matches(facts):
                    return rule
        return winner


class _Index:
    """The rules that stand under one source: by its whole text, or by the beginning of it."""

    __slots__ = ("_prefixes", "_whole")

    def __init__(self) -> None:
        self._whole: dict[str, list[tuple[int, Rule, bool]]] = {}
        self._prefixes: dict[int, dict[str, list[tuple[int, Rule, bool]]]] = {}

    def add(self, number: int, match: Match, rule: Rule, *, alone: bool) -> None:
        if match.kind is MatchKind.PREFIX:
            by_text = self._prefixes.setdefault(len(match.text), {})
            by_text.setdefault(match.text, []).append((number, rule, alone))
            return
        for text in match.texts if match.kind is MatchKind.IN else (match.text,):
            self._whole.setdefault(text, []).append((number, rule, alone))

    def first(self, text: str, below: int, facts: Facts) -> tuple[int, Rule | None]:
        """The first matching rule whose number is below `below`. `alone`: it has no other test."""
        best = below
        winner = None
        for number, rule, alone in self._whole.get(text, ()):
            if number >= best:
                break
            if alone or rule.matches(facts):
                best, winner = number, rule
                break
        for length, by_text in self._prefixes.items():
            for number, rule, alone in by_text.get(text[:length], ()):
                if number >= best:
                    break
                if alone or rule.matches(facts):
                    best, winner = number, rule
                    break
        return best, winner


def _text(facts: Facts, source: Source) -> str | None:
    if isinstance(source, bytes):
        value = facts.header(source)
        return None if value is None else value.decode("latin-1")
    if source == "account":
        return facts.account
    if source == "image":
        return facts.image
    return facts.path if source == "path" else facts.method
