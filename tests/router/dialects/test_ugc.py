"""UGC's dialect beside the native one: where its calls go, how its answers count, and how the router's errors look."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.choosing.request import Destination, Purpose
from router.choosing.retry import RequestKind
from router.counting.tally import Answered, Outcome
from router.dialects.both import BothDialects
from router.dialects.contract import Refused
from router.wire.answer_head import AnswerHead, parse_answer
from router.wire.problems import Problem
from router.wire.request_head import RequestHead
from tests.router.dialects.test_native import head
from tests.router.rig import answering, running

DIALECT = BothDialects()


def call(query: str) -> RequestHead:
    return head(b"GET", f"/?{query}".encode())


@pytest.mark.parametrize(
    ("query", "destination", "kind", "owner"),
    [
        ("Action=SubmitTask&TaskType=Sync", Destination.RUN, RequestKind.SYNC_RUN, ""),
        ("TaskType=sync&Action=SubmitTask", Destination.RUN, RequestKind.SYNC_RUN, ""),
        ("Action=SubmitTask&TaskType=Async", Destination.RUN, RequestKind.UNSAFE, ""),
        ("Action=SubmitTask", Destination.RUN, RequestKind.UNSAFE, ""),
        ("Action=SubmitTask&Cmd=TaskType%3DSync", Destination.RUN, RequestKind.UNSAFE, ""),
        ("Action=GetTaskResult&TaskId=b-17", Destination.OWNER, RequestKind.SAFE, "b"),
        ("TaskId=b-17&Action=StopTask", Destination.OWNER, RequestKind.SAFE, "b"),
        ("Action=GetTaskDetail&TaskId=", Destination.ANY, RequestKind.SAFE, ""),
        ("Action=GetAccessToken", Destination.ANY, RequestKind.SAFE, ""),
        ("Action=DeleteImage", Destination.ANY, RequestKind.UNSAFE, ""),
        ("", Destination.ANY, RequestKind.UNSAFE, ""),
    ],
)
def test_where_calls_go(query: str, destination: Destination, kind: RequestKind, owner: str) -> None:
    purpose = DIALECT.purpose_of(call(query))
    assert (purpose.destination, purpose.kind, purpose.owner) == (destination, kind, owner)
    assert purpose.always_200


def test_other_paths_are_the_native_apis() -> None:
    purpose = DIALECT.purpose_of(head(b"POST", b"/v1/run/cat:1?Action=SubmitTask"))
    assert purpose == Purpose(Destination.RUN, RequestKind.SYNC_RUN, long_wait=True)
    assert DIALECT.error(Problem(503, "no-set", "t", "d"), head(b"GET", b"/v1/tasks")).status == 503
    assert DIALECT.error(Problem(400, "bad-request", "t", "d"), None).status == 400


@pytest.mark.parametrize(
    ("query", "account"),
    [
        ("AccessToken=gca_acme-2_c2VjcmV0", "acme-2"),
        ("Action=x&PublicKey=gck_acme_0f3a9c", "acme"),
        ("AccessToken=gca_Acme_x", "default"),
        ("Cmd=gca_acme_x", "default"),
    ],
)
def test_the_account_is_read_from_the_token_or_the_key(query: str, account: str) -> None:
    assert DIALECT.account_of(call(query)) == account


def test_rules_know_the_account_and_the_image() -> None:
    host = "cn-bj2.ugchub.service.ucloud.cn%2F"
    facts = DIALECT.facts_of(
        call(f"Action=SubmitTask&ImageName={host}acme%2Focr%3A1&AccessToken=gca_acme_x"), b"c"
    )
    assert (facts.account, facts.image, facts.client) == ("acme", "acme/ocr:1", "c")
    assert DIALECT.facts_of(call("Action=GetTaskList&ImageName=ocr:1"), b"c").image is None


def answer(*lines: str) -> AnswerHead:
    return parse_answer("\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode())


@pytest.mark.parametrize(
    ("code", "outcome", "refused"),
    [
        ("0", Outcome.OK, False),
        ("-1", Outcome.OK, False),
        ("43006", Outcome.OK, True),
        ("43048", Outcome.TASK_FAILED, False),
        ("150", Outcome.ERROR, False),
        ("43018", Outcome.ERROR, False),
    ],
)
def test_how_answers_count(code: str, outcome: Outcome, refused: bool) -> None:
    assert DIALECT.outcome_of(answer(f"X-Ret-Code: {code}")) == Answered(outcome, 200, refused=refused)


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({"RetCode": 150, "Executed": False}, Refused.FULL),
        ({"RetCode": 150, "Executed": False, "Draining": True}, Refused.DRAINS),
        ({"RetCode": 150, "Executed": True}, None),
        ({"RetCode": 150}, None),
        ({"RetCode": 0, "Executed": False}, None),
        ({"executed": False, "type": "x/set-draining"}, Refused.DRAINS),
        ([], None),
    ],
)
def test_refusals(body: object, refusal: Refused | None) -> None:
    assert DIALECT.refusal_of(json.dumps(body).encode()) == refusal


@pytest.mark.parametrize(("status", "code"), [(503, 150), (504, 150), (429, 153), (404, 43016), (400, 43033)])
def test_the_routers_errors_are_200_and_json(status: int, code: int) -> None:
    found = DIALECT.error(Problem(status, "name", "title", "do \u00e9 that"), call("Action=SubmitTask"))
    told = json.loads(found.body)
    assert (found.status, found.content_type, found.body.isascii()) == (200, "application/json", True)
    assert (told["Action"], told["RetCode"], told["Detail"]) == ("SubmitTaskResponse", code, "do \u00e9 that")


SUBMIT = b"POST /?Action=SubmitTask&TaskType=Async HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"


def told(fields: dict[str, Any]) -> bytes:
    body = json.dumps(fields).encode()
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Ret-Code: %d\r\nContent-Length: %d\r\n\r\n%b"
        % (fields["RetCode"], len(body), body)
    )


async def test_a_set_that_took_nothing_sends_the_call_to_another() -> None:
    full = told({"RetCode": 150, "Executed": False})
    weights = {"a": 99.99, "b": 0.01}
    async with running({"a": answering(full), "b": answering()}, weights=weights, dialect=DIALECT) as rig:
        await rig.ask(SUBMIT)
        assert [len(rig.sets[name].requests) for name in "ab"] == [1, 1]
    async with running({"a": answering(full), "b": answering(full)}, weights=weights, dialect=DIALECT) as rig:
        last = await rig.ask(SUBMIT)
        assert (last.status, json.loads(last.body)["RetCode"]) == (200, 150)


async def test_a_task_that_may_have_run_is_not_sent_again() -> None:
    lost = told({"RetCode": 150, "Executed": True})
    async with running(
        {"a": answering(lost), "b": answering()}, weights={"a": 99.99, "b": 0.01}, dialect=DIALECT
    ) as rig:
        assert json.loads((await rig.ask(SUBMIT)).body)["Executed"] is True
        assert len(rig.sets["b"].requests) == 0
