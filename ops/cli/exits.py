"""Exit codes of `gcompute`. `gcompute --help` prints this table.

`run`, `submit`, `wait` and `result` follow Docker: they exit with the task's own code, and with 125 for any failure
that is not the task's. The other commands use the codes of sysexits.h.
"""

import signal
from typing import Final

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

OF_TASKS: Final = (
    ("0", "the task succeeded, and its whole output was delivered"),
    ("1 to 255", "the task's own exit code, unchanged"),
    ("124", "the task ran longer than its time limit"),
    (
        "125",
        "not the task but gcompute, the call or the service failed: stderr says how, with --json as JSON. "
        "Where a task itself ends with 125, stderr says `task ID failed`",
    ),
    ("126", "the image or its program cannot be executed"),
    ("128 + n", "signal n ended the task (137: killed, also when out of memory)"),
    ("130", "interrupted (Ctrl-C), or the task was cancelled"),
    ("141", "the program that read our output ended; a task that `run` waited for was cancelled"),
)
"""Exit codes of `run`, `submit`, `wait` and `result`, with their meaning."""

OF_OTHERS: Final = (
    ("0", "done"),
    (
        "1",
        "`map`, `batch show`: a task did not succeed; `doctor`: something is wrong; `simulate`: an expectation is "
        "missed",
    ),
    ("64", "wrong usage, or a parameter that the API refused"),
    ("65", "`router`: the file cannot be edited in this way"),
    ("66", "the task or file does not exist or cannot be read"),
    ("69", "the service cannot be reached or cannot work"),
    ("70", "a fault in the service or in gcompute"),
    ("74", "the output could not be written"),
    ("75", "the service or the account is at its limit, or `set drain` timed out; try again later"),
    ("76", "the answer broke off, or did not come from General Compute"),
    ("77", "not allowed: the token is missing, wrong or lacks the permission"),
    ("78", "`set`, `registrar`, `executor`, `router` and `simulate`: the configuration has mistakes"),
    ("130, 141", "interrupted; the program that read our output ended"),
)
"""Exit codes of all other commands, with their meaning."""

TIMED_OUT: Final = 124
FAILED: Final = 125
NOT_EXECUTABLE: Final = 126
INTERRUPTED: Final = 130
READER_GONE: Final = 141
USAGE: Final = 64
DATA: Final = 65
NO_INPUT: Final = 66
UNAVAILABLE: Final = 69
SOFTWARE: Final = 70
IO: Final = 74
TRY_AGAIN: Final = 75
PROTOCOL: Final = 76
NOT_ALLOWED: Final = 77
CONFIG: Final = 78

_OF_STATUS: Final = {
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


def of_error(error: ClientError, *, as_task: bool = False) -> int:
    """Return the exit code for a failed call; `as_task`: the command exits with a task's code."""
    match error:
        case TaskTimedOut():
            return TIMED_OUT
        case TaskFailed():
            return _of_end(error.reason, error.exit_code, error.signal)
        case ApiProblem(name="task-cancelled"):
            return INTERRUPTED
        case ApiProblem(name="image-unusable"):
            return NOT_EXECUTABLE
    return FAILED if as_task else _of_refusal(error)


def _of_refusal(error: ClientError) -> int:
    match error:
        case ApiProblem(status=503, retry_after_s=int()):
            return TRY_AGAIN
        case ApiProblem(name="task-not-dead"):
            # Unlike other conflicts, it does not pass.
            return NO_INPUT
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
    """Return the exit code for a task's state; FAILED for a task that has not ended."""
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
            return FAILED


def _of_end(reason: str | None, exit_code: int | None, by_signal: int | str | None) -> int:
    if by_signal is not None:
        return 128 + _number(by_signal)
    if exit_code:
        return exit_code & 0xFF or 1
    if reason == "out_of_memory":
        return 128 + signal.SIGKILL
    if reason == "not_executable":
        return NOT_EXECUTABLE
    # The platform failed the task, or the task failed after exit code 0: neither may look like success.
    return FAILED if exit_code is None else 1


def _number(by_signal: int | str) -> int:
    if isinstance(by_signal, int):
        return by_signal
    try:
        return signal.Signals[by_signal].value
    except KeyError:
        return int(by_signal) if by_signal.isdigit() else signal.SIGKILL
