"""Measures small requests at full speed: CPU time for each, and requests per second on one core."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ops.bench.figures import Figure
from ops.bench_router.bench import Bench, at_least, at_most, below, ratio, row, turns
from ops.bench_router.load import Shot

SECONDS: Final = 2.0
PEERS: Final = ("nginx", "haproxy", "envoy", "traefik", "caddy")
WORDS: Final = {"GET": "small GET", "POST": "1 KB POST"}


def small(bench: Bench, rounds: int) -> Iterator[Figure]:
    """Measure a GET of 128 bytes and a POST of 1 KB from 16 connections."""
    with bench.proxies("router", *PEERS) as servers:
        shots: dict[str, dict[str, list[Shot]]] = {method: {name: [] for name in servers} for method in WORDS}
        for server in servers.values():
            for method in WORDS:
                bench.loader.small(server, method, 1.0)
        for number, names in turns(list(servers), rounds):
            for method, of_method in shots.items():
                for name in names:
                    of_method[name].append(bench.loader.small(servers[name], method, SECONDS))
            bench.say(f"round {number + 1} of {rounds}")
    for method, of_method in shots.items():
        bench.say(f"{WORDS[method]}, CPU µs: " + row(of_method, lambda shot: shot.cpu_us, ".1f"))
        bench.say(f"{WORDS[method]}, per s: " + row(of_method, lambda shot: shot.per_s, ".0f"))
    yield from figures(shots)


def figures(shots: dict[str, dict[str, list[Shot]]]) -> Iterator[Figure]:
    """Turn the rounds' measurements, by method and proxy, into rows."""
    for method, of_method in shots.items():
        ours = of_method["router"]
        for name in PEERS:
            if name == "haproxy" or name not in of_method:
                continue  # HAProxy has no target; its figures are in the progress lines.
            value = ratio([shot.cpu_us for shot in ours], [shot.cpu_us for shot in of_method[name]])
            what = f"{WORDS[method]}: CPU per request, of {name}"
            yield at_most(what, value, 1.7) if name == "nginx" else below(what, value, 1)
        if "nginx" in of_method:
            value = ratio([shot.per_s for shot in ours], [shot.per_s for shot in of_method["nginx"]])
            yield at_least(f"{WORDS[method]}: requests/s on one core, of nginx", value, 0.6)
