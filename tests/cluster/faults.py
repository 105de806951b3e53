"""Faults of a cluster as data, and histories of them from a seed. Pure; `crash.py` makes them happen.

A fault begins, lasts, and is healed. Two faults never have the same target at the same time, so that each is healed by
its own end.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

SET, ROUTER, REGISTRAR, ENGINE = "set", "router", "registrar", "engine"


class Kind(StrEnum):
    """Kinds of faults: of a wire, of a program, of a whole node, of its agent, by an operator of Nomad."""

    CUT = "cut"
    CUT_OUT = "cut outwards"
    CUT_IN = "cut inwards"
    BAD_WIRE = "bad wire"
    FREEZE_PROGRAM = "freeze program"
    FREEZE_NODE = "freeze node"
    KILL = "kill -9"
    RESTART = "restart"
    KILL_SLOT = "kill -9 a slot"
    KILL_AGENT = "kill -9 the agent"
    FREEZE_AGENT = "freeze the agent"
    DRAIN = "drain"
    STOP_JOB = "stop a job"
    PURGE_JOB = "purge a job"
    STOP_ALLOCATION = "stop an allocation"
    RESTART_ALLOCATION = "restart an allocation"


AT_ONCE = (
    *(Kind.KILL_SLOT, Kind.STOP_JOB, Kind.PURGE_JOB),
    *(Kind.STOP_ALLOCATION, Kind.RESTART_ALLOCATION),
)
"""Kinds that are over when they have begun."""
OF_NODES = (
    *(Kind.CUT, Kind.CUT_OUT, Kind.CUT_IN, Kind.BAD_WIRE),
    *(Kind.FREEZE_PROGRAM, Kind.FREEZE_NODE, Kind.KILL, Kind.RESTART, Kind.KILL_SLOT),
)
OF_CLIENTS = (*OF_NODES, Kind.KILL_AGENT, Kind.FREEZE_AGENT, Kind.DRAIN, *AT_ONCE)
"""The kinds of fault that hit a node whose slots Nomad runs."""
OF_SERVERS = (Kind.CUT, Kind.KILL_AGENT, Kind.FREEZE_AGENT)
OF_THE_REGISTRAR = (Kind.FREEZE_PROGRAM, Kind.KILL, Kind.RESTART)
OF_THE_ENGINE = (Kind.KILL,)
OF_THE_SET = (Kind.CUT, Kind.BAD_WIRE, Kind.FREEZE_PROGRAM, Kind.KILL, Kind.RESTART)
OF_THE_ROUTER = (Kind.FREEZE_PROGRAM, Kind.KILL, Kind.RESTART)


@dataclass(frozen=True)
class Fault:
    """A fault of `target` (a node's name, `SET`, `ROUTER` and so on), `at_s` after the history's begin; it is healed
    `lasts_s` later.

    `dice` seeds what else has to be chosen, such as the slot that is killed.
    """

    at_s: float
    kind: Kind
    target: str
    lasts_s: float
    dice: int

    def __str__(self) -> str:
        return f"{self.at_s:6.1f} s: {self.kind} of {self.target} for {self.lasts_s:.1f} s"


@dataclass(frozen=True)
class Group:
    """Targets that are hit by the same kinds of faults; `weight` is their share of all faults.

    `lasts`: how long a fault may last, in leases. From an instant on, so that some are over before anybody has noticed.
    """

    targets: tuple[str, ...]
    weight: float
    kinds: tuple[Kind, ...]
    lasts: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0, 3.0)


def of_nodes(nodes: list[str]) -> list[Group]:
    """Return the targets of a cluster whose nodes start their own slots.

    A fault of the set reaches all nodes, and a fault of the router reaches all clients.
    """
    return [
        Group((SET,), 0.25, OF_THE_SET),
        Group((ROUTER,), 0.05, OF_THE_ROUTER),
        Group(tuple(nodes), 0.7, OF_NODES),
    ]


def of_nomad(clients: list[str], servers: list[str]) -> list[Group]:
    """Return the targets of a cluster whose slots are started by Nomad.

    Some faults last 20 s: Nomad takes half a minute to miss a client, with a lease of 2 s.
    """
    return [
        Group((SET,), 0.15, OF_THE_SET),
        Group((ROUTER,), 0.03, OF_THE_ROUTER),
        Group((REGISTRAR,), 0.07, OF_THE_REGISTRAR, (0.1, 1.0, 5.0)),
        Group(tuple(servers), 0.1, OF_SERVERS, (0.5, 2.0, 10.0)),
        Group(tuple(clients), 0.65, OF_CLIENTS, (0.1, 0.5, 1.0, 2.0, 3.0, 20.0)),
    ]


def of_engine() -> Group:
    """The engine, where the rig may restart it: all slots of all nodes end."""
    return Group((ENGINE,), 0.04, OF_THE_ENGINE, (0.1,))


def history(seed: int, groups: list[Group], length_s: float, lease_s: float) -> list[Fault]:
    """The faults of `length_s` seconds, in order; the same for the same arguments."""
    return list(_history(random.Random(seed), groups, length_s, lease_s))


def _history(dice: random.Random, groups: list[Group], length_s: float, lease_s: float) -> Iterator[Fault]:
    free_at = {target: 0.0 for group in groups for target in group.targets}
    weights = [group.weight for group in groups]
    now = 0.0
    while True:
        now += dice.expovariate(1 / lease_s) + 0.2
        (group,) = dice.choices(groups, weights)
        target, kind = dice.choice(group.targets), dice.choice(group.kinds)
        lasts_s = 0.1 if kind in AT_ONCE else dice.choice(group.lasts) * lease_s
        if now > length_s:
            return
        if free_at[target] > now or now + lasts_s > length_s:
            continue
        free_at[target] = now + lasts_s + lease_s
        yield Fault(round(now, 2), kind, target, round(lasts_s, 2), dice.randrange(1 << 30))
