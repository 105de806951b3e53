"""Writes lines to a file or to standard error in a thread, so that a slow disk delays no request.

Bounded: lines that do not fit into the queue, or cannot be written, are dropped and counted. The file is opened to
append, so that the workers of a router can share it, and opened again after log rotation has moved it away.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from typing import Final, TypeAlias

import structlog

from router.routing.log_policy import STDERR

QUEUE_BYTES: Final = 4 * 1024 * 1024
LOOK_EVERY_S: Final = 1.0
COMPLAIN_EVERY_S: Final = 60.0

Bytes: TypeAlias = bytes | bytearray

log = structlog.get_logger()


class LogWriter:
    """Writes to `target`, a path or "stderr". `dropped`: lines that were not."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.dropped = 0
        self._lost = 0
        """Lines lost; changed by the thread alone."""
        self._waiting_bytes = 0
        self._taken_bytes = 0
        self._queue: queue.SimpleQueue[tuple[Bytes, int] | None] = queue.SimpleQueue()
        self._fd = -1
        self._looked_at = 0.0
        self._complained_at = -COMPLAIN_EVERY_S
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Number of lines dropped so far, because the queue was full or they could not be written."""
        return self.dropped + self._lost

    def put(self, data: Bytes, lines: int) -> None:
        """Hand over whole lines; never waits. The caller must not change them afterwards."""
        if self._waiting_bytes - self._taken_bytes + len(data) > QUEUE_BYTES:
            self.dropped += lines
            return
        self._waiting_bytes += len(data)
        self._queue.put((data, lines))

    def close(self, within_s: float = 2.0) -> None:
        """Write the waiting lines and stop, within this time."""
        self._queue.put(None)
        self._thread.join(within_s)

    # The thread.

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            data, lines = item
            try:
                self._write(data)
            except OSError as error:
                self._lost += lines
                self._forget()
                now = time.monotonic()
                if now - self._complained_at >= COMPLAIN_EVERY_S:
                    self._complained_at = now
                    log.error("access log cannot be written", to=self.target, reason=error.strerror)
            self._taken_bytes += len(data)
        self._forget()

    def _write(self, data: Bytes) -> None:
        if self.target == STDERR:
            fd = 2
        else:
            self._follow()
            fd = self._fd
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def _follow(self) -> None:
        """Open the file that has the name now."""
        now = time.monotonic()
        if self._fd >= 0 and now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                there, here = os.stat(self.target), os.fstat(self._fd)
                if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                    return
            self._forget()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        self._fd = os.open(
            self.target, flags, 0o640
        )  # O_NONBLOCK: opening a pipe without a reader fails instead of waiting.
        os.set_blocking(self._fd, True)

    def _forget(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
