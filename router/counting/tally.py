"""Tally of a cohort: counts, and a sketch of its latencies. Bounded in memory; several add up to one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import Enum, StrEnum
from typing import Final, NamedTuple

import msgspec

from router.counting.parts import Part, together
from router.counting.witnesses import Witness

BUCKETS_PER_OCTAVE: Final = 32
"""Latency buckets grow by 2.2 % each."""
FLOOR_US: Final = 1000.0
"""Quicker answers count as this: differences below a millisecond matter to nobody, and are mostly chance."""
LAST_BUCKET: Final = 32 * BUCKETS_PER_OCTAVE - 1
"""Up to 2^32 µs, 71 minutes; longer ones count as this."""
_LONGEST_US: Final = 2.0**32


class Outcome(StrEnum):
    """How one request of a cohort ended at its home set.

    OK: answered, the caller's own mistakes (4xx) included. TASK_FAILED: answered, but the task had another exit
    code than 0, a signal or a time-out. ERROR: the platform's fault: no connection, a reset, no valid answer, a
    5xx that is no task's, a broken-off answer, or a set so unwell that it was not even asked. SHED: the set said
    that it is full. LEFT: the client went away first.
    """

    OK = "ok"
    TASK_FAILED = "task_failed"
    ERROR = "error"
    SHED = "shed"
    LEFT = "left"


class Cause(Enum):
    """Causes of a task's failure that are also counted by themselves: its time limit, and its memory."""

    TIME_LIMIT = "time limit"
    MEMORY = "memory"


class Answered(NamedTuple):
    """How an answer that was relayed whole counts. `refused`: the mistake is the caller's, so the image may be one that
    nobody has."""

    outcome: Outcome
    status: int = 200
    cause: Cause | None = None
    refused: bool = False


class Ended(NamedTuple):
    """Asynchronous tasks that ended well, and those that failed or timed out. Cancelled ones say nothing."""

    ok: int = 0
    failed: int = 0


def bucket_of(latency_us: float) -> int:
    """The bucket of a latency; bucket i holds [2^(i/32), 2^((i+1)/32)) µs, from `FLOOR_US` on."""
    if latency_us >= _LONGEST_US:
        return LAST_BUCKET
    latency_us = max(FLOOR_US, latency_us)
    return min(LAST_BUCKET, int(math.log2(latency_us) * BUCKETS_PER_OCTAVE))


class Tally(msgspec.Struct):
    """Counts of one cohort in one stint (the time between two changes of weight).

    `latencies`: bucket → count, at most 1,024 of them. A request whose client left counts there with the time that
    it had waited, at least: else a canary that hangs would look as fast as those who did not wait for it.
    """

    ok: int = 0
    task_failed: int = 0
    error: int = 0
    shed: int = 0
    client_left: int = msgspec.field(default=0, name="left")
    latencies: dict[int, int] = {}
    unanswered: dict[int, int] = {}
    """Part of `latencies`: requests whose client left before the answer began."""
    open: dict[int, int] = {}
    """Requests that have no answer yet, by the time that they have waited. In no other count."""
    async_ok: int = 0
    """Asynchronous tasks that ended, as the sets count them (outcomes.py); no requests."""
    async_failed: int = 0
    timed_out: int = 0
    """Part of `task_failed`: tasks that ran into their time limit."""
    out_of_memory: int = 0
    """Part of `task_failed`: tasks that ran out of memory."""
    left_out: int = 0
    """Requests that ended and are in no other count, as their caller had his share (shares.py)."""
    images: dict[int, Part] = {}
    """The requests by image, of the whole stint (parts.py)."""
    accounts: dict[int, Part] = {}
    witnesses: tuple[Witness, ...] = ()
    """Requests to show to an operator, of every worker a dozen at most."""

    def note(self, outcome: Outcome, latency_us: float | None = None) -> None:
        """Count one request; `latency_us` None where none was measured."""
        if outcome is Outcome.OK:
            self.ok += 1
        elif outcome is Outcome.TASK_FAILED:
            self.task_failed += 1
        elif outcome is Outcome.ERROR:
            self.error += 1
        elif outcome is Outcome.SHED:
            self.shed += 1
        else:
            self.client_left += 1
        if latency_us is not None:
            bucket = bucket_of(latency_us)
            self.latencies[bucket] = self.latencies.get(bucket, 0) + 1

    def count_of(self, outcome: Outcome) -> int:
        """Requests that ended so."""
        return {
            Outcome.OK: self.ok,
            Outcome.TASK_FAILED: self.task_failed,
            Outcome.ERROR: self.error,
            Outcome.SHED: self.shed,
            Outcome.LEFT: self.client_left,
        }[outcome]

    def note_cause(self, cause: Cause) -> None:
        """Count why a task failed that is counted already."""
        if cause is Cause.TIME_LIMIT:
            self.timed_out += 1
        else:
            self.out_of_memory += 1

    def note_ended(self, ended: Ended) -> None:
        """Count asynchronous tasks that ended."""
        self.async_ok += ended.ok
        self.async_failed += ended.failed

    def note_left_out(self) -> None:
        """Count a request whose caller has had its share."""
        self.left_out += 1

    def note_client_left(self, waited_us: float, *, unanswered: bool) -> None:
        """Count a request whose client went away after this time; `unanswered`: before the answer began."""
        self.note(Outcome.LEFT, waited_us)
        if unanswered:
            bucket = bucket_of(waited_us)
            self.unanswered[bucket] = self.unanswered.get(bucket, 0) + 1

    def copy(self) -> Tally:
        """Return a copy."""
        return msgspec.structs.replace(
            self, latencies=dict(self.latencies), unanswered=dict(self.unanswered), open=dict(self.open)
        )

    def without_parts(self) -> Tally:
        """Return a copy without the counts by image and account: a quarter of the size."""
        return msgspec.structs.replace(self, images={}, accounts={}, witnesses=())

    @property
    def waits(self) -> dict[int, int]:
        """`latencies`, and the time that open requests have waited so far: bucket → count."""
        return _sum(self.latencies, self.open) if self.open else self.latencies

    def overdue(self, after_us: float) -> int:
        """Requests without an answer after this time: still open, or their client left."""
        after = bucket_of(after_us)
        return sum(
            count
            for counts in (self.unanswered, self.open)
            for bucket, count in counts.items()
            if bucket > after
        )

    @property
    def answered(self) -> int:
        """Requests that got the set's own answer."""
        return self.ok + self.task_failed

    @property
    def async_ended(self) -> int:
        return self.async_ok + self.async_failed

    @property
    def judged(self) -> int:
        """Requests that say whether the set works: answered, or failed by it."""
        return self.ok + self.task_failed + self.error

    @property
    def measured(self) -> int:
        """Requests whose latency is known, at least from below."""
        return sum(self.latencies.values()) + sum(self.open.values())

    @property
    def requests(self) -> int:
        return self.judged + self.shed + self.client_left

    def quantile_us(self, share: float) -> float | None:
        """The latency that `share` of the requests do not exceed, open ones by their age; None: no data."""
        return _quantile_us(self.waits, share)

    def answered_us(self, share: float) -> float | None:
        """Return the latency that `share` of the answered requests do not exceed; None: no data."""
        answered = _rest(self.latencies, self.unanswered) if self.unanswered else self.latencies
        return _quantile_us(answered, share)


