"""The `rollout` section: everything it may say, and every mistake with its place and what to write."""

from __future__ import annotations

import pytest
import yaml

from router.config.rollout_section import read_rollout
from router.config.yaml_nodes import Mistake, NodeReader
from router.routing.plan import AbortWhen, CheckName, PartName, Plan, Step, Undecided
from router.routing.table import SetEntry

SETS = {name: SetEntry(name, "h", 80) for name in ("a", "b")}
FULL = """
set: b
steps:
  - {weight: 1, hold: 10m, gate: "https://x.example/ask?a=1"}
  - {weight: 12.25, hold: 30s}
  - {pause: true}
  - {weight: 100}
abort_when: {min_requests: 50, error_rate_over_baseline: 0.5%, task_failures_over_baseline: off,
             p95_over_baseline: 30%, async_failures_over_baseline: 7.5%, confidence: 99%}
on_no_data: abort
on_inconclusive: abort
max_requests: 20000
dry_run: [latency, tasks]
max_wait: 20m
return_window: 24h
judge_by: [account, image, account]
shared_addresses: [10.0.0.7, "2001:db8::/32"]
gate: http://gate:8080/
events: http://hook/
"""


def read(text: str, sets: dict[str, SetEntry] | None = None) -> tuple[Plan | None, list[Mistake]]:
    reader = NodeReader()
    node = yaml.compose(text)
    assert node is not None
    plan = read_rollout(reader, node, SETS if sets is None else sets)
    return plan, reader.mistakes


def test_every_key_is_read() -> None:
    plan, mistakes = read(FULL)
    assert mistakes == []
    assert plan == Plan(
        set="b",
        steps=(
            Step(100, 600.0, "https://x.example/ask?a=1"),
            Step(1225, 30.0, "http://gate:8080/"),
            Step(None),
            Step(10_000, 0.0, "http://gate:8080/"),
        ),
        abort_when=AbortWhen(50, 0.005, None, 0.3, 0.99, 0.075),
        on_no_data=Undecided.ABORT,
        on_inconclusive=Undecided.ABORT,
        max_requests=20_000,
        dry_run=False,
        report_only=(CheckName.LATENCY, CheckName.TASKS),
        max_wait_s=1200.0,
        return_window_s=86400.0,
        judge_by=(PartName.ACCOUNT, PartName.IMAGE),
        shared_addresses=("10.0.0.7/32", "2001:db8::/32"),
        events="http://hook/",
    )
    assert plan is not None
    assert (plan.final_weight, plan.weighted_steps) == (10_000, 3)


