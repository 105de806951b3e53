"""Errors of the scheduler. Each class's docstring is its default message.

`executed` says whether an algorithm may have run.
"""

from __future__ import annotations

import inspect


class SchedulerError(Exception):
    """The scheduler failed."""

    executed = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.getdoc(type(self)) or type(self).__name__)


class IllegalMove(SchedulerError):
    """A task or slot was to make a move that its table does not allow: a bug."""


class BadRequest(SchedulerError):
    """The request cannot be run as asked."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class ImageUnknown(SchedulerError):
    """No such image."""


class RegistryNotAllowed(ImageUnknown):
    """The set may not contact the image's registry."""


class ImageDenied(ImageUnknown):
    """The registry does not let this set have the image."""


class ImageUnusable(SchedulerError):
    """The image cannot be run here."""


class Unavailable(SchedulerError):
    """The set cannot run tasks now; nothing was executed."""

    def __init__(self, message: str | None = None, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NoNode(Unavailable):
    """No machine of this set answers; try again later."""


class EngineUnavailable(Unavailable):
    """The container engine does not answer."""


class EngineUnfit(EngineUnavailable):
    """The container engine answers, but lacks what the set's settings ask of it."""


class EngineRefused(Unavailable):
    """The container engine refused to start a slot."""


class NoRoom(EngineRefused):
    """The cluster has no room for another slot, since those that are there reserve it."""


class ImagePulling(Unavailable):
    """The image is being pulled."""


class QueueFull(Unavailable):
    """Too many tasks are waiting."""


class QueueTimeout(Unavailable):
    """No slot became free in time."""


class Draining(Unavailable):
    """The set is draining and takes no new tasks."""


class DiskFull(Unavailable):
    """The set's disk is full."""


class AccountLimit(SchedulerError):
    """The account's own limit is reached."""

    def __init__(self, message: str | None = None, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StorageLimit(AccountLimit):
    """The account keeps as much on the set's disk as it may."""


class SlotLost(SchedulerError):
    """The slot died while the task ran: the platform's failure, not the task's; it is not billed."""

    executed = True


class GaveWay(SlotLost):
    """The task is spare, and gave way to normal tasks; it is not billed."""


class NotRecorded(Unavailable):
    """The task ran, but what it used could not be recorded, so it is not billed and its result is withheld."""

    executed = True


class FilesNotKept(Unavailable):
    """The task ran, but its output files could not be kept, so it is not billed and its result is withheld."""

    executed = True


class TaskCancelled(SchedulerError):
    """The task was cancelled before it ran."""


class TaskUnknown(SchedulerError):
    """No such task of this account."""


class BatchUnknown(SchedulerError):
    """No such batch of this account."""


class NotDead(SchedulerError):
    """The platform did not give this task up, or does not keep its input any longer."""


class CallbackUnknown(SchedulerError):
    """No such callback of this account."""


class CallbackNotFailed(SchedulerError):
    """The callback was made, so it is not tried again."""


class IdempotencyConflict(SchedulerError):
    """This Idempotency-Key was used for another request within the last 24 hours."""


class StoreError(SchedulerError):
    """The store failed."""


class CallbackUnreadable(StoreError):
    """The row of a callback, or of its task, cannot be read."""


class StaleLease(SchedulerError):
    """A later attempt holds the task, so an earlier one cannot decide its outcome."""


class StoreTooNew(StoreError):
    """The store was written by a newer version of this program."""
