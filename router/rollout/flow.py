"""Tells whether traffic still flows. Pure. Early requests must not carry a step over its end if they have dried up
since: no traffic is not health."""

from __future__ import annotations

from typing import Final

from router.rollout.record import Mark, Progress

MIN_WINDOW_S: Final = 30.0
MAX_WINDOW_S: Final = 600.0
_MARKS: Final = 8
_ENOUGH: Final = 0.1
"""Minimum share of its average in this stint that a cohort must keep in the last window."""


def window_s(progress: Progress) -> float:
    """Return the length of "lately" at this step, in seconds: a quarter of its hold, within bounds."""
    plan = progress.plan
    hold_s = plan.steps[progress.step].hold_s if plan is not None else 0.0
    return min(MAX_WINDOW_S, max(MIN_WINDOW_S, hold_s / 4))


def marked(progress: Progress) -> tuple[Mark, ...]:
    """Return the marks, with one for this moment added if the last is old enough; some ten at most."""
    marks, analysis = progress.marks, progress.analysis
    if analysis is None:
        return marks
    window = window_s(progress)
    if marks and progress.clock_s - marks[-1].clock_s < window / _MARKS:
        return marks
    # The first one left is just older than the window.
    fresh = [mark for mark in marks if progress.clock_s - mark.clock_s <= window * (1 + 2 / _MARKS)]
    return (*fresh, Mark(progress.clock_s, analysis.canary_requests, analysis.control_requests))


def flowing(progress: Progress) -> bool:
    """Return True if both cohorts had a tenth of their average rate in this stint lately, or more.

    Without control, only the canary counts.
    """
    analysis = progress.analysis
    if analysis is None:
        return False
    window = window_s(progress)
    since = Mark(0.0, 0, 0)
    for mark in progress.marks:
        if progress.clock_s - mark.clock_s >= window:
            since = mark
    span = progress.clock_s - since.clock_s
    cohorts = [(analysis.canary_requests, since.canary)]
    if not progress.without_control:
        cohorts.append((analysis.control_requests, since.control))
    for total, then in cohorts:
        usual = total * span / progress.clock_s if progress.clock_s else 0.0
        if total - then < max(1.0, _ENOUGH * usual):
            return False
    return True
