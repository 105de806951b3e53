"""The guest's protocol, version 3, as bytes: `sets/guest/PROTOCOL.md` is the contract, this its executor's half.

Data from a guest is length-checked and never trusted. `ProtocolError` means that the slot must be destroyed.
"""

from __future__ import annotations

import struct
from typing import Final, NoReturn

import msgspec

from scheduler.errors import BadRequest
from scheduler.execution import Work

VERSION: Final = 3
MESSAGE_BYTES: Final = 131_072
STDIN_BYTES: Final = 61_440
STRINGS_BYTES: Final = 69_608
"""Most bytes of arguments, environment and output paths with their NULs: the largest message less the largest input."""
STRINGS_COUNT: Final = 8192
OUTPUT_BYTES: Final = 61_440
FILES_COUNT: Final = 64

TASK, KILL, RETIRE, DRESSED, PIPES, READ, RELEASE, SHOW = 1, 2, 3, 4, 5, 6, 7, 8
HELLO, OUTPUT, EXIT, CLEANED, UNFIT = 16, 17, 18, 19, 20

STDIN_FD, STREAM, PRESTART, OUTPUT_FDS = 1, 2, 4, 8
UNDRESSED: Final = 1
HANDED_OVER, KILLED, CLEANING, PRESTARTED = 1, 2, 4, 8

_HEAD: Final = struct.Struct("<BBHI")
_TASK: Final = struct.Struct("<BBHIHHHHII")
_HELLO: Final = struct.Struct("<B3x64s")
HELLO_BYTES: Final = _HEAD.size + _HELLO.size
_OUTPUT: Final = struct.Struct("<II")
_EXIT: Final = struct.Struct("<BB2xiQQQQHHII")
_CLEANED: Final = struct.Struct("<B3xiQ")
_READ: Final = struct.Struct("<BBHIIIQQ")

NOT_STARTED: Final = 3
"""`ExitMessage.how` of a program that the guest could not even try: pipes or processes ran out. The machine's fault."""

CODES: Final = ((0, 255), (1, 64), (1, 4095), (1, 4095))
"""Ranges of a code, by how a program ended: exit status, signal number, errno, errno."""
_MOST: Final = (1 << 53) - 1
"""Numbers above this measure nothing, in microseconds, KiB or bytes; the store could not hold them either."""
_ERRNO_MOST: Final = 4095


class ProtocolError(Exception):
    """A guest sent what the protocol does not allow."""


class Hello(msgspec.Struct):
    version: int
    token: bytes
    undressed: bool = False
    """The guest waits until its slot is dressed."""


class OutputMessage(msgspec.Struct):
    task: int
    stdout: bytes
    stderr: bytes


WHY_NOT: Final = (
    "",
    "it is a folder",
    "it may not be executed by the image's USER: chmod +x it in the Dockerfile",
    "its #! line ends in a carriage return: save the script with Unix line ends",
    "the interpreter of its #! line is not in the image",
    "its dynamic loader is not in the image: add the C library that it was built for, or link it statically",
    "it is neither a program nor a script with a #! line, and no shell is involved",
    "it is built for another architecture: slots run this machine's 64-bit programs alone",
)
"""EXIT's `why` in words."""


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
    files: tuple[int, ...]
    """The size of each output file in bytes, or a negative errno."""
    stdout: bytes
    stderr: bytes
    prestarted: bool = False
    why_not: str = ""
    """Why the program could not be executed, where its file tells."""


class CleanedMessage(msgspec.Struct):
    task: int
    ok: bool
    error: int
    guest_cpu_us: int


class UnfitMessage(msgspec.Struct):
    task: int


Message = Hello | OutputMessage | ExitMessage | CleanedMessage | UnfitMessage


def encode_task(number: int, work: Work, *, output_fds: bool = False) -> bytes:
    """The TASK message; with `output_fds` the outputs' pipes ride along. Raises as `encode_strings`."""
    strings = encode_strings(work)
    body = work.stdin or b""
    flags = STREAM if work.stream else 0
    if work.prestart:
        flags |= PRESTART
    if work.stdin is None:
        flags |= STDIN_FD
    if output_fds:
        flags |= OUTPUT_FDS
    argc, envc, filec = len(work.argv), len(work.env), len(work.outputs)
    return _TASK.pack(TASK, flags, 0, number, argc, envc, filec, 0, len(strings), len(body)) + strings + body


def encode_strings(work: Work) -> bytes:
    """The arguments, variables and output paths of a TASK; the work fits a message when this returns.

    Raises `BadRequest` for arguments, environment or output paths that no program could be given, and `ValueError`
    for inline input above `STDIN_BYTES` (the caller's bug: that goes by pipe).
    """
    argv, env, outputs = work.argv, work.env, work.outputs
    strings = b"\0".join((*argv, *env, *outputs, b""))
    if work.stdin is not None and len(work.stdin) > STDIN_BYTES:
        raise ValueError(f"inline input of {len(work.stdin)} bytes; at most {STDIN_BYTES}")
    # Each string has its own NUL and no other, else one would be read as several.
    if strings.count(0) != len(argv) + len(env) + len(outputs) or len(strings) > STRINGS_BYTES:
        _refuse_strings(work, len(strings))
    if not 0 < len(argv) <= STRINGS_COUNT - len(env) or len(outputs) > FILES_COUNT:
        _refuse_counts(work)
    for variable in env:
        if variable.find(b"=") < 1:
            raise BadRequest(f"env: {_shown(variable)} is not NAME=value", field="env")
    for path in outputs:
        if not path.startswith(b"/"):
            raise BadRequest(f"output: {_shown(path)} is not an absolute path", field="output")
    return strings


