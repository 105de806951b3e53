"""The rounds of a crash run as data, from a seed. Pure; `machine.py` plays them.

A chapter has one round for each step, and one for each blow from outside. Its books are compared at its end.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from tests.crash.steps import STEPS

MOST_TIMES = 4
"""Steps are taken so many times at most before the set dies: each happens so often within a second or two of load."""


class Blow(StrEnum):
    """What is killed."""

    STEP = "the set at a step"
    SET = "the set"
    GUEST = "a guest"
    CONTAINER = "a container"
    ENGINE = "the engine"


ONCE = frozenset({"the store opens", "slots of an earlier run are removed"})
"""Steps that a set takes once, at its start."""


@dataclass(frozen=True)
class Round:
    """`after_s`: the load's time before a blow from outside. `step`, `before`, `count`: as in `Death`. `dice` seeds
    what else has to be chosen."""

    blow: Blow
    after_s: float = 0.0
    step: str = ""
    before: bool = False
    count: int = 1
    dice: int = 0

    def __str__(self) -> str:
        if self.blow is not Blow.STEP:
            return f"kill -9 of {self.blow} after {self.after_s:.2f} s"
        when = "before" if self.before else "after"
        return f"kill -9 of the set {when} this step: {self.step} (number {self.count})"


def chapter(seed: int, number: int) -> list[Round]:
    """The rounds of a chapter; the same for the same arguments. A set that lives on ends it, so that it is seen what
    such a set still holds."""
    dice = random.Random(f"{seed} {number}")
    rounds = [
        Round(
            Blow.STEP,
            step=step,
            before=dice.random() < 0.5,
            count=1 if step in ONCE else dice.randint(1, MOST_TIMES),
        )
        for step in STEPS
    ]
    rounds.append(Round(Blow.SET, after_s=dice.uniform(0.2, 2.0)))
    dice.shuffle(rounds)
    rest = [
        Round(blow, after_s=dice.uniform(0.2, 1.0), dice=dice.randrange(1 << 30))
        for blow in (Blow.GUEST, Blow.CONTAINER, Blow.ENGINE)
    ]
    dice.shuffle(rest)
    return rounds + rest
