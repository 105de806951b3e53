"""`python -m ops.release_sim`: prints how releases of each kind end.

Columns: releases that were aborted, promoted to the last step, and neither after an hour, as nobody resumes a paused
one; then medians over the aborted ones: canary requests and seconds until the abort, and the share of users whose
requests reached the canary.
A row that ends in `!` holds releases that ended wrongly: the reason of the first one follows.
"""

from __future__ import annotations

import argparse
from typing import Final

from ops.release_sim.kinds import KINDS, Kind, Right
from ops.release_sim.play import Ending, play, summed
from router.rollout.states import Phase

_WRONG: Final = {
    Right.ABORT: (Phase.DONE,),
    Right.NEVER_PROMOTE: (Phase.DONE,),
    Right.PROMOTE: (Phase.ABORTED,),
}
"""Ends that harm: a sick canary that is promoted, a healthy one that is aborted. A pause asks a person."""


def wrong(kind: Kind, ending: Ending) -> bool:
    """Return True if a release of this kind ended as it must not."""
    return ending.phase in _WRONG[kind.right]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ops.release_sim", description=__doc__)
    parser.add_argument("--releases", type=int, default=20, help="releases of each kind (20)")
    parser.add_argument("--kind", default="", help="only kinds whose name contains this text")
    parser.add_argument("--tick", type=float, default=1.0, help="seconds between two looks of the leader (1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first release")
    given = parser.parse_args()
    print(
        f"{'kind':31} {'right':13} aborted promoted  paused  requests  seconds   users  ({given.releases} each)"
    )
    for kind in KINDS:
        if given.kind in kind.name:
            seeds = range(given.seed, given.seed + given.releases)
            endings = [play(kind, seed, tick_s=given.tick) for seed in seeds]
            print(_row(kind, endings), flush=True)


def _row(kind: Kind, endings: list[Ending]) -> str:
    found = summed(endings)
    row = f"{kind.name:31} {kind.right:13} {found.aborted:7.1%} {found.promoted:8.1%} {found.paused:7.1%}"
    if found.requests is not None:
        row += f"  {found.requests:8.0f} {found.at_s:8.0f} {found.users:7.1%}"
    bad = next((ending for ending in endings if wrong(kind, ending)), None)
    return row if bad is None else f"{row}  ! {bad.reason}"


if __name__ == "__main__":
    main()
