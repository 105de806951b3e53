"""Rules: tests of a request's header, account, image, path and method, looked up rather than tried one by one.

The first rule whose every test holds wins. Of a thousand rules nearly all fail by one test of equality or
prefix; those are found by dictionary. All regular expressions over one text are one automaton, asked once.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from router.routing.expressions import Expressions
from router.routing.weights import Weights


class Facts(Protocol):
    """The facts of a request that rules and keys may look at. Texts are what the client sent, decoded, never
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


class Match(msgspec.Struct, frozen=True):
    """A test of one text: equal to, starting with, one of, or matched whole by the regular expression `text`."""

    kind: MatchKind
    text: str = ""
    texts: frozenset[str] = frozenset()

    def __call__(self, value: str | None) -> bool:
        if value is None:
            return False
        if self.kind is MatchKind.EXACT:
            return value == self.text
        if self.kind is MatchKind.PREFIX:
            return value.startswith(self.text)
        if self.kind is MatchKind.IN:
            return value in self.texts
        return bool(Expressions((self.text,)).matching(value))


class IfDown(enum.StrEnum):
    """Treatment of a rule's request when none of its sets can take it: a 503, or the default weights."""

    FAIL = "fail"
    DEFAULT = "default"


class Rule(msgspec.Struct, frozen=True):
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
        """Return every test with its source, the most selective ones first."""
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


class _Found(NamedTuple):
    """The key of a lookup: the numbers of the expressions that match a source's text."""

    source: Source


_Key = Source | _Found
_Test = tuple[_Key, Callable[[Any], object]]
_Candidate = tuple[int, Rule, tuple[_Test, ...]]
"""A rule's number, the rule, and its tests except the one that it is indexed under."""
_LOOKED_UP: Final = (MatchKind.EXACT, MatchKind.IN, MatchKind.PREFIX, MatchKind.REGEX)


class RuleBook:
    """The rules of a table, each indexed under one of its tests. Raises `BadExpression`."""

    __slots__ = ("_expressions", "_indices", "_tried", "rules")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RuleBook) and self.rules == other.rules

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        indices: dict[Source, _Index] = {}
        numbered: dict[_Found, _Numbered] = {}
        lowest: dict[_Key, int] = {}  # By their first rule, and so in that order.
        tried: list[_Candidate] = []
        numbers = _Numbers()
        for number, rule in enumerate(self.rules):
            tests = rule.tests()
            # Nearly every request has the same method: a rule is indexed under it only if it tests nothing else.
            telling = [test for test in tests if test[0] != "method"] or tests
            under = next(
                ((source, match) for kind in _LOOKED_UP for source, match in telling if match.kind is kind),
                None,
            )
            rest = tuple(numbers.test(source, match) for source, match in tests if (source, match) != under)
            if under is None:
                tried.append((number, rule, rest))
                continue
            source, match = under
            if match.kind is MatchKind.REGEX:
                found = _Found(source)
                expression = numbers.of(source, match.text)
                numbered.setdefault(found, _Numbered()).add(expression, (number, rule, rest))
                lowest.setdefault(found, number)
            else:
                indices.setdefault(source, _Index()).add(match, (number, rule, rest))
                lowest.setdefault(source, number)
        # Once a rule is found, indices that hold only later ones need not be asked.
        self._indices = tuple(
            (number, key, numbered[key] if isinstance(key, _Found) else indices[key])
            for key, number in lowest.items()
        )
        self._tried = tuple(tried)
        self._expressions = numbers.expressions()

    def find(self, facts: Facts) -> Rule | None:
        """The first rule that matches."""
        best = len(self.rules)
        winner = None
        texts = _Texts(facts, self._expressions)
        for lowest, key, index in self._indices:
            if lowest > best:
                break
            text = texts[key]
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


class _Numbers:
    """Numbers the expressions of each source while a book is made."""

    def __init__(self) -> None:
        self._patterns: dict[Source, dict[str, int]] = {}

    def of(self, source: Source, pattern: str) -> int:
        known = self._patterns.setdefault(source, {})
        return known.setdefault(pattern, len(known))

    def test(self, source: Source, match: Match) -> _Test:
        if match.kind is MatchKind.REGEX:
            number = self.of(source, match.text)
            return _Found(source), lambda numbers: number in numbers
        return source, _quick(match)

    def expressions(self) -> dict[Source, Expressions]:
        return {source: Expressions(tuple(known)) for source, known in self._patterns.items()}


class _Texts(dict[_Key, Any]):
    """The texts of a request by source (None: it has none), and the numbers of the expressions that match them.

    Each is computed once, when it is first asked for.
    """

    __slots__ = ("_expressions", "_facts")

    def __init__(self, facts: Facts, expressions: dict[Source, Expressions]) -> None:
        super().__init__()
        self._facts = facts
        self._expressions = expressions

    def __missing__(self, key: _Key) -> Any:
        facts = self._facts
        found: Any
        if isinstance(key, bytes):
            value = facts.header(key)
            found = None if value is None else value.decode("latin-1")
        elif isinstance(key, _Found):
            text = self[key.source]
            found = None if text is None else self._expressions[key.source].matching(text)
        elif key == "account":
            found = facts.account
        elif key == "image":
            found = facts.image
        else:
            found = facts.path if key == "path" else facts.method
        self[key] = found
        return found


class _Index:
    """The rules that are indexed under one source, by its whole text or by a prefix of it."""

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
        """Yield lists of the rules whose test this text passes, each list in the rules' order."""
        candidates = self._whole.get(text)
        if candidates is not None:
            yield candidates
        for length, by_text in self._prefixes.items():
            candidates = by_text.get(text[:length])
            if candidates is not None:
                yield candidates


class _Numbered:
    """The rules that are indexed under expressions of one source, by the expressions' numbers."""

    __slots__ = ("_by_number",)

    def __init__(self) -> None:
        self._by_number: dict[int, list[_Candidate]] = {}

    def add(self, number: int, candidate: _Candidate) -> None:
        self._by_number.setdefault(number, []).append(candidate)

    def under(self, numbers: Iterable[int]) -> Iterator[Sequence[_Candidate]]:
        """Yield lists of the rules whose expression matches, each list in the rules' order."""
        for number in numbers:
            candidates = self._by_number.get(number)
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
    """Return a test that is no expression as a built-in method, which is faster than a function of ours."""
    if match.kind is MatchKind.EXACT:
        return match.text.__eq__
    if match.kind is MatchKind.IN:
        return match.texts.__contains__
    return re.compile(re.escape(match.text)).match
