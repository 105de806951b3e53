"""One bounded GET from a set, for the router's own use: health checks and lists."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from router.errors import reason_of
from router.wire.addresses import Addresses
from router.wire.answer_head import AnswerHead, parse_answer
from router.wire.dial import OWN_ERRORS, dialled
from router.wire.fields import BadHead
from router.wire.framing import Body, ChunkedBody, FramingError, LengthBody, UntilCloseBody

READ_BYTES: Final = 64 * 1024
MAX_HEAD_BYTES: Final = 64 * 1024


class FetchError(Exception):
    """The set gave no whole answer. `refused`: there was no connection; `own`: this process lacked something."""

    def __init__(self, message: str, *, refused: bool = False, own: bool = False) -> None:
        super().__init__(message)
        self.refused = refused
        self.own = own


class Fetched(msgspec.Struct, frozen=True):
    head: AnswerHead
    body: bytes


async def fetch(
    addresses: Addresses,
    target: bytes,
    lines: Sequence[bytes],
    *,
    timeout_s: float,
    max_bytes: int,
    keep: Callable[[int], None] | None = None,
) -> Fetched:
    """GET `target` with header `lines` (each with CR LF). Raises `FetchError`; bounded in time and size.

    `keep` is called with the number of body bytes before they are kept; what it raises ends the call.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _fetch(await _connected(addresses, timeout_s), target, lines, max_bytes, keep)
    except TimeoutError:
        raise FetchError(f"no whole answer within {timeout_s:g} s") from None


async def _connected(addresses: Addresses, timeout_s: float) -> socket.socket:
    try:
        return await dialled(addresses, timeout_s)
    except OSError as error:
        own = error.errno in OWN_ERRORS
        late = isinstance(error, TimeoutError)
        raise FetchError(reason_of(error), refused=not own and not late, own=own) from None


async def _fetch(
    sock: socket.socket,
    target: bytes,
    lines: Sequence[bytes],
    max_bytes: int,
    keep: Callable[[int], None] | None,
) -> Fetched:
    try:
        reader, writer = await asyncio.open_connection(sock=sock, limit=READ_BYTES)
    except OSError as error:
        sock.close()
        raise FetchError(reason_of(error)) from None
    except BaseException:
        sock.close()
        raise
    try:
        writer.write(b"GET %b HTTP/1.1\r\n%bConnection: close\r\n\r\n" % (target, b"".join(lines)))
        data = bytearray()
        while (stop := data.find(b"\r\n\r\n") + 4) == 3:
            part = await reader.read(READ_BYTES)
            if not part or len(data) > MAX_HEAD_BYTES:
                raise FetchError("the answer ended within its head, or the head is too long")
            data += part
        head = parse_answer(bytes(data[:stop]))
        if head.bodiless:
            return Fetched(head, b"")
        body: Body
        if head.chunked:
            body = ChunkedBody(framed=False)
        elif head.content_length is not None:
            body = LengthBody(head.content_length)
        else:
            body = UntilCloseBody()
        content = bytearray()
        part = bytes(data[stop:])
        while True:
            for piece in body.feed(part, memoryview(part), 0, len(part))[0]:
                if keep is not None:
                    keep(len(piece))
                content += piece
            if len(content) > max_bytes:
                raise FetchError(f"the answer is larger than {max_bytes} bytes")
            if body.done:
                return Fetched(head, bytes(content))
            part = await reader.read(READ_BYTES)
            if not part:
                if body.end_of_connection():
                    return Fetched(head, bytes(content))
                raise FetchError("the answer ended too early")
    except OSError as error:
        raise FetchError(reason_of(error)) from None
    except (BadHead, FramingError) as error:
        raise FetchError(f"no valid answer: {error}") from None
    finally:
        writer.close()
