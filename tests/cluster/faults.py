"""Faults of a cluster as data, and histories of them from a seed. Pure; `crash.py` makes them happen.

A fault begins, lasts, and is healed. Two faults never have the same target at the same time, so that each is healed by
its own end.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

SET, ROUTER = "set", "router"


class Kind(StrEnum):
    """Kinds of faults: of a wire, of a program, of a whole node."""

    CUT = "cut"
    CUT_OUT = "cut outwards"
    CUT_IN = "cut inwards"
    BAD_WIRE = "bad wire"
    FREEZE_PROGRAM = "freeze program"
    FREEZE_NODE = "freeze node"
    KILL = "kill -9"
    RESTART = "restart"
    KILL_SLOT = "kill -9 a slot"


OF_NODES = (*Kind,)
OF_THE_SET = (Kind.CUT, Kind.BAD_WIRE, Kind.FREEZE_PROGRAM, Kind.KILL, Kind.RESTART)
OF_THE_ROUTER = (Kind.FREEZE_PROGRAM, Kind.KILL, Kind.RESTART)
SHARE_OF_THE_SET = 0.25
"""Share of faults that hit the set: each of them hits all nodes."""
SHARE_OF_THE_ROUTER = 0.05
"""Share of faults that hit the router: each of them hits all clients."""


@dataclass(frozen=True)
class Fault:
    """A fault of `target` (a node's name, `SET` or `ROUTER`), `at_s` after the history's begin; it is healed `lasts_s`
    later.

    `dice` seeds what else has to be chosen, such as the slot that is killed.
    """

    at_s: float
    kind: Kind
    target: str
    lasts_s: float
    dice: int

    def __str__(self) -> str:
        return f"{self.at_s:6.1f} s: {self.kind} of {self.target} for {self.lasts_s:.1f} s"


def history(seed: int, nodes: list[str], length_s: float, lease_s: float) -> list[Fault]:
    """The faults of `length_s` seconds, in order; the same for the same arguments.

    They last from an instant to three leases, so that some are over before anybody has noticed.
    """
    return list(_history(random.Random(seed), nodes, length_s, lease_s))


def _history(dice: random.Random, nodes: list[str], length_s: float, lease_s: float) -> Iterator[Fault]:
    free_at = dict.fromkeys((SET, ROUTER, *nodes), 0.0)
    now = 0.0
    while True:
        now += dice.expovariate(1 / lease_s) + 0.2
        target = _target(dice.random()) or dice.choice(nodes)
        kind = dice.choice({SET: OF_THE_SET, ROUTER: OF_THE_ROUTER}.get(target, OF_NODES))
        lasts_s = dice.choice([0.1, 0.5, 1.0, 2.0, 3.0]) * lease_s
        if now + lasts_s > length_s:
            return
        if free_at[target] > now:
            continue
        free_at[target] = now + lasts_s + lease_s
        yield Fault(round(now, 2), kind, target, round(lasts_s, 2), dice.randrange(1 << 30))


def _target(share: float) -> str:
    """The target of a number from 0 to 1; empty: a node."""
    if share < SHARE_OF_THE_SET:
        return SET
    return ROUTER if share < SHARE_OF_THE_SET + SHARE_OF_THE_ROUTER else ""
