"""The callback of a task: a message to an address of the caller's, which is tried again until it arrives."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from scheduler.task import Task


class CallbackState(StrEnum):
    WAITING = "waiting"
    """It is tried at its next time, or is being tried."""
    MADE = "made"
    """The receiver answered with a status from 200 to 299."""
    FAILED = "failed"
    """It is not tried again, unless its account asks for that."""


class Callback(msgspec.Struct, frozen=True, omit_defaults=True):
    """The callback of one task; it has the task's id. Times are microseconds since the epoch.

    Facts that are the defaults are left out of its row, which is why a new one needs a default. `since_us` is the start
    of the days for which it is tried. `status` and `error` are those of the last try: `status` is None if there was no
    answer. `due_us` is the time of the next try, None if there is none.
    """

    task_id: str
    account: str
    url: str
    created_us: int
    since_us: int
    state: CallbackState = CallbackState.WAITING
    tries: int = 0
    due_us: int | None = None
    last_us: int | None = None
    status: int | None = None
    error: str | None = None
    ended_us: int | None = None
    expires_us: int | None = None


class CallbackFilter(msgspec.Struct, frozen=True):
    """Selects a page of one account's callbacks, newest tasks first: ids below `before`, at most `limit`."""

    account: str
    state: CallbackState | None = None
    before: str | None = None
    limit: int = 50


def callback_of(task: Task) -> Callback | None:
    """The callback of a task that has just ended, due at once; None if the task asked for none."""
    spec = task.spec
    if spec.callback_url is None:
        return None
    ended_us = task.ended_us or task.created_us
    return Callback(task.id, spec.account, spec.callback_url, ended_us, ended_us, due_us=ended_us)
