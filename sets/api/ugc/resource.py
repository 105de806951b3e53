"""UGC's API on `/`: finds the action that a call names, and answers as its clients expect.

The status is 200 for every answer, errors too: some clients do not read any other. A tar has the type
application/octet-stream, and nothing else has.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import falcon.asgi
import structlog

from scheduler import errors
from scheduler.errors import SchedulerError
from sets.api.body import SCOPE_KEY, RequestBody
from sets.api.errors import BodyCutOff, BodyTooLarge, CallError
from sets.api.ugc.codes import MESSAGES, RetCode, UgcError
from sets.api.ugc.query import UgcQuery
from sets.api.ugc.tasks import Tar, UgcTasks

log = structlog.get_logger()

TAR_TYPE: Final = "application/octet-stream"
RET_CODE: Final = "X-Ret-Code"
"""Repeats `RetCode` for the router, which reads no bodies."""
_SUCCESS: Final = {"GetAccessToken": "\u6210\u529f"}
"""Messages of a success that are not empty: one client of GetAccessToken takes only this one."""

Answer = dict[str, Any] | Tar
Action = Callable[[UgcQuery, RequestBody, int | None], Awaitable[Answer]]

_CODES: Final[dict[type[Exception], RetCode]] = {
    errors.BadRequest: RetCode.PARAMETER_WRONG,
    errors.ImageUnknown: RetCode.IMAGE_NAME_NOT_VALID,
    errors.ImageUnusable: RetCode.CONTAINER_FAILED,
    errors.TaskUnknown: RetCode.TASK_NOT_FOUND,
    errors.AccountLimit: RetCode.TOO_MANY_REQUESTS,
    errors.Unavailable: RetCode.UNAVAILABLE,
    BodyTooLarge: RetCode.PARAMETER_WRONG,
    BodyCutOff: RetCode.SUBMIT_TASK_FAIL,
}


class UgcResource:
    """All calls of UGC's API."""

    def __init__(self, tasks: UgcTasks) -> None:
        self._actions: dict[str, Action] = {
            "GetAccessToken": tasks.get_access_token,
            "SubmitTask": tasks.submit,
            "GetTaskResult": tasks.get_result,
            "GetTaskDetail": tasks.get_detail,
            "StopTask": tasks.stop,
        }

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        await self._answer(req, resp)

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        await self._answer(req, resp)

    async def _answer(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        name = ""
        try:
            query = UgcQuery(req.scope["query_string"])
            name = query.need("Action", RetCode.NO_ACTION)
            action = self._actions.get(name)
            if action is None:
                known = ", ".join(self._actions)
                raise UgcError(RetCode.UNKNOWN_ACTION, f"Action: {name[:40]!r} is none of {known}")
            body: RequestBody = req.scope[SCOPE_KEY]
            answer = await action(query, body, req.content_length)
        except UgcError as error:
            _send(resp, name, error.code, {**error.members, "Detail": error.detail})
        except (SchedulerError, CallError) as error:
            told: dict[str, Any] = {"Detail": str(error), "Executed": error.executed}
            if isinstance(error, errors.Draining):
                told["Draining"] = True
            _send(resp, name, _code_of(error), told)
        else:
            if isinstance(answer, Tar):
                resp.content_type = TAR_TYPE
                resp.content_length = answer.size_bytes
                resp.set_headers({"X-Task-Id": answer.task_id, RET_CODE: "0"})
                resp.stream = answer.pieces
            else:
                _send(resp, name, RetCode.SUCCESS, answer)


def _code_of(error: Exception) -> RetCode:
    if isinstance(error, errors.BadRequest) and error.field == "image":
        return RetCode.IMAGE_NAME_NOT_VALID
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    log.error("call failed", exc_info=error)
    return RetCode.INNER_ERROR


def _send(resp: falcon.asgi.Response, action: str, code: RetCode, members: dict[str, Any]) -> None:
    message = _SUCCESS.get(action, "") if code is RetCode.SUCCESS else MESSAGES[code]
    answer = {"Action": f"{action}Response", "RetCode": int(code), "Message": message, **members}
    # ASCII only: Java reads it in its platform's character set.
    resp.data = json.dumps(answer).encode("ascii")
    resp.content_type = falcon.MEDIA_JSON
    resp.set_header(RET_CODE, str(int(code)))
