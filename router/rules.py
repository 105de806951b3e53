"""Rules: tests of a request's header, account, image, path and method, looked up rather than tried one by one.

The first rule whose every test holds wins. Of a thousand rules nearly all fail by one test of equality or
prefix; those are found by dictionary, and only rules that consist of regular expressions are tried in turn.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
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
_Test = tuple[Source, Callable[[str], object]]
_Candidate = tuple[int, Rule, tuple[_Test, ...]]
"""A rule's number, the rule, and its tests but for the one under which it stands."""
_LOOKED_UP = (MatchKind.EXACT, MatchKind.IN, MatchKind.PREFIX)


class RuleBook:
    """The rules of a table, indexed: every rule stands under one of its tests."""

    __slots__ = ("_indices", "_tried", "rules")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        indices: dict[Source, _Index] = {}
        tried: list[_Candidate] = []
        for number, rule in enumerate(self.rules):
            tests = rule.tests()
            # Nearly every request has the same method: a rule stands under it only if it tests nothing else.
            telling = [test for test in tests if test[0] != "method"] or tests
            under = next(
                ((source, match) for kind in _LOOKED_UP for source, match in telling if match.kind is kind),
                None,
            )
            rest = tuple((source, _quick(match)) for source, match in tests if (source, match) != under)
            if under is None:
                tried.append((number, rule, rest))
            else:
                indices.setdefault(under[0], _Index()).add(under[1], (number, rule, rest))
        self._indices = tuple(indices.items())
        self._tried = tuple(tried)

    def find(self, facts: Facts) -> Rule | None:
        """The first rule that matches."""
        best = len(self.rules)
        winner = None
        texts = _Texts(facts)
        for source, index in self._indices:
            text = texts[source]
            if text is not None:
                for candidates in index.under(text):
                    found = _first(candidates, best, texts)
                    if found is not None:
                        best, winner = found
        if self._tried:
            found = _first(self._tried, best, texts)
            if found is not None:
                winner = found[1]
        return winner


class _Texts(dict[Source, str | None]):
    """What a request has, by source; each read from it once, and only when asked for."""

    __slots__ = ("_facts",)

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self._facts = facts

    def __missing__(self, source: Source) -> str | None:
        facts = self._facts
        text: str | None
        if isinstance(source, bytes):
            value = facts.header(source)
            text = None if value is None else value.decode("latin-1")
        elif source == "account":
            text = facts.account
        elif source == "image":
            text = facts.image
        else:
            text = facts.path if source == "path" else facts.method
        self[source] = text
        return text


class _Index:
    """The rules that stand under one source: by its whole text, or by the beginning of it."""

    __slots__ = ("_prefixes", "_whole")

    def __init__(self) -> None:
        self._whole: dict[str, list[_Candidate]] = {}
        self._prefixes: dict[int, dict[str, list[_Candidate]]] = {}

    def add(self, match: Match, candidate: _Candidate) -> None:
        if match.kind is MatchKind.PREFIX:
            self._prefixes.setdefault(len(match.text), {}).setdefault(match.text, []).append(candidate)
            return
        for text in match.texts if match.kind is MatchKind.IN else (match.text,):
            self._whole.setdefault(text, []).append(candidate)

    def under(self, text: str) -> Iterator[Sequence[_Candidate]]:
        """The rules whose test this text passes, in lists that each have their order."""
        candidates = self._whole.get(text)
        if candidates is not None:
            yield candidates
        for length, by_text in self._prefixes.items():
            candidates = by_text.get(text[:length])
            if candidates is not None:
                yield candidates


def _first(candidates: Sequence[_Candidate], below: int, texts: _Texts) -> tuple[int, Rule] | None:
    """The first rule whose remaining tests hold, if its number is below `below`."""
    for number, rule, rest in candidates:
        if number >= below:
            break
        for source, test in rest:
            text = texts[source]
            if text is None or not test(text):
                break
        else:
            return number, rule
    return None


def _quick(match: Match) -> Callable[[str], object]:
    """The same test without a call of ours."""
    match match.kind:
        case MatchKind.EXACT:
            return match.text.__eq__
        case MatchKind.IN:
            return match.texts.__contains__
        case MatchKind.PREFIX:
            return re.compile(re.escape(match.text)).match
        case _:
            return match.pattern.fullmatch if match.pattern is not None else bool
