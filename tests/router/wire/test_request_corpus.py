"""The wire corpus: raw requests beside what must come of them. A new case is two files in corpus/requests.

`NAME.request` is what a client sends. `NAME.expect` is `refused STATUS PROBLEM`, or `forwarded` and the very
bytes that the set gets, without the lines that the router adds to every request.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.router.rig import answering, running

CASES = sorted((Path(__file__).parent / "corpus" / "requests").glob("*.request"))
ADDED = re.compile(rb"(?m)^(X-Request-Id|traceparent|X-Forwarded-For|X-Forwarded-Proto): [^\r\n]*\r\n")


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
async def test_request(case: Path) -> None:
    kind, _, expected = case.with_suffix(".expect").read_bytes().partition(b"\n")
    async with running({"a": answering()}) as rig:
        client = await rig.client()
        await client.send(case.read_bytes())
        fake = rig.sets["a"]
        if kind == b"forwarded":
            count = expected.count(b" HTTP/1.1\r\nHost: h\r\n") + expected.count(b"Host: other")
            for _ in range(count):
                assert (await client.answer()).body == b"ok"
            got = b"".join(ADDED.sub(b"", head) + body for head, body in fake.requests)
            assert got == expected
            # And nothing more came of it than those requests.
            await asyncio.sleep(0.01)
            assert len(fake.requests) == count
            return
        _, status, name = kind.decode().split(" ")
        answer = await client.answer()
        assert answer.status == int(status)
        assert answer.problem["type"].endswith(f"/problems/router-{name}")
        assert answer.headers["x-router"] == "r1"
        assert answer.headers["connection"] == "close"
        assert await client.rest() == b""
        assert fake.requests == []


def test_the_corpus_is_there() -> None:
    assert len(CASES) >= 100
    assert all(case.with_suffix(".expect").exists() for case in CASES)
