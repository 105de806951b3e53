"""Measures ten thousand clients that send one request and stay connected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from statistics import median
from typing import Final

from ops.bench.figures import Figure
from ops.bench_router.bench import Bench, at_most, turns
from ops.bench_router.load import Shot

CONNECTIONS: Final = 10_000
PER_S: Final = 2000.0
SECONDS: Final = 2.0
SHOTS: Final = 3
"""Measurements in each round: p99 varies much from one to the next."""
NO_EFFECT: Final = 1.1
"""Factor by which p99 may rise and still count as unaffected; rounds of the same proxy differ by more."""


def idle(bench: Bench, rounds: int) -> Iterator[Figure]:
    """Measure memory with them, and p99 at a fixed rate with and without them, in turns."""
    with bench.proxies("router") as servers:
        server = servers["router"]
        alone_mib = server.memory_mib()
        shots: dict[str, list[Shot]] = {"without": [], "with": []}
        memory: list[float] = []
        bench.loader.rate(server, PER_S, 1.0)
        for number, names in turns(list(shots), rounds):
            for name in names:
                with bench.loader.idle(server, CONNECTIONS) if name == "with" else nullcontext():
                    shots[name] += [bench.loader.rate(server, PER_S, SECONDS) for _ in range(SHOTS)]
                    if name == "with":
                        memory.append(server.memory_mib())
            bench.say(
                f"round {number + 1} of {rounds}: {memory[-1]:.0f} MiB, {alone_mib:.0f} MiB at the start"
            )
    for name, each in shots.items():
        bench.say(
            f"{name} them, µs: p50 {median(shot.p50_us for shot in each):.0f},"
            f" p99 {median(shot.p99_us for shot in each):.0f}, p99.9 {median(shot.p999_us for shot in each):.0f}"
        )
    yield from figures(shots, memory)


def figures(shots: dict[str, list[Shot]], memory: list[float]) -> Iterator[Figure]:
    """Turn the measurements without and with the idle connections, and the MiB with them, into rows."""
    what = f"{CONNECTIONS:,} idle keep-alive connections"
    yield at_most(f"{what}: memory of the process", max(memory), 100, "MiB", 0)
    value = median(shot.p99_us for shot in shots["with"]) / median(shot.p99_us for shot in shots["without"])
    yield at_most("… p99 of others, of that without them", value, NO_EFFECT)
