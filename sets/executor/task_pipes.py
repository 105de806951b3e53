"""The pipes between a task's program and us. The guest is sent its ends; none ever comes from there."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from sets.executor.pipes import PIPE_BYTES, PipeReader, PipeWriter, enlarge

_MODE: Final = 0o666
"""The program is another user than we are, and must be able to open its own ends by name (/dev/stdin)."""


class TaskPipes:
    """Our ends of a task's pipes, and `fds`, the descriptors to send. Raises `OSError`, and leaves nothing.

    `to_read`: the guest is sent the outputs' read ends, too, as it reads them until it hands them over.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        stdin: bool = False,
        outputs: bool = True,
        to_read: bool = False,
    ) -> None:
        self.fds: list[int] = []
        self.stdin: PipeWriter | None = None
        self.outputs: tuple[PipeReader, PipeReader] | None = None
        self._loop = loop
        self._theirs: list[int] = []
        try:
            if stdin:
                read_fd, write_fd = os.pipe()
                self._give(read_fd)
                self.stdin = PipeWriter(loop, write_fd)
                enlarge(write_fd)
            if outputs:
                # Little goes to stderr, and pipe memory is limited per user.
                self.outputs = self.output(PIPE_BYTES, to_read=to_read), self.output(to_read=to_read)
        except OSError:
            self.close()
            raise

    def output(self, size_bytes: int = 0, *, to_read: bool = False) -> PipeReader:
        """Make a pipe for the guest or its program to write to. Raises `OSError`."""
        read_fd, write_fd = os.pipe()
        reader = PipeReader(self._loop, read_fd)
        if to_read:
            self.fds.append(read_fd)
        self._give(write_fd)
        if size_bytes:
            enlarge(read_fd)
        return reader

    def sent(self) -> None:
        """Close the guest's ends here: it has them now, or never will."""
        self.fds = []
        theirs, self._theirs = self._theirs, []
        for fd in theirs:
            os.close(fd)

    def close(self) -> None:
        """Close all; closing twice is fine."""
        self.sent()
        for end in (self.stdin, *(self.outputs or ())):
            if end is not None:
                end.close()

    def _give(self, fd: int) -> None:
        self.fds.append(fd)
        self._theirs.append(fd)
        os.fchmod(fd, _MODE)
