"""The wire corpus of answers: what a set sends before it closes, and what the client gets of it.

`NAME.request` is sent by the client, `NAME.answer` by the set. `NAME.expect` is `relayed` and the very bytes
(without the line that carries the request's id), `cut` and the bytes after which the connection ends too
early, or `lost STATUS PROBLEM`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.router.rig import Conversation, FakeSet, Play, running

CASES = sorted((Path(__file__).parent / "corpus" / "answers").glob("*.answer"))
REQUEST_ID = re.compile(rb"(?m)^X-Request-Id: [^\r\n]*\r\n")


def sending(answer: bytes) -> Callable[[FakeSet], Play]:
    def make(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            fake.requests.append(await conversation.request())
            await conversation.send(answer)

        return play

    return make


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
async def test_answer(case: Path) -> None:
    kind, _, expected = case.with_suffix(".expect").read_bytes().partition(b"\n")
    request = case.with_suffix(".request").read_bytes()
    more = "retry: {attempts: 1}"
    async with running({"a": sending(case.read_bytes())}, more=more) as rig:
        client = await rig.client()
        await client.send(request)
        if kind == b"relayed":
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
        if kind == b"cut":
            assert REQUEST_ID.sub(b"", await client.rest()) == expected
            assert rig.plane.stats["a"].truncated == 1
            return
        _, status, name = kind.decode().split(" ")
        got = await client.reader.readuntil(b"\r\n\r\n")
        while b" 103 " in got[:20]:
            got = await client.reader.readuntil(b"\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 " + status.encode())
        length = re.search(rb"Content-Length: (\d+)", got)
        assert length is not None
        problem = json.loads(await client.reader.readexactly(int(length[1])))
        assert problem["type"].endswith(f"router-{name}")


def test_the_corpus_is_there() -> None:
    assert len(CASES) >= 40
