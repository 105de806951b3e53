"""What operators may order, by command line or admin API; made on the state as it lies on the disk, router or no."""

from __future__ import annotations

import time
from enum import StrEnum

from router.table import SetState, Table

from .overlay import overlay
from .progress import advance
from .record import Abort, Happening, Pause, Progress, Resume, Skip, Start
from .statefile import StateFile
from .states import NotAllowed


class Order(StrEnum):
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    SKIP = "skip"
    ABORT = "abort"


def give(
    state: StateFile,
    order: Order,
    table: Table,
    *,
    by: str = "",
    why: str = "",
    at_once: bool = False,
    now: float | None = None,
) -> Progress:
    """Carry out an order; returns the progress after it, which is on the disk. Running routers follow within a second.

    `table` is the file's, without a rollout's weights on top. `at_once`: an abort in one move. Blocks for small
    file I/O. Raises `NotAllowed` where it does not fit, with what to do; `RolloutError` where the disk fails.
    """
    moment = time.time() if now is None else now
    return state.change(
        lambda old: advance(old, _happening(order, table, old, by=by, why=why, at_once=at_once), moment)[0]
    )


def _happening(
    order: Order, table: Table, progress: Progress, *, by: str, why: str, at_once: bool
) -> Happening:
    if order is Order.PAUSE:
        return Pause(by, why)
    if order is Order.RESUME:
        return Resume(by, why)
    if order is Order.SKIP:
        return Skip(by, why)
    if order is Order.ABORT:
        return Abort(by, why, at_once)
    plan = table.rollout
    if plan is None:
        raise NotAllowed("the file has no `rollout` section; write what is to be done there first")
    return Start(
        plan,
        shares=table.default.shares,
        effective=in_force(table, progress).default.shares,
        urls={name: entry.url for name, entry in table.sets.items()},
        takes_work=table.sets[plan.set].state is SetState.READY,
        by=by,
        why=why,
    )


def in_force(table: Table, progress: Progress) -> Table:
    """The file's table with the rollout's weights on top, where the rollout has a say."""
    force = progress.in_force
    return table if force is None else overlay(table, *force)
