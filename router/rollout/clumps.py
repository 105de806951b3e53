"""How much less than independent requests a cohort's slow or failed ones tell, as they come in clumps. Pure.

**What.** A set is slow for a minute, then quick again: its slow requests come together, so a thousand of them say no
more of its 95th percentile than a few dozen independent ones. How much the share of requests above the percentile moves
from one slice of 15 s to the next, beyond what chance explains, tells how strongly they clump; together with the time
for which a set remembers its state (two minutes are assumed) it gives a *clump*, in seconds: requests of one set that
come within it count as one. So n requests in T seconds count as n / (1 + n / T · clump).

The slices of both sides count together, but as one with many requests tells more, it is mostly control's. One slice of
a set that wanders (by a standard deviation of 0.3 of the logarithm) is supposed before any is seen, so that a canary is
not found slow by the first minute alone.

**Errors** clump, too: they come in bursts. How much control's error rate moves from slice to slice tells how strongly;
a burst is supposed to end within two slices. Two slices with bursts are supposed before any is seen.

**Why this way.** Without it a quarter of the healthy releases whose latency wanders (sd 0.3, a minute's memory) were
aborted, and half of those whose errors come in bursts (a fifth fails for 15 s, every five minutes). An interval from
the scatter of slices alone (a t test) needs a dozen of them before it may say anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from router.rollout.tail import QUANTILE

MEMORY_S: Final = 120.0
"""Twice the time after which a wandering set is supposed to remember a third of its state."""
_SUPPOSED: Final = 0.076
"""The clumping of a set whose latency has a standard deviation of 0.3 in the logarithm, beside 0.5 within a moment."""
_SUPPOSED_SLICES: Final = 1.0
BURST_S: Final = 30.0
"""A burst of errors is supposed to be over after this time."""
BURST_POINTS: Final = 0.3
"""Excess error share above which a burst is no excuse."""
_SUPPOSED_BURSTS: Final = 0.1
_SUPPOSED_BURST_SLICES: Final = 2.0
MAX_SLICES: Final = 63
"""Most slices kept. Above it, neighbours are merged in pairs. Odd, so that the newest stays single."""

_FEW_SLICES: Final = 8
_SOME_SLICES: Final = 4
"""Beyond a few slices, the scatter is worked out when some more have come."""

Counts = Mapping[int, int]
"""Latency bucket → requests."""


class Scatter(NamedTuple):
    """How the shares of slow requests differ between slices, beyond chance: what was found, and what full clumping
    would be. Those of several stretches add up."""

    found: float = 0.0
    full: float = 0.0
    slices: int = 0

    def plus(self, more: Scatter) -> Scatter:
        return Scatter(self.found + more.found, self.full + more.full, self.slices + more.slices)


_NOTHING: Final = Scatter()


class Clumps:
    """The slices of a stretch of time in which the weights stayed. `clump_s` after any number of them."""

    def __init__(self, before: Scatter = _NOTHING) -> None:
        """`before`: the scatter of earlier stretches of the same rollout."""
        self._before = before
        self._slices: list[tuple[Counts, Counts]] = []
        self._each = 1
        self._pending: list[tuple[Counts, Counts]] = []
        self.scatter = before

    def add(self, canary: Counts, control: Counts) -> None:
        """A slice is over; one without control's requests tells nothing."""
        if not control:
            return
        self._pending.append((canary, control))
        if len(self._pending) == self._each:
            self._slices.append(_joined(self._pending))
            self._pending = []
            if len(self._slices) > MAX_SLICES:
                self._slices = [_joined(self._slices[at : at + 2]) for at in range(0, len(self._slices), 2)]
                self._each *= 2
            if len(self._slices) > _FEW_SLICES and len(self._slices) % _SOME_SLICES:
                return
            sides = [_scatter([slice_[side] for slice_ in self._slices]) for side in (0, 1)]
            self.scatter = Scatter(
                self._before.found + sum(found for found, _ in sides),
                self._before.full + sum(full for _, full in sides),
                self._before.slices + len(self._slices),
            )

    @property
    def clump_s(self) -> float:
        """Requests of one set within this time count as one."""
        found, full, slices = self.scatter
        supposed = _SUPPOSED_SLICES * full / slices if full else 1.0
        return MEMORY_S * (supposed * _SUPPOSED + max(0.0, found)) / (supposed + full)


class RateClumps:
    """The same for a rate, from control's slices: a canary's own bursts are its harm."""

    def __init__(self) -> None:
        self._slices = 0
        self._of = self._hits = 0
        self._of_of = self._of_hits = self._hits_hits = 0
        """Sums of products over the slices."""

    def add(self, hits: int, of: int) -> None:
        """A slice is over."""
        if not of:
            return
        self._slices += 1
        self._of += of
        self._hits += hits
        self._of_of += of * of
        self._of_hits += of * hits
        self._hits_hits += hits * hits

    @property
    def clump_s(self) -> float:
        """Requests of one set within this time count as one."""
        if not self._slices:
            return BURST_S * _SUPPOSED_BURSTS
        rate = (self._hits + 0.5) / (self._of + 1)
        chance = rate * (1 - rate) * self._of * (1 - 1 / self._slices)
        found = self._hits_hits - 2 * rate * self._of_hits + rate * rate * self._of_of - chance
        full = rate * (1 - rate) * self._of_of
        supposed = _SUPPOSED_BURST_SLICES * full / self._slices
        return BURST_S * (supposed * _SUPPOSED_BURSTS + max(0.0, found)) / (supposed + full)


def _joined(slices: Iterable[tuple[Counts, Counts]]) -> tuple[Counts, Counts]:
    canary, control = zip(*slices, strict=True)
    return _sum(canary), _sum(control)


def _sum(slices: Iterable[Counts]) -> dict[int, int]:
    whole: dict[int, int] = {}
    for counts in slices:
        for bucket, count in counts.items():
            whole[bucket] = whole.get(bucket, 0) + count
    return whole


def _scatter(slices: list[Counts]) -> tuple[float, float]:
    """`found` and `full` of one side, by its own percentile."""
    sizes = [sum(counts.values()) for counts in slices]
    of = sum(sizes)
    if not of:
        return 0.0, 0.0
    whole = _sum(slices)
    slower, first = 0, 0
    for first in sorted(whole, reverse=True):
        slower += whole[first]
        if slower >= (1.0 - QUANTILE) * of:
            break
    share = slower / of
    variance = share * (1.0 - share)
    if not variance:
        return 0.0, 0.0
    found = full = 0.0
    # The share is that of these very slices, so one of them varies a little less.
    part = 1.0 - 1.0 / len(slices)
    for counts, size in zip(slices, sizes, strict=True):
        slow = sum(count for bucket, count in counts.items() if bucket >= first)
        found += (slow - size * share) ** 2 - size * variance * part
        full += size * size * variance
    return found, full
