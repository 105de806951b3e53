"""The history of looks at accepted tasks while sets are killed, and whether it is legal. Pure.

A look that began after another one had ended must not see an earlier moment of the task: it is known from its 202 on,
it ends once, and its idempotency key stays its own. A task may go from running back to queued, as its attempt may be
lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from tests.cluster.books import FINAL


@dataclass(frozen=True)
class Look:
    """One look at an accepted task that was answered. Times are seconds since the machine's start.

    `status` and `state`: of a GET of the task. `found`: the task's id in the answer; where it was submitted once more
    under its key, whichever id came.
    """

    task: str
    sent_at: float
    ended_at: float
    status: int
    state: str = ""
    found: str = ""


def faults_in(looks: Iterable[Look]) -> Iterable[str]:
    """Return what is illegal in the history, each in a line."""
    of: dict[str, list[Look]] = defaultdict(list)
    for look in looks:
        if look.status == 404:
            yield f"lost: {look.task} was accepted before {look.sent_at:.2f}, and unknown then"
        elif look.status < 300 and look.found != look.task:
            yield f"doubled: {look.found} was found in the place of {look.task}"
        elif look.state:
            of[look.task].append(look)
    for task, seen in of.items():
        seen.sort(key=lambda look: look.ended_at)
        ends = [look for look in seen if look.state in FINAL]
        for earlier, later in pairwise(ends):
            if earlier.state != later.state:
                yield f"doubled: {task} was {earlier.state} at {earlier.ended_at:.2f} and is {later.state}"
        for look in seen:
            if ends and look.state not in FINAL and ends[0].ended_at <= look.sent_at:
                yield f"went back: {task} had ended at {ends[0].ended_at:.2f} and is {look.state} at {look.sent_at:.2f}"
