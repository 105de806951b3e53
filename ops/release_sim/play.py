"""Plays releases on the router's own objects, in a made-up world, and sums up how they end. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Final

from ops.release_sim.bulk import Bulk
from ops.release_sim.peers import Peer
from router.rollout.kinds import Kind
from router.rollout.record import Progress
from router.rollout.states import Phase
from router.rollout.world import World

RATE_PER_S: Final = 20.0
MAX_S: Final = 3_600.0
_OVER: Final = (Phase.ABORTING, Phase.ABORTED, Phase.DONE)


@dataclass(frozen=True, slots=True)
class Ending:
    """How one release ended. `requests`: those that the weights sent to the canary; `users`: the share of all
    users whose requests reached it."""

    phase: Phase
    at_s: float
    requests: int
    users: float
    reason: str


@dataclass(frozen=True, slots=True)
class Sum:
    """All releases of one kind, as shares of 1. The medians are over the releases that were aborted."""

    releases: int
    aborted: float
    promoted: float
    paused: float
    requests: float | None
    at_s: float | None
    users: float | None


def play(kind: Kind, seed: int, *, tick_s: float | None = None, rate_per_s: float = RATE_PER_S) -> Ending:
    """One release, until it is aborted or done, or an hour has passed: nobody is there to resume one that paused.
    `tick_s` as of `Bulk`."""
    world = Bulk(kind.plan, seed=seed, rate=rate_per_s, tick_s=tick_s)
    kind.prepare(world)
    world.start()
    requests = 0
    while world.at_s < MAX_S and world.progress.phase not in _OVER:
        requests += world.tick()
    return _ending(world.progress, world.at_s, requests, world.touched)


def play_each(
    kind: Kind, seed: int, *, tick_s: float | None = None, rate_per_s: float = RATE_PER_S
) -> Ending:
    """The same with each request passing the real chooser, health board and observer: many times slower."""
    world = World(kind.plan, {"a": 10_000, "b": 0}, seed=seed, rate=rate_per_s, tick_s=tick_s or 1.0)
    kind.prepare(world)
    world.start()
    requests = 0
    while world.at_s < MAX_S and world.progress.phase not in _OVER:
        requests += world.tick().homed.get("b", 0)
    return _ending(world.progress, world.at_s, requests, len(world.users_at["b"]) / world.users)


def play_peer(peer: type[Peer], kind: Kind, seed: int, *, rate_per_s: float = RATE_PER_S) -> Ending:
    """The same requests, judged by the rule of a peer."""
    world = peer(kind.plan, seed=seed, rate=rate_per_s)
    kind.prepare(world)
    world.start()
    requests = 0
    while world.at_s < MAX_S and world.phase is Phase.HOLDING:
        requests += world.tick()
    return Ending(world.phase, world.at_s, requests, world.touched, "")


def _ending(progress: Progress, at_s: float, requests: int, users: float) -> Ending:
    phase = Phase.ABORTED if progress.phase is Phase.ABORTING else progress.phase
    return Ending(phase, at_s, requests, users, progress.reason)


def summed(endings: Iterable[Ending]) -> Sum:
    """The figures of a kind."""
    all_ = list(endings)
    aborted = [ending for ending in all_ if ending.phase is Phase.ABORTED]

    def share(phase: Phase) -> float:
        return sum(ending.phase is phase for ending in all_) / len(all_)

    return Sum(
        releases=len(all_),
        aborted=share(Phase.ABORTED),
        promoted=share(Phase.DONE),
        paused=1.0 - share(Phase.ABORTED) - share(Phase.DONE),
        requests=median(ending.requests for ending in aborted) if aborted else None,
        at_s=median(ending.at_s for ending in aborted) if aborted else None,
        users=median(ending.users for ending in aborted) if aborted else None,
    )
