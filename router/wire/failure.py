"""How an attempt at a set can end without an answer that could be relayed. Pure."""

from __future__ import annotations

import enum
from typing import Final


class Failure(enum.Enum):
    """How an attempt ended without an answer that could be relayed."""

    CONNECT = enum.auto()
    """No connection: nothing was sent."""
    NO_ROOM = enum.auto()
    """No connection, because this process lacks a descriptor or memory: nothing was sent, and the set is not at
    fault."""
    SEND = enum.auto()
    """The connection broke before the request was sent whole: the set cannot have taken it."""
    STALE = enum.auto()
    """A kept connection ended before the answer's first byte: most likely it was closed while idle."""
    RESET = enum.auto()
    """The connection ended after the request was sent whole and before the answer's first byte."""
    BACK_PRESSURE = enum.auto()
    """The set answered 503 with `executed: false`: full, draining or starting."""
    BAD_ANSWER = enum.auto()
    """The answer was not valid HTTP."""
    TIMEOUT = enum.auto()
    """No answer's first byte in time, where a task was waited for: it may still be at work."""
    SILENT = enum.auto()
    """No answer's first byte in time, where no task was waited for."""


NOTHING_RAN: Final = frozenset({Failure.CONNECT, Failure.NO_ROOM, Failure.SEND, Failure.BACK_PRESSURE})
"""Failures after which surely no algorithm ran: the problem then says `executed: false`."""
TOO_LATE: Final = frozenset({Failure.TIMEOUT, Failure.SILENT})
"""Failures after which the client has waited long enough: it is told 504, and nothing is repeated."""
