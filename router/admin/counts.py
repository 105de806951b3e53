"""A worker's counts, which add up over the workers of a router. Pure except for `Keeper`.

They are kept in a file, so that no count that was shown once shrinks when a worker dies: Prometheus would take a
smaller sum for a restart, and the rates for a burst.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import structlog

from router.counting.stats import SetStats
from router.counting.tally import Tally, total
from router.errors import reason_of

if TYPE_CHECKING:
    from router.assembly import Router

_Key = TypeVar("_Key", str, int)

MAX_FILE_BYTES: Final = 16 * 1024 * 1024

log = structlog.get_logger()


class SetCounts(msgspec.Struct):
    """Counts of one set since the router began. `durations` as in `stats.SetStats`, without places that are 0."""

    statuses: dict[int, int] = {}
    failures: dict[str, int] = {}
    durations: dict[int, int] = {}
    latency_sum_s: float = 0.0
    retries: int = 0
    back_pressure: int = 0
    truncated: int = 0
    ejections: int = 0

    @classmethod
    def of(cls, stats: SetStats) -> SetCounts:
        return cls(
            dict(stats.statuses),
            dict(stats.failures),
            {index: count for index, count in enumerate(stats.durations) if count},
            stats.latency_sum_s,
            stats.retries,
            stats.back_pressure,
            stats.truncated,
            stats.ejections,
        )

    def stats(self) -> SetStats:
        """Return the same counts in the data plane's form."""
        stats = SetStats()
        stats.statuses = dict(self.statuses)
        stats.failures = dict(self.failures)
        for index, count in self.durations.items():
            if 0 <= index < len(stats.durations):
                stats.durations[index] = count
        stats.latency_sum_s = self.latency_sum_s
        stats.retries = self.retries
        stats.back_pressure = self.back_pressure
        stats.truncated = self.truncated
        stats.ejections = self.ejections
        return stats


class Counts(msgspec.Struct):
    """Counts of one worker, including its predecessors under the same index. `starts`: how many workers there were.
    `plain`: counters without a label, by name."""

    boot: str = ""
    starts: int = 1
    plain: dict[str, int] = {}
    problems: dict[str, int] = {}
    sets: dict[str, SetCounts] = {}
    reloads: int = 0
    reload_failures: int = 0
    stint: int = 0
    canary: Tally = msgspec.field(default_factory=Tally)
    control: Tally = msgspec.field(default_factory=Tally)


def counts_of(router: Router, starts: int = 1) -> Counts:
    """Return a worker's counts as they are now."""
    plane = router.plane
    access = plane.traffic.log
    observer = plane.traffic.observer
    counts = Counts(
        boot=router.group.boot,
        starts=starts,
        plain={
            "requests": plane.requests,
            "cancelled": plane.traffic.cancelled,
            "retries_over_budget": plane.traffic.retries.refused,
            "stalled_clients": plane.stalled_clients,
            "handshakes_failed": plane.handshakes_failed,
            "access_log_lines": access.lines,
            "access_log_sampled_out": access.sampled_out,
            "access_log_errors_dropped": access.errors_dropped,
            "access_log_lost": access.lost,
        },
        problems=dict(plane.traffic.problems.counts),
        sets={name: SetCounts.of(stats) for name, stats in plane.traffic.stats.items()},
        reloads=router.file.reloads,
        reload_failures=router.file.failures,
    )
    if observer is not None:
        counts.stint, counts.canary, counts.control = observer.stint, observer.canary, observer.control
    return counts


def put_back(router: Router, counts: Counts) -> None:
    """Go on from the counts of the worker before; call it before the first request."""
    plane = router.plane

    def plain(name: str) -> int:
        return counts.plain.get(name, 0)

    plane.count_on(
        requests=plain("requests"),
        stalled_clients=plain("stalled_clients"),
        handshakes_failed=plain("handshakes_failed"),
    )
    plane.traffic.log.count_on(
        lines=plain("access_log_lines"),
        sampled_out=plain("access_log_sampled_out"),
        errors_dropped=plain("access_log_errors_dropped"),
        lost=plain("access_log_lost"),
    )
    router.file.count_on(reloads=counts.reloads, failures=counts.reload_failures)
    plane.traffic.count_on(
        cancelled=plain("cancelled"),
        retries_refused=plain("retries_over_budget"),
        problems=counts.problems,
        stats={name: each.stats() for name, each in counts.sets.items()},
    )


def added(all_counts: Iterable[Counts]) -> Counts:
    """Return the sum of all workers' counts. Each worker reads the file, so the number of its reloads is the largest of
    all."""
    sum_ = Counts(starts=0)
    for counts in all_counts:
        sum_.starts += counts.starts
        _add(sum_.plain, counts.plain)
        _add(sum_.problems, counts.problems)
        sum_.reloads = max(sum_.reloads, counts.reloads)
        sum_.reload_failures = max(sum_.reload_failures, counts.reload_failures)
        for name, each in counts.sets.items():
            into = sum_.sets.setdefault(name, SetCounts())
            _add(into.statuses, each.statuses)
            _add(into.failures, each.failures)
            _add(into.durations, each.durations)
            into.latency_sum_s += each.latency_sum_s
            into.retries += each.retries
            into.back_pressure += each.back_pressure
            into.truncated += each.truncated
            into.ejections += each.ejections
        if counts.stint > sum_.stint:
            sum_.stint, sum_.canary, sum_.control = counts.stint, Tally(), Tally()
        if counts.stint == sum_.stint:
            sum_.canary = total((sum_.canary, counts.canary))
            sum_.control = total((sum_.control, counts.control))
    return sum_


def latency(counts: SetCounts, bounds: tuple[int, ...]) -> list[int]:
    """Return how many answers took up to each bound (an index of `FINE_BOUNDS_S`), and all; cumulative."""
    sums = [sum(count for index, count in counts.durations.items() if index <= bound) for bound in bounds]
    return [*sums, sum(counts.durations.values())]


def _add(into: dict[_Key, int], more: Mapping[_Key, int]) -> None:
    for key, count in more.items():
        into[key] = into.get(key, 0) + count


class Keeper:
    """The file of one worker's counts. Counts must be written here before anybody is told of them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, boot: str) -> Counts | None:
        """Read the counts written since the router began as `boot`; None: there are none."""
        try:
            with self._path.open("rb") as file:
                counts = msgspec.json.decode(file.read(MAX_FILE_BYTES), type=Counts)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            log.warning(
                "counts are lost: counting begins at 0", file=str(self._path), reason=reason_of(error)
            )
            return None
        if counts.boot != boot:
            return None
        return counts

    def write(self, data: bytes) -> None:
        """Write the counts. Not synced: they must survive the worker, not the machine."""
        new = self._path.with_suffix(".new")
        with contextlib.suppress(
            OSError
        ):  # With a full disk the answer is still given; the curves may jump at the next crash.
            new.write_bytes(data)
            os.replace(new, self._path)
