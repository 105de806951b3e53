"""The dialect of UCloud's General Compute: every call on `/`, the action in the query, every status 200. Pure."""

from __future__ import annotations

import json
import re
from typing import Final
from urllib.parse import parse_qs

from router.choosing.request import Destination, Purpose
from router.choosing.retry import RequestKind
from router.counting.tally import Answered, Outcome
from router.dialects.contract import Refused
from router.dialects.native import DEFAULT_ACCOUNT, HeadFacts, owner_of
from router.wire.answer_head import AnswerHead
from router.wire.problems import OwnAnswer, Problem
from router.wire.request_head import RequestHead

PATH: Final = b"/"
REGISTRY_HOST: Final = "cn-bj2.ugchub.service.ucloud.cn/"
"""Registry of the original, with which clients may begin an image's name."""
RET_CODE: Final = b"x-ret-code"
"""Header in which a set repeats the `RetCode` of its answer, as a router does not read bodies."""
_MAX_PARAMETERS: Final = 1000
_UNAVAILABLE: Final = 150
_TOO_MANY_REQUESTS: Final = 153
_TASK_NOT_FOUND: Final = 43016
_PARAMETER_WRONG: Final = 43033
_CONTAINER_FAILED: Final = 43048
_MESSAGES: Final = {
    _UNAVAILABLE: "Service Unavailable",
    _TOO_MANY_REQUESTS: "Too Many Requests",
    _TASK_NOT_FOUND: "TaskNotFound",
    _PARAMETER_WRONG: "ParaError",
}
_ACTION: Final = re.compile(rb"(?:^|&)Action=([^&]*)")
_TASK: Final = re.compile(rb"(?:^|&)TaskId=[^&]")
_SYNC: Final = re.compile(rb"(?:^|&)TaskType=sync(?:&|$)", re.IGNORECASE)
_ACCOUNT: Final = re.compile(rb"(?:^|&)(?:AccessToken=gca|PublicKey=gck)_([a-z0-9-]+)_")
_SUBMIT: Final = b"SubmitTask"
_OF_TASKS: Final = (b"GetTaskResult", b"GetTaskDetail", b"StopTask")

_SYNC_RUN: Final = Purpose(Destination.RUN, RequestKind.SYNC_RUN, long_wait=True, always_200=True)
_ASYNC_RUN: Final = Purpose(Destination.RUN, RequestKind.UNSAFE, long_wait=True, always_200=True)
_ANY: Final = Purpose(Destination.ANY, RequestKind.SAFE, always_200=True)
_CHANGES: Final = Purpose(Destination.ANY, RequestKind.UNSAFE, always_200=True)


def is_ugc(head: RequestHead) -> bool:
    """Return True if a request is one of this dialect."""
    return head.path == PATH


def purpose_of(head: RequestHead) -> Purpose:
    """New tasks go by weight, calls about a task to the set that owns it, all others to any set."""
    match = _ACTION.search(head.query)
    action = match[1] if match else b""
    if action == _SUBMIT:
        return _SYNC_RUN if _SYNC.search(head.query) else _ASYNC_RUN
    if action in _OF_TASKS and _TASK.search(head.query):
        ids = parse_qs(head.query.decode("latin-1"), max_num_fields=_MAX_PARAMETERS).get("TaskId", [""])
        # A task that is stopped twice is stopped.
        return Purpose(Destination.OWNER, RequestKind.SAFE, owner_of(ids[0]), always_200=True)
    return _ANY if action.startswith(b"Get") else _CHANGES


def account_of(head: RequestHead) -> str:
    """The account that a call's token or public key names; the set alone checks either."""
    match = _ACCOUNT.search(head.query)
    return match[1].decode("ascii") if match else DEFAULT_ACCOUNT


class UgcFacts(HeadFacts):
    """The facts of a call (`table.Facts`), read from its query."""

    __slots__ = ()

    @property
    def account(self) -> str:
        return account_of(self._head)

    @property
    def image(self) -> str | None:
        query = self._head.query
        match = _ACTION.search(query)
        if match is None or match[1] != _SUBMIT:
            return None
        names = parse_qs(query.decode("latin-1"), max_num_fields=_MAX_PARAMETERS).get("ImageName")
        return None if names is None else names[0].removeprefix(REGISTRY_HOST)


def outcome_of(code: bytes, answer: AnswerHead) -> Answered:
    """How an answer with this `RetCode` counts."""
    if code == b"%d" % _CONTAINER_FAILED:
        return Answered(Outcome.TASK_FAILED, answer.status)
    if code in (b"%d" % _UNAVAILABLE, b"43008", b"43018"):
        return Answered(Outcome.ERROR, answer.status)
    return Answered(Outcome.OK, answer.status, refused=code not in (b"0", b"-1"))


def refuses(answer: AnswerHead) -> bool:
    """Return True if an answer says that the set took nothing."""
    return answer.get(RET_CODE) == b"%d" % _UNAVAILABLE


def refusal_of(answer: dict[str, object]) -> Refused | None:
    """Read a JSON answer that `refuses`: whether surely nothing ran, and whether the set drains."""
    if answer.get("RetCode") != _UNAVAILABLE or answer.get("Executed") is not False:
        return None
    return Refused.DRAINS if answer.get("Draining") is True else Refused.FULL


def error(problem: Problem, head: RequestHead) -> OwnAnswer:
    """The router's own problem as a call's answer."""
    code = _code_of(problem)
    match = _ACTION.search(head.query)
    action = match[1].decode("ascii", "replace")[:64] if match else ""
    answer = {
        "Action": f"{action}Response",
        "RetCode": code,
        "Message": _MESSAGES[code],
        "Detail": problem.detail,
    }
    return OwnAnswer(200, "application/json", json.dumps(answer).encode("ascii"), problem.lines)


def _code_of(problem: Problem) -> int:
    if problem.status == 429:
        return _TOO_MANY_REQUESTS
    if problem.status == 404:
        return _TASK_NOT_FOUND
    return _UNAVAILABLE if problem.status >= 500 else _PARAMETER_WRONG
