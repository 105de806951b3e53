"""What `check` and the log warn of, and what they do not."""

from __future__ import annotations

import pytest

from router.config.doubts import MOST_TOLD
from router.config.reader import load

SETS = 'a: {url: "http://h:1"}, b: {url: "http://h:2"}'
DEFAULT = "{weights: {a: 95, b: 5}}"


def warnings(*rules: str, sets: str = SETS, default: str = DEFAULT, more: str = "") -> tuple[str, ...]:
    """`rules`: `when` of each, all to set a; the first is r0."""
    text = f"version: 1\nsets: {{{sets}}}\ndefault: {default}\n{more}"
    if rules:
        lines = [f"- {{name: r{number}, when: {when}, to: a}}\n" for number, when in enumerate(rules)]
        text += "rules:\n" + "".join(lines)
    return load(text.encode()).warnings


def test_nothing_to_say() -> None:
    assert warnings("{account: x}", "{image: {prefix: ocr/}}") == ()


@pytest.mark.parametrize("states", ["drain drain", "drain maint", "maint maint"])
def test_nobody_takes_new_work(states: str) -> None:
    a, b = states.split()
    sets = f'a: {{url: "http://h:1", state: {a}}}, b: {{url: "http://h:2", state: {b}}}'
    (warning,) = warnings(sets=sets)
    assert "no set takes new work" in warning


def test_the_only_ready_set_has_no_weight() -> None:
    sets = 'a: {url: "http://h:1", state: drain}, b: {url: "http://h:2"}'
    (warning,) = warnings(sets=sets, default="{weights: {a: 100, b: 0}}")
    assert "no set takes new work" in warning
    assert warnings(sets=sets) == ()


def test_a_rule_that_refuses_everything() -> None:
    sets = 'a: {url: "http://h:1", state: drain}, b: {url: "http://h:2"}'
    rule = "rules: [{name: r, when: {account: x}, to: a%s}]"
    (warning,) = warnings(sets=sets, more=rule % ", if_down: fail")
    assert "rule 'r' refuses every request" in warning
    assert warnings(sets=sets, more=rule % "") == ()


def test_two_sets_with_one_url() -> None:
    (warning,) = warnings(sets='a: {url: "http://h:1"}, b: {url: "http://H:1/"}')
    assert "'a' and 'b' have the same url" in warning


def test_a_wait_that_ends_before_the_checks_have_their_requests() -> None:
    plan = "rollout: {set: b, steps: [{weight: 50, hold: 10m}, {weight: 100}], max_requests: %d}"
    (warning,) = warnings(more=plan % 99)
    assert "`rollout.max_requests` is 99, fewer than `min_requests` (100)" in warning
    assert warnings(more=plan % 100) == ()


def test_a_check_that_may_take_longer_than_the_interval() -> None:
    (warning,) = warnings(more="health: {interval: 1s, timeout: 3s}")
    assert "3 s, longer than `interval` (1 s)" in warning
    assert warnings(more="health: {interval: 1s, timeout: 1s}") == ()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{account: x}", "{account: x}"),
        ("{account: x}", "{account: x, method: POST}"),
        ("{account: {in: [x, y]}}", "{account: y}"),
        ("{account: {in: [x, y, z]}}", "{account: {in: [z, x]}, image: i}"),
        ("{image: {prefix: ocr}}", "{image: ocr/a}"),
        ("{image: {prefix: ocr}}", "{image: {prefix: ocr/}}"),
        ("{image: {prefix: o}}", "{image: {in: [ocr, o]}}"),
        ("{path: {regex: '.*'}}", "{path: {prefix: /v1}}"),
        ("{path: {regex: '.*'}}", "{path: {regex: '/x+'}}"),
        ("{path: {regex: '/x+'}}", "{path: {regex: '/x+'}, account: a}"),
        ("{header: {X-A: '1'}}", "{header: {x-a: '1', x-b: '2'}}"),
        ("{method: POST}", "{method: POST, account: x}"),
        ("{header: {x-a: '1'}, image: {prefix: o}}", "{header: {x-a: '1'}, image: ocr}"),
    ],
)
def test_a_rule_that_never_matches(first: str, second: str) -> None:
    (warning,) = warnings("{account: other}", first, second)
    assert warning == "rule 'r2' never matches: 'r1' before it takes all of its requests"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{account: x, method: POST}", "{account: x}"),
        ("{account: x}", "{account: {in: [x, y]}}"),
        ("{account: {in: [x, y]}}", "{account: {in: [x, z]}}"),
        ("{image: ocr}", "{image: {prefix: ocr}}"),
        ("{image: {prefix: ocr/}}", "{image: {prefix: ocr}}"),
        ("{path: {regex: '/x+'}}", "{path: {regex: '/xx'}}"),
        ("{path: {prefix: /}}", "{path: {regex: '.*'}}"),
        ("{header: {x-a: '1'}}", "{header: {x-b: '1'}}"),
        ("{account: x}", "{image: x}"),
    ],
)
def test_a_rule_that_may_match(first: str, second: str) -> None:
    assert warnings(first, second) == ()


def test_many_of_a_kind_are_summed_up() -> None:
    told = warnings(*["{account: x}"] * 100)
    assert len(told) == MOST_TOLD + 1
