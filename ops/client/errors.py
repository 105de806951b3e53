"""Errors of a call. All are ClientErrors; the class docstring is the default message."""

import inspect
from typing import Any, Final

PROBLEM_BASE: Final = "https://general-compute.invalid/problems/"


class ClientError(Exception):
    """The call to General Compute failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.cleandoc(type(self).__doc__ or "").splitlines()[0])


class BadAddress(ClientError):
    """The address must look like http://HOST:PORT or https://HOST."""


class Unreachable(ClientError):
    """Nothing answers at the address.

    `refused` is true if no connection could be made, so nothing was sent.
    """

    def __init__(self, url: str, message: str, *, refused: bool) -> None:
        super().__init__(message)
        self.url = url
        self.refused = refused


class InputFailed(ClientError):
    """The input could not be read to its end; the call was aborted, so that the task never sees half an input."""


class AnswerBroken(ClientError):
    """The answer ended before it was whole."""

    def __init__(self, message: str | None = None, *, task_id: str | None = None) -> None:
        super().__init__(message)
        self.task_id = task_id


class NotGeneralCompute(ClientError):
    """The answer does not come from General Compute's API."""


class ApiProblem(ClientError):
    """The API refused the call.

    The fields are those of the problem details (RFC 9457), all of them in `document`. `name` is the last part
    of `type`, `executed` is False when no algorithm ran, `retry_after_s` is the Retry-After header, `router` the
    router's name where the router itself answered.
    """

    def __init__(
        self,
        document: dict[str, Any],
        *,
        status: int,
        router: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        self.document = document
        self.status = status
        self.name = str(document.get("type") or "").removeprefix(PROBLEM_BASE)
        self.title = str(document.get("title") or f"status {status}")
        self.detail = str(document.get("detail") or "")
        self.executed = document.get("executed")
        self.router = router
        self.retry_after_s = retry_after_s
        super().__init__(f"{self.title}: {self.detail}" if self.detail else self.title)


class TaskFailed(ApiProblem):
    """The algorithm ran and failed; `exit_code` or `signal` says how, `stderr_head` what it said.

    `reason` is `exit`, `signal`, `out_of_memory` or `not_executable`.
    """

    @property
    def task_id(self) -> str | None:
        return _text(self.document.get("task"))

    @property
    def reason(self) -> str | None:
        return _text(self.document.get("reason"))

    @property
    def exit_code(self) -> int | None:
        code = self.document.get("exit_code")
        return code if isinstance(code, int) else None

    @property
    def signal(self) -> int | str | None:
        found = self.document.get("signal")
        return found if isinstance(found, int | str) else None

    @property
    def stderr_head(self) -> str:
        return str(self.document.get("stderr_head") or "")

    @property
    def stdout_head(self) -> str:
        """The beginning of its standard output when it failed; none of it was sent as output."""
        return str(self.document.get("stdout_head") or "")

    @property
    def stdout_tail(self) -> str:
        """The end of its standard output; the problem's `stdout_cut_bytes` lie between."""
        return str(self.document.get("stdout_tail") or "")


class TaskTimedOut(TaskFailed):
    """The algorithm ran longer than its time-out and was killed."""


def problem(
    document: dict[str, Any], *, status: int, router: str | None = None, retry_after_s: int | None = None
) -> ApiProblem:
    """Return the error for a problem document."""
    name = str(document.get("type") or "").removeprefix(PROBLEM_BASE)
    kind = {"task-failed": TaskFailed, "task-timed-out": TaskTimedOut}.get(name, ApiProblem)
    return kind(document, status=status, router=router, retry_after_s=retry_after_s)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
