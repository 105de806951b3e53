"""The native dialect: what it reads from a request's head, and how it tells errors."""

from __future__ import annotations

import json

import pytest

from router.choosing.request import Destination, Purpose
from router.choosing.retry import RequestKind
from router.counting.tally import Cause, Outcome
from router.dialects.contract import Refused
from router.dialects.native import NativeDialect
from router.dialects.native_lists import cursor_for
from router.wire.answer_head import AnswerHead, parse_answer
from router.wire.limits import Limits
from router.wire.problems import Problem
from router.wire.request_head import RequestHead, parse_request

DIALECT = NativeDialect()


def head(method: bytes, target: bytes, lines: bytes = b"") -> RequestHead:
    return parse_request(b"%b %b HTTP/1.1\r\nHost: h\r\n%b\r\n" % (method, target, lines), Limits())


def ask(method: bytes, target: bytes, prefer: bytes | None = None) -> Purpose:
    return DIALECT.purpose_of(head(method, target, b"" if prefer is None else b"Prefer: %b\r\n" % prefer))


def test_purposes() -> None:
    assert ask(b"POST", b"/v1/run/host:5000/a/b@sha256:1").kind is RequestKind.SYNC_RUN
    assert ask(b"POST", b"/v1/run/x", b"respond-async").kind is RequestKind.UNSAFE
    assert ask(b"POST", b"/v1/run/x", b"wait=5, Respond-Async;x=1").kind is RequestKind.UNSAFE
    assert ask(b"POST", b"/v1/run/x", b"respond-async-not").kind is RequestKind.SYNC_RUN
    owner = ask(b"GET", b"/v1/tasks/a-1/files/tmp/x?wait=3")
    assert (owner.destination, owner.owner, owner.long_wait) == (Destination.OWNER, "a", True)
    assert ask(b"GET", b"/v1/tasks/a%2D1").owner == "a"
    assert ask(b"POST", b"/v1/tasks/a-1/cancel").kind is RequestKind.SAFE
    assert ask(b"POST", b"/v1/tasks/a-1/replay") == Purpose(Destination.OWNER, RequestKind.SAFE, "a")
    assert ask(b"POST", b"/v1/tasks/a-1/other").kind is RequestKind.UNSAFE
    assert ask(b"POST", b"/v1/batches/acme/ocr:1?arg=x") == ask(b"POST", b"/v1/run/x", b"respond-async")
    chained = ask(b"POST", b"/v1/batches/ocr:1?arg=x&inputs_of=b-7")
    assert chained == Purpose(Destination.OWNER, RequestKind.UNSAFE, "b", long_wait=True)
    assert ask(b"GET", b"/v1/batches/b-7/results?after=3") == Purpose(
        Destination.OWNER, RequestKind.SAFE, "b"
    )
    assert ask(b"GET", b"/v1/batches/b-7?wait=9").long_wait
    assert ask(b"POST", b"/v1/batches/b-7/cancel") == Purpose(Destination.OWNER, RequestKind.SAFE, "b")
    assert ask(b"POST", b"/v1/batches/b-7/retry") == Purpose(Destination.OWNER, RequestKind.UNSAFE, "b")
    assert ask(b"POST", b"/v1/callbacks/a-1/retry") == Purpose(Destination.OWNER, RequestKind.SAFE, "a")
    assert ask(b"GET", b"/v1/callbacks?state=failed").destination is Destination.MERGED
    assert ask(b"GET", b"/v1/tasks").destination is Destination.MERGED
    assert ask(b"GET", b"/v1/batches?limit=5").destination is Destination.MERGED
    assert ask(b"POST", b"/v1/tasks").destination is Destination.ANY
    assert ask(b"GET", b"/v1/usage?by=day").destination is Destination.MERGED
    assert ask(b"GET", b"/?Action=X&TaskId=b-7").owner == "b"
    assert ask(b"GET", b"/openapi.json").destination is Destination.ANY


def test_rules_know_the_image_of_a_batch() -> None:
    def image(method: bytes, target: bytes) -> str | None:
        return DIALECT.facts_of(head(method, target), b"").image

    assert image(b"POST", b"/v1/batches/acme/ocr:1?arg=x") == "acme/ocr:1"
    assert image(b"POST", b"/v1/batches/b-7/cancel") is None
    assert image(b"GET", b"/v1/batches/b-7") is None


@pytest.mark.parametrize(
    ("target", "relayed"),
    [
        (b"/metrics", False),
        (b"/livez", False),
        (b"/readyz?x=1", False),
        (b"/v1/admin/pools", False),
        (b"/v1/admin", False),
        # As a set reads them.
        (b"/%6detrics", False),
        (b"//metrics", False),
        (b"/v1/%61dmin/x", False),
        (b"/v1/administration", True),
        (b"/metricsx", True),
        (b"/x/metrics", True),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"OPTIONS"])
def test_what_sets_tell_operators_goes_nowhere(method: bytes, target: bytes, relayed: bool) -> None:
    goes_on = ask(method, target).destination is not Destination.NOWHERE
    assert goes_on == relayed


def test_a_task_is_named_by_a_path_alone() -> None:
    assert DIALECT.task_named(head(b"GET", b"/v1/tasks/a-1/files/x")) == b"a-1"
    assert DIALECT.task_named(head(b"GET", b"/v1/tasks")) == b""
    assert DIALECT.task_named(head(b"POST", b"/v1/run/cat")) == b""


