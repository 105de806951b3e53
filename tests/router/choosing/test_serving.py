"""Who would serve requests under a table, and which change of it would leave nobody."""

from __future__ import annotations

import pytest

from router.choosing.serving import leaves_nobody, unserved
from router.config.reader import load
from router.routing.table import Table


def table(weights: str, *, a: str = "ready", b: str = "ready", rules: str = "[]") -> Table:
    text = f"""
version: 1
sets: {{a: {{url: "http://h:1", state: {a}}}, b: {{url: "http://h:2", state: {b}}}}}
rules: {rules}
default: {{weights: {weights}}}
"""
    return load(text.encode()).table


EVEN = "{a: 50, b: 50}"


@pytest.mark.parametrize("word", ["down", "refused", "draining", "ejected"])
def test_all_weight_on_a_set_that_is_away_leaves_nobody(word: str) -> None:
    said = leaves_nobody(table(EVEN), table("{a: 0, b: 100}"), {"a": "up", "b": word})
    assert said == f"no set would take new requests of the default weights: b is {word}"


@pytest.mark.parametrize("health", [{}, {"b": "up"}, {"b": "slow start"}])
def test_a_set_that_is_well_or_was_never_asked_serves(health: dict[str, str]) -> None:
    assert leaves_nobody(table(EVEN), table("{a: 0, b: 100}"), health) == ""


def test_one_set_that_serves_is_enough() -> None:
    assert leaves_nobody(table(EVEN), table("{a: 1, b: 99}"), {"b": "down"}) == ""


def test_state_and_health_count_together() -> None:
    said = leaves_nobody(table(EVEN), table(EVEN, a="drain"), {"b": "down"})
    assert said.endswith("a is drain, b is down")


def test_what_is_unserved_already_does_not_keep_operators_from_acting() -> None:
    both = {"a": "down", "b": "down"}
    assert unserved(table(EVEN), both) == {"the default weights": "a is down, b is down"}
    assert leaves_nobody(table(EVEN), table("{a: 0, b: 100}"), both) == ""
    # Nobody knows what a broken file had in force: then the new one is judged alone.
    assert leaves_nobody(None, table(EVEN), both) != ""


def test_a_rule_that_refuses_is_a_part_of_its_own() -> None:
    def ruled(weights: str, if_down: str) -> Table:
        rule = f"{{name: early, when: {{account: acme}}, weights: {weights}, if_down: {if_down}}}"
        return table(EVEN, rules=f"[{rule}]")

    health = {"b": "down"}
    before, after = ruled("{a: 100}", "fail"), ruled("{b: 100}", "fail")
    assert leaves_nobody(before, after, health) == "no set would take new requests of rule early: b is down"
    # The default takes over there.
    assert leaves_nobody(ruled("{a: 100}", "default"), ruled("{b: 100}", "default"), health) == ""


def test_several_parts_are_counted() -> None:
    rule = "{name: early, when: {account: acme}, weights: {b: 100}, if_down: fail}"
    said = leaves_nobody(table(EVEN), table("{b: 100}", rules=f"[{rule}]"), {"b": "down"})
    assert said == "no set would take new requests of the default weights (and 1 more part): b is down"
