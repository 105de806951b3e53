"""Errors of a call that no scheduler's error describes. `executed` says whether an algorithm may have run."""

from __future__ import annotations

from scheduler.task import Task


class CallError(Exception):
    """The call failed."""

    def __init__(self, message: str, *, executed: bool = False) -> None:
        super().__init__(message)
        self.executed = executed


class Unauthorized(CallError):
    """The call has no valid token."""


class Forbidden(CallError):
    """The caller is known, and may not make this call."""


class Suspended(Forbidden):
    """The account may begin nothing new."""


class BodyCutOff(CallError):
    """The input stalled or was cut off before its end."""

    def __init__(self, *, executed: bool = False) -> None:
        message = "the request's body stalled or was cut off before its end; nothing of it was kept"
        super().__init__(message, executed=executed)


class BodyTooSlow(BodyCutOff):
    """The input came so slowly that its program held a slot in vain, while tasks of others waited."""

    def __init__(self, size_bytes: int, waited_s: float) -> None:
        CallError.__init__(
            self,
            f"the program waited {waited_s:.0f} s for its input, of which {size_bytes} bytes came, while tasks of "
            "other accounts waited for its slot; send the input faster, or with `Prefer: respond-async`",
            executed=True,
        )


class BodyTooLarge(CallError):
    """The input has more bytes than its account may send."""

    def __init__(self, limit_bytes: int, *, executed: bool = False) -> None:
        super().__init__(
            f"the input is over the {limit_bytes} bytes that this account may send", executed=executed
        )
        self.limit_bytes = limit_bytes


class NotFinished(CallError):
    """Results were asked for while their task waits or runs."""

    def __init__(self, task: Task) -> None:
        super().__init__(f"task {task.id} is {task.state}", executed=True)
        self.task = task


class ResultGone(CallError):
    """The task is known; what it left is not kept."""

    def __init__(self, message: str) -> None:
        super().__init__(message, executed=True)


class FileUnknown(CallError):
    """The task left no such file."""

    def __init__(self, message: str) -> None:
        super().__init__(message, executed=True)


class AnswerBrokenOff(Exception):
    """The task did not succeed after its answer had begun."""
