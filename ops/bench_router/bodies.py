"""Measures bodies of 10 MB, up and down: megabytes per second, and CPU time for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ops.bench.figures import Figure
from ops.bench_router.bench import Bench, at_least, at_most, ratio, row, turns
from ops.bench_router.load import Shot

BODY_BYTES: Final = 10_000_000
CLIENTS: Final = 4
SECONDS: Final = 2.0
TARGETS: Final = {"nginx-unbuffered": (1.1, 1.0), "haproxy-splice": (0.9, 1.6)}
"""Targets by peer: minimum MB/s, maximum CPU per body."""


def bodies(bench: Bench, rounds: int) -> Iterator[Figure]:
    """Measure with four clients. Also prints peers without a target (nginx with larger buffers, HAProxy by default)."""
    with bench.proxies("router", *TARGETS, "nginx-256k", "haproxy") as servers:
        shots: dict[str, dict[str, list[Shot]]] = {
            method: {name: [] for name in servers} for method in ("POST", "GET")
        }
        for server in servers.values():
            for method in shots:
                bench.loader.bodies(server, method, BODY_BYTES, CLIENTS, 0.3)
        for number, names in turns(list(servers), rounds):
            for method, of_method in shots.items():
                for name in names:
                    shot = bench.loader.bodies(servers[name], method, BODY_BYTES, CLIENTS, SECONDS)
                    of_method[name].append(shot)
            bench.say(f"round {number + 1} of {rounds}")
    for method, of_method in shots.items():
        bench.say(f"{method}, MB/s: " + row(of_method, lambda shot: shot.megabytes_per_s, ".0f"))
        bench.say(f"{method}, CPU ms a body: " + row(of_method, lambda shot: shot.cpu_us / 1e3, ".2f"))
    yield from figures(shots)


def figures(shots: dict[str, dict[str, list[Shot]]]) -> Iterator[Figure]:
    """Turn the rounds' measurements, by method and proxy, into rows."""
    for method, of_method in shots.items():
        ours = of_method["router"]
        for name, (speed, cpu) in TARGETS.items():
            theirs = of_method.get(name)
            if not theirs:
                continue
            value = ratio([shot.megabytes_per_s for shot in ours], [shot.megabytes_per_s for shot in theirs])
            yield at_least(f"10 MB {method}: MB/s, of {name}", value, speed)
            value = ratio([shot.cpu_us for shot in ours], [shot.cpu_us for shot in theirs])
            yield at_most(f"10 MB {method}: CPU per body, of {name}", value, cpu)
