"""The router's status: each worker's counts, and `GET /status`, which adds them up. Pure except for `snapshot`."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from router.choosing.room import Room
from router.counting.stats import FINE_BOUNDS_S, Window
from router.routing.table import SetEntry

if TYPE_CHECKING:
    from router.assembly import Router

_HEALTH_WORST_LAST: Final = ("up", "slow start", "ejected", "draining", "refused", "down")


class SetSnapshot(msgspec.Struct, frozen=True):
    """One set as one worker sees it. `durations`: the number of answers in the window for each place of
    `stats.FINE_BOUNDS_S`, without places that are 0."""

    url: str
    state: str
    weight: float
    effective_weight: float
    health: str
    ejected_for_s: float
    inflight: int
    """Requests that count against `max_inflight`: all but `reading`."""
    max_inflight: int | None
    idle_connections: int
    statuses: dict[int, int]
    failures: dict[str, int]
    retries: int
    back_pressure: int
    truncated: int
    ejections: int
    window_s: float
    answers: int
    attempts: int
    errors: int
    durations: dict[int, int]
    reading: int = 0
    """Reads, and waits for tasks, in flight."""
    ejected_because: str = ""
    """Reason of the ejection that is in force."""
    room: Room = Room()
    """The set's own report at its last health check."""

    @property
    def window(self) -> Window:
        durations = tuple(self.durations.get(index, 0) for index in range(len(FINE_BOUNDS_S) + 1))
        return Window(self.window_s, self.answers, self.attempts, self.errors, durations)


class Snapshot(msgspec.Struct, frozen=True):
    """One worker's state, as it may be sent to another."""

    pid: int
    router: str
    file: str
    version: int
    digest: str
    changed_by: str
    changed_why: str
    config_error: str | None
    reloads: int
    rules: list[str]
    sets: dict[str, SetSnapshot]
    requests: int
    active: int
    connections: int
    cancelled: int
    retries_over_budget: int
    problems: dict[str, int]
    draining: bool
    tls_ok: bool | None = None
    """True when the certificate file as it is now is in use; None: the router has no certificate."""
    connections_max: int = 0
    tls_expires_at: float | None = None
    """When the router's certificate ends, in seconds since 1970; None: it has none."""


def snapshot(router: Router) -> Snapshot:
    """This worker's."""
    plane = router.plane
    table = plane.traffic.table
    now = plane.loop.time()
    effective = plane.traffic.chooser.percentages(now)
    return Snapshot(
        pid=os.getpid(),
        router=router.settings.name,
        file=str(router.file.path.absolute()),
        version=table.version,
        digest=table.digest,
        changed_by=table.changed_by,
        changed_why=table.changed_why,
        config_error=router.file.error,
        reloads=router.file.reloads,
        rules=[rule.name for rule in table.rules],
        sets={name: _set(router, entry, effective.get(name, 0.0), now) for name, entry in table.sets.items()},
        requests=plane.requests,
        active=plane.active,
        connections=len(plane.clients),
        cancelled=plane.traffic.cancelled,
        retries_over_budget=plane.traffic.retries.refused,
        problems=dict(plane.traffic.problems.counts),
        draining=plane.draining,
        tls_ok=None if plane.certificate is None else plane.certificate.error is None,
        connections_max=plane.limits.connections,
        tls_expires_at=None if plane.certificate is None else plane.certificate.not_after,
    )


def _set(router: Router, entry: SetEntry, effective: float, now: float) -> SetSnapshot:
    plane = router.plane
    name = entry.name
    health = plane.traffic.board.of(name)
    stats = plane.traffic.stats[name]
    pool = plane.traffic.pools[name]
    # A rollout's weights lie over the file's in the plane's table.
    configured = (
        router.file.loaded.table.default if router.file.loaded is not None else plane.traffic.table.default
    )
    window = plane.traffic.recent.window(name, now, stats)
    return SetSnapshot(
        url=entry.url,
        state=entry.state.value,
        weight=configured.shares.get(name, 0) / 100,
        effective_weight=effective,
        health=plane.traffic.board.word(name, now),
        ejected_for_s=max(0.0, round(health.ejected_until - now, 1)),
        inflight=pool.inflight,
        reading=pool.reads,
        max_inflight=entry.max_inflight,
        idle_connections=pool.idle,
        statuses=dict(stats.statuses),
        failures=dict(stats.failures),
        retries=stats.retries,
        back_pressure=stats.back_pressure,
        truncated=stats.truncated,
        ejections=stats.ejections,
        window_s=window.span_s,
        answers=window.answers,
        attempts=window.attempts,
        errors=window.errors,
        durations={index: count for index, count in enumerate(window.durations) if count},
        ejected_because=health.because if health.ejected(now) else "",
        room=plane.traffic.rooms.get(name, Room()),
    )


