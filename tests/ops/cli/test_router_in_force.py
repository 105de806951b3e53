"""A rollout's weights in force over the file, as commands that edit the file see them."""

from __future__ import annotations

from ops.cli.router_in_force import InForce
from router.config.reader import load
from router.routing.table import Table


def file(weights: str) -> Table:
    sets = "a: {url: 'http://h:1'}, b: {url: 'http://h:2'}, c: {url: 'http://h:3'}"
    return load(f"version: 1\nsets: {{{sets}}}\ndefault: {{weights: {{{weights}}}}}\n".encode()).table


def taken_back(phase: str = "idle", *, barred: bool = True) -> InForce:
    told = {
        "phase": phase,
        "dry_run": False,
        "in_force": {"set": "b", "weight": 0.0, "others": {}},
        "barred": [{"set": "b"}] if barred else [],
    }
    in_force = InForce.of(told)
    assert in_force is not None
    return in_force


def test_a_set_that_was_taken_back_stays_at_nothing_when_others_are_edited() -> None:
    before, after = file("a: 95, b: 5, c: 0"), file("a: 50, b: 5, c: 45")
    assert taken_back().stays(before, after)
    assert taken_back().after(before, after).default.shares["b"] == 0
    assert not taken_back("aborted", barred=False).stays(before, after)


def test_another_weight_of_its_own_is_in_force_and_zero_changes_nothing() -> None:
    before = file("a: 95, b: 5, c: 0")
    assert taken_back().after(before, file("a: 90, b: 10, c: 0")).default.shares["b"] == 1_000
    assert taken_back().stays(before, file("a: 100, b: 0, c: 0"))


def test_a_rollout_that_is_over_may_be_ended_while_a_set_is_barred() -> None:
    assert taken_back().ended
    assert not taken_back("holding").ended
