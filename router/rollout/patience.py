"""How long a request may go without an answer before it counts as an error. Pure."""

from __future__ import annotations

from math import inf
from typing import Final

from router.counting.tally import Tally

PATIENCE_TIMES: Final = 2.0
LEAST_PATIENCE_US: Final = 2e6
"""A request never counts as an error for its age sooner than this, however quick control is."""


def patience_us(control: Tally) -> float:
    """The time after which a request without an answer counts as an error: twice that in which control answers 99 %."""
    slow_us = control.answered_us(0.99)
    return inf if slow_us is None else max(LEAST_PATIENCE_US, PATIENCE_TIMES * slow_us)


def errors(tally: Tally, after_us: float) -> tuple[int, int]:
    """Errors, with requests that wait for longer than this, and the requests that say whether the set works."""
    late = tally.overdue(after_us)
    return tally.error + late, tally.judged + late


def failed_tasks(tally: Tally) -> tuple[int, int]:
    """Failed tasks, and all answered ones."""
    return tally.task_failed, tally.answered
