"""The exit codes of `gcompute`: the task's own where a task ended, else those of sysexits.h. All of them stand here.

| code | meaning |
|---|---|
| 0 | the task succeeded and its whole output was delivered |
| 1 … 255 | the task's own exit code |
| 128 + n | the task was ended by signal n (137: killed, also for want of memory) |
| 124 | the task timed out |
| 126 | the image or its program cannot be executed |
| 130 | interrupted (Ctrl-C), or the task was cancelled |
| 141 | whoever read our output went away; the task was cancelled |
| 64 | wrong usage, or a parameter that the API refused |
| 65 | the input is larger than the account may send; `gcompute router`: the file cannot be edited so |
| 66 | the image, task or input does not exist or cannot be read |
| 69 | the service cannot be reached or cannot work |
| 70 | a fault in the service |
| 74 | the output could not be written |
| 75 | not now: the service is full, the account at its limit, the task not finished; try again |
| 76 | the answer broke off, or was not General Compute's |
| 77 | not allowed: token missing, wrong or without the right |
| 78 | `gcompute set` and `gcompute router`: the configuration holds mistakes |
"""

import signal

from ops.client.errors import (
    AnswerBroken,
    ApiProblem,
    BadAddress,
    ClientError,
    InputFailed,
    NotGeneralCompute,
    TaskFailed,
    TaskTimedOut,
)
from ops.client.model import Task

TIMED_OUT = 124
NOT_EXECUTABLE = 126
INTERRUPTED = 130
READER_GONE = 141
USAGE = 64
DATA = 65
NO_INPUT = 66
UNAVAILABLE = 69
SOFTWARE = 70
IO = 74
TRY_AGAIN = 75
PROTOCOL = 76
NOT_ALLOWED = 77
CONFIG = 78

_OF_STATUS = {
    400: USAGE,
    401: NOT_ALLOWED,
    403: NOT_ALLOWED,
    404: NO_INPUT,
    408: TRY_AGAIN,
    409: TRY_AGAIN,
    410: NO_INPUT,
    413: DATA,
    414: USAGE,
    416: USAGE,
    422: USAGE,
    429: TRY_AGAIN,
    431: USAGE,
    500: SOFTWARE,
}


def of_error(error: ClientError) -> int:
    """The exit code for a call that failed."""
    match error:
        case TaskTimedOut():
            return TIMED_OUT
        case TaskFailed():
            return _of_end(error.reason, error.exit_code, error.signal)
        case ApiProblem(name="task-cancelled"):
            return INTERRUPTED
        case ApiProblem(name="image-unusable"):
            return NOT_EXECUTABLE
        case ApiProblem(status=503, retry_after_s=int()):
            return TRY_AGAIN
        case ApiProblem():
            return _OF_STATUS.get(error.status, UNAVAILABLE)
        case AnswerBroken() | NotGeneralCompute():
            return PROTOCOL
        case InputFailed():
            return NO_INPUT
        case BadAddress():
            return USAGE
        case _:
            return UNAVAILABLE


def of_task(task: Task) -> int:
    """The exit code that a task's state stands for; a task that has not ended counts as `not now`."""
    match task.get("state"):
        case "succeeded":
            return 0
        case "timed_out":
            return TIMED_OUT
        case "cancelled":
            return INTERRUPTED
        case "failed":
            return _of_end(task.get("reason"), task.get("exit_code"), task.get("signal"))
        case _:
            return TRY_AGAIN


def _of_end(reason: str | None, exit_code: int | None, by_signal: int | str | None) -> int:
    if by_signal is not None:
        return 128 + _number(by_signal)
    if reason == "out_of_memory":
        return 128 + signal.SIGKILL
    if reason == "not_executable":
        return exit_code or NOT_EXECUTABLE
    # A task may have failed without a bad exit code, e.g. by a platform's fault: that must not look like success.
    return (exit_code or 1) & 0xFF or 1


def _number(by_signal: int | str) -> int:
    if isinstance(by_signal, int):
        return by_signal
    try:
        return signal.Signals[by_signal].value
    except KeyError:
        return int(by_signal) if by_signal.isdigit() else signal.SIGKILL
