"""When tasks arrive: at random around a rate that a day's curve may bend, and in bursts. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from random import Random
from typing import Annotated

import msgspec
from msgspec import Meta

Rate = Annotated[float, Meta(ge=0, le=1e7)]
Moment = Annotated[float, Meta(ge=0, le=1e8)]
Seconds = Annotated[float, Meta(gt=0, le=1e8)]


class Daily(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A curve over the day, a cosine: `peak_times` the mean at `at_s`, as far below it half a day later."""

    peak_times: Annotated[float, Meta(ge=1, le=2)]
    at_s: Moment = 43_200.0
    period_s: Seconds = 86_400.0


class Bursts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`tasks` that arrive within `within_s`, again and again: at random, on average `every_s` after the last burst."""

    tasks: Annotated[int, Meta(ge=1, le=10_000_000)]
    every_s: Seconds
    within_s: Annotated[float, Meta(ge=0, le=1e6)] = 0.0


class Arrivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tasks arrive independently of each other, `per_s` on average; `bursts` are in addition.

    `from_s`, `until_s`: none arrives before or after.
    """

    per_s: Rate = 0.0
    daily: Daily | None = None
    bursts: Bursts | None = None
    from_s: Moment = 0.0
    until_s: Seconds = 1e8

    @property
    def mistake(self) -> str:
        """Say what is wrong; "" where nothing is."""
        if not self.per_s and self.bursts is None:
            return "give per_s above 0, or bursts"
        if self.until_s <= self.from_s:
            return "until_s: is not after from_s"
        return ""

    def pressed(self, part: float) -> Arrivals:
        """Return arrivals at the same rate whose moments come after this part of their time."""
        replace = msgspec.structs.replace
        daily = self.daily
        if daily is not None:
            daily = replace(daily, at_s=daily.at_s * part, period_s=daily.period_s * part)
        return replace(self, daily=daily, from_s=self.from_s * part, until_s=self.until_s * part)

    def times(self, chance: Random, length_s: float) -> Iterator[float]:
        """Yield the times of arrival within `length_s`, in order."""
        until_s = min(self.until_s, length_s)
        steady = self._steady(chance, until_s) if self.per_s else iter(())
        if self.bursts is None:
            return steady
        return heapq.merge(steady, self._in_bursts(self.bursts, chance, until_s))

    def _steady(self, chance: Random, until_s: float) -> Iterator[float]:
        now, draw, log = self.from_s, chance.random, math.log
        if self.daily is None:
            gap_s = -1.0 / self.per_s
            while (now := now + gap_s * log(1.0 - draw())) < until_s:
                yield now
            return
        daily, cos = self.daily, math.cos
        # Arrivals are drawn at the peak's rate, of which the curve keeps a part (thinning).
        gap_s = -1.0 / (self.per_s * daily.peak_times)
        turn, swing = 2 * math.pi / daily.period_s, daily.peak_times - 1.0
        while (now := now + gap_s * log(1.0 - draw())) < until_s:
            if draw() * daily.peak_times <= 1.0 + swing * cos(turn * (now - daily.at_s)):
                yield now

    def _in_bursts(self, bursts: Bursts, chance: Random, until_s: float) -> Iterator[float]:
        at_s = self.from_s
        while (at_s := at_s + chance.expovariate(1.0 / bursts.every_s)) < until_s:
            gap_s = bursts.within_s / bursts.tasks
            for number in range(bursts.tasks):
                if at_s + number * gap_s < until_s:
                    yield at_s + number * gap_s
            at_s += bursts.within_s
