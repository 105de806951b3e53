"""The wire corpus: raw requests beside what must come of them. A new case is two files in corpus/requests.

`NAME.request` is what a client sends. The first line of `NAME.expect` is the verdict and why: `forwarded 2`,
`forwarded 1, closed`, `forwarded 1, refused 400 bad-request` or `refused 400 bad-request`; after it stand the very
bytes that the set gets, without the lines that the router adds to every request.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.router.rig import answering, running
from tests.router.wire.cases import REQUESTS, request_case, verdict_of

ADDED = re.compile(rb"(?m)^(X-Request-Id|traceparent|X-Forwarded-For|X-Forwarded-Proto): [^\r\n]*\r\n")
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize("path", REQUESTS, ids=lambda path: path.stem)
async def test_request(path: Path) -> None:
    case = request_case(path)
    async with running({"a": answering(EMPTY)}) as rig:
        fake = rig.sets["a"]
        own_name = b"Host: 127.0.0.1:%d\r\n" % fake.port
        client = await rig.client()
        await client.send(case.sent)
        for _ in range(case.count):
            assert (await client.answer()).status == 204
        if case.status is not None:
            answer = await client.answer()
            assert answer.status == case.status
            assert answer.problem["type"].endswith(f"/problems/router-{case.problem}")
            assert answer.headers["x-router"] == "r1"
            assert answer.headers["connection"] == "close"
        if case.closed or case.status is not None:
            assert await client.rest() == b""
        else:
            # It is open, and takes further requests: nothing of this one is left.
            await asyncio.sleep(0.01)
            await client.send(b"GET /further HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.answer()).status == 204
            assert fake.requests.pop()[0].startswith(b"GET /further HTTP/1.1\r\n")
        got = b"".join(ADDED.sub(b"", head) + body for head, body in fake.requests)
        assert got.replace(own_name, b"Host: SET\r\n") == case.forwarded
        assert len(fake.requests) == case.count


def test_every_case_says_why_and_no_two_are_the_same() -> None:
    assert len(REQUESTS) >= 250
    reasons = {path.stem: verdict_of(path)[1] for path in REQUESTS}
    assert [name for name, why in reasons.items() if len(why) < 12] == []
    assert len({path.read_bytes() for path in REQUESTS}) == len(REQUESTS)
