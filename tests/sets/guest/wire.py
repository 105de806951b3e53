"""The guest's protocol as an executor speaks it, written from PROTOCOL.md a second time, so that no slip is in both."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

TASK, KILL, RETIRE, DRESSED, PIPES, READ, RELEASE, SHOW = 1, 2, 3, 4, 5, 6, 7, 8
HELLO, OUTPUT, EXIT, CLEANED, UNFIT = 16, 17, 18, 19, 20
VERSION = 3
UNDRESSED = 1
STDIN_FD, STREAM, PRESTART, OUTPUT_FDS = 1, 2, 4, 8
HANDED_OVER, KILLED, CLEANING, PRESTARTED = 1, 2, 4, 8
EXITED, SIGNALLED, NOT_EXECUTED, NOT_STARTED = 0, 1, 2, 3

MESSAGE_BYTES = 131_072
STRINGS_BYTES = 69_608
STRINGS_COUNT = 8192
BODY_BYTES = 61_440
"""The most of inline stdin, and of each output in one message."""


@dataclass(frozen=True)
class Head:
    type: int
    flags: int
    task: int


@dataclass(frozen=True)
class Exit:
    """EXIT's fixed fields and the size, or the negative errno, of each output file."""

    task: int
    flags: int
    how: int
    code: int
    wall_us: int
    reaped_cpu_us: int
    guest_cpu_us: int
    max_rss_kib: int
    files: tuple[int, ...]
    stdout: bytes
    stderr: bytes
    why: int = 0


def head(kind: int, task: int = 0, flags: int = 0, reserved: int = 0) -> bytes:
    return struct.pack("<BBHI", kind, flags, reserved, task)


def task(
    number: int,
    argv: Sequence[bytes],
    env: Sequence[bytes] = (),
    files: Sequence[bytes] = (),
    stdin: bytes = b"",
    flags: int = 0,
) -> bytes:
    strings = b"".join(string + b"\0" for string in (*argv, *env, *files))
    counts = struct.pack("<HHHHII", len(argv), len(env), len(files), 0, len(strings), len(stdin))
    return head(TASK, number, flags) + counts + strings + stdin


def read(task: int, file: int, first: int, length: int, reserved: int = 0) -> bytes:
    return head(READ, task) + struct.pack("<IIQQ", file, reserved, first, length)


def read_head(message: bytes) -> Head:
    kind, flags, reserved, number = struct.unpack_from("<BBHI", message)
    assert reserved == 0
    return Head(kind, flags, number)


def read_hello(message: bytes, flags: int = 0) -> tuple[int, bytes]:
    """The version and the token."""
    assert read_head(message) == Head(HELLO, flags, 0)
    assert message[9:12] == bytes(3)
    assert len(message) == 8 + 4 + 64
    return message[8], message[12:]


def read_output(message: bytes) -> tuple[bytes, bytes]:
    """What the guest had read of stdout and stderr."""
    return _two_bodies(message, 8)


def read_exit(message: bytes) -> Exit:
    known = read_head(message)
    assert known.type == EXIT
    how, why, code, wall, reaped, guest, rss, count, reserved = struct.unpack_from("<BB2xiQQQQHH", message, 8)
    assert reserved == 0
    assert message[10:12] == bytes(2)
    # The lengths stand before the files' sizes, the bytes after them.
    at = 8 + 44
    files = struct.unpack_from(f"<{count}q", message, at + 8)
    stdout, stderr = _two_bodies(message[at : at + 8] + message[at + 8 + 8 * count :], 0)
    return Exit(known.task, known.flags, how, code, wall, reaped, guest, rss, files, stdout, stderr, why)


def read_cleaned(message: bytes) -> tuple[bool, int]:
    """Whether all is clean, and the errno if not."""
    assert read_head(message).type == CLEANED
    ok, error, _ = struct.unpack("<B3xiQ", message[8:])
    return bool(ok), error


def _two_bodies(message: bytes, at: int) -> tuple[bytes, bytes]:
    first, second = struct.unpack_from("<II", message, at)
    assert first <= BODY_BYTES
    assert second <= BODY_BYTES
    assert len(message) == at + 8 + first + second
    return message[at + 8 : at + 8 + first], message[at + 8 + first :]
