"""The `rollout` section of the operators' file → a plan, or mistakes with their places."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import yaml

from router.config.rollout_settings import ABORT_WHEN, ROLLOUT, STEP
from router.config.yaml_nodes import Field, Node, NodeReader, nearest
from router.routing.plan import AbortWhen, CheckName, PartName, Plan, Step, Undecided

if TYPE_CHECKING:
    from router.routing.table import SetEntry

MAX_STEPS: Final = 100
_NO_DRY_RUN: Final[tuple[bool, tuple[CheckName, ...]]] = (False, ())
_NO_NETWORKS: Final[tuple[str, ...]] = ()
_BY_IMAGE: Final[tuple[PartName, ...]] = (PartName.IMAGE,)
_STEPS: Final = "[{weight: 1, hold: 10m}, {pause: true}, {weight: 50, hold: 1h}]"


def read_rollout(reader: NodeReader, node: Node, sets: Mapping[str, SetEntry]) -> Plan | None:
    """The plan that `node`, the value of `rollout`, holds; None when it noted mistakes in `reader` instead."""
    before = len(reader.mistakes)
    fields = reader.mapping(node, "`rollout`", ROLLOUT.names, required=("set", "steps"))
    name = reader.optional(fields, "set", lambda n: reader.text(n, "the rollout's set", "set: b"), "")
    if name and name not in sets:
        reader.wrong(
            fields["set"].value, f"the rollout's set {name!r} is not in `sets`; {nearest(name, sets)}"
        )
    elif name and len(sets) < 2:
        reader.wrong(fields["set"].value, f"a rollout of {name!r} needs a second set to compare it with")
    gate = reader.optional(fields, "gate", lambda n: _url(reader, n, "gate"), None)
    steps = _steps(reader, fields["steps"].value, gate) if "steps" in fields else ()
    abort_when = reader.optional(fields, "abort_when", lambda n: _abort_when(reader, n), AbortWhen())
    on_no_data = reader.optional(
        fields, "on_no_data", lambda n: reader.one_of(n, "on_no_data", Undecided), str(Undecided.PAUSE)
    )
    on_inconclusive = reader.optional(
        fields,
        "on_inconclusive",
        lambda n: reader.one_of(n, "on_inconclusive", Undecided),
        str(Undecided.PAUSE),
    )
    max_requests = reader.setting(fields, ROLLOUT["max_requests"], None)
    dry_run, report_only = reader.optional(fields, "dry_run", lambda n: _dry_run(reader, n), _NO_DRY_RUN)
    max_wait_s = reader.setting(fields, ROLLOUT["max_wait"], None)
    window_s = reader.setting(fields, ROLLOUT["return_window"], 0.0)
    judge_by = reader.optional(fields, "judge_by", lambda n: _judge_by(reader, n), _BY_IMAGE)
    shared = reader.optional(fields, "shared_addresses", lambda n: _networks(reader, n), _NO_NETWORKS)
    events = reader.optional(fields, "events", lambda n: _url(reader, n, "events"), None)
    if len(reader.mistakes) > before:
        return None
    return Plan(
        set=name,
        steps=steps,
        abort_when=abort_when,
        on_no_data=Undecided(on_no_data),
        on_inconclusive=Undecided(on_inconclusive),
        max_requests=max_requests,
        dry_run=dry_run,
        report_only=report_only,
        max_wait_s=max_wait_s,
        return_window_s=window_s,
        judge_by=judge_by,
        shared_addresses=shared,
        events=events,
    )


def _steps(reader: NodeReader, node: Node, gate: str | None) -> tuple[Step, ...]:
    steps: list[Step] = []
    items = reader.items(node, "`steps`", _STEPS)
    if isinstance(node, yaml.SequenceNode) and not items:
        reader.wrong(node, f"`steps` is empty; write {_STEPS}")
    if len(items) > MAX_STEPS:
        reader.wrong(node, f"`steps` may hold {MAX_STEPS} steps at most, not {len(items)}")
        return ()
    last = 0
    for item in items:
        step = _step(reader, item, gate)
        if step is None:
            continue
        steps.append(step)
        if step.weight is not None:
            if step.weight <= last:
                reader.wrong(
                    item,
                    f"a step's weight must be greater than the one before ({last / 100:g}), "
                    f"not {step.weight / 100:g}; going down is what `abort` is for",
                )
            last = max(last, step.weight)
    if steps and all(step.weight is None for step in steps):
        reader.wrong(node, f"`steps` holds no weight; write {_STEPS}")
    return tuple(steps)


def _step(reader: NodeReader, node: Node, gate: str | None) -> Step | None:
    fields = reader.mapping(node, "a step", STEP.names)
    if "pause" in fields:
        if reader.truth(fields["pause"].value, "pause") is False or len(fields) > 1:
            reader.wrong(node, "a pause is a step of its own; write {pause: true}")
        return Step(None)
    if "weight" not in fields:
        if isinstance(node, yaml.MappingNode):
            reader.wrong(node, f"a step needs a weight or a pause; write {_STEPS}")
        return None
    weight = reader.hundredths(fields["weight"].value, "the step's weight")
    hold_s = reader.setting(fields, STEP["hold"], 0.0)
    own = reader.optional(fields, "gate", lambda n: _url(reader, n, "gate"), gate)
    return None if weight is None else Step(weight, hold_s, own)


def _abort_when(reader: NodeReader, node: Node) -> AbortWhen:
    usual = AbortWhen()
    rates = (
        "error_rate_over_baseline",
        "task_failures_over_baseline",
        "p95_over_baseline",
        "async_failures_over_baseline",
    )
    fields = reader.mapping(node, "`abort_when`", ABORT_WHEN.names)
    least = reader.setting(fields, ABORT_WHEN["min_requests"], usual.min_requests)
    confidence = reader.setting(fields, ABORT_WHEN["confidence"], usual.confidence)
    if not 0.5 <= confidence <= 0.9999:
        reader.wrong(fields["confidence"].value, "confidence must lie between 50% and 99.99%; write 95%")
    errors, tasks, tail, later = (
        _limit(reader, fields, name, usual_limit)
        for name, usual_limit in zip(
            rates,
            (
                usual.error_rate_over_baseline,
                usual.task_failures_over_baseline,
                usual.p95_over_baseline,
                usual.async_failures_over_baseline,
            ),
            strict=True,
        )
    )
    return AbortWhen(least, errors, tasks, tail, confidence, later)


def _limit(reader: NodeReader, fields: dict[str, Field], name: str, usual: float | None) -> float | None:
    if name not in fields:
        return usual
    node = fields[name].value
    if isinstance(node, yaml.ScalarNode) and node.value == "off":
        return None
    value = reader.percent(node, name, f"{name}: 2% (or off)")
    if value == 0.0:
        reader.wrong(node, f"{name} of 0% could never be shown to hold; write 0.5% or more, or off")
    return value


def _dry_run(reader: NodeReader, node: Node) -> tuple[bool, tuple[CheckName, ...]] | None:
    """true, false, or the checks that only report."""
    if isinstance(node, yaml.SequenceNode):
        names = [reader.one_of(item, "a check in `dry_run`", CheckName) for item in node.value]
        return False, tuple(CheckName(name) for name in names if name is not None)
    whole = reader.truth(node, "dry_run (true, false, or a list of checks that only report)")
    return None if whole is None else (whole, ())


def _judge_by(reader: NodeReader, node: Node) -> tuple[PartName, ...]:
    names = [
        reader.one_of(item, "a part in `judge_by`", PartName)
        for item in reader.items(node, "`judge_by`", "judge_by: [image, account]")
    ]
    return tuple(PartName(name) for name in dict.fromkeys(names) if name is not None)


def _networks(reader: NodeReader, node: Node) -> tuple[str, ...]:
    found = []
    for item in reader.items(node, "`shared_addresses`", 'shared_addresses: ["10.0.0.0/8"]'):
        text = reader.text(item, "a shared address", '"10.0.0.7" or "10.0.0.0/8"')
        try:
            found.append(str(ip_network(text or "")))
        except ValueError as error:
            if text is not None:
                reader.wrong(
                    item, f"a shared address must be an address or a network: {error}; write 10.0.0.0/8"
                )
    return tuple(found)


def _url(reader: NodeReader, node: Node, what: str) -> str | None:
    text = reader.text(node, what, f'{what}: "https://release.example/ask"')
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        good = False
    if not good or any(c <= " " or c > "~" for c in text):
        reader.wrong(
            node, f'{what} must be an http or https URL; write {what}: "https://release.example/ask"'
        )
        return None
    return text
