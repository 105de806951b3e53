"""How a set's answer is framed for the client that asked: the body's reader and the head's last lines. Pure."""

from __future__ import annotations

from .answer_head import AnswerHead
from .framing import Body, ChunkedBody, LengthBody, UntilCloseBody
from .request_head import RequestHead


def body_of(answer: AnswerHead, request: RequestHead) -> Body | None:
    """What reads the answer's body, and gives it out as the client takes it; None: there is none.

    A body that only the connection's end ends must be chunked by the caller for a client that knows chunks.
    """
    if answer.status == 204 or answer.status == 304 or request.method == b"HEAD":
        return None
    if answer.content_length is not None:
        return LengthBody(answer.content_length)
    if answer.chunked:
        return ChunkedBody(framed=request.minor == 1, keep_trailers=request.takes_trailers)
    return UntilCloseBody()


def relayed_head(answer: AnswerHead, request: RequestHead, body: Body | None, *, keep: bool) -> bytes:
    """The head that the client gets; `keep`: its connection may carry another request after the body."""
    modern = request.minor == 1
    length = answer.content_length if answer.status != 204 else None
    if body is None:
        # As it would be with a body, where there is none by the method's or the status's nature.
        chunked = answer.chunked and modern and answer.status != 204
    else:
        chunked = length is None and modern
    if not keep:
        connection = b"Connection: close\r\n"
    elif modern:
        connection = b""
    else:
        connection = b"Connection: keep-alive\r\n"
    return answer.relay(chunked=chunked, length=length, connection=connection, request_id=request.request_id)


def ends_by_close(request: RequestHead, body: Body | None) -> bool:
    """Whether the client learns the body's end only by the connection's: it knows neither length nor chunks."""
    return request.minor == 0 and body is not None and not isinstance(body, LengthBody)
