"""What a proxy adds to the time of a request when it has half of what it can take to do.

p99 is that of a quarter of a second: of each such window, and then the median over all windows of all rounds. A machine
that is shared stalls as a whole, for some milliseconds once or twice a second, whatever runs on it; a p99 of several
seconds lies on the edge of that and says more of the host than of the proxy. Such stalls spoil the windows that they
hit, not the median. What a proxy itself does less than twice a second, this p99 does not show: the line of progress has
the p99 and p99.9 of all requests beside it.
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
"""What is added counts as this much at least: on a noisy machine the difference of two quantiles can be nothing."""


def latency(bench: Bench, rounds: int) -> Iterator[Figure]:
    """Small GETs at half of the weaker one's maximum; what the upstream alone takes at that rate is taken off."""
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
    """By proxy, the rounds' measurements; "upstream" is what both are compared with."""
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
