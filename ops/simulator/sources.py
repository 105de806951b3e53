"""Where tasks come from: accounts whose arrivals are drawn, and the functions of a trace."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from ops.simulator.azure import functions
from ops.simulator.durations import Draw, drawer
from ops.simulator.front import Request
from ops.simulator.scenario import TRACE, Account, Image, Scenario
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Kind, Resources

TIME_LIMIT_S: Final = 3600.0
"""Longest time, in seconds, that a call of a trace may run: above the ten minutes of the service that was traced."""


class Choice(NamedTuple):
    """An image of a source: the pool and the request of each of its accounts, and how durations are drawn."""

    keys: list[PoolKey]
    requests: list[Request]
    duration_s: Draw


class Source:
    """Tasks that are alike: when the next comes, and what it is. `index`: the group in which they are counted.

    `shares`: how often each of the choices is drawn, as running sums.
    """

    __slots__ = (
        "accounts",
        "chance",
        "choices",
        "index",
        "limit_s",
        "queue_timeout_s",
        "shares",
        "steady",
        "times",
    )

    def __init__(
        self,
        index: int,
        times: Iterator[float],
        choices: Sequence[Choice],
        shares: Sequence[float],
        chance: Random,
        *,
        steady: bool = True,
        queue_timeout_s: float | None = None,
        limit_s: float = TIME_LIMIT_S,
    ) -> None:
        self.index = index
        self.times = times
        self.choices = choices
        self.shares = shares
        self.chance = chance
        self.accounts = len(choices[0].keys)
        self.steady = steady
        self.queue_timeout_s = queue_timeout_s
        self.limit_s = limit_s

    def draw(self) -> tuple[PoolKey, Request, float]:
        """Return the next task's pool, its request and how long it runs."""
        chance, choices = self.chance, self.choices
        if len(choices) == 1:
            keys, requests, duration_s = choices[0]
        else:
            keys, requests, duration_s = choices[bisect(self.shares, chance.random() * self.shares[-1])]
        number = int(chance.random() * self.accounts) if self.accounts > 1 else 0
        return keys[number], requests[number], duration_s()


class Planned(NamedTuple):
    """A task of a run before it arrives. `source`: the index of its source."""

    at_s: float
    source: int
    key: PoolKey
    run_s: float


def course(source: Source) -> Iterator[Planned]:
    """Yield the tasks of a source as a run has them, so that the same can be run for real."""
    at_s = next(source.times, None)
    while at_s is not None:
        key, _, run_s = source.draw()
        yield Planned(at_s, source.index, key, run_s)
        at_s = next(source.times, None)


def account_sources(scenario: Scenario) -> Iterator[Source]:
    """Yield a source for each account, or accounts that are alike."""
    images = {image.name: image for image in scenario.images}
    for index, account in enumerate(scenario.accounts):
        # Arrivals stay where they are when durations are drawn otherwise.
        arrivals, chance = (
            Random(f"{account.name} {what} {scenario.seed}") for what in ("arrivals", "tasks")
        )
        yield Source(
            index,
            account.arrivals.times(arrivals, scenario.length_s),
            [_choice(account, images[name], chance) for name in account.images],
            list(accumulate(account.images.values())),
            chance,
            steady=account.kind is Kind.SYNC,
            queue_timeout_s=account.queue_timeout_s,
            limit_s=account.timeout_s,
        )


def trace_sources(scenario: Scenario) -> Iterator[Source]:
    """Yield a source for each function of the trace. Raises `ConfigError`."""
    trace = scenario.trace
    if trace is None:
        return
    folder = Path(scenario.folder)
    memory = None if trace.memory is None else folder / trace.memory
    for number, function in enumerate(
        functions(folder / trace.invocations, folder / trace.durations, memory)
    ):
        chance = Random(f"{TRACE} {number} {scenario.seed}")
        resources = Resources(100, function.memory_mib)
        key = PoolKey(function.owner, digest(function.name), resources, Isolation.SHARED)
        yield Source(
            len(scenario.accounts),
            function.times(chance, scenario.length_s, trace.of_all),
            [Choice([key], [Request(function.owner, function.name)], drawer(function.duration_s, chance))],
            [1.0],
            chance,
        )


def _choice(account: Account, image: Image, chance: Random) -> Choice:
    names = account.names
    return Choice(
        [_key(name, account, image) for name in names],
        [Request(name, image.name) for name in names],
        drawer(image.duration_s, chance),
    )


def _key(name: str, account: Account, image: Image) -> PoolKey:
    resources = Resources(round(image.cpu * 100), image.memory_mib)
    features = tuple(sorted(set(image.features)))
    return PoolKey(name, digest(image.name), resources, image.isolation, features, account.priority)


def digest(name: str) -> str:
    """The digest of an image of the simulation."""
    return f"sha256:{name}"
