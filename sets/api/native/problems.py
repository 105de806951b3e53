"""Every error answer: problem details of RFC 9457, of the scheduler's errors, Falcon's own, failed tasks."""

from __future__ import annotations

import math
from typing import Any, Final

import falcon
import falcon.asgi
import msgspec
import structlog

from scheduler import errors
from scheduler.task import Reason, State, Task
from sets.api.errors import (
    BodyCutOff,
    BodyTooLarge,
    CallError,
    FileUnknown,
    Forbidden,
    NotFinished,
    ResultGone,
    Suspended,
    Unauthorized,
)
from sets.api.native.problem_kinds import help_link
from sets.api.native.view import outputs

log = structlog.get_logger()

BASE: Final = "https://general-compute.invalid/problems/"
MEDIA_TYPE: Final = "application/problem+json"


class Problem(Exception):
    """An answer that is an error. `name` ends the type's address; `extra` holds members besides the usual ones."""

    def __init__(
        self,
        status: int,
        name: str,
        title: str,
        detail: str,
        *,
        executed: bool = False,
        retry_after_s: float | None = None,
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = {"Link": help_link(name), **(headers or {})}
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
        self.members = {
            "type": BASE + name,
            "title": title,
            "status": status,
            "detail": detail,
            "executed": executed,
            **extra,
        }

    def body(self) -> bytes:
        return msgspec.json.encode(self.members)


# For each error of the scheduler or of a call: status, type and title of the answer.
_KNOWN: Final[dict[type[Exception], tuple[int, str, str]]] = {
    errors.BadRequest: (400, "bad-parameter", "A parameter is wrong"),
    errors.ImageUnknown: (404, "image-unknown", "There is no such image"),
    errors.ImageDenied: (403, "image-denied", "The registry denies the image"),
    errors.RegistryNotAllowed: (403, "registry-not-allowed", "The image's registry is not allowed"),
    errors.ImageUnusable: (422, "image-unusable", "The image cannot be run"),
    errors.TaskUnknown: (404, "task-unknown", "There is no such task"),
    errors.BatchUnknown: (404, "batch-unknown", "There is no such batch"),
    errors.NotDead: (409, "task-not-dead", "The task is not a dead letter"),
    errors.CallbackUnknown: (404, "callback-unknown", "There is no such callback"),
    errors.CallbackNotFailed: (409, "callback-not-failed", "The callback has not failed"),
    errors.IdempotencyConflict: (
        422,
        "idempotency-conflict",
        "The Idempotency-Key was used for another request",
    ),
    Unauthorized: (401, "unauthorized", "The request is not authorized"),
    Suspended: (403, "account-suspended", "The account is suspended"),
    Forbidden: (403, "forbidden", "The request is not allowed"),
    BodyCutOff: (408, "body-stalled", "The body did not arrive"),
    BodyTooLarge: (413, "input-too-large", "The input is too large"),
    NotFinished: (409, "task-not-finished", "The task has not finished"),
    ResultGone: (410, "result-gone", "The result is not kept"),
    FileUnknown: (404, "file-unknown", "There is no such file"),
    errors.AccountLimit: (429, "account-limit", "The account's limit is reached"),
    errors.QueueFull: (503, "set-full", "The set is full"),
    errors.QueueTimeout: (503, "queue-timeout", "No slot became free in time"),
    errors.Draining: (503, "set-draining", "The set takes no new tasks"),
    errors.ImagePulling: (503, "image-pulling", "The image is being pulled"),
    errors.NoNode: (503, "no-node", "No machine of the set answers"),
    errors.EngineUnavailable: (503, "engine-unavailable", "No slot can start now"),
    errors.EngineRefused: (503, "engine-refused", "The container engine refused a slot"),
    errors.DiskFull: (503, "disk-full", "The set's disk is full"),
    errors.NotRecorded: (503, "not-recorded", "The task's usage could not be recorded"),
    errors.FilesNotKept: (503, "files-not-kept", "The task's output files could not be kept"),
    errors.TaskCancelled: (422, "task-cancelled", "The task was cancelled"),
    errors.SlotLost: (503, "slot-lost", "The platform lost the task's slot"),
    errors.GaveWay: (503, "gave-way", "The spare task gave way to normal ones"),
    errors.StoreError: (503, "store-unavailable", "The set's store does not answer"),
}


def problem_of(error: errors.SchedulerError | CallError, *, executed: bool = False) -> Problem:
    """The answer for an error; `executed` says that a program ran although the error itself does not."""
    for known in type(error).__mro__:
        if known in _KNOWN:
            status, name, title = _KNOWN[known]
            break
    else:
        status, name, title = 500, "internal", "The set failed"
    retry_after_s = getattr(error, "retry_after_s", None)
    if status == 503 and retry_after_s is None:
        retry_after_s = 1.0
    detail = str(error)
    headers: dict[str, str] = {}
    extra: dict[str, Any] = {}
    if isinstance(error, errors.BadRequest):
        extra["field"] = error.field
    elif isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="general-compute"'
    elif isinstance(error, NotFinished):
        detail += f"; wait for its end with GET /v1/tasks/{error.task.id}?wait=30"
    return Problem(
        status,
        name,
        title,
        detail,
        executed=executed or error.executed,
        retry_after_s=retry_after_s,
        headers=headers,
        **extra,
    )


def problem_of_task(task: Task, facts: dict[str, str]) -> Problem:
    """Return the answer for a sync task that did not succeed; `facts` are its headers."""
    members: dict[str, Any] = {
        "task": task.id,
        "reason": task.reason,
        "exit_code": task.exit_code,
        "signal": task.signal,
        **outputs(task),
    }
    detail = task.detail or ""
    if task.state is State.TIMED_OUT:
        return Problem(
            504, "task-timed-out", "The task timed out", detail, executed=True, headers=facts, **members
        )
    if task.state is State.CANCELLED:
        return Problem(
            422, "task-cancelled", "The task was cancelled", detail, executed=True, headers=facts, **members
        )
    executed = task.reason is not Reason.NOT_EXECUTABLE
    return Problem(422, "task-failed", "The task failed", detail, executed=executed, headers=facts, **members)


_HTTP_NAMES: Final = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    408: "body-stalled",
    413: "input-too-large",
    414: "uri-too-long",
    415: "unsupported-media-type",
    416: "range-not-satisfiable",
    417: "expectation-unknown",
    426: "upgrade-required",
    431: "header-too-large",
    501: "not-implemented",
}