@pytest.mark.parametrize(
    ("query", "expected_s"),
    [
        (b"", 10.0),
        (b"?queue_timeout_s=2.5", 2.5),
        (b"?x=1&queue_timeout_s=3", 3.0),
        (b"?queue_timeout_s=0.30000000000000004", 0.30000000000000004),
        (b"?queue_timeout_s=1e-09", 1e-9),
        (b"?queue_timeout_s=1.2.3", 10.0),
    ],
)
def test_the_callers_queue_timeout(query: bytes, expected_s: float) -> None:
    assert DIALECT.queue_timeout_s(head(b"POST", b"/v1/run/cat" + query)) == expected_s


def test_a_key_inquiry_speaks_for_the_caller() -> None:
    lines = b"Idempotency-Key: k1\r\nX-Account: acme\r\nX-Other: 1\r\n"
    target, sent = DIALECT.key_inquiry(head(b"POST", b"/v1/run/cat", lines))
    assert target == b"/v1/idempotency"
    assert b"".join(sent) == b"idempotency-key: k1\r\nx-account: acme\r\n"


def test_an_error_is_problem_details_with_the_requests_id() -> None:
    problem = Problem(503, "no-set", "No set", "none is there", retry_after_s=3)
    asked = head(b"GET", b"/", b"X-Request-Id: r-1\r\n")
    answer = DIALECT.error(problem, asked)
    assert (answer.status, answer.content_type) == (503, "application/problem+json")
    assert json.loads(answer.body)["request_id"] == asked.request_id.decode()
    assert ("Retry-After", "3") in answer.lines
    assert "request_id" not in json.loads(DIALECT.error(problem, None).body)


def test_a_lists_target_is_a_page_with_each_sets_own_cursor() -> None:
    merging = DIALECT.merging(head(b"GET", b"/v1/tasks?before=a-0123&state=failed"))
    assert merging.target("b") == b"/v1/tasks?before=b-0123&state=failed&limit=50"
    assert DIALECT.merging(head(b"GET", b"/v1/usage")).target("b") == b"/v1/usage"


def test_cursors() -> None:
    assert cursor_for("b", "a-0123") == "b-0123"
    assert cursor_for("b", "garbage") == "garbage"


def answer(status: int, headers: dict[bytes, bytes]) -> AnswerHead:
    lines = b"".join(b"%b: %b\r\n" % each for each in headers.items())
    return parse_answer(b"HTTP/1.1 %d x\r\n%b\r\n" % (status, lines))


@pytest.mark.parametrize(
    ("status", "headers", "outcome"),
    [
        (200, {}, Outcome.OK),
        (200, {b"x-exit-code": b"0"}, Outcome.OK),
        (200, {b"x-exit-code": b"137"}, Outcome.TASK_FAILED),
        (202, {}, Outcome.OK),
        (404, {}, Outcome.OK),
        (422, {b"x-task-id": b"a-1"}, Outcome.TASK_FAILED),
        (422, {}, Outcome.OK),
        (504, {b"x-task-id": b"a-1"}, Outcome.TASK_FAILED),
        (422, {b"x-task-id": b"a-1", b"x-reason": b"platform"}, Outcome.ERROR),
        (504, {b"x-task-id": b"a-1", b"x-reason": b"platform"}, Outcome.ERROR),
        (504, {}, Outcome.ERROR),
        (500, {}, Outcome.ERROR),
        (502, {}, Outcome.ERROR),
        (401, {}, None),
        (403, {}, None),
        (408, {}, None),
        (429, {}, None),
    ],
)
def test_answers_are_told_apart(status: int, headers: dict[bytes, bytes], outcome: Outcome | None) -> None:
    counted = DIALECT.outcome_of(answer(status, headers))
    assert (None if counted is None else counted.outcome) is outcome


@pytest.mark.parametrize(
    ("status", "headers", "cause"),
    [
        (504, {b"x-task-id": b"a-1"}, Cause.TIME_LIMIT),
        (422, {b"x-task-id": b"a-1", b"x-reason": b"out_of_memory"}, Cause.MEMORY),
        (200, {b"x-exit-code": b"137", b"x-reason": b"out_of_memory"}, Cause.MEMORY),
        (422, {b"x-task-id": b"a-1", b"x-reason": b"exit_code"}, None),
    ],
)
def test_a_task_that_failed_has_its_cause(
    status: int, headers: dict[bytes, bytes], cause: Cause | None
) -> None:
    counted = DIALECT.outcome_of(answer(status, headers))
    assert counted == (Outcome.TASK_FAILED, status, cause, False)


def test_an_answer_to_a_mistake_of_the_caller_is_a_refusal_and_names_no_task() -> None:
    mistake = answer(404, {})
    assert DIALECT.outcome_of(mistake) == (Outcome.OK, 404, None, True)
    assert DIALECT.task_of(mistake) == b""
    assert DIALECT.task_of(answer(422, {b"x-task-id": b"a-1"})) == b"a-1"


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b'{"type": "https://h/problems/queue-full", "executed": false}', Refused.FULL),
        (b'{"type": "https://h/problems/set-draining", "executed": false}', Refused.DRAINS),
        (b'{"executed": false}', Refused.FULL),
        (b'{"type": "https://h/problems/set-draining", "executed": true}', None),
        (b'{"type": "https://h/problems/set-draining"}', None),
        (b"[false]", None),
        (b"\xff{", None),
    ],
)
def test_only_a_problem_that_says_so_is_a_refusal(body: bytes, refusal: Refused | None) -> None:
    assert DIALECT.refusal_of(body) is refusal


def test_a_refusal_is_looked_for_in_503_problems_only() -> None:
    problem = {b"Content-Type": b"Application/problem+json; charset=utf-8"}
    assert DIALECT.may_refuse(answer(503, problem))
    assert not DIALECT.may_refuse(answer(502, problem))
    assert not DIALECT.may_refuse(answer(503, {b"Content-Type": b"text/html"}))
    assert not DIALECT.may_refuse(answer(503, {}))
