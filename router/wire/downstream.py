"""One client connection: reads heads and bodies, one exchange at a time, writes answers in order.

Requests that a client pipelines wait unread (bounded) until the answer before them is out. While an exchange
runs the connection stays readable, so that a client that goes away is noticed at once and its task cancelled.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from .framing import ChunkedBody, FramingError, LengthBody
from .problems import Problem, Refusal, problem_answer
from .request_head import RequestHead, parse_request, refuse_part
from .stream import Piece, Stream

if TYPE_CHECKING:
    from router.plane import DataPlane

READ_BYTES = 64 * 1024
SKIPPED_BODY_BYTES = 1024 * 1024
"""The rest of a body that is read and dropped after an early answer, so that the connection lives on."""
REMEMBERED_HEAD_BYTES = 1024
"""A head up to this size is kept, as clients tend to repeat themselves: the same bytes need not be read
again."""


_NO_PIECES: list[Piece] = []


class Work(Protocol):
    """What is being done about a request: an exchange with a set, or a list merged over sets."""

    def start(self, pieces: list[Piece]) -> None: ...
    def send_body(self, pieces: list[Piece], *, last: bool, shared: bool) -> bool: ...
    def on_client_drained(self) -> None: ...
    def cancel(self) -> None: ...
    def timed_out(self, now: float) -> bool: ...


class State(enum.Enum):
    """HEAD: between requests, or within a head. BODY: a request's body is arriving. ANSWER: it is all there, the
    answer is awaited or relayed. FLUSH: the answer is complete, not yet sent. SKIP: it is sent, before the
    body's end; the rest, as it is short, is read and dropped. CLOSING: flush, then close. LINGER: as SKIP, of a
    long or broken rest, for a while, and then close; a close at once could destroy the answer by a reset."""

    HEAD = enum.auto()
    BODY = enum.auto()
    ANSWER = enum.auto()
    FLUSH = enum.auto()
    SKIP = enum.auto()
    CLOSING = enum.auto()
    LINGER = enum.auto()


# Looking a member up in its class costs more than all else that is done with it.
_HEAD, _BODY, _ANSWER, _FLUSH, _SKIP, _CLOSING, _LINGER = State


class ClientConnection:
    """`keep`: the connection may carry another request. `answering`: bytes of the current answer went out.
    `status`: the status of that answer."""

    __slots__ = (
        "_body",
        "_head",
        "_head_since",
        "_last_head",
        "_last_raw",
        "_linger_after",
        "_linger_since",
        "_paused",
        "_plane",
        "_scheduled",
        "_searched",
        "_state",
        "_stream",
        "_unread",
        "_work",
        "address",
        "answering",
        "at",
        "keep",
        "status",
    )

    def __init__(self, plane: DataPlane, sock: socket.socket, address: bytes) -> None:
        self._plane = plane
        self._stream = Stream(plane.loop, sock, plane.buffers, self._readable, self._drained, self._gone)
        self._state = _HEAD
        self._unread = b""
        self._searched = 0
        self._scheduled = False
        self._paused = False
        self._head: RequestHead | None = None
        self._head_since = 0.0
        self._last_raw = b""
        self._last_head: RequestHead | None = None
        self._body: LengthBody | ChunkedBody | None = None
        self._work: Work | None = None
        self._linger_since = 0.0
        self._linger_after = False
        self.address = address
        self.keep = True
        self.answering = False
        self.status = 0
        self.at = plane.loop.time()
        self._stream.resume_reading()

    # Reading.

    def _readable(self) -> None:
        state = self._state
        if state is _BODY:
            self._read_body()
            return
        try:
            view = self._plane.buffers.view
            data = bytes(view[: self._stream.sock.recv_into(view, READ_BYTES)])
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._gone()
            return
        self.at = self._plane.loop.time()
        if state is _LINGER or state is _CLOSING:
            return
        if self._body is not None:
            self._skip_body(data)
            return
        self._unread = self._unread + data if self._unread else data
        if state is _HEAD:
            if not self._scheduled:
                self._next()
        elif len(self._unread) > self._plane.limits.pipeline_bytes:
            self._paused = True
            self._stream.pause_reading()

    def _skip_body(self, data: bytes) -> None:
        """Drop what still comes of a body that nobody waits for."""
        body = self._body
        assert body is not None
        try:
            _, pos = body.feed(data, memoryview(data), 0, len(data))
        except FramingError:
            self._linger_after = True
            self._body = None
            return
        if body.done:
            self._body = None
            self._unread = data[pos:]
            if self._state is _SKIP:
                self._flushed()

    def _next(self) -> None:
        """Begin the next request, if its head is complete."""
        self._scheduled = False
        if self._state is not _HEAD or self._stream.closed:
            return
        data = self._unread
        if data[0] in b"\r\n":
            data = data.lstrip(b"\r\n")
            self._searched = 0
        stop = data.find(b"\r\n\r\n", self._searched) + 4
        plane = self._plane
        if stop == 3:
            self._unread = data
            self._searched = max(0, len(data) - 3)
            if data:
                self._head_since = self._head_since or plane.loop.time()
                refusal = refuse_part(data, plane.limits)
                if refusal is not None:
                    self._refuse(refusal.problem)
            return
        self._searched = 0
        self._head_since = 0.0
        rest = b""
        if stop < len(data):
            rest = data[stop:]
            data = data[:stop]
        self._unread = rest
        try:
            if data == self._last_raw and self._last_head is not None:
                head = self._last_head.again()
            else:
                head = parse_request(data, plane.limits)
                if len(data) <= REMEMBERED_HEAD_BYTES:
                    self._last_raw = data
                    self._last_head = head
            pieces = self._begin_body(head, rest) if head.has_body else _NO_PIECES
        except Refusal as refusal:
            self._refuse(refusal.problem)
            return
        except FramingError as error:
            self._refuse(_bad_body(error))
            return
        self._head = head
        self.keep = head.keep_alive
        self._state = _ANSWER if self._body is None else _BODY
        plane.requests += 1
        work = plane.dispatch(self, head)
        if isinstance(work, Problem):
            self.respond(work)
            return
        plane.active += 1
        self._work = work
        work.start(pieces)

    def _begin_body(self, head: RequestHead, rest: bytes) -> list[Piece]:
        """Set up the body's framing; returns its first pieces and keeps what follows it."""
        if len(rest) == head.content_length:
            # The usual small request: all of it came at once.
            self._unread = b""
            return [rest]
        body = ChunkedBody() if head.chunked else LengthBody(head.content_length or 0)
        if not rest:
            self._body = body
            return []
        pieces, pos = body.feed(rest, memoryview(rest), 0, len(rest))
        self._unread = rest[pos:]
        if not body.done:
            self._body = body
        return pieces

    def _read_body(self) -> None:
        buffers = self._plane.buffers
        body = self._body
        work = self._work
        if body is None or work is None:
            return
        limit = 16 * 1024 if body.slow else buffers.read_bytes
        try:
            got = self._stream.sock.recv_into(buffers.view, limit)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            got = 0
        if got == 0:
            self._gone()
            return
        self.at = self._plane.loop.time()
        view = buffers.view
        try:
            pieces, pos = body.feed(buffers.current, view, 0, got)
        except FramingError as error:
            work.cancel()
            if self.answering:
                self.truncate()
            else:
                self._refuse(_bad_body(error))
            return
        if body.done:
            self._body = None
            self._unread = bytes(view[pos:got])
            self._state = _ANSWER
        taken = work.send_body(pieces, last=body.done, shared=True)
        if not taken and self._state is _BODY:
            self.hold_body()

    # What an exchange asks for.

    @property
    def body_done(self) -> bool:
        """The request's last byte was read."""
        return self._body is None

    @property
    def drained(self) -> bool:
        return self._stream.drained

    def want_body(self) -> None:
        """Read on in the body."""
        if self._paused and self._state is _BODY:
            self._paused = False
            self.at = self._plane.loop.time()
            self._stream.resume_reading()

    def hold_body(self) -> None:
        """Read no more of the body for now."""
        if not self._paused and self._state is _BODY:
            self._paused = True
            self._stream.pause_reading()

    def write(self, pieces: Sequence[Piece], *, shared: bool = False) -> bool:
        """Send a part of the answer; False: wait for `on_client_drained`."""
        return self._stream.write(pieces, shared=shared)

    def post(self, data: bytes) -> None:
        """Send a short beginning of the answer, which finds nothing unsent before it."""
        self._stream.post(data)

    def respond(self, problem: Problem) -> None:
        """Answer with a problem of the router's own."""
        head = self._head
        self.respond_bytes(
            problem.status,
            lambda close, head_only, request_id: problem_answer(
                self._plane.name, problem, close=close, head_only=head_only, request_id=request_id
            ),
        )
        self._plane.note_problem(problem, head)

    def respond_bytes(self, status: int, build: AnswerBuilder) -> None:
        """Answer with bytes that the router made: `build(close, head_only, request_id)` returns them."""
        head = self._head
        if not self.body_done or self._plane.draining:
            self.keep = False
        self.status = status
        self.answering = True
        head_only = head is not None and head.method == b"HEAD"
        request_id = head.request_id.decode("latin-1") if head is not None else None
        self._stream.write([build(not self.keep, head_only, request_id)])
        self.exchange_done()

    def _refuse(self, problem: Problem) -> None:
        """Answer what is no valid request; nothing after it can be understood."""
        self.keep = False
        self._head = None
        self._linger_after = True
        self._unread = b""
        self.respond(problem)

    def exchange_ended(self) -> None:
        """The exchange will do nothing more, whatever came of it."""
        if self._work is not None:
            self._work = None
            self._plane.active -= 1

    def exchange_done(self) -> None:
        """The answer is complete; what of it is not sent yet is in the stream."""
        if self._stream.closed:
            return
        if self._stream.broken:
            self.close()
            return
        self._state = _FLUSH
        stream = self._stream
        if not self.keep or self._body is not None or self._plane.draining:
            # The end of the connection, perhaps: nothing may lie unsent.
            stream.send_posted()
        if self._paused and self._body is not None:
            self._paused = False
            stream.resume_reading()
        if stream.drained:
            self._flushed()

    def truncate(self) -> None:
        """The answer breaks off: close, so that the client cannot take it for the whole."""
        if self._stream.closed:
            return
        self.keep = False
        self._stream.send_posted()
        if self._stream.drained or (self._head is not None and self._head.minor == 0):
            # HTTP/1.0 may know the end by the close alone: only a reset tells.
            self.close(abort=self._head is not None and self._head.minor == 0)
        else:
            self._state = _CLOSING

    def _drained(self) -> None:
        state = self._state
        if state is _FLUSH:
            self._flushed()
        elif state is _CLOSING:
            self.close()
        elif self._work is not None:
            self._work.on_client_drained()

    def _flushed(self) -> None:
        """The answer is out: the next request, or the end."""
        body = self._body
        if body is not None and self._may_skip(body):
            self._state = _SKIP
            return
        if body is not None or self._linger_after:
            self._linger()
            return
        if not self.keep or self._plane.draining:
            if self._unread or self._paused:
                self._linger()
            else:
                self.close()
            return
        self._state = _HEAD
        self._head = None
        self.answering = False
        if self._paused:
            self._paused = False
            self._stream.resume_reading()
        if self._unread:
            # Not at once: a long queue of requests would go as deep as it is long.
            self._scheduled = True
            self.at = self._plane.loop.time()
            self._plane.loop.call_soon(self._next)

    def _may_skip(self, body: LengthBody | ChunkedBody) -> bool:
        if not self.keep or self._linger_after or self._plane.draining:
            return False
        return isinstance(body, LengthBody) and body.left <= SKIPPED_BODY_BYTES

    def _linger(self) -> None:
        self._state = _LINGER
        self._linger_since = self.at = self._plane.loop.time()
        self._stream.shut_down_writing()
        self._stream.resume_reading()

    def _gone(self) -> None:
        """The client closed its side, or the connection broke: nobody waits for the answer."""
        work = self._work
        if work is not None:
            work.cancel()
        self.close()

    def close(self, *, abort: bool = False) -> None:
        if not self._stream.closed:
            self._stream.close(abort=abort)
            self._plane.client_closed(self)

    def close_if_idle(self) -> None:
        """For a shutdown: close unless a request is in work or half read."""
        if self._state is _SKIP or (self._state is _HEAD and not self._unread):
            self.close()

    def shut(self) -> None:
        """For the end of a shutdown: close whatever is going on."""
        self._gone()

    def check_time(self, now: float) -> None:
        """Called every sweep: end what takes too long."""
        limits = self._plane.limits
        state = self._state
        if state is _HEAD:
            if self._head_since:
                if now - self._head_since > limits.header_s:
                    self._refuse(_slow_head(limits.header_s))
            elif now - self.at > limits.keep_alive_s and not self._unread:
                self.close()
            return
        if state is _SKIP:
            if now - self.at > limits.body_idle_s:
                self.close()
            return
        if state is _LINGER:
            if now - self._linger_since > limits.linger_s or now - self.at > limits.linger_idle_s:
                self.close()
            return
        stalled = self._stream.stalled_since
        if stalled and now - stalled > limits.write_stall_s:
            self._plane.stalled_clients += 1
            self._gone()
            return
        work = self._work
        if work is None or work.timed_out(now):
            return
        if state is _BODY and not self._paused and now - self.at > limits.body_idle_s:
            work.cancel()
            if self.answering:
                self.truncate()
            else:
                self._refuse(_slow_body(limits.body_idle_s))


class AnswerBuilder(Protocol):
    def __call__(self, close: bool, head_only: bool, request_id: str | None) -> bytes: ...


def _bad_body(error: FramingError) -> Problem:
    return Problem(
        400,
        "bad-body",
        "The request's body is not valid HTTP/1.1",
        f"{error}; see RFC 9112, section 7.1",
        executed=True,
    )


def _slow_head(limit_s: float) -> Problem:
    return Problem(
        408,
        "headers-stalled",
        "The request's head did not arrive in time",
        f"send it whole within {limit_s:g} s",
    )


def _slow_body(limit_s: float) -> Problem:
    return Problem(
        408,
        "body-stalled",
        "The request's body stalled",
        f"no byte of it came for {limit_s:g} s; send it faster, or its length right",
        executed=True,
    )
