"""Orders of operators, by command line or admin API. They change the state on the disk, with or without a router."""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from router.choosing.serving import UNKNOWN, Health, away, leaves_nobody, serves
from router.rollout.bars import without
from router.rollout.overlay import overlay, takers
from router.rollout.progress import advance
from router.rollout.record import Abort, End, Happening, Pause, Progress, Resume, Skip, Start
from router.rollout.statefile import StateFile
from router.rollout.states import Moved, NeedsForce, NotAllowed
from router.routing.table import SetState, Table


class Order(StrEnum):
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    SKIP = "skip"
    ABORT = "abort"
    END = "end"


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The state for which an order was given, as the status showed it; None: not checked.

    `run` and `event` tell one moment of one rollout from all others; `step` counts from 1; `plan` is the digest of the
    plan that a start was shown.
    """

    run: int | None = None
    event: int | None = None
    set: str | None = None
    phase: str | None = None
    step: int | None = None
    plan: str | None = None


ANYHOW: Final = Given()
_ONTO_THE_CANARY: Final = (Order.START, Order.RESUME, Order.SKIP)


def give(
    state: StateFile,
    order: Order,
    table: Table,
    *,
    by: str = "",
    why: str = "",
    at_once: bool = False,
    force: bool = False,
    given: Given = ANYHOW,
    health: Health = UNKNOWN,
    builds: Mapping[str, str] | None = None,
    now: float | None = None,
) -> Progress:
    """Carry out an order; returns the progress after it, which is on the disk. Running routers follow within a second.

    `table` is the file's, without a rollout's weights on top. `at_once`: an abort in one move. `force`: also where
    `permit` would refuse. Blocks for small file I/O. Raises `Moved` where the rollout has gone on since the moment
    that the order was `given` for; `NotAllowed` where it does not fit, with what to do; `RolloutError` where the disk
    fails.
    """
    moment = time.time() if now is None else now

    def step(old: Progress) -> Progress:
        check(given, old, table)
        new = advance(old, _happening(order, table, old, by, why, at_once, force, builds), moment)[0]
        if not force:
            permit(order, table, old, new, health)
        return new

    return state.change(step)


def permit(order: Order, table: Table, old: Progress, new: Progress, health: Health) -> None:
    """Raise `NeedsForce` where an order would give new requests to sets that do not take them.

    An order onto the canary needs a canary that is well. No order may take away the last set that serves: an abort is
    judged by where it leads, not by its first move.
    """
    plan = new.plan
    if order is Order.PAUSE or plan is None or plan.dry_run:
        return
    name = plan.set
    if order in _ONTO_THE_CANARY and name in table.sets and not serves(table, name, health):
        raise NeedsForce(
            f"set {name!r} takes no new requests: it is {away(table, name, health)}; bring it up first, or use --force"
        )
    after = overlay(table, name, 0, new.others) if order is Order.ABORT else in_force(table, new)
    problem = leaves_nobody(in_force(table, old), after, health)
    if problem:
        raise NeedsForce(f"{problem}; bring one up first, or use --force")


def check(given: Given, progress: Progress, table: Table) -> None:
    """Raise `Moved`, with the present state, unless the rollout is in the state that an order was given for."""
    plan = progress.plan
    now = Given(
        progress.run,
        progress.last_event,
        plan.set if plan is not None else None,
        str(progress.phase),
        progress.step + 1 if plan is not None else None,
        table.rollout.digest if table.rollout is not None else None,
    )
    other = [
        name
        for name in Given.__struct_fields__
        if (meant := getattr(given, name)) is not None and meant != getattr(now, name)
    ]
    if not other:
        return
    if "plan" in other:
        raise Moved("the file's plan is another one by now; look at it, then start it")
    where = "there was no rollout yet"
    if plan is not None:
        where = (
            f"the rollout of {plan.set} is {progress.phase}, at step {progress.step + 1} of {len(plan.steps)}"
        )
        by = progress.events[-1].by if progress.events else ""
        where += f" (last: {progress.reason}{f', by {by}' if by else ''})"
    meant_for = ", ".join(f"{name} {getattr(given, name)}" for name in other)
    raise Moved(f"the order was given for {meant_for}, but by now {where}; look again before you repeat it")


def _happening(
    order: Order,
    table: Table,
    progress: Progress,
    by: str,
    why: str,
    at_once: bool,
    force: bool,
    builds: Mapping[str, str] | None,
) -> Happening:
    if order is Order.PAUSE:
        return Pause(by, why)
    if order is Order.RESUME:
        return completed(Resume(by, why), table, progress)
    if order is Order.SKIP:
        return completed(Skip(by, why), table, progress)
    if order is Order.ABORT:
        return completed(Abort(by, why, at_once, force=force), table, progress)
    if order is Order.END:
        return End(table.default.shares, by, why)
    return starting(table, progress, by=by, why=why, builds=builds)


def completed(order: Happening, table: Table, progress: Progress) -> Happening:
    """An order with what the table says of the sets that it concerns."""
    if isinstance(order, Abort):
        return msgspec.structs.replace(order, others=others_of(table, progress))
    if isinstance(order, Resume | Skip):
        return msgspec.structs.replace(order, takes_work=_ready(table, progress))
    return order


def starting(
    table: Table,
    progress: Progress,
    *,
    by: str = "",
    why: str = "",
    builds: Mapping[str, str] | None = None,
) -> Start:
    """Return the start of the file's plan as things are now; `builds`: those that the sets report. Raises `NotAllowed`
    if the file has no plan."""
    plan = table.rollout
    if plan is None:
        raise NotAllowed("the file has no `rollout` section; write the plan there first")
    return Start(
        plan,
        shares=table.default.shares,
        effective=in_force(table, progress).default.shares,
        urls={name: entry.url for name, entry in table.sets.items()},
        takes_work=table.sets[plan.set].state is SetState.READY,
        by=by,
        why=why,
        others=takers(table, plan.set),
        builds=builds,
    )


def _ready(table: Table, progress: Progress) -> bool:
    entry = table.sets.get(progress.plan.set) if progress.plan is not None else None
    return entry is None or entry.state is SetState.READY


def others_of(table: Table, progress: Progress) -> dict[str, bool] | None:
    """The sets that would take over from the canary, and whether each takes new work; None: there is no rollout."""
    return None if progress.plan is None else takers(table, progress.plan.set, progress.others)


def in_force(table: Table, progress: Progress) -> Table:
    """Return the file's table with the rollout's weights on top, if the rollout decides, and without the sets that it
    took back."""
    force = progress.in_force
    live = table if force is None else overlay(table, *force, progress.others)
    return without(live, progress.barred)
