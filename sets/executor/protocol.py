"""The guest's protocol, version 1, as bytes: `sets/guest/PROTOCOL.md` is the contract, this its executor's half.

What comes from a guest is length-checked and never trusted: `ProtocolError` means that the slot is to be destroyed.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from scheduler.errors import BadRequest
from scheduler.execution import Work

VERSION: Final = 1
MESSAGE_BYTES: Final = 131_072
STDIN_BYTES: Final = 61_440
STRINGS_BYTES: Final = 69_632
STRINGS_COUNT: Final = 8192
OUTPUT_BYTES: Final = 61_440
FILES_COUNT: Final = 64

TASK, KILL, RETIRE = 1, 2, 3
HELLO, OUTPUT, EXIT, CLEANED = 16, 17, 18, 19

STDIN_FD, STREAM = 1, 2
HANDED_OVER, KILLED, CLEANING = 1, 2, 4

_HEAD: Final = struct.Struct("<BBHI")
_TASK: Final = struct.Struct("<BBHIHHHHII")
_HELLO: Final = struct.Struct("<B3x64s")
_OUTPUT: Final = struct.Struct("<II")
_EXIT: Final = struct.Struct("<B3xiQQQQHHII")
_CLEANED: Final = struct.Struct("<B3xiQ")


class ProtocolError(Exception):
    """A guest sent what the protocol does not allow."""


class Hello(msgspec.Struct):
    version: int
    token: bytes


class OutputMessage(msgspec.Struct):
    task: int
    stdout: bytes
    stderr: bytes


class ExitMessage(msgspec.Struct):
    task: int
    handed_over: bool
    killed: bool
    cleaning: bool
    how: int
    code: int
    wall_us: int
    reaped_cpu_us: int
    guest_cpu_us: int
    max_rss_kib: int
    file_errnos: tuple[int, ...]
    stdout: bytes
    stderr: bytes


class CleanedMessage(msgspec.Struct):
    task: int
    ok: bool
    error: int
    guest_cpu_us: int


Message = Hello | OutputMessage | ExitMessage | CleanedMessage


def encode_task(number: int, work: Work) -> bytes:
    """The TASK message. Raises `BadRequest` when arguments, environment or output names are too long or too many."""
    argv, env, outputs, stdin = work.argv, work.env, work.outputs, work.stdin
    if len(argv) + len(env) > STRINGS_COUNT:
        raise BadRequest(f"arg, env: at most {STRINGS_COUNT} arguments and variables in all", field="arg")
    strings = b"\0".join((*argv, *env, *outputs, b""))
    if len(strings) > STRINGS_BYTES:
        raise BadRequest(
            f"arg, env: the command line and added environment take {len(strings)} bytes; at most {STRINGS_BYTES}",
            field="arg",
        )
    flags = (STDIN_FD if stdin is None else 0) | (STREAM if work.stream else 0)
    body = stdin or b""
    head = _TASK.pack(TASK, flags, 0, number, len(argv), len(env), len(outputs), 0, len(strings), len(body))
    return head + strings + body


def encode_kill(number: int) -> bytes:
    return _HEAD.pack(KILL, 0, 0, number)


def encode_retire() -> bytes:
    return _HEAD.pack(RETIRE, 0, 0, 0)


def decode(data: memoryview) -> Message:
    """A message from a guest; its bytes are copied out of `data`. Raises `ProtocolError`."""
    try:
        kind, flags, _, task = _HEAD.unpack_from(data, 0)
        if kind == EXIT:
            return _decode_exit(data, flags, task)
        if kind == OUTPUT:
            out_len, err_len = _OUTPUT.unpack_from(data, _HEAD.size)
            stdout, stderr = _two_bodies(data, _HEAD.size + _OUTPUT.size, out_len, err_len)
            return OutputMessage(task, stdout, stderr)
        if kind == CLEANED:
            ok, error, guest_cpu_us = _CLEANED.unpack_from(data, _HEAD.size)
            return CleanedMessage(task, bool(ok), error, guest_cpu_us)
        if kind == HELLO:
            version, token = _HELLO.unpack_from(data, _HEAD.size)
            return Hello(version, token)
    except struct.error as error:
        raise ProtocolError("a message is too short") from error
    raise ProtocolError(f"message type {kind}")


def _decode_exit(data: memoryview, flags: int, task: int) -> ExitMessage:
    how, code, wall_us, reaped, guest, rss, filec, _, out_len, err_len = _EXIT.unpack_from(data, _HEAD.size)
    at = _HEAD.size + _EXIT.size
    errnos: tuple[int, ...] = ()
    if filec:
        if filec > FILES_COUNT:
            raise ProtocolError("too many files")
        errnos = struct.unpack_from(f"<{filec}i", data, at)
        at += 4 * filec
    if how > 2:
        raise ProtocolError(f"a program that ended in way {how}")
    stdout, stderr = _two_bodies(data, at, out_len, err_len)
    return ExitMessage(
        task,
        bool(flags & HANDED_OVER),
        bool(flags & KILLED),
        bool(flags & CLEANING),
        how,
        code,
        wall_us,
        reaped,
        guest,
        rss,
        errnos,
        stdout,
        stderr,
    )


def _two_bodies(data: memoryview, at: int, first_len: int, second_len: int) -> tuple[bytes, bytes]:
    if first_len > OUTPUT_BYTES or second_len > OUTPUT_BYTES or at + first_len + second_len != len(data):
        raise ProtocolError("lengths that do not add up")
    middle = at + first_len
    return bytes(data[at:middle]), bytes(data[middle:])
