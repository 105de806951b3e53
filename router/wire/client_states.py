"""The states of a client's connection, and the only moves between them."""

from __future__ import annotations

import enum
from typing import Final


class State(enum.IntEnum):
    """Where a connection is with the request of this moment.

    HEAD: between requests, or within a head. BODY: a request's body is arriving. ANSWER: the request is all there; its
    answer is awaited or relayed. FLUSH: the answer is complete, not yet sent. SKIP: the answer was sent before the
    body's end; the rest is short, so it is read and dropped. CLOSING: flush, then close. LINGER: as SKIP, for a long or
    broken rest, for a while, and then close; a close at once could destroy the answer by a reset.
    """

    HEAD = 0
    BODY = 1
    ANSWER = 2
    FLUSH = 3
    SKIP = 4
    CLOSING = 5
    LINGER = 6


LEGAL_MOVES: Final[dict[State, frozenset[State]]] = {
    State.HEAD: frozenset({State.BODY, State.ANSWER, State.FLUSH}),
    State.BODY: frozenset({State.ANSWER, State.FLUSH, State.CLOSING}),
    State.ANSWER: frozenset({State.FLUSH, State.CLOSING}),
    State.FLUSH: frozenset({State.HEAD, State.SKIP, State.LINGER}),
    State.SKIP: frozenset({State.HEAD, State.LINGER}),
    State.CLOSING: frozenset(),
    State.LINGER: frozenset(),
}
"""A connection may close in every state: that is its end, not a move. HEAD leads to FLUSH when the head is refused."""

_LEGAL: Final = tuple(LEGAL_MOVES[state] for state in State)


class IllegalMove(RuntimeError):
    """A connection was to move where it may not: a bug of the router."""


def check(before: State, after: State) -> State:
    """Return `after` if the move is legal. Raises `IllegalMove`."""
    if after not in _LEGAL[before]:
        raise IllegalMove(f"a client's connection cannot move from {before.name} to {after.name}")
    return after
