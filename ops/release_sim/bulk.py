"""A made-up data plane that makes the requests of a tick in bulk: counts and latency buckets, as workers report them to
the leader. No request of its own passes the chooser, so a release takes milliseconds; `router.rollout.world` plays
each request. Both move the same rollout. No I/O, no clock but its own; the same seed gives the same release."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from typing import Final

from msgspec.structs import replace

from router.counting.shares import Share
from router.counting.tally import BUCKETS_PER_OCTAVE, LAST_BUCKET, Outcome, Tally, bucket_of
from router.rollout.lead import Evidence, Lead
from router.rollout.orders import starting
from router.rollout.progress import MAX_TICK_S, advance
from router.rollout.record import Progress, Tick
from router.rollout.world import BURST_EVERY_S, BURST_S, COLD_START_S, WANDER_S, Temper
from router.routing.plan import Plan
from router.routing.table import WEIGHT_TOTAL, SetEntry, Table, Weights

OLD: Final = "a"
"""The set that has everything before the release."""
MAX_LOOK_S: Final = 15.0
_NATURAL: Final = BUCKETS_PER_OCTAVE / math.log(2.0)
"""Buckets for each unit of a natural logarithm."""
_FEW: Final = 30.0
"""Poisson counts with a greater mean are drawn from a normal distribution."""


class Side:
    """One set: what of it counts in this stint, and its requests that have no answer yet."""

    def __init__(self, temper: Temper) -> None:
        self.temper = temper
        self.tally = Tally()
        self.open: list[tuple[float, int, float, Callable[[], None]]] = []
        """When each ends, its serial, when it began, and what its end adds to the tally."""
        self.cold = 0
        """Requests still to come that wait for a slot."""
        self.wandered = 0.0
        self.burst_s = -BURST_S
        """When its last burst of errors began."""
        self.keys = Share()

    def begin(self) -> None:
        """Another stint: what began before does not count."""
        self.tally = Tally()
        self.open = []
        self.keys = Share()

    def seen(self, now_s: float) -> Tally:
        """The tally, with the requests that are open at `now_s`; who keeps it copies it."""
        ages = Counter(bucket_of((now_s - began - 1.0) * 1e6) for _, _, began, _ in self.open)
        return replace(self.tally, open=dict(ages))


class Bulk:
    """`tick` lets time pass: requests, then the leader's turn. `Kind.prepare` changes it before the start.

    `tick_s`: the same time always, with a look at the evidence after each. None: a second at first, as in a router, and
    later a twentieth of the release's age, 15 s at most between two looks: that is soon enough, and saves most of them.
    """

    capped = True
    """One key counts for a part of its cohort at most, as in the router."""

    def __init__(
        self,
        plan: Plan,
        *,
        seed: int = 0,
        rate: float = 20.0,
        users: int = 5_000,
        tick_s: float | None = None,
    ) -> None:
        shares = {OLD: WEIGHT_TOTAL, plan.set: 0}
        sets = {name: SetEntry(name, "h", port) for port, name in enumerate(shares, 1)}
        self.file = Table(version=1, sets=sets, default=Weights(sets, shares), rollout=plan)
        self.plan = plan
        self.tempers = {name: Temper() for name in shares}
        self.patience_s = 20.0
        self.sick_user: bytes | None = None
        self.sick_share = 0.05
        self.slope_per_h = 0.0
        self.progress = Progress()
        self.clock = 1.7e9
        self.builds: dict[str, str] = {}
        self.at_s = 0.0
        self.touched = 0.0
        """The share of users whose requests reached the canary, as expected from the weights and the requests."""
        self.rng = random.Random(seed)
        self._rate = rate
        self._users = users
        self._every_s = tick_s
        self._looked_s = 0.0
        self._lead = Lead()
        self.sides = {name: Side(temper) for name, temper in self.tempers.items()}
        self._stint = -1
        self._weight = 0
        self._sick_home = self.rng.random()
        """The sick user is at the canary when its share is above this."""
        self._serial = 0
        self._unreached = 1.0
        """The part of the users at the canary, as the weight is now, whom no request has taken there yet."""

    def start(self) -> None:
        order = starting(self.file, self.progress, by="ops", builds=self.builds)
        self.progress, _ = advance(self.progress, order, self.clock)
        self._adopt()

    def tick(self) -> int:
        """Let time pass; returns the requests that the weights sent to the canary."""
        tick_s = self._every_s or min(MAX_TICK_S, max(1.0, self.at_s / 20.0))
        self.at_s += tick_s
        self.clock += tick_s
        for side in self.sides.values():
            while side.open and side.open[0][0] <= self.at_s:
                heapq.heappop(side.open)[3]()
            if side.temper.burst_error and self.rng.random() < tick_s / BURST_EVERY_S:
                side.burst_s = self.at_s
            if side.temper.wander:
                kept = math.exp(-tick_s / WANDER_S)
                fresh = self.rng.gauss(0.0, side.temper.wander * math.sqrt(1 - kept * kept))
                side.wandered = kept * side.wandered + fresh
        share = self._weight / WEIGHT_TOTAL
        mean = self._rate * tick_s
        ordinary = mean * (1 - self.sick_share) if self.sick_user is not None else mean
        canary = self._requests(self.plan.set, ordinary * share, share)
        self._requests(OLD, ordinary * (1 - share), 1 - share)
        if self.sick_user is not None:
            canary += self._sick(mean - ordinary)
        if share:
            before = self._unreached
            self._unreached *= math.exp(-canary / (self._users * share))
            self.touched += share * (before - self._unreached)
        self.decide()
        return canary

    def decide(self) -> None:
        """The router's turn."""
        if self._every_s is not None or self.at_s - self._looked_s >= min(MAX_LOOK_S, self.at_s / 20.0):
            self._looked_s = self.at_s
            self.progress, _ = self._lead.turn(self.progress, self.file, self._seen, self.clock, self.builds)
        else:
            self.progress, _ = advance(self.progress, Tick(), self.clock)
        self._adopt()

    def _seen(self, stint: int) -> Evidence:
        """The evidence of a stint; nothing yet where the weights have not been adopted."""
        if stint != self._stint:
            return Evidence(Tally(), Tally(), {})
        return Evidence(self.sides[self.plan.set].seen(self.at_s), self.sides[OLD].seen(self.at_s), {})

    def _adopt(self) -> None:
        force = self.progress.in_force
        self.weigh(force[1] if force is not None else 0)
        if self.progress.stint != self._stint:
            self._stint = self.progress.stint
            for side in self.sides.values():
                side.begin()

    def weigh(self, weight: int) -> None:
        """Give the canary another weight, in hundredths of a percent."""
        if weight > self._weight:
            # The users that it had stay: only those that came to it are new.
            had = self._weight * (1 - self._unreached)
            self._unreached = 1 - had / weight
            side = self.sides[self.plan.set]
            side.cold = side.temper.cold_starts
        self._weight = weight

    def _requests(self, name: str, mean: float, share: float) -> int:
        """Ordinary users' requests to one set; returns their number."""
        side, temper, rng = self.sides[name], self.sides[name].temper, self.rng
        count = poisson(rng, mean)
        judged = self._admitted(side, count, share) if self.sick_user is not None and self.capped else count
        hung = binomial(rng, judged, temper.hang_share)
        for _ in range(hung):
            self._open(side, self.patience_s, self._leaves(side))
        cold = min(side.cold, judged - hung)
        side.cold -= cold
        for _ in range(cold):
            self._open(side, COLD_START_S, self._answers(side))
        quick = judged - hung - cold
        burst = temper.burst_error if self.at_s - side.burst_s < BURST_S else 0.0
        failed = binomial(rng, quick, max(temper.error, burst))
        task_failed = binomial(rng, quick - failed, temper.task_failed)
        tally = side.tally
        tally.error += failed
        tally.task_failed += task_failed
        tally.ok += quick - failed - task_failed
        self._latencies(side, quick)
        return count

    def _latencies(self, side: Side, count: int) -> None:
        buckets, cumulative = _latency_buckets(side.temper.median_ms, side.temper.spread)
        moved = side.wandered + math.log1p(self.slope_per_h * self.at_s / 3600.0)
        # Between two buckets it is one or the other, so that the mean is right.
        shift = math.floor(moved * _NATURAL + self.rng.random()) if moved else 0
        latencies = side.tally.latencies
        for bucket, seen in Counter(self.rng.choices(buckets, cum_weights=cumulative, k=count)).items():
            latencies[bucket + shift] = latencies.get(bucket + shift, 0) + seen

    def _admitted(self, side: Side, count: int, share: float) -> int:
        """How many of these count beside those of a sick user, by their keys."""
        among = max(1, round(self._users * share))
        return sum(side.keys.admit(self.rng.randrange(among)) for _ in range(count))

    def _sick(self, mean: float) -> int:
        """The sick user's requests, which fail wherever they arrive."""
        at_canary = self._weight > self._sick_home * WEIGHT_TOTAL
        side = self.sides[self.plan.set if at_canary else OLD]
        count = poisson(self.rng, mean)
        counted = sum(side.keys.admit(-1) for _ in range(count)) if self.capped else count
        side.tally.error += counted
        self._latencies(side, counted)
        return count if at_canary else 0

    def _open(self, side: Side, for_s: float, end: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(side.open, (self.at_s + for_s, self._serial, self.at_s, end))

    def _leaves(self, side: Side) -> Callable[[], None]:
        tally, patience_us = side.tally, self.patience_s * 1e6
        return lambda: tally.note_client_left(patience_us, unanswered=True)

    def _answers(self, side: Side) -> Callable[[], None]:
        tally = side.tally
        return lambda: tally.note(Outcome.OK, COLD_START_S * 1e6)


def poisson(rng: random.Random, mean: float) -> int:
    """A Poisson count."""
    if mean >= _FEW:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    left, count = math.exp(-mean), 0
    product = rng.random()
    while product > left:
        product *= rng.random()
        count += 1
    return count


def binomial(rng: random.Random, of: int, chance: float) -> int:
    """How many of `of` happen, each with this chance; quick where the chance is small."""
    if chance <= 0.0 or of <= 0:
        return 0
    if chance >= 1.0:
        return of
    if chance > 0.5:
        return of - binomial(rng, of, 1.0 - chance)
    gap, at, count = 1.0 / math.log1p(-chance), 0, 0
    while True:
        at += int(math.log(1.0 - rng.random()) * gap) + 1
        if at > of:
            return count
        count += 1


@lru_cache(maxsize=16)
def _latency_buckets(median_ms: float, spread: float) -> tuple[range, list[float]]:
    """Latency buckets of a lognormal distribution, and their cumulative weights."""
    middle = math.log(median_ms * 1000.0)
    first = bucket_of(math.exp(middle - 5 * spread))
    last = min(LAST_BUCKET, bucket_of(math.exp(middle + 5 * spread)))

    def below(bucket: int) -> float:
        return 0.5 * math.erfc((middle - bucket / _NATURAL) / (spread * math.sqrt(2.0)))

    weights = [below(bucket + 1) - below(bucket) for bucket in range(first, last + 1)]
    return range(first, last + 1), list(accumulate(weights))
