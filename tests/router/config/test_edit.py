"""Edits of the operators' file: comments and layout stay, and nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.config.edit import Draft, EditError, older_as_new, spread
from router.config.reader import ConfigError, load
from router.routing.table import SetState

FILE = """\
# our router
version: 7            # grows
sets:
  a: {url: "http://h:1", state: ready}   # the old one
  b:
    # the new one
    url: 'http://h:2'
    max_inflight: 500
  "c": {url: "http://h:3"}
rules:
  - {name: qa, when: {header: {x-canary: b}}, to: b, if_down: fail}
  - name: early   # acme first
    when: {account: {in: [acme]}}
    weights: {a: 50, b: 50}
default:
  key: ["header:x-user-id"]
  weights:
    a: 95   # much
    b: 5.00   # little
"""


def changed_lines(before: str, after: str) -> list[str]:
    had = before.splitlines()
    return [line for line in after.splitlines() if line not in had]


def test_a_weight_is_changed_where_it_stands() -> None:
    draft = Draft.of(FILE.encode()).with_weights({"a": 8975, "b": 1025})
    assert changed_lines(FILE, draft.checked().decode()) == [
        "    a: 89.75   # much",
        "    b: 10.25   # little",
    ]


def test_a_set_without_a_weight_gets_a_line_or_a_pair() -> None:
    text = Draft.of(FILE.encode()).with_weights({"a": 9000, "c": 500}).checked().decode()
    assert changed_lines(FILE, text) == ["    c: 5", "    a: 90   # much"]
    flow = Draft.of(FILE.encode()).with_weights({"a": 4950, "c": 50}, rule="early").checked().decode()
    assert changed_lines(FILE, flow) == ["    weights: {a: 49.5, b: 50, c: 0.5}"]
    # Nothing is written for a set that has none and gets none.
    assert Draft.of(FILE.encode()).with_weights({"c": 0}).text == FILE


def test_a_state_is_changed_or_added() -> None:
    assert changed_lines(FILE, Draft.of(FILE.encode()).with_state("a", SetState.DRAIN).text) == [
        '  a: {url: "http://h:1", state: drain}   # the old one'
    ]
    text = Draft.of(FILE.encode()).with_state("b", SetState.MAINT).checked().decode()
    assert changed_lines(FILE, text) == ["    state: maint"]
    assert load(text.encode()).table.sets["b"].state is SetState.MAINT
    quoted = Draft.of(FILE.encode()).with_state("c", SetState.DRAIN).checked()
    assert load(quoted).table.sets["c"].state is SetState.DRAIN


def test_version_who_and_why_are_told() -> None:
    draft = Draft.of(FILE.encode()).stamped(by="ops", why="first")
    assert changed_lines(FILE, draft.checked().decode()) == [
        "version: 8            # grows",
        "change: {by: ops, why: first}",
    ]
    again = draft.stamped(by="jo hn", why='a "b": c # d\n\x07é 🙂 \u2028 no', version=20)
    table = load(again.checked()).table
    assert (table.version, table.changed_by) == (20, "jo hn")
    assert table.changed_why == 'a "b": c # d\n\x07é 🙂 \u2028 no'
    assert again.text.count("change:") == 1


@pytest.mark.parametrize(
    "word", ["no", "true", "null", "5", "0x1f", "- a", "", "*x", "&x", "a: b", "#", "~", "1e3"]
)
def test_any_reason_reads_as_it_was_given(word: str) -> None:
    text = Draft.of(FILE.encode()).stamped(by=word or "x", why=word).checked()
    table = load(text).table
    assert (table.changed_by, table.changed_why) == (word or "x", word)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_whatever_the_reason_is_it_comes_back(why: str) -> None:
    try:
        why.encode()
    except UnicodeEncodeError:
        return
    assert load(Draft.of(FILE.encode()).stamped(by="x", why=why).checked()).table.changed_why == why


def test_a_file_in_one_line_and_one_from_windows_are_edited_too() -> None:
    one = '{version: 1, sets: {a: {url: "http://h:1"}, b: {url: "http://h:2"}}, default: {weights: {a: 100}}}'
    draft = Draft.of(one.encode()).with_weights({"a": 9000, "b": 1000}).with_state("a", SetState.READY)
    table = load(draft.stamped(by="x", why="y").checked()).table
    assert (table.version, table.default.shares, table.changed_by) == (2, {"a": 9000, "b": 1000}, "x")
    windows = FILE.replace("\n", "\r\n")
    text = (
        Draft.of(windows.encode()).with_state("b", SetState.DRAIN).stamped(by="x", why="y").checked().decode()
    )
    assert "\n" not in text.replace("\r\n", "")
    no_newline = one.replace("version: 1", "version: 1") + ""
    assert load(Draft.of(no_newline.encode()).stamped(by="x", why="y").checked()).table.version == 2


@pytest.mark.parametrize("comment", ["# é ü 漢字 🙂 \u00a0\u2003", "#\ttab", "# \ufeff"])
def test_any_character_before_leaves_the_places_right(comment: str) -> None:
    for text in (f"{comment}\n{FILE}", f"\ufeff{comment}\n{FILE}"):
        draft = Draft.of(text.encode()).with_weights({"a": 9000, "b": 1000}).stamped(by="x", why=comment)
        table = load(draft.checked()).table
        assert (table.default.shares, table.changed_why) == ({"a": 9000, "b": 1000}, comment)
        assert f"{comment}\n" in draft.text


def test_a_large_file_is_edited_in_one_go() -> None:
    names = [f"s{number}" for number in range(400)]
    sets = "\n".join(f'  {name}: {{url: "http://h:1"}}  # {name}' for name in names)
    weights = "\n".join(f"    {name}: 0.25  # {name}" for name in names)
    text = f"version: 1\nsets:\n{sets}\ndefault:\n  weights:\n{weights}\n"
    before = load(text.encode()).table.default.shares
    shares = spread(before, {"s7": 5000})
    draft = Draft.of(text.encode()).with_weights(shares)
    assert load(draft.checked()).table.default.shares == shares
    assert draft.text.count("  # s7\n") == 2


def test_an_alias_is_not_edited_behind_the_operators_back() -> None:
    text = FILE.replace("weights: {a: 50, b: 50}", "weights: &half {a: 50, b: 50}").replace(
        "  weights:\n    a: 95   # much\n    b: 5.00   # little\n", "  weights: *half\n"
    )
    load(text.encode())
    with pytest.raises(EditError, match="anchors and aliases"):
        Draft.of(text.encode()).with_weights({"a": 4000, "b": 6000}).checked()


def test_an_edit_that_leaves_a_mistake_is_refused() -> None:
    with pytest.raises(EditError, match="total exactly 100"):
        Draft.of(FILE.encode()).with_weights({"a": 1}).checked()


def test_an_empty_change_is_filled_and_a_file_without_a_last_newline_too() -> None:
    text = 'change: {}\nsets: {a: {url: "http://h:1"}}\ndefault: {weights: {a: 100}}\nversion: 1'
    table = load(Draft.of(text.encode()).stamped(by="x", why="y").checked()).table
    assert (table.version, table.changed_by, table.changed_why) == (2, "x", "y")
    bare = text.partition("\n")[2]
    stamped = Draft.of(bare.encode()).stamped(by="x", why="because").checked().decode()
    assert stamped.endswith("version: 2\nchange: {by: x, why: because}\n")


def test_what_cannot_be_meant_is_refused_with_advice() -> None:
    draft = Draft.of(FILE.encode())
    with pytest.raises(EditError, match="no set 'd'"):
        draft.with_state("d", SetState.DRAIN)
    with pytest.raises(EditError, match="no rule 'earli' in the file; did you mean 'early'"):
        draft.with_weights({"a": 100}, rule="earli")
    with pytest.raises(EditError, match="says `to:`"):
        draft.with_weights({"a": 100}, rule="qa")
    with pytest.raises(EditError, match="500 characters"):
        draft.stamped(by="x", why="y" * 501)
    with pytest.raises(ConfigError):
        Draft.of(b"version: [")


def test_an_older_file_becomes_a_newer_version() -> None:
    text = older_as_new(FILE.encode(), 12, by="ops", why="back").decode()
    assert changed_lines(FILE, text) == ["version: 12            # grows", "change: {by: ops, why: back}"]
    with pytest.raises(ConfigError):
        older_as_new(b"broken: [", 12, by="ops", why="back")


# Weights.


def test_the_others_share_the_rest_as_they_did() -> None:
    assert spread({"a": 9500, "b": 500}, {"b": 1000}) == {"a": 9000, "b": 1000}
    assert spread({"a": 6000, "b": 3000, "c": 1000}, {"c": 4000}) == {"a": 4000, "b": 2000, "c": 4000}
    assert spread({"a": 3334, "b": 3333, "c": 3333}, {"c": 1}) == {"a": 5000, "b": 4999, "c": 1}
    assert spread({"a": 10_000, "b": 0}, {"b": 10_000}) == {"a": 0, "b": 10_000}
    assert spread({"a": 10_000}, {"a": 5000, "b": 5000}) == {"a": 5000, "b": 5000}


def test_too_much_or_nobody_for_the_rest_is_refused() -> None:
    with pytest.raises(EditError, match="more than 100"):
        spread({"a": 10_000}, {"a": 6000, "b": 5000})
    with pytest.raises(EditError, match="no other set has a weight"):
        spread({"a": 10_000, "b": 0}, {"a": 5000})


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3000), min_size=1),
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 2500), min_size=1, max_size=4),
)
def test_weights_total_exactly_100_or_are_refused(before: dict[str, int], wanted: dict[str, int]) -> None:
    try:
        shares = spread(before, wanted)
    except EditError:
        return
    assert sum(shares.values()) == 10_000
    assert min(shares.values()) >= 0
    assert wanted.items() <= shares.items()
    assert all(shares[name] == 0 for name in before if name not in wanted and not before[name])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 10_000)), min_size=1, max_size=4))
def test_edits_one_after_another_keep_every_comment(edits: list[tuple[str, int]]) -> None:
    draft = Draft.of(FILE.encode())
    for name, share in edits:
        try:
            shares = spread(draft.table.default.shares, {name: share})
        except EditError:
            continue
        draft = draft.with_weights(shares).stamped(by="x", why=f"{name}={share}")
        assert draft.table.default.shares.get(name, 0) == share
    assert load(draft.checked()).table.version == draft.table.version
    for comment in (
        "# our router",
        "# grows",
        "# the old one",
        "# the new one",
        "# acme first",
        "# much",
        "# little",
    ):
        assert comment in draft.text
