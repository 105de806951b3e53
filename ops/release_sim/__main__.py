"""`python -m ops.release_sim`: prints how releases of each kind end.

Columns: releases that were aborted, promoted to the last step, and neither after an hour, as nobody resumes a paused
one; then medians over the aborted ones: canary requests and seconds until the abort, and the share of users whose
requests reached the canary.
Last, how many releases a second of a processor plays.
Then the same requests judged by the rules of Flagger and Kayenta (peers.py): shares aborted and promoted, and the
requests until the abort.
A row that ends in `!` holds releases that ended wrongly: the reason of the first one follows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from time import process_time
from typing import Final, NamedTuple

from ops.release_sim.peers import Flagger, Kayenta, Peer
from ops.release_sim.play import Ending, play, play_each, play_peer, summed
from router.rollout.kinds import KINDS, Kind, Right
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
    parser.add_argument(
        "--tick",
        type=float,
        help="seconds between two looks of the leader (1 at first, later a 20th of the age)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first release")
    parser.add_argument("--jobs", type=int, default=1, help="processes that play beside each other (1)")
    parser.add_argument(
        "--each-request", action="store_true", help="send each request through the real chooser: far slower"
    )
    parser.add_argument("--alone", action="store_true", help="without the rules of the two peers")
    given = parser.parse_args()
    print(
        f"{'kind':31} {'right':13} aborted promoted  paused  requests  seconds   users  a second"
        f"{'' if given.alone else '  Flagger aborts promotes requests  Kayenta aborts promotes requests'}"
        f"  ({given.releases} each)"
    )
    tasks = [
        _Task(number, seed, given.tick, given.each_request, () if given.alone else (Flagger, Kayenta))
        for number, kind in enumerate(KINDS)
        if given.kind in kind.name
        for seed in range(given.seed, given.seed + given.releases)
    ]
    if given.jobs == 1:
        _print_rows(map(_play, tasks), given.releases)
        return
    with ProcessPoolExecutor(given.jobs) as pool:
        _print_rows(pool.map(_play, tasks, chunksize=max(1, given.releases // 50)), given.releases)


class _Task(NamedTuple):
    """One seed of one kind."""

    number: int
    """The kind's, among all."""
    seed: int
    tick_s: float | None
    each_request: bool
    peers: tuple[type[Peer], ...]


class _Played(NamedTuple):
    """The same requests, judged by the router, in so many seconds of a processor, and by the peers."""

    number: int
    """The kind's, among all."""
    ending: Ending
    took_s: float
    peers: tuple[Ending, ...]


def _play(task: _Task) -> _Played:
    kind = KINDS[task.number]
    began_s = process_time()
    ending = (play_each if task.each_request else play)(kind, task.seed, tick_s=task.tick_s)
    took_s = process_time() - began_s
    return _Played(
        task.number, ending, took_s, tuple(play_peer(peer, kind, task.seed) for peer in task.peers)
    )


def _print_rows(played: Iterable[_Played], releases: int) -> None:
    for _, of_a_kind in groupby(enumerate(played), lambda each: each[0] // releases):
        print(_row([row for _, row in of_a_kind]), flush=True)


def _row(played: list[_Played]) -> str:
    kind = KINDS[played[0].number]
    found = summed(each.ending for each in played)
    row = f"{kind.name:31} {kind.right:13} {found.aborted:7.1%} {found.promoted:8.1%} {found.paused:7.1%}"
    if found.requests is None:
        row += " " * 27
    else:
        row += f"  {found.requests:8.0f} {found.at_s:8.0f} {found.users:7.1%}"
    row += f" {len(played) / sum(each.took_s for each in played):9.0f}"
    for number in range(len(played[0].peers)):
        peer = summed(each.peers[number] for each in played)
        requests = "" if peer.requests is None else f"{peer.requests:.0f}"
        row += f"  {peer.aborted:14.1%} {peer.promoted:8.1%} {requests:>8}"
    bad = next((each.ending for each in played if wrong(kind, each.ending)), None)
    return row if bad is None else f"{row}  ! {bad.reason}"


if __name__ == "__main__":
    main()
