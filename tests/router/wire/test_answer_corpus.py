"""The wire corpus of answers: what a set sends before it closes, and what the client gets of it.

`NAME.request` is sent by the client, `NAME.answer` by the set. The first line of `NAME.expect` is the verdict and
why; after it stand the very bytes that the client gets, without the line that carries the request's id. The verdict
is `relayed`, `cut` (the connection ends too early after these bytes) or `lost STATUS PROBLEM`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.router.rig import Conversation, FakeSet, Play, running
from tests.router.wire.cases import ANSWERS, verdict_of

REQUEST_ID = re.compile(rb"(?m)^X-Request-Id: [^\r\n]*\r\n")


def sending(answer: bytes) -> Callable[[FakeSet], Play]:
    def make(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            fake.requests.append(await conversation.request())
            await conversation.send(answer)

        return play

    return make


@pytest.mark.parametrize("case", ANSWERS, ids=lambda path: path.stem)
async def test_answer(case: Path) -> None:
    kind, _, expected = verdict_of(case)
    request = case.with_suffix(".request").read_bytes()
    more = "retry: {attempts: 1}"
    async with running({"a": sending(case.read_bytes())}, more=more) as rig:
        client = await rig.client()
        await client.send(request)
        if kind == "relayed":
            got = b""
            while len(REQUEST_ID.sub(b"", got)) < len(expected):
                part = await client.reader.read(65536)
                assert part, got
                got += part
            assert REQUEST_ID.sub(b"", got) == expected
            if b"Connection: close" not in expected:
                # The client's connection lives on, whatever became of the set's.
                again = b"GET /again HTTP/1.1\r\nHost: h\r\n\r\n"
                await client.send(again)
                assert b"HTTP/1.1" in await client.reader.read(100)
                assert rig.sets["a"].connections == 2
            return
        if kind == "cut":
            assert REQUEST_ID.sub(b"", await client.rest()) == expected
            assert rig.traffic.stats["a"].truncated == 1
            return
        _, status, name = kind.split(" ")
        got = await client.reader.readuntil(b"\r\n\r\n")
        while b" 103 " in got[:20]:
            got = await client.reader.readuntil(b"\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 " + status.encode())
        length = re.search(rb"Content-Length: (\d+)", got)
        assert length is not None
        problem = json.loads(await client.reader.readexactly(int(length[1])))
        assert problem["type"].endswith(f"router-{name}")


def test_every_case_says_why() -> None:
    assert len(ANSWERS) >= 85
    assert [path.stem for path in ANSWERS if len(verdict_of(path)[1]) < 8] == []
