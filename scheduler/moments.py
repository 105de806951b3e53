"""The moments of a task's way through a set, as its row keeps them."""

from __future__ import annotations

from typing import Final

import msgspec

LOST_KEPT: Final = 10
"""Number of lost attempts that a task's row keeps, the last ones: a task that gives way often must not grow it."""
WHY_CHARS: Final = 200
"""Length of the reason that is kept of a lost attempt."""


class Moments(msgspec.Struct, array_like=True):
    """Microseconds from the task's creation to each moment; None: it has not come. `slot_wanted`, `started` and
    `first_byte` are those of the newest attempt.

    `input_ready`: all input is there; where it is streamed, its last byte was handed to the program. `slot_wanted`: the
    task began to wait for a slot; before an attempt that is not the first, a pause may be part of the wait. `started`:
    its program was started. `first_byte`: the first byte of its stdout reached the set; output that fits into one
    message comes together with the end. `recorded`: the write of its outcome began, so that the row itself has it.

    Copies of a task share this object while an attempt runs: a look at the task shows how far the attempt is.
    """

    input_ready: int | None = None
    slot_wanted: int | None = None
    started: int | None = None
    first_byte: int | None = None
    recorded: int | None = None


class LostAttempt(msgspec.Struct, frozen=True):
    """An attempt that the platform lost, or that gave way to another task; `why` in words.

    It had its slot at `started_us` and was over at `ended_us`, microseconds since the epoch.
    """

    started_us: int
    ended_us: int
    why: str
