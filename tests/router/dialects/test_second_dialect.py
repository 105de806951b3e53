"""A data plane that is given another dialect speaks it: nothing of the native API is left in the way."""

from __future__ import annotations

import json
from pathlib import Path

from router.choosing.request import Destination, Purpose
from router.choosing.retry import RequestKind
from router.counting.observer import Observer
from router.counting.tally import Answered, Outcome
from router.dialects.contract import Refused
from router.dialects.native import NativeDialect
from router.wire.answer_head import AnswerHead
from router.wire.problems import OwnAnswer, Problem
from router.wire.request_head import RequestHead
from tests.router.rig import answering, running

SUBMIT = b"POST /?Action=Submit HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"


class Actions(NativeDialect):
    """Everything in the query, every answer 200: as APIs of the kind `/?Action=…` have it."""

    def purpose_of(self, head: RequestHead) -> Purpose:
        words = dict(each.split(b"=", 1) for each in head.query.split(b"&") if b"=" in each)
        if words.get(b"Action") == b"Submit":
            return Purpose(Destination.RUN, RequestKind.SYNC_RUN, long_wait=True)
        owner = words.get(b"Job", b"").decode().rpartition("@")[2]
        return Purpose(Destination.OWNER, RequestKind.SAFE, owner)

    def task_of(self, answer: AnswerHead) -> bytes:
        return answer.get(b"job") or b""

    def outcome_of(self, answer: AnswerHead) -> Answered | None:
        return Answered(Outcome.TASK_FAILED if answer.get(b"ret-code") != b"0" else Outcome.OK, answer.status)

    def may_refuse(self, answer: AnswerHead) -> bool:
        return answer.get(b"ret-code") == b"busy"

    def refusal_of(self, body: bytes | bytearray) -> Refused | None:
        return Refused.FULL if body == b"busy" else None

    def error(self, problem: Problem, head: RequestHead | None) -> OwnAnswer:
        return OwnAnswer(200, "application/json", json.dumps({"RetCode": problem.status}).encode())


async def test_paths_owners_and_errors_are_the_dialects() -> None:
    async with running({"a": answering(), "b": answering()}, dialect=Actions()) as rig:
        await rig.ask(SUBMIT)
        await rig.ask(b"GET /?Action=Result&Job=17@b HTTP/1.1\r\nHost: h\r\n\r\n")
        assert [len(rig.sets[name].requests) for name in "ab"] == [1, 1]
        unknown = await rig.ask(b"GET /?Action=Result&Job=17@z HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (unknown.status, json.loads(unknown.body)) == (200, {"RetCode": 404})


async def test_even_what_is_no_request_is_answered_in_the_dialect() -> None:
    async with running({"a": answering()}, dialect=Actions()) as rig:
        answer = await rig.ask(b"GET / HTTP/1.1\r\nHost h\r\n\r\n")
        assert (answer.status, json.loads(answer.body)) == (200, {"RetCode": 400})


async def test_a_refusal_in_the_dialect_sends_a_request_on_to_another_set() -> None:
    busy = b"HTTP/1.1 503 Busy\r\nRet-Code: busy\r\nContent-Length: 4\r\n\r\nbusy"
    async with running({"a": answering(busy), "b": answering()}, weights={"a": 99.99, "b": 0.01}) as rig:
        native = await rig.ask(SUBMIT)
        assert (native.status, native.body) == (503, b"busy")
    async with running(
        {"a": answering(busy), "b": answering()}, weights={"a": 99.99, "b": 0.01}, dialect=Actions()
    ) as rig:
        assert (await rig.ask(SUBMIT)).status == 200


async def test_a_rollout_counts_as_the_dialect_reads_an_answer() -> None:
    failed = b"HTTP/1.1 200 OK\r\nRet-Code: 17\r\nContent-Length: 0\r\n\r\n"
    async with running({"a": answering(failed)}, dialect=Actions()) as rig:
        observer = rig.plane.traffic.observer = Observer()
        observer.watch(1, "a", rig.plane.traffic.table.default)
        await rig.ask(SUBMIT)
        assert (observer.canary.ok, observer.canary.task_failed) == (0, 1)


async def test_the_access_log_names_the_task_that_the_dialect_reads(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    done = b"HTTP/1.1 200 OK\r\nJob: 17@a\r\nContent-Length: 0\r\n\r\n"
    async with running(
        {"a": answering(done)}, more=f'access_log: {{to: "{path}"}}', dialect=Actions()
    ) as rig:
        await rig.ask(SUBMIT)
    assert json.loads(path.read_text())["task"] == "17@a"
