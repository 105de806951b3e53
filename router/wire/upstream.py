"""One connection to a set: sends a request, reads the answer's head, hands on its body."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Protocol

from router.errors import reason_of
from router.wire.answer_head import AnswerHead, parse_answer
from router.wire.answer_shape import Shapes
from router.wire.failure import Failure
from router.wire.fields import BadHead
from router.wire.limits import Limits
from router.wire.stream import Buffers, Piece, Stream

_shapes = Shapes()


class Pool(Protocol):
    """The pool: keeps a connection between two exchanges, and counts the requests at its set."""

    def leave(self, *, reading: bool) -> None:
        """A request at the set is over; `reading`: one that takes no room there."""

    def give_back(self, connection: SetConnection) -> None: ...
    def remove(self, connection: SetConnection) -> None: ...


class AnswerTaker(Protocol):
    """Takes an answer: an attempt."""

    def on_informational(self, head: AnswerHead) -> None: ...
    def on_answer(
        self,
        head: AnswerHead,
        buf: bytes | bytearray,
        view: memoryview,
        start: int,
        end: int,
        shared: bool,
    ) -> None:
        """The final head, and what came after it: `buf[start:end]`."""

    def on_answer_bytes(
        self, buf: bytes | bytearray, view: memoryview, start: int, end: int, shared: bool
    ) -> None: ...
    def on_answer_end(self) -> None:
        """The set closed the connection after the answer's head."""

    def on_attempt_failed(self, failure: Failure, detail: str) -> None: ...
    def on_upstream_drained(self) -> None: ...


class SetConnection:
    """A connection that is idle, or busy with one exchange (`taker`)."""

    __slots__ = (
        "_buffers",
        "_informational",
        "_limits",
        "_loop",
        "_part",
        "at",
        "closed",
        "has_answer",
        "pool",
        "reused",
        "stream",
        "taker",
        "whole_sent",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: Pool,
        sock: socket.socket,
        buffers: Buffers,
        limits: Limits,
    ) -> None:
        self._loop = loop
        self._buffers = buffers
        self._limits = limits
        self._part = bytearray()
        self._informational = 0
        self.pool = pool
        self.taker: AnswerTaker | None = None
        self.at = loop.time()
        """Loop time of the last byte read, or of the start."""
        self.closed = False
        self.reused = False
        self.has_answer = False
        """The final answer's head was read."""
        self.whole_sent = False
        """The request's last byte was given to the kernel."""
        self.stream = Stream(loop, sock, buffers, self._readable, self._drained, self._broken)
        self.stream.resume_reading()

    def begin(self, taker: AnswerTaker, now: float) -> None:
        """Start an exchange."""
        self.taker = taker
        self.has_answer = False
        self.whole_sent = False
        self._informational = 0
        self.at = now

    def post(self, data: bytes, *, last: bool) -> None:
        """Begin a request: its head, and perhaps the beginning of its body. `last`: that is all of it."""
        self.stream.post(data)
        if last:
            self.whole_sent = True

    def write(self, pieces: Sequence[Piece], *, last: bool, shared: bool = False) -> bool:
        """Send a part of the request; False: wait for `on_upstream_drained`."""
        if self.stream.write(pieces, shared=shared):
            if last and not self.stream.broken:
                self._sent()
            return True
        self.whole_sent = False
        return False

    def _sent(self) -> None:
        self.whole_sent = True
        self.at = self._loop.time()

    def _drained(self) -> None:
        if self.taker is not None:
            self.taker.on_upstream_drained()

    def mark_sent(self) -> None:
        """The last byte of the request has drained."""
        self._sent()

    def _broken(self) -> None:
        # The set may have answered early (413) and closed: its answer is still to be read.
        if self.taker is not None:
            self.stream.resume_reading()
            self.taker.on_upstream_drained()

    def _readable(self) -> None:
        buffers = self._buffers
        taker = self.taker
        if taker is None:
            # Idle: either the set closed the connection, or it sends bytes that nobody asked for.
            self.pool.remove(self)
            self.close()
            return
        try:
            got = self.stream.sock.recv_into(buffers.view, buffers.read_bytes)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._ended(reason_of(error), reset=True)
            return
        if got == 0:
            self._ended("the set closed the connection", reset=False)
            return
        self.at = self._loop.time()
        if self.has_answer:
            taker.on_answer_bytes(buffers.current, buffers.view, 0, got, True)
            return
        if self._part:
            self._part += buffers.view[:got]
            data = bytes(self._part)
            self._part.clear()
            self._heads(data, memoryview(data), len(data), False)
        else:
            self._heads(buffers.current, buffers.view, got, True)

    def _heads(self, buf: bytes | bytearray, view: memoryview, end: int, shared: bool) -> None:
        """Read heads up to the final one, then pass on the bytes that follow it."""
        taker = self.taker
        shaped = _shapes.read(buf, end)
        if shaped is not None and taker is not None:
            self.has_answer = True
            taker.on_answer(shaped[0], buf, view, shaped[1], end, shared)
            return
        pos = 0
        while True:
            taker = self.taker
            if taker is None or self.closed:
                return
            stop = buf.find(b"\r\n\r\n", pos, end) + 4
            if stop == 3:
                if end - pos > self._limits.answer_head_bytes:
                    self._bad("its head is too long")
                elif pos < end:
                    self._part += view[pos:end]
                return
            raw = view[pos:stop].tobytes()
            try:
                head = parse_answer(raw)
            except BadHead as error:
                self._bad(str(error))
                return
            pos = stop
            if head.status >= 200:
                break
            self._informational += 1
            if head.status == 101 or self._informational > self._limits.informational_answers:
                self._bad(
                    "it switches protocols" if head.status == 101 else "it sends 1xx answers without end"
                )
                return
            taker.on_informational(head)
        _shapes.learn(raw, head)
        self.has_answer = True
        taker.on_answer(head, buf, view, pos, end, shared)

    def _bad(self, detail: str) -> None:
        taker = self.taker
        self.close()
        if taker is not None:
            taker.on_attempt_failed(Failure.BAD_ANSWER, detail)

    def _ended(self, detail: str, *, reset: bool) -> None:
        taker = self.taker
        has_answer = self.has_answer
        had_part = bool(self._part)
        self.close()
        if taker is None:
            return
        if has_answer:
            if reset:
                taker.on_attempt_failed(Failure.RESET, detail)
            else:
                taker.on_answer_end()
        elif had_part:
            taker.on_attempt_failed(Failure.BAD_ANSWER, "it ended within its head")
        elif self.whole_sent:
            taker.on_attempt_failed(Failure.STALE if self.reused else Failure.RESET, detail)
        else:
            taker.on_attempt_failed(Failure.SEND, detail)

    def release(self, *, reusable: bool) -> None:
        """The exchange is over: keep the connection for the next, or close it."""
        self.taker = None
        if self.closed:
            return
        stream = self.stream
        if not reusable or not self.whole_sent or self._part or not stream.drained or stream.broken:
            self.close()
            return
        self.reused = True
        stream.resume_reading()
        self.pool.give_back(self)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.taker = None
        self.stream.close()
