"""`python -m ops.release_sim.bounds`: the fewest canary requests that any sequential test needs, on average. Pure.

A test that is wrong with probability α at most, however often one looks, must have made a likelihood ratio of 1/α. No
bet makes it grow faster, on average, than the likelihood of what is true beside that of the nearest that the margin
allows (Kelly's bet): each round of one canary request and some of control's adds the divergence of the two. So it takes
log(1/α) / divergence requests of the canary, even if all rates were known beforehand.
"""

from __future__ import annotations

from math import erfc, inf, log, sqrt
from typing import Final

from router.rollout.analysis import check_alpha
from router.rollout.kinds import PLAN
from router.rollout.rates import nearest
from router.rollout.tail import QUANTILE

ALPHA: Final = check_alpha(PLAN) / 2
CONTROLS: Final = (1.0, 3.0, 19.0)
"""Control's requests for each of the canary's: at 50, 25, and 5 %."""
_MEDIAN: Final = 20.0
_SPREAD: Final = 0.5
_PARTS: Final = 4_000


def rate_requests(canary: float, control: float, margin: float, times: float, alpha: float = ALPHA) -> float:
    """For a rate that is worse than control's by more than `margin`. `times`: control's requests for each of the
    canary's."""
    allowed = nearest(margin, canary, 1.0, times * control, times)
    growth = _divergence(canary, allowed + margin) + times * _divergence(control, allowed)
    return log(1 / alpha) / growth if growth else inf


def latency_requests(slower: float, margin: float, times: float, alpha: float = ALPHA) -> float:
    """For a 95th percentile of a canary that takes `slower` times as long, by which requests lie above it."""
    growth = inf
    for part in range(_PARTS):
        # The canary's percentile as it might be, with control's as far below as the margin allows.
        percentile = _MEDIAN * (1.0 + 5.0 * part / _PARTS)
        slow, base = _above(percentile / slower), _above(percentile / (1.0 + margin))
        mine = _divergence(slow, 1 - QUANTILE) if slow > 1 - QUANTILE else 0.0
        theirs = _divergence(base, 1 - QUANTILE) if base < 1 - QUANTILE else 0.0
        growth = min(growth, mine + times * theirs)
    return log(1 / alpha) / growth if growth else inf


def _divergence(true: float, supposed: float) -> float:
    """Kullback and Leibler's, of two chances."""
    found = 0.0
    if true > 0.0:
        found += true * log(true / supposed)
    if true < 1.0:
        found += (1 - true) * log((1 - true) / (1 - supposed))
    return found


def _above(latency_ms: float) -> float:
    """The share of requests slower than this, of a set as `world.Temper` has it."""
    return 0.5 * erfc(log(latency_ms / _MEDIAN) / (_SPREAD * sqrt(2.0)))


def main() -> None:
    print(
        f"{'harm':24} margin  "
        + "".join(f"{f'1 : {times:g}':>8}" for times in CONTROLS)
        + f"  (1/α = {1 / ALPHA:.0f})"
    )
    for name, canary, margin in (
        ("all requests fail", 1.0, 0.02),
        ("errors +20 points", 0.205, 0.02),
        ("errors +5 points", 0.055, 0.02),
        ("errors +5 points", 0.055, 0.0),
        ("errors +1 point", 0.015, 0.005),
        ("errors +1 point", 0.015, 0.0),
    ):
        needed = (rate_requests(canary, 0.005, margin, times) for times in CONTROLS)
        print(f"{name:24} {margin * 100:4.1f} p  " + "".join(f"{requests:8.0f}" for requests in needed))
    for slower, margin in ((1.5, 0.25), (1.5, 0.0), (1.25, 0.1)):
        needed = (latency_requests(slower, margin, times) for times in CONTROLS)
        name = f"p95 +{(slower - 1) * 100:.0f} %"
        print(f"{name:24} {margin * 100:4.0f} %  " + "".join(f"{requests:8.0f}" for requests in needed))


if __name__ == "__main__":
    main()