def test_little_is_needed() -> None:
    plan, mistakes = read("{set: b, steps: [{weight: 5}], dry_run: true}")
    assert mistakes == []
    assert plan == Plan("b", (Step(500),), dry_run=True)
    assert plan is not None
    assert (plan.wait_s(0), plan.abort_when.min_requests, plan.on_no_data) == (300.0, 100, Undecided.PAUSE)


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("set: c\nsteps: [{weight: 1}]", 1, 6, "not in `sets`"),
        ("set: bb\nsteps: [{weight: 1}]", 1, 6, "did you mean 'b'?"),
        ("steps: [{weight: 1}]", 1, 1, "lacks 'set'"),
        ("set: b", 1, 1, "lacks 'steps'"),
        ("set: b\nsteps: []", 2, 8, "`steps` is empty; write"),
        ("set: b\nsteps: {weight: 1}", 2, 8, "must be a list"),
        ("set: b\nsteps: [{hold: 1m}]", 2, 9, "needs a weight or a pause"),
        ("set: b\nsteps: [{pause: true, hold: 1m}]", 2, 9, "a step of its own"),
        ("set: b\nsteps: [{pause: false}]", 2, 9, "a step of its own"),
        ("set: b\nsteps: [{pause: true}]", 2, 8, "holds no weight"),
        ("set: b\nsteps:\n- {weight: 5}\n- {weight: 5}", 4, 3, "greater than the one before (5), not 5"),
        ("set: b\nsteps:\n- {weight: 50}\n- {weight: 5}", 4, 3, "going down is what `abort` is for"),
        ("set: b\nsteps: [{weight: 0}]", 2, 9, "greater than the one before (0)"),
        ("set: b\nsteps: [{weight: 0.001}]", 2, 18, "two decimals"),
        ("set: b\nsteps: [{weight: 1, hold: 10}]", 2, 27, "a time with its unit"),
        ("set: b\nsteps: [{weight: 1, wait: 1m}]", 2, 21, "unknown key 'wait'"),
        ("set: b\nsteps: [{weight: 1, gate: ftp://x}]", 2, 27, "http or https URL"),
        ("set: b\nsteps: [{weight: 1, gate: 'http://x:port/'}]", 2, 27, "http or https URL"),
        ("set: b\nsteps: [{weight: 1}]\nevents: 'http://a b/'", 3, 9, "http or https URL"),
        ("set: b\nsteps: [{weight: 1}]\nabort_when: {error_rate_over_baseline: 0%}", 3, 40, "never be shown"),
        ("set: b\nsteps: [{weight: 1}]\nabort_when: {p95_over_baseline: 2}", 3, 33, "2% (or off)"),
        ("set: b\nsteps: [{weight: 1}]\nabort_when: {confidence: 10%}", 3, 26, "between 50% and 99.99%"),
        ("set: b\nsteps: [{weight: 1}]\nabort_when: {min_requests: 0}", 3, 28, "whole number from 1"),
        ("set: b\nsteps: [{weight: 1}]\non_no_data: go", 3, 13, "one of pause, abort"),
        ("set: b\nsteps: [{weight: 1}]\non_inconclusive: go", 3, 18, "one of pause, abort"),
        ("set: b\nsteps: [{weight: 1}]\nmax_requests: 0", 3, 15, "whole number from 1"),
        ("set: b\nsteps: [{weight: 1}]\njudge_by: [user]", 3, 12, "one of image, account"),
        ("set: b\nsteps: [{weight: 1}]\nshared_addresses: [10.0.0.1/8]", 3, 20, "write 10.0.0.0/8"),
        ("set: b\nsteps: [{weight: 1}]\nshared_addresses: 10.0.0.1", 3, 19, "must be a list"),
        (
            "set: b\nsteps: [{weight: 1}]\ndry_run: [speed]",
            3,
            11,
            "one of errors, tasks, async, latency, room",
        ),
        ("set: b\nsteps: [{weight: 1}]\ndry_run: maybe", 3, 10, "true or false"),
        ("set: b\nsteps: [{weight: 1}]\nset: b", 3, 1, "appears twice"),
        ("[]", 1, 1, "must be a mapping"),
    ],
)
def test_each_mistake_is_placed_and_explained(text: str, line: int, column: int, says: str) -> None:
    plan, mistakes = read(text)
    assert plan is None
    found = [mistake for mistake in mistakes if says in mistake.message]
    assert found, mistakes
    assert (found[0].line, found[0].column) == (line, column)


def test_one_set_alone_cannot_be_compared() -> None:
    plan, mistakes = read("{set: a, steps: [{weight: 5}]}", {"a": SETS["a"]})
    assert plan is None
    assert "needs a second set" in mistakes[0].message


def test_a_thousand_steps_are_too_many() -> None:
    plan, mistakes = read(f"{{set: b, steps: [{', '.join(['{pause: true}'] * 1000)}]}}")
    assert plan is None
    assert "100 steps at most" in mistakes[0].message


def test_an_equal_plan_has_an_equal_digest() -> None:
    first, _ = read(FULL)
    again, _ = read(FULL)
    other, _ = read(FULL.replace("max_wait: 20m", "max_wait: 21m"))
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.digest == again.digest != other.digest
