"""What the router tells of itself: `GET /status`."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from router.stats import Window
from router.table import SetEntry

if TYPE_CHECKING:
    from router.assembly import Router


def status_of(router: Router) -> dict[str, Any]:
    """Weights in percent, health in words, counts since the start; rates and quantiles over the last half minute."""
    plane = router.plane
    table = plane.table
    now = plane.loop.time()
    effective = plane.chooser.percentages(now)
    return {
        "router": router.settings.name,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "file": str(router.file.path.absolute()),
        "version": table.version,
        "change": {"by": table.changed_by, "why": table.changed_why},
        "digest": table.digest,
        "config_error": router.file.error,
        "reloads": router.file.reloads,
        "rules": [rule.name for rule in table.rules],
        "sets": {
            name: _set(router, entry, effective.get(name, 0.0), now) for name, entry in table.sets.items()
        },
        "requests": plane.requests,
        "active": plane.active,
        "connections": len(plane.clients),
        "cancelled": plane.cancelled,
        "retries_over_budget": plane.retries_over_budget,
        "problems": dict(plane.problems.counts),
        "draining": plane.draining,
    }


def _set(router: Router, entry: SetEntry, effective: float, now: float) -> dict[str, Any]:
    plane = router.plane
    name = entry.name
    health = plane.board.of(name)
    stats = plane.stats[name]
    pool = plane.pools[name]
    # A rollout's weights lie over the file's in the plane's table.
    configured = router.file.loaded.table.default if router.file.loaded is not None else plane.table.default
    return {
        "url": entry.url,
        "state": entry.state.value,
        "weight": configured.shares.get(name, 0) / 100,
        "effective_weight": round(effective, 2),
        "health": plane.board.word(name, now),
        "ejected_for_s": max(0.0, round(health.ejected_until - now, 1)),
        "inflight": pool.inflight,
        "max_inflight": entry.max_inflight,
        "idle_connections": pool.idle,
        **figures(plane.recent.window(name, now, stats)),
        "answers": stats.answers,
        "statuses": {str(status): count for status, count in sorted(stats.statuses.items())},
        "failures": dict(stats.failures),
        "retries": stats.retries,
        "back_pressure": stats.back_pressure,
        "truncated": stats.truncated,
        "ejections": stats.ejections,
    }


def figures(window: Window) -> dict[str, Any]:
    """Rates and quantiles; None where there was no request to tell them by."""
    return {
        "window_s": round(window.span_s, 1),
        "requests_per_s": round(window.requests_per_s, 2),
        "error_rate": _rounded(window.error_rate, 5),
        "p50_ms": _rounded(window.quantile_s(0.5), 5, 1000),
        "p99_ms": _rounded(window.quantile_s(0.99), 5, 1000),
    }


def _rounded(value: float | None, digits: int, times: float = 1.0) -> float | None:
    """To so many significant digits."""
    if value is None or value == 0.0:
        return value
    value *= times
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))