def status_of(snapshots: Sequence[Snapshot], missing: Sequence[int] = ()) -> dict[str, Any]:
    """All workers of a router as one: weights in percent, counts since the start added up; rates and quantiles over the
    last half minute. `digest` is empty, and `version` the lowest, while not all are known to have the same file in
    force. `missing`: the indexes of workers that do not answer; nothing of them is in the sums."""
    first = min(snapshots, key=lambda each: each.version)
    digests = {each.digest for each in snapshots}
    errors = [each.config_error for each in snapshots if each.config_error]
    return {
        "router": first.router,
        "workers": len(snapshots),
        "missing": list(missing),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "file": first.file,
        "version": first.version,
        "change": {"by": first.changed_by, "why": first.changed_why},
        "digest": first.digest if len(digests) == 1 and not missing else "",
        "config_error": errors[0] if errors else None,
        "reloads": max(each.reloads for each in snapshots),
        "rules": first.rules,
        "sets": {
            name: _set_of([each.sets[name] for each in snapshots if name in each.sets]) for name in first.sets
        },
        "requests": sum(each.requests for each in snapshots),
        "active": sum(each.active for each in snapshots),
        "connections": sum(each.connections for each in snapshots),
        "connections_max": sum(each.connections_max for each in snapshots),
        "cancelled": sum(each.cancelled for each in snapshots),
        "retries_over_budget": sum(each.retries_over_budget for each in snapshots),
        "problems": _added(each.problems for each in snapshots),
        "draining": any(each.draining for each in snapshots),
    }


def _set_of(workers: Sequence[SetSnapshot]) -> dict[str, Any]:
    first = workers[0]
    statuses = _added(each.statuses for each in workers)
    window = workers[0].window
    for each in workers[1:]:
        window += each.window
    return {
        "url": first.url,
        "state": first.state,
        "weight": first.weight,
        "effective_weight": round(sum(each.effective_weight for each in workers) / len(workers), 2),
        "health": max((each.health for each in workers), key=_HEALTH_WORST_LAST.index),
        "ejected_for_s": max(each.ejected_for_s for each in workers),
        "ejected_because": max(workers, key=lambda each: each.ejected_for_s).ejected_because,
        "inflight": sum(each.inflight for each in workers),
        "reading": sum(each.reading for each in workers),
        "max_inflight": first.max_inflight,
        "idle_connections": sum(each.idle_connections for each in workers),
        **room_of([each.room for each in workers]),
        **figures(window),
        "answers": sum(statuses.values()),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "failures": _added(each.failures for each in workers),
        "retries": sum(each.retries for each in workers),
        "back_pressure": sum(each.back_pressure for each in workers),
        "truncated": sum(each.truncated for each in workers),
        "ejections": sum(each.ejections for each in workers),
    }


def room_of(rooms: Sequence[Room]) -> dict[str, Any]:
    """Return a set's own report, the first one that any worker has, as each worker asks for itself. None: no report."""
    room = next((each for each in rooms if each != Room()), Room())
    return {**msgspec.structs.asdict(room), "build": room.build or None, "saturated": room.saturated}


def figures(window: Window) -> dict[str, Any]:
    """Return rates and quantiles; None for those without any request."""
    return {
        "window_s": round(window.span_s, 1),
        "requests_per_s": round(window.requests_per_s, 2),
        "error_rate": _rounded(window.error_rate, 5),
        "p50_ms": _rounded(window.quantile_s(0.5), 5, 1000),
        "p99_ms": _rounded(window.quantile_s(0.99), 5, 1000),
    }


def _added(counts: Iterable[Mapping[Any, int]]) -> dict[Any, int]:
    total: dict[Any, int] = {}
    for each in counts:
        for key, count in each.items():
            total[key] = total.get(key, 0) + count
    return total


def _rounded(value: float | None, digits: int, times: float = 1.0) -> float | None:
    """Round to this number of significant digits."""
    if value is None or value == 0.0:
        return value
    value *= times
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))