def problem_of_http(
    status: int, title: str, detail: str, headers: dict[str, str] | None = None, *, executed: bool = False
) -> Problem:
    """The answer for a request that HTTP itself, not a task, is the reason to refuse."""
    name = _HTTP_NAMES.get(status, "http-error")
    return Problem(status, name, title, detail, headers=headers, executed=executed)


class ProblemHandlers:
    """Falcon's error handlers."""

    def add_to(self, app: falcon.asgi.App[Any, Any]) -> None:
        app.add_error_handler(Exception, self.unexpected)
        app.add_error_handler(falcon.HTTPError, self.http_error)
        app.add_error_handler(CallError, self.call_error)
        app.add_error_handler(errors.SchedulerError, self.scheduler_error)
        app.add_error_handler(Problem, self.problem)

    def _answer(self, resp: falcon.asgi.Response, problem: Problem) -> None:
        resp.stream = None
        resp.status = problem.status
        resp.data = problem.body()
        resp.content_type = MEDIA_TYPE
        for name, value in problem.headers.items():
            resp.set_header(name, value)

    async def problem(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Problem, params: dict[str, Any]
    ) -> None:
        self._answer(resp, error)

    async def scheduler_error(
        self,
        req: falcon.asgi.Request,
        resp: falcon.asgi.Response,
        error: errors.SchedulerError,
        params: dict[str, Any],
    ) -> None:
        problem = problem_of(error)
        if problem.status >= 500:
            log.warning("refused", error=str(error), kind=type(error).__name__, path=req.path[:200])
        self._answer(resp, problem)

    async def call_error(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, error: CallError, params: dict[str, Any]
    ) -> None:
        self._answer(resp, problem_of(error))

    async def http_error(
        self,
        req: falcon.asgi.Request,
        resp: falcon.asgi.Response,
        error: falcon.HTTPError,
        params: dict[str, Any],
    ) -> None:
        status = error.status_code
        detail = error.description or {
            404: f"there is no {req.path[:200]} here; /openapi.json lists what there is",
            405: f"{req.method} is not possible on {req.path[:200]}",
        }.get(status, error.title or "")
        headers = dict(error.headers) if error.headers else None
        self._answer(resp, problem_of_http(status, error.title or str(error.status), detail, headers))

    async def unexpected(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Exception, params: dict[str, Any]
    ) -> None:
        log.error("a request failed", path=req.path[:200], exc_info=error)
        detail = "an error of the platform; its log has the details"
        self._answer(resp, Problem(500, "internal", "The set failed", detail, executed=True))
