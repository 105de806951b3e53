"""The timeline of a task: its moments, and the phases between them. Pure.

A moment that the task never reached is None. `slot_wanted` to `first_byte` are those of its newest attempt.
"""

from __future__ import annotations

from typing import Final

import msgspec

from scheduler.moments import Moments
from scheduler.task import FailedAttempt, Task

MOMENTS: Final = (
    "queued",
    "slot_wanted",
    "slot_ready",
    "input_ready",
    "started",
    "first_byte",
    "ended",
    "recorded",
)
"""The moments of a task, in the order of the way of most tasks."""


class Phase(msgspec.Struct, frozen=True):
    """A part of a task's way, in microseconds from its creation. `to_us` None: it goes on.

    `name`: `earlier_attempt` (`why` says how it ended), `accept` (until it waits for a slot), `slot_wait`, `input_wait`
    (it has a slot, and its input still arrives), `begin` (from its slot to its program), `run`, `record`.
    """

    name: str
    from_us: int
    to_us: int | None
    why: str = ""


def moments_of(task: Task) -> dict[str, int | None]:
    """The task's moments by name: microseconds since the epoch."""
    moments, created_us = task.moments or Moments(), task.created_us

    def at(after_us: int | None) -> int | None:
        return None if after_us is None else created_us + after_us

    times = (
        created_us,
        at(moments.slot_wanted),
        task.started_us,
        at(moments.input_ready),
        at(moments.started),
        at(moments.first_byte),
        task.ended_us,
        at(moments.recorded),
    )
    return dict(zip(MOMENTS, times, strict=True))


def phases_of(task: Task) -> list[Phase]:
    """The phases of the task's way, in the order in which they begin: those that it has reached."""
    created_us = task.created_us
    found = [
        Phase("earlier_attempt", from_us - created_us, to_us - created_us, why)
        for from_us, to_us, why in sorted(_earlier(task))
    ]
    moments = task.moments or Moments()
    ready = None if task.started_us is None else task.started_us - created_us
    ended = None if task.ended_us is None else task.ended_us - created_us
    if moments.slot_wanted is not None:
        if not found:
            found.append(Phase("accept", 0, moments.slot_wanted))
        found.append(Phase("slot_wait", moments.slot_wanted, _first(ready, ended)))
    if ready is not None:
        found.append(Phase("begin", ready, _first(moments.started, ended)))
        arrived = moments.input_ready
        if task.moments is not None and (arrived is None or arrived > ready):
            found.append(Phase("input_wait", ready, _first(arrived, ended)))
    if moments.started is not None:
        found.append(Phase("run", moments.started, ended))
    if ended is not None:
        found.append(Phase("record", ended, moments.recorded))
    return [_forwards(phase) for phase in found]


def _forwards(phase: Phase) -> Phase:
    """The phase, without a length where the wall clock was set back in it."""
    if phase.to_us is None or phase.to_us >= phase.from_us:
        return phase
    return Phase(phase.name, phase.from_us, phase.from_us, phase.why)


def _earlier(task: Task) -> list[tuple[int, int, str]]:
    lost = [(attempt.started_us, attempt.ended_us, attempt.why) for attempt in task.lost]
    failed = [
        (attempt.started_us, attempt.started_us + attempt.duration_us, _why(attempt))
        for attempt in task.failed_attempts
    ]
    return lost + failed


def _why(failed: FailedAttempt) -> str:
    if failed.signal is not None:
        return f"it failed by itself: signal {failed.signal}"
    code = "" if failed.exit_code is None else f" {failed.exit_code}"
    return f"it failed by itself: {failed.reason.value.replace('_', ' ')}{code}"


def _first(moment: int | None, ended: int | None) -> int | None:
    return ended if moment is None else moment
