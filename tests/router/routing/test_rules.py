"""Rules by dictionary find the rule that trying them one by one finds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from router.routing.rules import Match, MatchKind, Rule, RuleBook
from router.routing.weights import SetEntry, Weights
from tests.router.routing.asked import Asked

TO_A = Weights({"a": SetEntry("a", "h", 80)}, {"a": 10_000})


WORDS = st.sampled_from(["", "a", "ab", "abc", "b", "ba", "c/d", "é"])
MATCHES = st.one_of(
    WORDS.map(lambda text: Match(MatchKind.EXACT, text)),
    WORDS.map(lambda text: Match(MatchKind.PREFIX, text)),
    st.frozensets(WORDS).map(lambda texts: Match(MatchKind.IN, texts=texts)),
    st.sampled_from(["a.*", "(ab|b)", ".*", "é?"]).map(lambda text: Match(MatchKind.REGEX, text)),
)
MAYBE = st.one_of(st.none(), st.none(), MATCHES)
HEADERS = st.lists(st.tuples(st.sampled_from([b"x-a", b"x-b"]), MATCHES), max_size=2).map(tuple)
RULES = st.lists(
    st.builds(
        Rule,
        st.just("r"),
        st.just(TO_A),
        headers=HEADERS,
        account=MAYBE,
        image=MAYBE,
        path=MAYBE,
        method=MAYBE,
    ),
    max_size=12,
)
FACTS = st.builds(
    Asked,
    method=WORDS,
    path=WORDS,
    account=WORDS,
    image=st.one_of(st.none(), WORDS),
    headers=st.dictionaries(st.sampled_from([b"x-a", b"x-b"]), WORDS.map(lambda w: w.encode("latin-1"))),
)


@settings(max_examples=500, deadline=None)
@given(RULES, st.lists(FACTS, min_size=1, max_size=5))
def test_the_book_finds_the_first_rule_that_matches(rules: list[Rule], asked: list[Asked]) -> None:
    book = RuleBook(rules)
    for facts in asked:
        first = next((rule for rule in rules if rule.matches(facts)), None)
        assert book.find(facts) is first


def test_an_earlier_expression_beats_a_later_word_and_the_other_way_round() -> None:
    expression = Rule("e", TO_A, path=Match(MatchKind.REGEX, "/v1/.*"))
    word = Rule("w", TO_A, account=Match(MatchKind.EXACT, "default"))
    assert RuleBook([expression, word]).find(Asked()) is expression
    assert RuleBook([word, expression]).find(Asked()) is word


def test_the_longest_prefix_does_not_win_the_first_rule_does() -> None:
    short = Rule("s", TO_A, image=Match(MatchKind.PREFIX, "c"))
    long = Rule("l", TO_A, image=Match(MatchKind.PREFIX, "ca"))
    assert RuleBook([short, long]).find(Asked()) is short
    assert RuleBook([long, short]).find(Asked()) is long
    assert RuleBook([long, short]).find(Asked(image=None)) is None
