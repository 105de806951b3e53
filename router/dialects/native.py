"""The native API: `/v1`, problem details (RFC 9457), and task ids that begin with the name of their set. Pure."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qs, unquote, unquote_to_bytes

from router.choosing.request import Destination, Purpose
from router.choosing.retry import RequestKind
from router.counting.tally import Answered, Cause, Outcome
from router.dialects.contract import Ask, Dialect, Refused
from router.dialects.native_lists import MERGED, NativeList
from router.dialects.problem_kinds import KINDS, PREFIX, help_link, page_of
from router.wire.answer_head import AnswerHead
from router.wire.problems import OwnAnswer, Problem
from router.wire.request_head import RequestHead

PROBLEM_TYPE: Final = "application/problem+json"
TYPE_BASE: Final = "https://general-compute.invalid/problems/"
DEFAULT_ACCOUNT: Final = "default"
DEFAULT_QUEUE_TIMEOUT_S: Final = 10.0
RUN: Final = b"/v1/run/"
TASKS: Final = b"/v1/tasks/"
BATCHES: Final = b"/v1/batches/"
CALLBACKS: Final = b"/v1/callbacks/"
IDEMPOTENCY: Final = b"/v1/idempotency"
TASK_ID: Final = b"x-task-id"
EXIT_CODE: Final = b"x-exit-code"
REASON: Final = b"x-reason"
"""The header in which a set says why a task failed."""
_DRAINING: Final = "set-draining"
"""Name of the problem that a set answers while it is ending."""
_NO_OUTCOME: Final = frozenset({401, 403, 408, 429})
"""The caller's own credentials, limits and delays."""
_REPEATABLE: Final = (b"cancel", b"replay")
"""Changes of a task that may be asked for twice."""
_BATCH_ORDERS: Final = (b"/cancel", b"/retry")
"""Ends of the paths of orders to a batch; any other POST below `BATCHES` submits one, and has an image there."""
_INPUTS_OF: Final = re.compile(rb"(?:^|&)inputs_of=([^&]*)")
_ASKED_WITH: Final = (b"idempotency-key", b"authorization", b"x-account", b"traceparent")
_BEARER: Final = re.compile(r"bearer +gc_([A-Za-z0-9-]+)_\S+", re.IGNORECASE)
_QUEUE_TIMEOUT: Final = re.compile(rb"(?:^|&)queue_timeout_s=([0-9.]{1,30}(?:[eE]-[0-9]{1,3})?)(?:&|$)")

_SYNC_RUN: Final = Purpose(Destination.RUN, RequestKind.SYNC_RUN, long_wait=True)
_ASYNC_RUN: Final = Purpose(Destination.RUN, RequestKind.UNSAFE, long_wait=True)
_SAFE_ANY: Final = Purpose(Destination.ANY, RequestKind.SAFE)
_UNSAFE_ANY: Final = Purpose(Destination.ANY, RequestKind.UNSAFE)
_MERGED: Final = Purpose(Destination.MERGED, RequestKind.SAFE)
_NOWHERE: Final = Purpose(Destination.NOWHERE, RequestKind.SAFE)
_PAGE: Final = Purpose(Destination.PAGE, RequestKind.SAFE)
_PAGES: Final = {f"{PREFIX}{name}".encode(): name for name in KINDS}
_OPERATORS: Final = re.compile(rb"/+(?:metrics|livez|readyz|v1/admin)(?:/.*)?", re.DOTALL)


