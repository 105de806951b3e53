"""The guest's half of the protocol, written from PROTOCOL.md a second time: a scripted guest's messages."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

HELLO, OUTPUT, EXIT, CLEANED = 16, 17, 18, 19
TASK, KILL, RETIRE, PIPES, READ, RELEASE, SHOW = 1, 2, 3, 5, 6, 7, 8
STDIN_FD, STREAM, PRESTART, OUTPUT_FDS = 1, 2, 4, 8
HANDED_OVER, KILLED, CLEANING = 1, 2, 4


def head(kind: int, task: int = 0, flags: int = 0) -> bytes:
    return struct.pack("<BBHI", kind, flags, 0, task)


def hello(token: bytes, version: int = 3, flags: int = 0) -> bytes:
    return head(HELLO, flags=flags) + struct.pack("<B3s64s", version, b"", token)


def output(task: int, stdout: bytes = b"", stderr: bytes = b"") -> bytes:
    return head(OUTPUT, task) + struct.pack("<II", len(stdout), len(stderr)) + stdout + stderr


def ended(
    task: int,
    *,
    flags: int = 0,
    how: int = 0,
    code: int = 0,
    wall_us: int = 100,
    reaped_cpu_us: int = 80,
    guest_cpu_us: int = 0,
    max_rss_kib: int = 4,
    files: Sequence[int] = (),
    stdout: bytes = b"",
    stderr: bytes = b"",
) -> bytes:
    return (
        head(EXIT, task, flags)
        + struct.pack("<B3si", how, b"", code)
        + struct.pack("<QQQQ", wall_us, reaped_cpu_us, guest_cpu_us, max_rss_kib)
        + struct.pack("<HHII", len(files), 0, len(stdout), len(stderr))
        + struct.pack(f"<{len(files)}q", *files)
        + stdout
        + stderr
    )


def cleaned(task: int, *, ok: int = 1, error: int = 0, guest_cpu_us: int = 0) -> bytes:
    return head(CLEANED, task) + struct.pack("<B3siQ", ok, b"", error, guest_cpu_us)


@dataclass(frozen=True)
class AskedFor:
    """A READ as a guest reads it."""

    task: int
    file: int
    first: int
    length: int


def read_read(message: bytes) -> AskedFor:
    kind, flags, reserved, task, file, reserved2, first, length = struct.unpack("<BBHIIIQQ", message)
    assert (kind, flags, reserved, reserved2) == (READ, 0, 0, 0)
    return AskedFor(task, file, first, length)


@dataclass(frozen=True)
class ReadTask:
    """A TASK as a guest reads it; fails where a guest would end itself."""

    number: int
    flags: int
    argv: list[bytes]
    env: list[bytes]
    outputs: list[bytes]
    stdin: bytes


def read_task(message: bytes) -> ReadTask:
    assert len(message) <= 131_072
    kind, flags, reserved, number, argc, envc, filec, reserved2, strings_len, stdin_len = struct.unpack_from(
        "<BBHIHHHHII", message
    )
    assert (kind, reserved, reserved2) == (TASK, 0, 0)
    assert argc >= 1
    assert argc + envc <= 8192
    assert filec <= 64
    assert strings_len <= 69_608
    assert stdin_len <= (0 if flags & STDIN_FD else 61_440)
    assert len(message) == 24 + strings_len + stdin_len
    block = message[24 : 24 + strings_len]
    assert block.endswith(b"\0")
    strings = block[:-1].split(b"\0")
    assert len(strings) == argc + envc + filec
    env, outputs = strings[argc : argc + envc], strings[argc + envc :]
    assert all(b"=" in variable for variable in env)
    assert all(path.startswith(b"/") for path in outputs)
    return ReadTask(number, flags, strings[:argc], env, outputs, message[24 + strings_len :])
