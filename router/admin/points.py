"""The points of the curves as JSON."""

from __future__ import annotations

import time
from typing import Any

from router.counting.curves import STEP_S, Curves, Point, Sample


def points_since(curves: Curves, now: float, mine: str, boot: str, after: int) -> dict[str, Any]:
    """Return the points that a page lacks if it has those up to `after` of the process `boot`; all points if this
    process is another one (`mine`). `now` by the clock of the points.

    {"boot", "serial", "now" (seconds since the epoch), "step_s", "points": [{"serial", "age_s", "span_s", "sets":
    {NAME: [requests, errors, p50_ms, p95_ms, p99_ms]}, "cohorts": {"canary": […], "control": […]}}]}
    """
    return {
        "boot": mine,
        "serial": curves.serial,
        "now": round(time.time(), 3),
        "step_s": STEP_S,
        "points": [_point(point, now) for point in curves.since(after if boot == mine else 0)],
    }


def _point(point: Point, now: float) -> dict[str, Any]:
    return {
        "serial": point.serial,
        "age_s": round(now - point.ended, 2),
        "span_s": round(point.span_s, 2),
        "sets": {name: _sample(sample) for name, sample in point.sets.items()},
        "cohorts": {name: _sample(sample) for name, sample in point.cohorts.items()},
    }


def _sample(sample: Sample) -> list[float | None]:
    return [sample.requests, sample.errors, sample.p50_ms, sample.p95_ms, sample.p99_ms]
