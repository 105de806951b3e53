"""The protocol's codec: what a guest reads is what was asked for; what a guest sends is understood or refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.errors import BadRequest
from scheduler.execution import Work
from sets.executor import protocol
from sets.executor.protocol import (
    CleanedMessage,
    ExitMessage,
    Hello,
    OutputMessage,
    ProtocolError,
    UnfitMessage,
)
from tests.sets.executor import wire

STRING = st.binary(max_size=40).filter(lambda value: b"\0" not in value)
VARIABLE = st.tuples(STRING.filter(lambda name: name.strip(b"=")), STRING).map(
    lambda pair: pair[0].replace(b"=", b"") + b"=" + pair[1]
)
PATH = STRING.map(lambda value: b"/" + value)
WORK = st.builds(
    Work,
    argv=st.lists(STRING, min_size=1, max_size=6).map(tuple),
    env=st.lists(VARIABLE, max_size=4).map(tuple),
    stdin=st.none() | st.binary(max_size=300),
    outputs=st.lists(PATH, max_size=4).map(tuple),
    stream=st.booleans(),
)
BODY = st.binary(max_size=200)
COUNT = st.integers(0, 2**53 - 1)
TASK_NUMBER = st.integers(0, 2**32 - 1)
ENDING = st.one_of(
    st.tuples(st.just(0), st.integers(0, 255)),
    st.tuples(st.just(1), st.integers(1, 64)),
    st.tuples(st.integers(2, 3), st.integers(1, 4095)),
)
EXITS = st.builds(
    lambda task, end, **fields: wire.ended(task, how=end[0], code=end[1], **fields),
    TASK_NUMBER,
    ENDING,
    flags=st.integers(0, 7),
    wall_us=COUNT,
    reaped_cpu_us=COUNT,
    guest_cpu_us=COUNT,
    max_rss_kib=COUNT,
    files=st.lists(st.integers(-4095, 2**53 - 1), max_size=64),
    stdout=BODY,
    stderr=BODY,
)
MESSAGES = st.one_of(
    st.builds(wire.hello, st.binary(min_size=64, max_size=64), st.integers(0, 255)),
    st.builds(wire.output, TASK_NUMBER, BODY, BODY),
    EXITS,
    st.builds(
        lambda task, **fields: wire.cleaned(task, **fields),
        TASK_NUMBER,
        ok=st.integers(0, 1),
        error=st.integers(0, 4095),
        guest_cpu_us=COUNT,
    ),
)


# -- to the guest


@given(number=TASK_NUMBER, work=WORK)
def test_a_guest_reads_the_task_that_was_asked_for(number: int, work: Work) -> None:
    read = wire.read_task(protocol.encode_task(number, work))
    assert read.number == number
    assert (tuple(read.argv), tuple(read.env), tuple(read.outputs)) == (work.argv, work.env, work.outputs)
    assert read.stdin == (work.stdin or b"")
    assert read.flags == (wire.STDIN_FD if work.stdin is None else 0) | (wire.STREAM if work.stream else 0)


def test_the_longest_task_fills_a_message_to_its_last_byte() -> None:
    work = Work(argv=(b"x" * (protocol.STRINGS_BYTES - 1),), stdin=bytes(protocol.STDIN_BYTES))
    message = protocol.encode_task(1, work)
    assert len(message) == protocol.MESSAGE_BYTES
    assert len(wire.read_task(message).stdin) == protocol.STDIN_BYTES


@pytest.mark.parametrize(
    ("work", "field", "says"),
    [
        (Work(argv=()), "arg", "nothing to run"),
        (Work(argv=(b"a\0b",)), "arg", "NUL"),
        (Work(argv=(b"a",), env=(b"A=\0",)), "env", "NUL"),
        (Work(argv=(b"a",), outputs=(b"/x\0",)), "output", "NUL"),
        (Work(argv=(b"x" * protocol.STRINGS_BYTES,)), "arg", "at most 69608"),
        (Work(argv=(b"a",), env=(b"A=" + b"x" * protocol.STRINGS_BYTES,)), "arg", "at most 69608"),
        (Work(argv=(b"",) * 8193), "arg", "8193 arguments"),
        (Work(argv=(b"",) * 8000, env=(b"A=",) * 193), "arg", "at most 8192"),
        (Work(argv=(b"a",), env=(b"A=1", b"PLAIN")), "env", "'PLAIN' is not NAME=value"),
        (Work(argv=(b"a",), env=(b"=1",)), "env", "'=1' is not NAME=value"),
        (Work(argv=(b"a",), outputs=(b"/x",) * 65), "output", "at most 64"),
        (Work(argv=(b"a",), outputs=(b"x",)), "output", "not an absolute path"),
        (Work(argv=(b"a",), outputs=(b"",)), "output", "not an absolute path"),
        (Work(argv=(b"a",), outputs=(b"\xff",)), "output", "not an absolute path"),
    ],
)
def test_what_no_program_could_be_given_is_refused_by_name(work: Work, field: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says) as refused:
        protocol.encode_task(1, work)
    assert refused.value.field == field
    assert len(str(refused.value)) < 300


def test_as_many_arguments_variables_and_outputs_as_allowed() -> None:
    work = Work(argv=(b"",) * 8000, env=(b"A=",) * 192, outputs=(b"/x",) * 64)
    assert len(wire.read_task(protocol.encode_task(1, work)).outputs) == 64


def test_inline_input_that_is_too_long_is_a_bug_of_ours() -> None:
    with pytest.raises(ValueError, match="61441 bytes; at most 61440"):
        protocol.encode_task(1, Work(argv=(b"a",), stdin=bytes(61_441)))


def test_a_guest_reads_what_is_asked_of_files() -> None:
    most = 2**53 - 1
    asked = wire.read_read(protocol.encode_read(7, 63, most, 0))
    assert asked == wire.AskedFor(7, 63, most, 0)
    assert protocol.encode_release(7) == wire.head(wire.RELEASE, 7)
    assert protocol.encode_pipes(7) == wire.head(wire.PIPES, 7)


def test_the_outputs_pipes_are_announced() -> None:
    assert protocol.encode_task(1, Work(argv=(b"a",)), output_fds=True)[1] == protocol.OUTPUT_FDS


def test_prestart_is_a_flag_beside_the_way_of_the_input() -> None:
    work = Work(argv=(b"a",), stdin=None, prestart=True)
    assert protocol.encode_task(1, work)[1] == protocol.PRESTART | protocol.STDIN_FD
    assert protocol.encode_task(1, Work(argv=(b"a",), prestart=True))[1] == protocol.PRESTART
    assert protocol.decode(memoryview(wire.head(protocol.UNFIT, 4))) == UnfitMessage(4)
    ended = protocol.decode(memoryview(wire.ended(1, flags=protocol.PRESTARTED)))
    assert isinstance(ended, ExitMessage)
    assert ended.prestarted


def test_the_short_messages() -> None:
    assert protocol.encode_kill(7) == wire.head(wire.KILL, 7)
    assert protocol.encode_retire() == wire.head(wire.RETIRE)


# -- from the guest


@given(token=st.binary(min_size=64, max_size=64), version=st.integers(0, 255))
def test_hello(token: bytes, version: int) -> None:
    assert protocol.decode(memoryview(wire.hello(token, version))) == Hello(version, token)


@given(task=TASK_NUMBER, stdout=BODY, stderr=BODY)
@example(task=1, stdout=bytes(61_440), stderr=bytes(61_440))
def test_output(task: int, stdout: bytes, stderr: bytes) -> None:
    message = protocol.decode(memoryview(wire.output(task, stdout, stderr)))
    assert message == OutputMessage(task, stdout, stderr)


@given(task=TASK_NUMBER, ok=st.booleans(), error=st.integers(-(2**31), 2**31 - 1), guest_cpu_us=COUNT)
def test_cleaned(task: int, ok: bool, error: int, guest_cpu_us: int) -> None:
    sent = wire.cleaned(task, ok=int(ok), error=error, guest_cpu_us=guest_cpu_us)
    assert protocol.decode(memoryview(sent)) == CleanedMessage(task, ok, error, guest_cpu_us)


@given(
    task=TASK_NUMBER,
    flags=st.integers(0, 7),
    end=ENDING,
    counts=st.tuples(COUNT, COUNT, COUNT, COUNT),
    files=st.lists(st.integers(-4095, 2**53 - 1), max_size=64),
    stdout=BODY,
    stderr=BODY,
)
@example(1, 0, (0, 0), (0, 0, 0, 0), [0] * 64, bytes(61_440), bytes(61_440))
def test_exit(
    task: int,
    flags: int,
    end: tuple[int, int],
    counts: tuple[int, int, int, int],
    files: list[int],
    stdout: bytes,
    stderr: bytes,
) -> None:
    wall_us, reaped_cpu_us, guest_cpu_us, max_rss_kib = counts
    sent = wire.ended(
        task,
        flags=flags,
        how=end[0],
        code=end[1],
        wall_us=wall_us,
        reaped_cpu_us=reaped_cpu_us,
        guest_cpu_us=guest_cpu_us,
        max_rss_kib=max_rss_kib,
        files=files,
        stdout=stdout,
        stderr=stderr,
    )
    assert len(sent) <= protocol.MESSAGE_BYTES
    assert protocol.decode(memoryview(sent)) == ExitMessage(
        task=task,
        handed_over=bool(flags & 1),
        killed=bool(flags & 2),
        cleaning=bool(flags & 4),
        how=end[0],
        code=end[1],
        wall_us=wall_us,
        reaped_cpu_us=reaped_cpu_us,
        guest_cpu_us=guest_cpu_us,
        max_rss_kib=max_rss_kib,
        files=tuple(files),
        stdout=stdout,
        stderr=stderr,
    )


def test_a_file_that_is_a_hole_of_any_size_has_a_size_that_can_be_told() -> None:
    message = protocol.decode(memoryview(wire.ended(1, files=[2**63 - 1, -2, 2**53 - 1])))
    assert isinstance(message, ExitMessage)
    assert message.files == (2**53 - 1, -2, 2**53 - 1)


def test_what_is_decoded_outlives_the_buffer() -> None:
    buffer = bytearray(wire.ended(1, stdout=b"kept"))
    message = protocol.decode(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert isinstance(message, ExitMessage)
    assert message.stdout == b"kept"


# -- malformed


@given(MESSAGES)
@settings(max_examples=60)
def test_every_truncation_is_refused(message: bytes) -> None:
    for size in range(len(message)):
        with pytest.raises(ProtocolError):
            protocol.decode(memoryview(message[:size]))


@given(MESSAGES, st.binary(min_size=1, max_size=20))
def test_every_message_that_is_too_long_is_refused(message: bytes, more: bytes) -> None:
    with pytest.raises(ProtocolError):
        protocol.decode(memoryview(message + more))


@given(
    st.binary(max_size=400)
    | st.tuples(st.sampled_from([16, 17, 18, 19]), st.binary(max_size=200)).map(
        lambda parts: wire.head(parts[0]) + parts[1]
    )
)
@settings(max_examples=500)
def test_random_bytes_are_understood_or_refused(data: bytes) -> None:
    _understood_or_refused(data)


@given(MESSAGES, st.data())
@settings(max_examples=500)
def test_mutated_messages_are_understood_or_refused(message: bytes, data: st.DataObject) -> None:
    mutated = bytearray(message)
    for _ in range(data.draw(st.integers(1, 4))):
        # Lengths and counts stand in the first 60 bytes: that is where a changed byte does most.
        at = data.draw(st.integers(0, min(len(mutated), 60) - 1))
        mutated[at] = data.draw(st.integers(0, 255))
    _understood_or_refused(bytes(mutated))


def _understood_or_refused(data: bytes) -> None:
    """Every accepted message keeps the promises that the slot relies on."""
    try:
        message = protocol.decode(memoryview(data))
    except ProtocolError:
        return
    if isinstance(message, ExitMessage):
        assert len(message.stdout) <= protocol.OUTPUT_BYTES
        assert len(message.stderr) <= protocol.OUTPUT_BYTES
        assert len(message.files) <= protocol.FILES_COUNT
        assert all(-4096 < size_or_errno < 2**53 for size_or_errno in message.files)
        assert message.how in (0, 1, 2, 3)
        assert max(message.wall_us, message.guest_cpu_us, message.max_rss_kib) < 2**53
    elif isinstance(message, OutputMessage):
        assert len(message.stdout) + len(message.stderr) == len(data) - 16


@pytest.mark.parametrize(
    "message",
    [
        b"",
        wire.head(0),
        wire.head(wire.TASK),
        wire.head(22),
        wire.head(21),
        wire.head(wire.READ, 1) + bytes(24),
        wire.head(protocol.UNFIT) + b"x",
        wire.head(255),
        wire.ended(1, how=4, code=1),
        wire.ended(1, how=0, code=256),
        wire.ended(1, how=0, code=-1),
        wire.ended(1, how=1, code=0),
        wire.ended(1, how=1, code=65),
        wire.ended(1, how=2, code=0),
        wire.ended(1, how=3, code=0),
        wire.ended(1, files=[-4096]),
        wire.ended(1, files=[0, -(2**63)]),
        wire.ended(1, files=[0] * 65),
        wire.ended(1, wall_us=2**53),
        wire.ended(1, reaped_cpu_us=2**64 - 1),
        wire.ended(1, guest_cpu_us=2**63),
        wire.ended(1, max_rss_kib=2**53),
        wire.ended(1, stdout=bytes(61_441)),
        wire.ended(1, stderr=bytes(61_441)),
        wire.output(1, stdout=bytes(61_441)),
        wire.output(1, stderr=bytes(61_441)),
        wire.cleaned(1, guest_cpu_us=2**53),
        wire.head(wire.OUTPUT) + struct.pack("<II", 2**32 - 1, 1),
        wire.head(wire.OUTPUT) + struct.pack("<II", 2, 0) + b"x",
    ],
)
def test_refused(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        protocol.decode(memoryview(message))
