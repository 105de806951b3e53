"""Decides when an attempt takes too long."""

from __future__ import annotations

from router.choosing.request import Purpose
from router.wire.failure import Failure
from router.wire.limits import Limits
from router.wire.silence import is_gone
from router.wire.upstream import SetConnection


def overdue(
    limits: Limits, purpose: Purpose, connection: SetConnection, *, client_drained: bool, now: float
) -> tuple[Failure, str] | None:
    """Return how an attempt on `connection` failed by taking too long, and the message; None: it may go on.

    The kernel is asked about a silent connection, all else is plain arithmetic.
    """
    stream = connection.stream
    if now - connection.at > limits.peer_silent_s and is_gone(stream.sock, limits.peer_silent_s):
        # It may have run, also if the request was not sent whole: nobody told the set that it broke off.
        return Failure.RESET, f"its machine has not answered for {limits.peer_silent_s:g} s"
    if connection.has_answer:
        if client_drained and now - connection.at > limits.answer_idle_s:
            return Failure.TIMEOUT, "the answer stalled"
    elif connection.whole_sent:
        long_wait = purpose.long_wait
        allowed_s = limits.task_first_byte_s if long_wait else limits.first_byte_s
        if now - connection.at > allowed_s:
            failure = Failure.TIMEOUT if long_wait else Failure.SILENT
            return failure, f"no answer within {allowed_s:g} s"
    elif stream.stalled_since and now - stream.stalled_since > limits.task_first_byte_s:
        return Failure.TIMEOUT, "the set does not read the request's body"
    return None