def _refuse_strings(work: Work, size_bytes: int) -> NoReturn:
    for field, values in (("arg", work.argv), ("env", work.env), ("output", work.outputs)):
        for value in values:
            if b"\0" in value:
                raise BadRequest(f"{field}: {_shown(value)} holds a NUL byte", field=field)
    raise BadRequest(
        f"arg, env, output: the command line, added environment and output paths take {size_bytes} bytes; "
        f"at most {STRINGS_BYTES}",
        field="arg",
    )


def _refuse_counts(work: Work) -> NoReturn:
    if len(work.outputs) > FILES_COUNT:
        raise BadRequest(f"output: {len(work.outputs)} paths; at most {FILES_COUNT}", field="output")
    if not work.argv:
        raise BadRequest("arg: there is nothing to run", field="arg")
    raise BadRequest(
        f"arg, env: {len(work.argv) + len(work.env)} arguments and variables; at most {STRINGS_COUNT} in all",
        field="arg",
    )


def _shown(value: bytes) -> str:
    return repr(value[:80].decode(errors="replace"))


def encode_kill(number: int) -> bytes:
    return _HEAD.pack(KILL, 0, 0, number)


def encode_show(number: int) -> bytes:
    """Have the outputs of the running task handed over now."""
    return _HEAD.pack(SHOW, 0, 0, number)


def encode_retire() -> bytes:
    return _HEAD.pack(RETIRE, 0, 0, 0)


def encode_dressed() -> bytes:
    return _HEAD.pack(DRESSED, 0, 0, 0)


def encode_pipes(number: int) -> bytes:
    return _HEAD.pack(PIPES, 0, 0, number)


def encode_read(number: int, file: int, first: int, length: int) -> bytes:
    """Ask for `length` bytes of an output file of the task that has ended, from byte `first` on."""
    return _READ.pack(READ, 0, 0, number, file, 0, first, length)


def encode_release(number: int) -> bytes:
    return _HEAD.pack(RELEASE, 0, 0, number)


def decode(data: memoryview) -> Message:
    """A message from a guest; its bytes are copied out of `data`. Raises `ProtocolError`, and nothing else."""
    try:
        kind, flags, _, task = _HEAD.unpack_from(data, 0)
        if kind == EXIT:
            return _decode_exit(data, flags, task)
        if kind == OUTPUT:
            out_len, err_len = _OUTPUT.unpack_from(data, _HEAD.size)
            stdout, stderr = _two_bodies(data, _HEAD.size + _OUTPUT.size, out_len, err_len)
            return OutputMessage(task, stdout, stderr)
        if kind == CLEANED:
            ok, error, guest_cpu_us = _CLEANED.unpack(data[_HEAD.size :])
            if guest_cpu_us > _MOST:
                raise ProtocolError("a number out of range")
            return CleanedMessage(task, bool(ok), error, guest_cpu_us)
        if kind == UNFIT:
            if len(data) != _HEAD.size:
                raise ProtocolError("a message of the wrong length")
            return UnfitMessage(task)
        if kind == HELLO:
            version, token = _HELLO.unpack(data[_HEAD.size :])
            return Hello(version, token, bool(flags & UNDRESSED))
    except struct.error as error:
        raise ProtocolError("a message of the wrong length") from error
    raise ProtocolError(f"message type {kind}")


def _decode_exit(data: memoryview, flags: int, task: int) -> ExitMessage:
    how, why, code, wall_us, reaped, guest, rss, filec, _, out_len, err_len = _EXIT.unpack_from(
        data, _HEAD.size
    )
    at = _HEAD.size + _EXIT.size
    files: tuple[int, ...] = ()
    if filec:
        if filec > FILES_COUNT:
            raise ProtocolError("too many files")
        files = struct.unpack_from(f"<{filec}q", data, at)
        at += 8 * filec
        if min(files) < -_ERRNO_MOST:
            raise ProtocolError("a file's errno out of range")
        if max(files) > _MOST:
            # All hole, of a size that no link and no store can tell; too large to be kept in any case.
            files = tuple(min(size, _MOST) for size in files)
    if how > NOT_STARTED or not CODES[how][0] <= code <= CODES[how][1]:
        raise ProtocolError(f"a program that ended in way {how} with code {code}")
    if why >= len(WHY_NOT):
        raise ProtocolError(f"a program that could not be executed for reason {why}")
    if wall_us > _MOST or reaped > _MOST or guest > _MOST or rss > _MOST:
        raise ProtocolError("a number out of range")
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
        files,
        stdout,
        stderr,
        bool(flags & PRESTARTED),
        WHY_NOT[why],
    )


def _two_bodies(data: memoryview, at: int, first_len: int, second_len: int) -> tuple[bytes, bytes]:
    if first_len > OUTPUT_BYTES or second_len > OUTPUT_BYTES or at + first_len + second_len != len(data):
        raise ProtocolError("lengths that do not add up")
    middle = at + first_len
    return bytes(data[at:middle]), bytes(data[middle:])
