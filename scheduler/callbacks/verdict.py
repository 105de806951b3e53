"""Decides, after each try of a callback, if it was made, when it is tried again, and when it is given up. Pure."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from scheduler.backoff import Backoff
from scheduler.callback import Callback, CallbackState

PAUSES: Final = Backoff(5.0, 6 * 3600.0)
"""Pauses between tries, from 5 s to 6 h; each is shortened by up to half, so that callbacks spread out."""
TRY_FOR_US: Final = 3 * 86_400 * 1_000_000
"""How long a callback is tried, in microseconds: a receiver that fails on a Friday evening is mended by Monday."""
MADE_KEEP_US: Final = 86_400 * 1_000_000
"""How long a callback that was made stays in the list, in microseconds."""
FAILED_KEEP_US: Final = 7 * 86_400 * 1_000_000
"""How long a failed callback can be tried again by its account, in microseconds."""
_GONE: Final = 410
_BUSY: Final = frozenset({429, 503})
"""Statuses whose `Retry-After` counts."""


class Answer(msgspec.Struct, frozen=True):
    """The outcome of one try. `status` is None if no answer came; `error` says why then.

    `hopeless`: no further try can succeed.
    """

    status: int | None = None
    error: str | None = None
    retry_after_s: int | None = None
    hopeless: bool = False


def after_try(callback: Callback, answer: Answer, now_us: int) -> Callback:
    """Return the callback as it is after a try: made, waiting for its next try, or failed."""
    tried = replace(
        callback,
        tries=callback.tries + 1,
        last_us=now_us,
        status=answer.status,
        error=error_of(answer),
        due_us=None,
    )
    if answer.status is not None and 200 <= answer.status < 300:
        return replace(tried, state=CallbackState.MADE, ended_us=now_us, expires_us=now_us + MADE_KEEP_US)
    if answer.status == _GONE or answer.hopeless:
        return give_up(tried, now_us)
    pause_s = PAUSES.spread(tried.tries, tried.task_id)
    if answer.status in _BUSY and answer.retry_after_s is not None:
        pause_s = max(pause_s, min(answer.retry_after_s, PAUSES.max_s))
    due_us = now_us + round(pause_s * 1_000_000)
    return give_up(tried, now_us) if due_us > ends_us(callback) else replace(tried, due_us=due_us)


def give_up(callback: Callback, now_us: int) -> Callback:
    """Return the callback as a failed one. `error` stays as the last try left it."""
    return replace(
        callback, state=CallbackState.FAILED, due_us=None, ended_us=now_us, expires_us=now_us + FAILED_KEEP_US
    )


def ends_us(callback: Callback) -> int:
    """The time after which a callback is not tried again."""
    return callback.since_us + TRY_FOR_US


def again(callback: Callback, now_us: int) -> Callback:
    """Return a failed callback as one that is due now, and tried for as long as a new one."""
    return replace(
        callback,
        state=CallbackState.WAITING,
        since_us=now_us,
        due_us=now_us,
        tries=0,
        ended_us=None,
        expires_us=None,
    )


def error_of(answer: Answer) -> str | None:
    """Return the fault of a try in words; None if it had none."""
    status = answer.status
    if status is None or answer.error is not None:
        return answer.error
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return (
            f"the receiver answered {status}: redirects are not followed; submit tasks with the final address"
        )
    if status == _GONE:
        return "the receiver answered 410: it wants no more of this callback"
    return f"the receiver answered {status}"
