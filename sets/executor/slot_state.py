"""The states of a slot, and its legal moves."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class SlotState(StrEnum):
    CONNECTING = "connecting"
    IDLE = "idle"
    RUNNING = "running"
    CLEANING = "cleaning"
    """The task has ended, and its slot is not ready for the next: files are read, or the guest cleans up."""
    LOST = "lost"


SLOT_MOVES: Final[dict[SlotState, frozenset[SlotState]]] = {
    SlotState.CONNECTING: frozenset({SlotState.IDLE, SlotState.LOST}),
    SlotState.IDLE: frozenset({SlotState.RUNNING, SlotState.LOST}),
    SlotState.RUNNING: frozenset({SlotState.IDLE, SlotState.CLEANING, SlotState.LOST}),
    SlotState.CLEANING: frozenset({SlotState.IDLE, SlotState.LOST}),
    SlotState.LOST: frozenset(),
}