class NativeDialect(Dialect):
    """The paths, headers and errors of the native API."""

    not_relayed = Problem(
        404,
        "not-relayed",
        "This is not relayed",
        "/metrics, /livez, /readyz and /v1/admin are answered by each set and by the router's admin address; ask there",
    )

    def purpose_of(self, head: RequestHead) -> Purpose:
        """Read the paths of runs, tasks, batches and callbacks, `TaskId=` in the query, merged lists, and pages."""
        method, path, query = head.method, head.path, head.query
        if method == b"POST" and path.startswith(RUN):
            prefer = head.get(b"prefer")
            return _ASYNC_RUN if prefer is not None and is_async(prefer) else _SYNC_RUN
        if path.startswith(BATCHES):
            return _of_batch(method, path, query)
        if _OPERATORS.fullmatch(unquote_to_bytes(path) if b"%" in path else path):
            return _NOWHERE
        if path.startswith(TASKS):
            task_id, _, rest = path[len(TASKS) :].partition(b"/")
            if task_id:
                kind = RequestKind.SAFE if rest in _REPEATABLE else _kind(method)
                text = unquote(task_id.decode("latin-1"), errors="surrogateescape")
                return Purpose(Destination.OWNER, kind, owner_of(text), long_wait=b"wait=" in query)
        elif path.startswith(CALLBACKS):
            # A callback has its task's id; one that is tried again twice waits as after the first time.
            task_id = path[len(CALLBACKS) :].partition(b"/")[0]
            text = unquote(task_id.decode("latin-1"), errors="surrogateescape")
            return Purpose(Destination.OWNER, RequestKind.SAFE, owner_of(text))
        elif path in MERGED and method in (b"GET", b"HEAD"):
            return _MERGED
        elif path in _PAGES and method in (b"GET", b"HEAD"):
            return _PAGE
        if b"TaskId=" in query:
            ids = parse_qs(query.decode("latin-1"), max_num_fields=1000).get("TaskId")
            if ids:
                return Purpose(
                    Destination.OWNER, _kind(method), owner_of(ids[0]), long_wait=b"wait=" in query
                )
        return _SAFE_ANY if _kind(method) is RequestKind.SAFE else _UNSAFE_ANY

    def facts_of(self, head: RequestHead, client: bytes) -> HeadFacts:
        return HeadFacts(head, client)

    def account_of(self, head: RequestHead) -> str:
        return _account_of(head.get(b"authorization"), head.get(b"x-account"))

    def task_named(self, head: RequestHead) -> bytes:
        return head.path[len(TASKS) :].partition(b"/")[0] if head.path.startswith(TASKS) else b""

    def idempotency_key(self, head: RequestHead) -> bytes | None:
        return head.get(b"idempotency-key")

    def queue_timeout_s(self, head: RequestHead) -> float:
        """The caller's `queue_timeout_s`; the default where it is missing or not a number."""
        match = _QUEUE_TIMEOUT.search(head.query)
        if match is None:
            return DEFAULT_QUEUE_TIMEOUT_S
        try:
            return float(match[1])
        except ValueError:
            return DEFAULT_QUEUE_TIMEOUT_S

    def key_inquiry(self, head: RequestHead) -> Ask:
        known = ((name, head.get(name)) for name in _ASKED_WITH)
        return Ask(
            IDEMPOTENCY, tuple(b"%b: %b\r\n" % (name, value) for name, value in known if value is not None)
        )

    def merging(self, head: RequestHead) -> NativeList:
        return NativeList(head)

    def page(self, head: RequestHead) -> OwnAnswer:
        return page_of(_PAGES[head.path])

    def task_of(self, answer: AnswerHead) -> bytes:
        return answer.get(TASK_ID) or b""

    def outcome_of(self, answer: AnswerHead) -> Answered | None:
        """Read the status, `X-Exit-Code`, `X-Task-Id` and `X-Reason`.

        An answer with a task's id comes from a set at work, so its 422 and 504 are the task's, unless the reason is the
        platform. A status below 400 is a failure of the task if the exit code is not 0.
        """
        status = answer.status
        if status in _NO_OUTCOME:
            return None
        if status < 400:
            code = answer.get(EXIT_CODE)
            if code is None or code == b"0":
                return Answered(Outcome.OK, status)
        elif status not in (422, 504) or answer.get(TASK_ID) is None:
            return (
                Answered(Outcome.ERROR, status)
                if status >= 500
                else Answered(Outcome.OK, status, refused=True)
            )
        reason = answer.get(REASON)
        if status >= 400 and reason == b"platform":
            return Answered(Outcome.ERROR, status)
        cause = Cause.TIME_LIMIT if status == 504 else Cause.MEMORY if reason == b"out_of_memory" else None
        return Answered(Outcome.TASK_FAILED, status, cause)

    def may_refuse(self, answer: AnswerHead) -> bool:
        """Return True for a 503 problem."""
        if answer.status != 503:
            return False
        value = answer.get(b"content-type")
        return value is not None and value[: len(PROBLEM_TYPE)].lower() == PROBLEM_TYPE.encode()

    def refusal_of(self, body: bytes | bytearray) -> Refused | None:
        """Read a problem that says `executed: false`, and whether its type is `set-draining`."""
        problem = object_in(body)
        return None if problem is None else self.refusal_in(problem)

    def refusal_in(self, problem: dict[str, object]) -> Refused | None:
        """Like `refusal_of`, of a body that was parsed."""
        if problem.get("executed") is not False:
            return None
        kind = problem.get("type")
        drains = isinstance(kind, str) and kind.rpartition("/")[2] == _DRAINING
        return Refused.DRAINS if drains else Refused.FULL

    def error(self, problem: Problem, head: RequestHead | None) -> OwnAnswer:
        """Problem details (RFC 9457), and a link to the page that explains them."""
        body = problem_body(problem, None if head is None else head.request_id.decode("latin-1"))
        lines = (*problem.lines, ("Link", help_link(problem.name)))
        return OwnAnswer(problem.status, PROBLEM_TYPE, body, lines)


