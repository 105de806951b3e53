"""What a change would do, told before it is made."""

from __future__ import annotations

import pytest

from router.config.difference import NOBODY, difference
from router.config.reader import load
from router.routing.table import Table


def table(weights: str, *, sets: str = "", more: str = "", states: dict[str, str] | None = None) -> Table:
    states = states or {}
    names = sets or "abc"
    entries = ", ".join(
        f'{name}: {{url: "http://h:{number}", state: {states.get(name, "ready")}}}'
        for number, name in enumerate(names, 1)
    )
    return load(
        f"version: 1\nsets: {{{entries}}}\ndefault: {{weights: {{{weights}}}}}\n{more}".encode()
    ).table


def test_a_ramp_moves_exactly_its_difference() -> None:
    found = difference(table("a: 95, b: 5"), table("a: 90, b: 10"))
    (shift,) = found.shifts
    assert (shift.moved, shift.least) == (5.0, 5.0)
    assert (shift.gained("b"), shift.lost("b")) == (5.0, 0.0)
    assert set(shift.moves) == {("a", "b")}
    assert found.any
    small = difference(table("a: 100"), table("a: 99.99, b: 0.01")).shifts[0]
    assert small.moved == pytest.approx(0.01)


def test_a_draining_set_loses_all_and_the_others_share_it() -> None:
    found = difference(table("a: 50, b: 25, c: 25"), table("a: 50, b: 25, c: 25", states={"a": "drain"}))
    (shift,) = found.shifts
    assert shift.after == {"b": 50.0, "c": 50.0}
    assert (shift.moved, shift.lost("a"), shift.gained("b")) == (50.0, 50.0, 25.0)
    assert found.words == ("set a: state ready → drain",)


def test_rules_are_compared_with_what_their_requests_get_without_them() -> None:
    rule = "rules: [{name: qa, when: {account: acme}, to: b}]\n"
    found = difference(table("a: 100"), table("a: 100", more=rule))
    default, qa = found.shifts
    assert not default.moved
    assert (qa.rule, qa.before, qa.after, qa.moved) == ("qa", {"a": 100.0}, {"b": 100.0}, 100.0)
    assert found.words == ("rule qa: new",)
    other = rule.replace("acme", "emca")
    assert difference(table("a: 100", more=rule), table("a: 100", more=other)).words == (
        "rule qa: other conditions",
    )


def test_nobody_left_is_told() -> None:
    gone = {"a": "drain", "b": "drain", "c": "maint"}
    (shift,) = difference(table("a: 60, b: 40"), table("a: 60, b: 40", states=gone)).shifts
    assert shift.after == {NOBODY: 100.0}
    assert shift.moved == 100.0


def test_everything_else_is_told_in_words() -> None:
    new = table(
        "a: 100",
        sets="ab",
        more="health: {fall: 5}\nretry: {attempts: 3}\ntimeouts: {connect: 1s}\n"
        "rollout: {set: b, steps: [{weight: 1, hold: 1m}]}\n",
    )
    assert difference(table("a: 100"), new).words == (
        "set c: taken out; its tasks can no longer be asked for",
        "health: fall 3 → 5",
        "retry: attempts 2 → 3",
        "timeouts: connect as started → 1 s",
        "rollout: another plan",
    )
    assert not difference(new, new).any
    assert "set c: new, at http://h:3" in difference(new, table("a: 100")).words


def test_rules_in_another_order_and_another_key_are_told() -> None:
    one, two = "{name: p, when: {account: x}, to: b}", "{name: q, when: {path: /}, to: c}"
    before = table("a: 100", more=f"rules: [{one}, {two}]\n")
    assert (
        "rules: another order; the first that matches wins"
        in difference(before, table("a: 100", more=f"rules: [{two}, {one}]\n")).words
    )
    assert difference(before, table("a: 100", more=f"rules: [{two}]\n")).words == ("rule p: taken out",)
    keyed = load(
        b'version: 1\nsets: {a: {url: "http://h:1"}, b: {url: "http://h:2"}, c: {url: "http://h:3"}}\n'
        b"default: {key: [account], weights: {a: 100}}\n"
    ).table
    assert difference(table("a: 100"), keyed).words == ("key: another source, so that every key may move",)


def test_a_change_between_more_sets_than_must_move_is_counted() -> None:
    """Weights are relative: with three sets, taking from one and giving to another also touches the third a little."""
    (shift,) = difference(table("a: 70, b: 20, c: 10"), table("a: 10, b: 20, c: 70")).shifts
    assert shift.least == pytest.approx(60.0)
    assert shift.moved >= shift.least
    assert shift.gained("c") >= 60.0
