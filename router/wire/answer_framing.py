"""How a set's answer is framed for the client that asked: the body's reader and the head's last lines. Pure."""

from __future__ import annotations

from router.wire.answer_head import AnswerHead
from router.wire.framing import Body, ChunkedBody, LengthBody, UntilCloseBody
from router.wire.request_head import RequestHead
from router.wire.stream import Piece


def has_body(answer: AnswerHead, request: RequestHead) -> bool:
    """Return True if a body follows, by the answer's status and the request's method."""
    return answer.status != 204 and answer.status != 304 and request.method != b"HEAD"


def body_of(answer: AnswerHead, request: RequestHead) -> Body:
    """Return the reader of an answer's body, which passes it on as the client can take it.

    A body that ends only with the connection must be chunked by the caller, if the client knows chunks.
    """
    if answer.content_length is not None:
        return LengthBody(answer.content_length)
    if answer.chunked:
        return ChunkedBody(framed=request.minor == 1, keep_trailers=request.takes_trailers)
    return UntilCloseBody()


def relayed_head(
    answer: AnswerHead, request: RequestHead, *, bodied: bool, keep: bool, body: Piece = b""
) -> bytes:
    """The head that the client gets, and the part of the body to send with it.

    `bodied`: a body follows; `keep`: afterwards the client's connection may carry another request.
    """
    modern = request.minor == 1
    if not keep:
        connection = b"\r\nConnection: close\r\n\r\n"
    elif modern:
        connection = b"\r\n\r\n"
    else:
        connection = b"\r\nConnection: keep-alive\r\n\r\n"
    if answer.content_length is not None and answer.status != 204:
        return b"".join((answer.opening, request.request_id, connection, body))
    framing = b""
    if modern and answer.status != 204 and (bodied or answer.chunked):
        # An answer without a body, because of its method or status, is framed as it would be with one.
        framing = b"Transfer-Encoding: chunked\r\n"
    own = (framing, b"X-Request-Id: ", request.request_id, connection)
    return b"".join((answer.status_line, *answer.lines, *own, body))


def ends_by_close(answer: AnswerHead, request: RequestHead) -> bool:
    """Return True if the client learns a body's end only by the connection's: it knows neither length nor chunks."""
    return request.minor == 0 and answer.content_length is None
