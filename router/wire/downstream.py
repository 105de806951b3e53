"""One client connection: reads requests, runs one exchange at a time, and writes answers in order.

Requests that a client pipelines wait unread (bounded) until the answer before them is sent. While an exchange runs the
connection stays readable, so that a client that goes away is noticed at once and its task cancelled.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

from router.wire.client_states import State, check
from router.wire.framing import FramingError
from router.wire.front import Front
from router.wire.problems import Lines, OwnAnswer, Problem, Refusal, bad_body, own_head, slow_body, slow_head
from router.wire.request_head import RequestHead, client_lines
from router.wire.request_reader import RequestReader
from router.wire.stream import Piece, Stream
from router.wire.work import Work

READ_BYTES: Final = 64 * 1024
REMEMBERED_IDLE_S: Final = 3.0
"""Time, in seconds, for which a silent connection remembers the head of its last request."""

_NO_PIECES: Final[list[Piece]] = []

# Looking a member up in its class would cost more than everything else that is done with it.
_HEAD, _BODY, _ANSWER, _FLUSH, _SKIP, _CLOSING, _LINGER = State


class ClientConnection:
    """`keep`: the connection may carry another request. `answering`: bytes of the current answer went out.
    `status`: the status of that answer. `at`: loop time when something came last. `peer`: who connected; `address`:
    whose the request is, another one where a balancer tells so, and `forwarded` the lines that tell a set."""

    __slots__ = (
        "_front",
        "_head",
        "_head_since",
        "_idle_since",
        "_linger_after",
        "_linger_since",
        "_paused",
        "_reader",
        "_scheduled",
        "_state",
        "_stream",
        "_work",
        "address",
        "answering",
        "at",
        "forwarded",
        "keep",
        "peer",
        "status",
    )

    def __init__(
        self, front: Front[ClientConnection], sock: socket.socket, address: bytes, scheme: bytes = b"http"
    ) -> None:
        self._front = front
        self._stream = Stream(front.loop, sock, front.buffers, self._readable, self._drained, self._gone)
        self._reader = RequestReader(front.limits)
        self._state: State = _HEAD
        self._scheduled = False
        self._paused = False
        self._head: RequestHead | None = None
        self._head_since = 0.0
        self._work: Work | None = None
        self._linger_since = 0.0
        self._linger_after = False
        self.address = self.peer = address
        self.forwarded = client_lines(address, scheme)
        self.keep = True
        self.answering = False
        self.status = 0
        self.at = self._idle_since = front.loop.time()
        self._stream.resume_reading()

    # Reading.

    def _readable(self) -> None:
        state = self._state
        if state is _BODY:
            self._read_body()
            return
        front = self._front
        try:
            view = front.buffers.view
            data = view[: self._stream.sock.recv_into(view, READ_BYTES)].tobytes()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._gone()
            return
        self.at = front.loop.time()
        if state is _LINGER or state is _CLOSING:
            return
        reader = self._reader
        if reader.body is not None:
            self._skip_body(data)
            return
        reader.take(data)
        if state is _HEAD:
            if not self._scheduled:
                self._next()
        elif len(reader.unread) > front.limits.pipeline_bytes:
            self._paused = True
            self._stream.pause_reading()

    def _skip_body(self, data: bytes) -> None:
        """Drop the rest of a body that nobody waits for."""
        if not self._reader.skip_body(data):
            self._linger_after = True
        elif self._reader.body is None and self._state is _SKIP:
            self._flushed()

    def _next(self) -> None:
        """Begin the next request, if its head is complete."""
        self._scheduled = False
        if self._state is not _HEAD or self._stream.closed:
            return
        front = self._front
        reader = self._reader
        try:
            head = reader.head()
            if head is None:
                if reader.unread and not self._head_since:
                    self._head_since = front.loop.time()
                return
            self._head_since = 0.0
            pieces = reader.begin_body(head) if head.has_body else _NO_PIECES
        except Refusal as refusal:
            self._refuse(refusal.problem)
            return
        except FramingError as error:
            self._refuse(bad_body(str(error)))
            return
        self._head = head
        self.keep = head.keep_alive
        self._state = check(self._state, _ANSWER if reader.body is None else _BODY)
        work = front.dispatch(self, head)
        if isinstance(work, (Problem, OwnAnswer)):
            if isinstance(work, Problem):
                self.respond(work)
            else:
                self.answer(*work)
            return
        self._work = work
        work.start(pieces)

    def _read_body(self) -> None:
        buffers = self._front.buffers
        reader = self._reader
        body = reader.body
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
        self.at = self._front.loop.time()
        try:
            pieces = reader.read_body(buffers.current, buffers.view, got)
        except FramingError as error:
            self._fail_body(work, bad_body(str(error)))
            return
        if body.done:
            self._state = check(self._state, _ANSWER)
        taken = work.send_body(pieces, last=body.done, shared=True)
        if not taken and self._state is _BODY:
            self.hold_body()

    def _fail_body(self, work: Work, problem: Problem) -> None:
        """The request broke within its body."""
        work.cancel(problem)
        if self.answering:
            self.truncate()
        else:
            self._refuse(problem, logged=True)

    # Called by an exchange.

    @property
    def body_done(self) -> bool:
        """The request's last byte was read."""
        return self._reader.body is None

    @property
    def drained(self) -> bool:
        return self._stream.drained

    def want_body(self) -> None:
        """Read on in the body."""
        if self._paused and self._state is _BODY:
            self._paused = False
            self.at = self._front.loop.time()
            self._stream.resume_reading()

    def hold_body(self) -> None:
        """Stop reading the body for now."""
        if not self._paused and self._state is _BODY:
            self._paused = True
            self._stream.pause_reading()

    def write(self, pieces: Sequence[Piece], *, shared: bool = False) -> bool:
        """Send a part of the answer; False: wait for `on_client_drained`."""
        return self._stream.write(pieces, shared=shared)

    def post(self, data: bytes) -> None:
        """Send a short beginning of the answer; nothing of it may wait unsent."""
        self._stream.post(data)

    def respond(self, problem: Problem, *, logged: bool = False) -> None:
        """Answer with a problem of the router's own. `logged`: the access log knows of it."""
        self.answer(*self._front.error(problem, self._head, self, logged=logged))

    def answer(self, status: int, content_type: str, body: bytes, lines: Lines = ()) -> None:
        """Answer with what the router made itself; `lines` are further header names and values."""
        self._stream.write([b"".join(self.own_pieces(status, content_type, body, lines))])
        self.exchange_done()

    def own_pieces(self, status: int, content_type: str, body: bytes, lines: Lines = ()) -> list[bytes]:
        """The head and the body of an answer that the router made itself, for who writes them and then calls
        `exchange_done`."""
        head = self._head
        if not self.body_done or self._front.draining:
            self.keep = False
        self.status = status
        self.answering = True
        if head is not None:
            lines = (*lines, ("X-Request-Id", head.request_id.decode("latin-1")))
        own = own_head(
            self._front.name, status, len(body), content_type=content_type, close=not self.keep, lines=lines
        )
        return [own] if head is not None and head.method == b"HEAD" else [own, body]

    def _refuse(self, problem: Problem, *, logged: bool = False) -> None:
        """Answer bytes that are no valid request; nothing after them can be understood."""
        self.keep = False
        self._head = None
        self._linger_after = True
        self._reader.drop()
        self.respond(problem, logged=logged)

    def exchange_ended(self) -> None:
        """The exchange has ended, however it went."""
        if self._work is not None:
            self._work = None
            self._front.work_ended()

    def exchange_done(self) -> None:
        """The answer is complete; its unsent part is in the stream."""
        if self._stream.closed:
            return
        if self._stream.broken:
            self.close()
            return
        self._state = check(self._state, _FLUSH)
        stream = self._stream
        if not self.keep or self._reader.body is not None:
            # The connection may end here, so nothing may lie unsent.
            stream.send_posted()
        if self._paused and self._reader.body is not None:
            self._paused = False
            stream.resume_reading()
        if stream.drained:
            self._flushed()

    def truncate(self) -> None:
        """The answer breaks off: close the connection, so that the client cannot take it for the whole."""
        if self._stream.closed:
            return
        self.keep = False
        self._stream.send_posted()
        if self._stream.drained or (self._head is not None and self._head.minor == 0):
            # An HTTP/1.0 client may know the end only by the close: only a reset shows that the answer is not whole.
            self.close(abort=self._head is not None and self._head.minor == 0)
        else:
            self._state = check(self._state, _CLOSING)

    def _drained(self) -> None:
        state = self._state
        if state is _FLUSH:
            self._flushed()
        elif state is _CLOSING:
            self.close()
        elif self._work is not None:
            self._work.on_client_drained()

    def _flushed(self) -> None:
        """The answer has been sent: go on with the next request, or end."""
        reader = self._reader
        unfinished = reader.body is not None
        if unfinished and self.keep and not self._linger_after and reader.may_skip_body():
            self._state = check(self._state, _SKIP)
            self.at = self._front.loop.time()
            return
        if unfinished or self._linger_after:
            self._linger()
            return
        if not self.keep:
            if reader.unread or self._paused:
                self._linger()
            else:
                self.close()
            return
        self._state = check(self._state, _HEAD)
        self._head = None
        self.answering = False
        self._idle_since = self._front.loop.time()
        if self._paused:
            self._paused = False
            self._stream.resume_reading()
        if reader.unread:
            # Not from here: a long queue of requests would recurse as deep as it is long.
            self._scheduled = True
            self.at = self._front.loop.time()
            self._front.loop.call_soon(self._next)

    def _linger(self) -> None:
        self._state = check(self._state, _LINGER)
        self._linger_since = self.at = self._front.loop.time()
        self._stream.shut_down_writing()
        self._stream.resume_reading()

    def _gone(self) -> None:
        """The client closed its side, or the connection broke: nobody waits for the answer any longer."""
        work = self._work
        if work is not None:
            work.cancel()
        self.close()

    def close(self, *, abort: bool = False) -> None:
        if not self._stream.closed:
            self._stream.close(abort=abort)
            self._front.client_closed(self)

    def close_if_idle(self, idle_s: float) -> None:
        """For a shutdown: close if nothing has come for `idle_s`, no request is in work and none is half read.

        A request that is already here, unread, would be reset by a close. It is answered, and its client told that the
        connection ends.
        """
        if self._state is not _HEAD or self._reader.unread:
            return
        if self._front.loop.time() - self._idle_since >= idle_s and not self._stream.has_unread():
            self.close()

    def shut(self) -> None:
        """For the end of a shutdown: close, whatever is going on."""
        self._gone()

    def check_time(self, now: float) -> None:
        """Called every sweep: end the request or the connection if it takes too long."""
        limits = self._front.limits
        state = self._state
        if state is _HEAD:
            if self._head_since:
                if now - self._head_since > limits.header_s:
                    self._refuse(slow_head(limits.header_s))
            elif not self._reader.unread:
                idle_s = now - self._idle_since
                if idle_s > limits.keep_alive_s:
                    self.close()
                elif idle_s > REMEMBERED_IDLE_S:
                    self._reader.forget()
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
            self._front.client_stalled()
            self._gone()
            return
        if state is _BODY and self._paused and self._stream.peer_left():
            self._gone()
            return
        work = self._work
        if work is None or work.timed_out(now):
            return
        if state is _BODY and not self._paused and now - self.at > limits.body_idle_s:
            self._fail_body(work, slow_body(limits.body_idle_s))
