"""How long tasks run and slots take to start: numbers drawn from a distribution. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Annotated, Final

import msgspec
from msgspec import Meta

P95_SIGMAS: Final = 1.6448536269514722
"""The 95th percentile of a normal distribution, in standard deviations above its mean."""
SECONDS_MOST: Final = 1e7

Positive = Annotated[float, Meta(gt=0, le=SECONDS_MOST)]


class LogNormal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The usual shape of durations: half are below `median`, one of 20 is above `p95`."""

    median: Positive
    p95: Positive


class Spread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One distribution of seconds: `uniform` between two bounds, `exponential` with a mean, or `lognormal`.

    `percentiles`: what share of all is at most so long, such as {0: 0.1, 50: 1, 100: 30}; straight lines between them.
    """

    uniform: tuple[Positive, Positive] | None = None
    exponential: Positive | None = None
    lognormal: LogNormal | None = None
    percentiles: dict[Annotated[float, Meta(ge=0, le=100)], Annotated[float, Meta(ge=0)]] | None = None


Draw = Callable[[], float]


def mistake_of(spread: float | Spread) -> str:
    """Say what is wrong; "" where nothing is."""
    if not isinstance(spread, Spread):
        return "" if 0 < spread <= SECONDS_MOST else "seconds above 0"
    given = [name for name in spread.__struct_fields__ if getattr(spread, name) is not None]
    if len(given) != 1:
        return f"give one of {', '.join(spread.__struct_fields__)}, or a number of seconds"
    if spread.uniform is not None and spread.uniform[0] > spread.uniform[1]:
        return "uniform: the lower bound comes first"
    if spread.lognormal is not None and spread.lognormal.p95 < spread.lognormal.median:
        return "lognormal: p95 is at least the median"
    if spread.percentiles is not None:
        return _mistake_of_percentiles(spread.percentiles)
    return ""


def _mistake_of_percentiles(percentiles: dict[float, float]) -> str:
    values = [seconds for _, seconds in sorted(percentiles.items())]
    if 0 not in percentiles or 100 not in percentiles:
        return "percentiles: give those of 0 and 100, too"
    if values != sorted(values) or not values[-1]:
        return "percentiles: seconds must rise, to more than 0"
    return ""


def mean_of(spread: float | Spread) -> float:
    """The mean, in seconds."""
    if not isinstance(spread, Spread):
        return spread
    if spread.uniform is not None:
        return sum(spread.uniform) / 2
    if spread.lognormal is not None:
        return spread.lognormal.median * math.exp(_sigma(spread.lognormal) ** 2 / 2)
    if spread.percentiles is not None:
        points = sorted(spread.percentiles.items())
        return sum(
            (high - low) / 100 * (before + after) / 2 for (low, before), (high, after) in pairwise(points)
        )
    assert spread.exponential is not None
    return spread.exponential


def drawer(spread: float | Spread, chance: Random) -> Draw:
    """Return a function that draws a number of seconds."""
    if not isinstance(spread, Spread):
        constant = spread
        return lambda: constant
    if spread.uniform is not None:
        low, width, draw = spread.uniform[0], spread.uniform[1] - spread.uniform[0], chance.random
        return lambda: low + width * draw()
    if spread.lognormal is not None:
        mu, sigma = math.log(spread.lognormal.median), _sigma(spread.lognormal)
        gauss, exp = chance.gauss, math.exp
        return lambda: exp(gauss(mu, sigma))
    if spread.percentiles is not None:
        return _between(spread.percentiles, chance)
    rate = 1.0 / mean_of(spread)
    return lambda: chance.expovariate(rate)


def _sigma(shape: LogNormal) -> float:
    return (math.log(shape.p95) - math.log(shape.median)) / P95_SIGMAS


def _between(percentiles: dict[float, float], chance: Random) -> Draw:
    points = sorted(percentiles.items())
    shares, seconds = [share / 100 for share, _ in points], [each for _, each in points]

    def draw() -> float:
        share = chance.random()
        above = bisect_left(shares, share)
        if not above:
            return seconds[0]
        part = (share - shares[above - 1]) / (shares[above] - shares[above - 1])
        return seconds[above - 1] + part * (seconds[above] - seconds[above - 1])

    return draw
