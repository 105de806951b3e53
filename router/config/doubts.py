"""Warnings about the operators' file: valid, but probably not intended. Pure; for `check` and the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from router.routing.rules import IfDown, Match, MatchKind, Rule, Source
from router.routing.table import SetEntry, SetState, Table, Weights

MOST_PAIRS: Final = 500_000
"""Most comparisons of two rules. It bounds the time for a file with thousands of similar rules."""
MOST_TOLD: Final = 20
_ALL: Final = (".*", "(?s).*", ".+", "(?s).+")
"""Expressions that match every text that a test can see."""


def doubts(table: Table) -> tuple[str, ...]:
    """Return a sentence for each warning, at most `MOST_TOLD` of each kind."""
    return (
        *_weights(table),
        *_urls(table),
        *_first(_covered(table.rules)),
        *_health(table),
        *_rollout(table),
    )


def _first(found: Iterator[str]) -> Iterator[str]:
    for number, each in enumerate(found):
        if number == MOST_TOLD:
            yield "and more rules like these"
            return
        yield each


def _weights(table: Table) -> Iterator[str]:
    if not _takers(table.default):
        yield (
            "no set takes new work: every set with a weight in `default` is in drain or maint; "
            "make one ready, or give one that is ready a weight"
        )
    for rule in table.rules:
        if rule.if_down is IfDown.FAIL and not _takers(rule.weights):
            yield f"rule {rule.name!r} refuses every request: its sets are in drain or maint, and `if_down` is fail"


def _takers(weights: Weights) -> list[SetEntry]:
    return [
        entry
        for entry in weights.entries
        if entry.state is SetState.READY and weights.shares.get(entry.name, 0) > 0
    ]


def _urls(table: Table) -> Iterator[str]:
    known: dict[str, str] = {}
    for entry in table.sets.values():
        if not entry.host:
            continue
        first = known.setdefault(entry.url, entry.name)
        if first != entry.name:
            yield (
                f"sets {first!r} and {entry.name!r} have the same url {entry.url}: tasks of one will not be found there"
            )


def _health(table: Table) -> Iterator[str]:
    health = table.health
    if health.timeout_s > health.interval_s:
        yield (
            f"a health check may take {health.timeout_s:g} s, longer than `interval` ({health.interval_s:g} s): a set "
            f"that hangs is found after {health.timeout_s * health.fall:g} s; write `timeout` no longer than that"
        )


def _rollout(table: Table) -> Iterator[str]:
    plan = table.rollout
    if plan is None or plan.max_requests is None:
        return
    least = plan.abort_when.min_requests
    if plan.max_requests < least:
        yield (
            f"`rollout.max_requests` is {plan.max_requests}, fewer than `min_requests` ({least}), without which no "
            "check passes: a step that lacks them at the end of its hold may stop waiting before it has them; raise "
            "`max_requests`, or leave it out"
        )


# Rules that no request reaches.


def _covered(rules: tuple[Rule, ...]) -> Iterator[str]:
    """Find rules all of whose requests an earlier rule takes. Each is compared only with the earlier rules that are
    indexed under one of its own tests."""
    under: dict[tuple[Source, MatchKind, str], list[Rule]] = {}
    lengths: dict[Source, set[int]] = {}
    compared = 0
    for rule in rules:
        tests = dict(rule.tests())
        for earlier in (each for key in _asks(tests, lengths) for each in under.get(key, ())):
            compared += 1
            if compared > MOST_PAIRS:
                return
            if all(source in tests and _implies(tests[source], match) for source, match in earlier.tests()):
                yield f"rule {rule.name!r} never matches: {earlier.name!r} before it takes all of its requests"
                break
        _file(rule, under, lengths)


def _file(
    rule: Rule, under: dict[tuple[Source, MatchKind, str], list[Rule]], lengths: dict[Source, set[int]]
) -> None:
    """Index a rule under one of its tests."""
    tests = rule.tests()
    if not tests:
        return
    source, match = next((test for test in tests if test[0] != "method"), tests[0])
    if match.kind is MatchKind.IN:
        for text in match.texts:
            under.setdefault((source, MatchKind.EXACT, text), []).append(rule)
        return
    if match.kind is MatchKind.PREFIX:
        lengths.setdefault(source, set()).add(len(match.text))
    text = _ALL[0] if match.kind is MatchKind.REGEX and match.text in _ALL else match.text
    under.setdefault((source, match.kind, text), []).append(rule)


def _asks(
    tests: dict[Source, Match], lengths: dict[Source, set[int]]
) -> Iterator[tuple[Source, MatchKind, str]]:
    """Return the keys under which a rule that covers these tests may be indexed."""
    for source, match in tests.items():
        yield source, MatchKind.REGEX, _ALL[0]
        if match.kind is MatchKind.REGEX:
            yield source, MatchKind.REGEX, match.text
            continue
        text = min(match.texts) if match.kind is MatchKind.IN else match.text
        if match.kind is not MatchKind.PREFIX:
            yield source, MatchKind.EXACT, text
        for length in lengths.get(source, ()):
            if length <= len(text):
                yield source, MatchKind.PREFIX, text[:length]


def _implies(given: Match, wanted: Match) -> bool:
    """Return True if every text that passes `given` surely passes `wanted`."""
    if wanted.kind is MatchKind.REGEX:
        return wanted.text in _ALL or (given.kind is MatchKind.REGEX and given.text == wanted.text)
    if given.kind is MatchKind.REGEX:
        return False
    if given.kind is MatchKind.PREFIX:
        return wanted.kind is MatchKind.PREFIX and given.text.startswith(wanted.text)
    texts = given.texts if given.kind is MatchKind.IN else (given.text,)
    return all(map(wanted, texts))