def total(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of several tallies."""
    result = Tally()
    for tally in tallies:
        result.ok += tally.ok
        result.task_failed += tally.task_failed
        result.error += tally.error
        result.shed += tally.shed
        result.client_left += tally.client_left
        result.async_ok += tally.async_ok
        result.async_failed += tally.async_failed
        result.latencies = _sum(result.latencies, tally.latencies)
        result.unanswered = _sum(result.unanswered, tally.unanswered)
        result.open = _sum(result.open, tally.open)
        result.timed_out += tally.timed_out
        result.out_of_memory += tally.out_of_memory
        result.left_out += tally.left_out
        result.images = together(result.images, tally.images)
        result.accounts = together(result.accounts, tally.accounts)
        result.witnesses += tally.witnesses
    return result


def minus(whole: Tally, part: Tally) -> Tally:
    """The part of `whole` that came after `part`, and all that is open now. Without images and accounts.

    Never below 0, even if a worker's counts were lost.
    """
    return Tally(
        max(0, whole.ok - part.ok),
        max(0, whole.task_failed - part.task_failed),
        max(0, whole.error - part.error),
        max(0, whole.shed - part.shed),
        max(0, whole.client_left - part.client_left),
        _rest(whole.latencies, part.latencies),
        _rest(whole.unanswered, part.unanswered),
        whole.open,
        max(0, whole.async_ok - part.async_ok),
        max(0, whole.async_failed - part.async_failed),
        max(0, whole.timed_out - part.timed_out),
        max(0, whole.out_of_memory - part.out_of_memory),
        max(0, whole.left_out - part.left_out),
    )


def _sum(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    both = dict(one)
    for bucket, count in other.items():
        both[bucket] = both.get(bucket, 0) + count
    return both


def _rest(whole: Mapping[int, int], part: Mapping[int, int]) -> dict[int, int]:
    left = dict(whole)
    for bucket, count in part.items():
        if left.get(bucket, 0) > count:
            left[bucket] -= count
        else:
            left.pop(bucket, None)
    return left


def _quantile_us(counts: Mapping[int, int], share: float) -> float | None:
    """Interpolated within its bucket."""
    total = sum(counts.values())
    if total == 0:
        return None
    rank = share * total
    below = 0
    bucket = 0
    for bucket, count in sorted(counts.items()):
        if below + count >= rank:
            return float(2.0 ** ((bucket + (rank - below) / count) / BUCKETS_PER_OCTAVE))
        below += count
    return float(2.0 ** ((bucket + 1) / BUCKETS_PER_OCTAVE))
