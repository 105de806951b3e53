"""Measures the delay that a proxy adds to a request at half of its maximum load.

p99 is taken over windows of a quarter of a second; the figure is the median over all windows of all rounds. A shared
machine stalls for some milliseconds once or twice a second. A p99 over several seconds is at the edge of that, and says
more about the host than about the proxy; such stalls spoil the windows that they hit, but not the median. This p99 does
not show what a proxy does less than twice a second; the progress line has the p99 and p99.9 of all requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Final

from ops.bench.figures import Figure
from ops.bench_router.bench import Bench, at_most, row, turns
from ops.bench_router.load import Shot

SECONDS: Final = 3.0
WARM_SECONDS: Final = 1.0
LEAST_US: Final = 1.0
"""Minimum that counts as the added delay, in µs: on a noisy machine the difference of two quantiles can be 0."""


def latency(bench: Bench, rounds: int) -> Iterator[Figure]:
    """Measure small GETs at half of the weaker one's maximum, and subtract the upstream's own time at that rate."""
    with bench.proxies("router", "nginx") as servers:
        most = {
            name: max(bench.loader.small(server, "GET", WARM_SECONDS).per_s for _ in range(2))
            for name, server in servers.items()
        }
        per_s = min(most.values()) / 2
        bench.say(f"at {per_s:.0f} requests a second")
        measured = {"upstream": bench.upstream, **servers}
        shots: dict[str, list[Shot]] = {name: [] for name in measured}
        for number, names in turns(list(measured), rounds):
            for name in names:
                shots[name].append(bench.loader.rate(measured[name], per_s, SECONDS))
            bench.say(f"round {number + 1} of {rounds}")
    bench.say("p50 µs: " + row(shots, lambda shot: shot.p50_us, ".0f"))
    bench.say("p99 µs in ¼ s: " + row(shots, lambda shot: shot.window_p99_us, ".0f"))
    bench.say("p99 µs of all: " + row(shots, lambda shot: shot.p99_us, ".0f"))
    bench.say("p99.9 µs of all: " + row(shots, lambda shot: shot.p999_us, ".0f"))
    yield from figures(shots)


def figures(shots: dict[str, list[Shot]]) -> Iterator[Figure]:
    """Turn the rounds' measurements, by proxy, into rows; "upstream" is the baseline."""
    if "nginx" not in shots:
        return
    medians = {
        name: (median(shot.p50_us for shot in each), median(shot.window_p99_us for shot in each))
        for name, each in shots.items()
    }
    for place, words in enumerate(("p50 added", "p99 of a quarter of a second added")):
        bare = medians["upstream"][place]
        ours, theirs = (max(LEAST_US, medians[name][place] - bare) for name in ("router", "nginx"))
        yield at_most(f"half load: {words} ({ours:.0f} µs), of nginx", ours / theirs, 1.5)