def problem_body(problem: Problem, request_id: str | None = None) -> bytes:
    """The JSON of a problem of type `router-…`."""
    fields: dict[str, object] = {
        "type": f"{TYPE_BASE}router-{problem.name}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "executed": problem.executed,
    }
    if request_id:
        fields["request_id"] = request_id
    return json.dumps(fields).encode()


def object_in(body: bytes | bytearray) -> dict[str, object] | None:
    """The JSON object that a body is; None if it is something else."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def owner_of(task_id: str) -> str:
    """The name of the set that owns a task: all before the first dash of its id."""
    return task_id.partition("-")[0]


def _submits_batch(method: bytes, path: bytes) -> bool:
    return method == b"POST" and path.startswith(BATCHES) and not path.endswith(_BATCH_ORDERS)


def _of_batch(method: bytes, path: bytes, query: bytes) -> Purpose:
    """A new batch goes where a run goes; all else goes to the set that has the batch."""
    if _submits_batch(method, path):
        match = _INPUTS_OF.search(query)
        if match is None:
            return _ASYNC_RUN
        # Its inputs are results of earlier tasks, which one set has.
        owner = owner_of(unquote(match[1].decode("latin-1"), errors="surrogateescape"))
        return Purpose(Destination.OWNER, RequestKind.UNSAFE, owner, long_wait=True)
    batch_id = unquote(path[len(BATCHES) :].partition(b"/")[0].decode("latin-1"), errors="surrogateescape")
    # A batch that is cancelled twice is cancelled; one that is retried twice may run again what failed meanwhile.
    kind = RequestKind.SAFE if path.endswith(b"/cancel") else _kind(method)
    return Purpose(Destination.OWNER, kind, owner_of(batch_id), long_wait=b"wait=" in query)


def _kind(method: bytes) -> RequestKind:
    return RequestKind.SAFE if method in (b"GET", b"HEAD", b"OPTIONS") else RequestKind.UNSAFE


def is_async(prefer: bytes) -> bool:
    """Return True if a Prefer header asks for `respond-async`."""
    return any(part.split(b";")[0].strip().lower() == b"respond-async" for part in prefer.split(b","))


def account_of(authorization: bytes | None, x_account: bytes | None) -> str:
    """The account that a request speaks for, as readable from it; the set alone checks the secret."""
    if authorization is not None:
        match = _BEARER.fullmatch(authorization.decode("latin-1"))
        if match is not None:
            return match[1]
    return x_account.decode("latin-1") if x_account else DEFAULT_ACCOUNT


_account_of = lru_cache(maxsize=4096)(account_of)
"""For the access log, which names the account of every request."""


class HeadFacts:
    """The facts of a request (`table.Facts`), read from its head only when asked for."""

    __slots__ = ("_client", "_head", "header")

    def __init__(self, head: RequestHead, client: bytes) -> None:
        self._head = head
        self._client = client
        self.header = head.get

    @property
    def method(self) -> str:
        return self._head.method.decode()

    @property
    def path(self) -> str:
        return self._head.path.decode("latin-1")

    @property
    def account(self) -> str:
        return account_of(self._head.get(b"authorization"), self._head.get(b"x-account"))

    @property
    def image(self) -> str | None:
        path = self._head.path
        prefix = BATCHES if _submits_batch(self._head.method, path) else RUN
        if not path.startswith(prefix):
            return None
        return unquote(path[len(prefix) :].decode("latin-1"), errors="surrogateescape")

    @property
    def client(self) -> str:
        return self._client.decode()
