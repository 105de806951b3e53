"""Makes standard input, output and error safe to use when they are closed, full, unread or in another encoding.

Printing never ends in a traceback. A failure of standard output is `OutputFailed`, which becomes an exit code; a
message that standard error does not accept is dropped.
"""

import errno
import io
import os
import select
import sys


class OutputFailed(Exception):
    """Standard output could not be written."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"standard output could not be written: {cause.strerror or cause}")
        self.reader_gone = cause.errno == errno.EPIPE


class _Output(io.FileIO):
    """Descriptor 1: waits where it would block, and raises `OutputFailed` instead of `OSError`."""

    forgotten = False

    def write(self, data: "bytes | memoryview") -> int:  # type: ignore[override]
        if self.forgotten:
            return len(data)
        try:
            while (written := super().write(data)) is None:
                poll = select.poll()
                poll.register(self.fileno(), select.POLLOUT)
                poll.poll()
        except OSError as error:
            raise OutputFailed(error) from error
        return written


class _Complaints(io.FileIO):
    """Descriptor 2: drops what it does not accept; the exit code still reports the failure."""

    def write(self, data: "bytes | memoryview") -> int:  # type: ignore[override]
        try:
            written = super().write(data)
        except OSError:
            written = None
        return len(data) if written is None else written


def secure() -> None:
    """Install these streams. Call it before anything is opened: the next file or socket would take a closed
    descriptor's number, and receive what was meant for the terminal."""
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            # Read-only for standard output, so that writing fails as it does on a closed descriptor.
            opened = os.open(os.devnull, mode)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    # Leave streams alone that a test has installed.
    if sys.stdout is sys.__stdout__ and not isinstance(_raw(sys.stdout), _Output):
        sys.stdout = _text(_Output(1, "wb", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__ and not isinstance(_raw(sys.stderr), _Complaints):
        sys.stderr = _text(_Complaints(2, "wb", closefd=False), sys.stderr)


def write_out(piece: bytes) -> None:
    """Write to standard output and flush, so that the next program of a pipeline sees every byte at once."""
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def forget_output() -> None:
    """Discard what standard output has not accepted; Python would otherwise try again at exit, and fail loudly."""
    raw = _raw(sys.stdout)
    if isinstance(raw, _Output):
        raw.forgotten = True


def _raw(stream: object) -> object:
    return getattr(getattr(stream, "buffer", None), "raw", None)


def _text(raw: io.FileIO, before: io.TextIOWrapper | object) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        # A character that the terminal's encoding lacks, e.g. µ, must not end the program.
        errors="backslashreplace",
        line_buffering=raw.fileno() == 2 or raw.isatty(),
        write_through=getattr(before, "write_through", False),
    )
