"""A scenario: sets, nodes, images, accounts, failures and expectations, read strictly from a YAML file.

The name of a time ends with its unit; times count from the start of the run. ops/simulator/README.md describes each
field with an example.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from ops.simulator.arrivals import Arrivals
from ops.simulator.durations import Spread, mistake_of
from scheduler.policy.limits import Limits
from scheduler.task import Isolation, Kind, Priority
from sets.yaml_file import ConfigError, parse_as, text_of

TRACE: Final = "trace"
"""The name under which the tasks of a trace are counted."""
SCENARIOS: Final = Path(__file__).with_name("scenarios")
"""Folder of the scenarios that ship."""
REFERENCE: Final = "ops/simulator/README.md"
CORES_MOST: Final = 1_000_000
"""Most cores of a scenario: a typing mistake must not use up this machine's memory."""

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(gt=0, le=1e8)]
Moment = Annotated[float, Meta(ge=0, le=1e8)]
Share = Annotated[float, Meta(gt=0, le=1)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Nodes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes of each set that are alike."""

    name: Name
    cores: Annotated[float, Meta(ge=0.01, le=65_536)]
    memory_mib: Count
    max_slots: Count
    count: Count = 1
    features: tuple[str, ...] = ()


class Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An image: how long its tasks run and its slots take to start, and what each slot needs."""

    name: Name
    duration_s: float | Spread
    start_s: float | Spread = 0.3
    cpu: Annotated[float, Meta(ge=0.01, le=1024)] = 1.0
    memory_mib: Count = 512
    isolation: Isolation = Isolation.SHARED
    features: tuple[str, ...] = ()


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An account, or `count` accounts that are alike and share these arrivals.

    `images`: the share of its tasks that each image has; the shares need not add up to 1.
    """

    name: Name
    arrivals: Arrivals
    images: dict[str, Annotated[float, Meta(gt=0)]]
    weight: Annotated[int, Meta(ge=1, le=1000)] = 1
    count: Count = 1
    kind: Kind = Kind.SYNC
    priority: Priority = Priority.NORMAL
    queue_timeout_s: Seconds | None = None
    timeout_s: Seconds = 3600.0

    @property
    def names(self) -> list[str]:
        """The names of its accounts."""
        return [self.name] if self.count == 1 else [f"{self.name}-{n + 1}" for n in range(self.count)]


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A `share` of the nodes of this name dies, and returns empty after `for_s`.

    `set_name`: only in that set. Without `nodes`, that set dies as a whole. `notice_s`: how long a set takes to notice
    that a node is dead: the lease of an executor.
    """

    at_s: Moment
    for_s: Seconds
    nodes: str | None = None
    share: Share = 1.0
    set_name: Annotated[str | None, msgspec.Meta()] = msgspec.field(default=None, name="set")
    notice_s: Annotated[float, Meta(ge=0, le=3600)] = 3.0


class Trace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A trace in the format of the Azure Functions data set of 2019: its owners are the accounts.

    The files are relative to the scenario's folder. `of_all`: the share of the calls that is played.
    """

    invocations: str
    durations: str
    memory: str | None = None
    start_s: float | Spread = 0.3
    of_all: Share = 1.0


class RouterPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the router chooses. `max_inflight`: of each set. `by`: the sticky key; `request`: each task has its own."""

    max_inflight: Count | None = None
    by: Literal["request", "account", "image"] = "request"


class SetLimits(Limits, frozen=True, forbid_unknown_fields=True):
    """The limits of each set; what nodes and accounts say is not repeated here."""


class Expectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A figure of the report that must be within bounds, of one `account` or else of all.

    `from_s`, `until_s`: over the intervals of the run that lie between them.
    """

    figure: str
    account: str | None = None
    at_most: float | None = None
    at_least: float | None = None
    from_s: Moment = 0.0
    until_s: Seconds = 1e8


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The course of a run. `intervals`: how many parts of it the report shows."""

    about: str
    length_s: Seconds
    nodes: tuple[Nodes, ...]
    images: tuple[Image, ...] = ()
    accounts: tuple[Account, ...] = ()
    sets: Annotated[int, Meta(ge=1, le=1000)] = 1
    seed: int = 1
    intervals: Annotated[int, Meta(ge=1, le=1000)] = 96
    limits: SetLimits = SetLimits()
    router: RouterPlan | None = None
    trace: Trace | None = None
    failures: tuple[Failure, ...] = ()
    expect: tuple[Expectation, ...] = ()
    folder: Annotated[str, Meta(max_length=0)] = ""

    @property
    def set_names(self) -> list[str]:
        return [f"s{number + 1}" for number in range(self.sets)]

    @property
    def cores(self) -> float:
        return self.sets * sum(nodes.count * nodes.cores for nodes in self.nodes)


def shipped() -> dict[str, Path]:
    """The scenarios that ship, by name."""
    return {path.stem: path for path in sorted(SCENARIOS.glob("*.yaml"))}


def read(path: Path) -> Scenario:
    """Read a scenario's file. Raises `ConfigError`, which names the field."""
    scenario = parse_as(Scenario, text_of(path), str(path), REFERENCE)
    for mistake in mistakes(scenario):
        raise ConfigError(f"{path}: {mistake}; see {REFERENCE}")
    return msgspec.structs.replace(scenario, folder=str(path.parent))


def mistakes(scenario: Scenario) -> Iterable[str]:
    """Yield each mistake that the types do not show, with the field's name."""
    if not scenario.nodes:
        yield "nodes: name at least one kind of node"
    if not scenario.accounts and scenario.trace is None:
        yield "accounts: name at least one account, or give a `trace`"
    if scenario.cores > CORES_MOST:
        yield f"nodes: cores: at most {CORES_MOST:,} in all; these have {scenario.cores:,.0f}"
    for field, names in (
        ("nodes", [each.name for each in scenario.nodes]),
        ("images", [each.name for each in scenario.images]),
        ("accounts", [name for each in scenario.accounts for name in each.names]),
    ):
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            yield f"{field}: the name {twice[0]!r} appears twice"
    for image in scenario.images:
        for field, spread in (("duration_s", image.duration_s), ("start_s", image.start_s)):
            if mistake := mistake_of(spread):
                yield f"images: {image.name}: {field}: {mistake}"
        if not any(set(image.features) <= set(nodes.features) for nodes in scenario.nodes):
            yield f"images: {image.name}: features: no node has all of {', '.join(image.features)}"
    yield from _mistakes_of_accounts(scenario)
    kinds = [nodes.name for nodes in scenario.nodes]
    for number, failure in enumerate(scenario.failures):
        if failure.nodes is None:
            if failure.set_name is None:
                yield f"failures[{number}]: name the `nodes` that die, or the `set` that dies as a whole"
            elif scenario.sets == 1:
                yield f"failures[{number}].set: a set dies as a whole only beside others: `sets` above 1"
            if failure.share != 1.0:
                yield f"failures[{number}].share: belongs to `nodes`; a set dies as a whole"
        elif failure.nodes not in kinds:
            yield f"failures[{number}].nodes: {failure.nodes!r} is none of {', '.join(kinds)}"
        if failure.set_name is not None and failure.set_name not in scenario.set_names:
            yield f"failures[{number}].set: {failure.set_name!r} is none of {', '.join(scenario.set_names)}"
    usual = Limits()
    for name in ("cpu_percent", "memory_mib", "max_slots", "account_weights", "account_slots"):
        if getattr(scenario.limits, name) != getattr(usual, name):
            yield f"limits.{name}: belongs to `nodes` or to `accounts` in a scenario"


def _mistakes_of_accounts(scenario: Scenario) -> Iterable[str]:
    images = [image.name for image in scenario.images]
    for account in scenario.accounts:
        if account.name == TRACE and scenario.trace is not None:
            yield f"accounts: {TRACE}: is the name under which the tasks of the `trace` are counted; take another"
        if not account.images:
            yield f"accounts: {account.name}: images: name at least one image"
        for name in account.images:
            if name not in images:
                yield f"accounts: {account.name}: images: {name!r} is none of {', '.join(images) or '(no images)'}"
        if mistake := account.arrivals.mistake:
            yield f"accounts: {account.name}: arrivals: {mistake}"
    known = [account.name for account in scenario.accounts] + [TRACE] * (scenario.trace is not None)
    for number, wanted in enumerate(scenario.expect):
        if wanted.account is not None and wanted.account not in known:
            yield f"expect[{number}].account: {wanted.account!r} is none of {', '.join(known)}"
        if wanted.at_most is None and wanted.at_least is None:
            yield f"expect[{number}]: give at_most or at_least"
        if wanted.from_s >= min(wanted.until_s, scenario.length_s):
            yield f"expect[{number}].from_s: is not before until_s, or not before the end of the run"


def shortened(scenario: Scenario, length_s: float) -> Scenario:
    """Return the scenario with its course pressed into `length_s`: rates and durations stay, moments move along."""
    replace = msgspec.structs.replace
    part = length_s / scenario.length_s
    return replace(
        scenario,
        length_s=length_s,
        accounts=tuple(
            replace(account, arrivals=account.arrivals.pressed(part)) for account in scenario.accounts
        ),
        failures=tuple(
            replace(each, at_s=each.at_s * part, for_s=each.for_s * part) for each in scenario.failures
        ),
        expect=tuple(
            replace(each, from_s=each.from_s * part, until_s=each.until_s * part) for each in scenario.expect
        ),
    )
