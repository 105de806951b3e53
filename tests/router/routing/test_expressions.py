"""Regular expressions: those of Python as far as they go, in bounded time, and words for those that do not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.routing.expressions import MAX_TEXT, BadExpression, Expressions, check

ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "(a|b)", "(?:ab)", "é", "\\.", "/"])
REPEATED = st.tuples(ATOMS, st.sampled_from(["", "*", "+", "?", "{1,2}", "*?"])).map("".join)
PATTERNS = st.lists(REPEATED, max_size=4).map("".join) | st.just("a|b|") | st.just("(?i)AB")
TEXTS = st.text(st.sampled_from("abé./\udcff"), max_size=6)


@settings(max_examples=500, deadline=None)
@given(st.lists(PATTERNS, min_size=1, max_size=5, unique=True), TEXTS)
def test_together_they_find_what_each_finds_alone_and_what_python_finds(
    patterns: list[str], text: str
) -> None:
    expected = [number for number, pattern in enumerate(patterns) if re.fullmatch(pattern, text)]
    assert sorted(Expressions(patterns).matching(text)) == expected
    for pattern in patterns:
        check(pattern)


@pytest.mark.parametrize("pattern", ["(a*)*b", "(a|a)*b", "(a|aa)+b", "a*a*a*a*a*a*b", "(.*)*x"])
def test_what_would_stop_python_ends(pattern: str) -> None:
    check(pattern)
    assert Expressions([pattern]).matching("a" * MAX_TEXT) == []
    end = pattern[-1]
    assert Expressions([pattern]).matching("a" * (MAX_TEXT - 1) + end) == [0]


def test_a_longer_text_matches_nothing() -> None:
    assert Expressions([".*"]).matching("a" * MAX_TEXT) == [0]
    assert Expressions([".*"]).matching("a" * (MAX_TEXT + 1)) == []


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"(a)\1", "write the alternatives out"),
        ("(?P<n>a)(?P=n)", "write the alternatives out"),
        ("(?(1)a|b)", "write the alternatives out"),
        ("(?=a)b", "write a rule before this one"),
        ("(?!internal).*", "write a rule before this one"),
        ("(?<=a)b", "write a rule before this one"),
        ("(?<!a)b", "write a rule before this one"),
        (r"a\Z", "leave \\Z out"),
        ("(?>a)", "write (?:…)"),
        ("a++", "and + for ++"),
        ("a{3}+", "and + for ++"),
        ("(?x) a", "write (?i) or (?s)"),
        ("(?#why)a", "write (?i) or (?s)"),
        ("a{2000}", "1000 times at most"),
        (".{500}", "repeat less"),
        ("(a", "missing )"),
        ("[z-a]", "invalid character class range: z-a"),
    ],
)
def test_what_is_refused_is_told_with_what_to_write(pattern: str, words: str) -> None:
    with pytest.raises(BadExpression, match=re.escape(words)):
        check(pattern)


def test_too_much_together_is_refused() -> None:
    each = [f".*{number}.{{100}}" for number in range(80)]
    for pattern in each:
        check(pattern)
    with pytest.raises(BadExpression, match="too large together"):
        Expressions(each)


def test_a_thousand_of_the_usual_kind_fit() -> None:
    many = Expressions([f"/v1/run/(ocr|scan){number}[a-z]*:[0-9]+" for number in range(1000)])
    assert many.matching("/v1/run/ocr17x:3") == [17]
