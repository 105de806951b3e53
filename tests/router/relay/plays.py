"""Requests, and what scripted sets do with them, shared by the tests of exchanges."""

from __future__ import annotations

from collections.abc import Callable

from tests.router.rig import (
    OK,
    Conversation,
    FakeSet,
    Play,
)

# One user, so that a set with nearly all the weight is home to every request, always.
GET = b"GET /x HTTP/1.1\r\nHost: h\r\nX-User-Id: u1\r\n\r\n"
SYNC = b"POST /v1/run/cat HTTP/1.1\r\nHost: h\r\nX-User-Id: u1\r\nContent-Length: 2\r\n\r\nhi"
ASYNC = b"POST /v1/run/cat HTTP/1.1\r\nHost: h\r\nX-User-Id: u1\r\nPrefer: respond-async\r\nContent-Length: 2\r\n\r\nhi"
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nX-Set: a\r\n"
    b'Content-Length: 19\r\n\r\n{"executed": false}'
)

_ENDS = b'{"type": "https://general-compute.invalid/problems/set-draining", "executed": false}'
ENDING = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_ENDS), _ENDS)
)


def scripted(*steps: Callable[[Conversation], object]) -> Callable[[FakeSet], Play]:
    """A set whose n-th connection is played by the n-th step; the last one plays all further ones."""

    def make(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            step = steps[min(conversation.number, len(steps)) - 1]
            await step(conversation)  # type: ignore[misc]

        return play

    return make


async def answers_ok(conversation: Conversation) -> None:
    while True:
        await conversation.request()
        await conversation.send(OK)


async def resets_after_request(conversation: Conversation) -> None:
    await conversation.request()
    conversation.reset()


async def refuses_as_full(conversation: Conversation) -> None:
    await conversation.request()
    await conversation.send(FULL)


async def closes_at_second_request(conversation: Conversation) -> None:
    await conversation.request()
    await conversation.send(OK)
    await conversation.request()
