"""A data plane that is given another dialect speaks it: nothing of the native API is left in the way."""

from __future__ import annotations

import json

from router.choosing.request import Destination, Purpose
from router.choosing.retry import RequestKind
from router.dialects.native import NativeDialect
from router.wire.problems import OwnAnswer, Problem
from router.wire.request_head import RequestHead
from tests.router.rig import answering, running


class Actions(NativeDialect):
    """Everything in the query, every answer 200: as APIs of the kind `/?Action=…` have it."""

    def purpose_of(self, head: RequestHead) -> Purpose:
        words = dict(each.split(b"=", 1) for each in head.query.split(b"&") if b"=" in each)
        if words.get(b"Action") == b"Submit":
            return Purpose(Destination.RUN, RequestKind.SYNC_RUN, long_wait=True)
        owner = words.get(b"Job", b"").decode().rpartition("@")[2]
        return Purpose(Destination.OWNER, RequestKind.SAFE, owner)

    def error(self, problem: Problem, head: RequestHead | None) -> OwnAnswer:
        return OwnAnswer(200, "application/json", json.dumps({"RetCode": problem.status}).encode())


async def test_paths_owners_and_errors_are_the_dialects() -> None:
    async with running({"a": answering(), "b": answering()}, dialect=Actions()) as rig:
        await rig.ask(b"POST /?Action=Submit HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        await rig.ask(b"GET /?Action=Result&Job=17@b HTTP/1.1\r\nHost: h\r\n\r\n")
        assert [len(rig.sets[name].requests) for name in "ab"] == [1, 1]
        unknown = await rig.ask(b"GET /?Action=Result&Job=17@z HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (unknown.status, json.loads(unknown.body)) == (200, {"RetCode": 404})


async def test_even_what_is_no_request_is_answered_in_the_dialect() -> None:
    async with running({"a": answering()}, dialect=Actions()) as rig:
        answer = await rig.ask(b"GET / HTTP/1.1\r\nHost h\r\n\r\n")
        assert (answer.status, json.loads(answer.body)) == (200, {"RetCode": 400})
