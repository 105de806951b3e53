"""The rollout's phases and the only legal moves between them; the words of its orders and events."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from router.errors import RouterError


class Phase(StrEnum):
    """IDLE: the file's weights count. HOLDING: at a step, its hold runs. WAITING: the hold is over, evidence is not
    there. GATED: the next step's gate is being asked. PAUSED: until somebody resumes. RETURNING: on the way to a
    set that carried all not long ago. ABORTING: on the way to weight 0. ABORTED: there. DONE: at the last step's
    weight, until the file says so, too."""

    IDLE = "idle"
    HOLDING = "holding"
    WAITING = "waiting"
    GATED = "gated"
    PAUSED = "paused"
    RETURNING = "returning"
    ABORTING = "aborting"
    ABORTED = "aborted"
    DONE = "done"


class Cause(StrEnum):
    """The cause of a move: an order, the clock, a check, or a change of the file."""

    START = "start"
    RETURN = "return"
    ENTER = "enter"
    ASK = "ask"
    HOLD_OVER = "hold over"
    STOP = "stop"
    RESUME = "resume"
    ABORT = "abort"
    FINISH = "finish"
    EMPTY = "weight 0 reached"
    EDIT = "weights edited"


_AT_A_STEP: Final = (Phase.HOLDING, Phase.WAITING, Phase.GATED, Phase.PAUSED)

LEGAL_MOVES: Final[dict[Phase, dict[Cause, frozenset[Phase]]]] = {
    **{
        phase: {
            # A start enters its first step, asks its gate, or pauses, at once.
            Cause.START: frozenset({Phase.HOLDING, Phase.GATED, Phase.PAUSED, Phase.DONE}),
            Cause.RETURN: frozenset({Phase.RETURNING}),
            Cause.EDIT: frozenset({Phase.IDLE}),
        }
        for phase in (Phase.IDLE, Phase.ABORTED)
    },
    Phase.DONE: {
        Cause.START: frozenset({Phase.HOLDING, Phase.GATED, Phase.PAUSED, Phase.DONE}),
        Cause.RETURN: frozenset({Phase.RETURNING}),
        Cause.ABORT: frozenset({Phase.ABORTING}),
        Cause.EDIT: frozenset({Phase.IDLE}),
    },
    **{
        phase: {
            Cause.ENTER: frozenset({Phase.HOLDING}),
            Cause.ASK: frozenset({Phase.GATED}),
            Cause.HOLD_OVER: frozenset({Phase.WAITING}),
            Cause.STOP: frozenset({Phase.PAUSED}),
            Cause.EDIT: frozenset({Phase.PAUSED}),
            Cause.ABORT: frozenset({Phase.ABORTING}),
            Cause.FINISH: frozenset({Phase.DONE}),
        }
        for phase in _AT_A_STEP
    },
    Phase.RETURNING: {
        Cause.ENTER: frozenset({Phase.HOLDING}),
        Cause.STOP: frozenset({Phase.PAUSED}),
        Cause.EDIT: frozenset({Phase.PAUSED}),
        Cause.ABORT: frozenset({Phase.ABORTING}),
        Cause.FINISH: frozenset({Phase.DONE}),
    },
    Phase.ABORTING: {Cause.EMPTY: frozenset({Phase.ABORTED})},
}
LEGAL_MOVES[Phase.PAUSED][Cause.RESUME] = frozenset({Phase.HOLDING, Phase.GATED, Phase.RETURNING})
for _phase in (Phase.WAITING, Phase.GATED, Phase.PAUSED):
    del LEGAL_MOVES[_phase][Cause.HOLD_OVER]

RUNNING: Final = frozenset({*_AT_A_STEP, Phase.RETURNING, Phase.ABORTING})
"""Phases in which a rollout is under way."""


class RolloutError(RouterError):
    """The rollout cannot do that now."""


class NotAllowed(RolloutError):
    """The order does not fit the rollout's phase."""


class NeedsForce(NotAllowed):
    """The order would leave no set to take new requests; it is carried out only with force."""


class Moved(NotAllowed):
    """The rollout went on since the order was given: it is not what the order was meant for."""


class IllegalMove(RolloutError):
    """The rollout's own code tried a move that its table does not hold: a bug."""


def check(old: Phase, cause: Cause, new: Phase) -> Phase:
    """Return `new` if the table allows the move. Raises `IllegalMove`."""
    if new not in LEGAL_MOVES[old].get(cause, frozenset()):
        raise IllegalMove(f"rollout: {old} → {new} ({cause}) is not a legal move")
    return new
