"""The messages of a link, as msgpack: PROTOCOL.md is the contract.

A field that a later build adds needs a default here: an older end ignores it, and a newer one gets the default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from sets.executor.link import frames
from sets.executor.link.frames import LinkError
from sets.executor.protocol import FILES_COUNT, OUTPUT_BYTES, STDIN_BYTES, STRINGS_COUNT

VERSION_OLDEST: Final = 1
VERSION_NEWEST: Final = 1
"""The versions of the protocol that this build speaks."""

M = TypeVar("M", bound=msgspec.Struct)

_MOST: Final = (1 << 53) - 1
Number = Annotated[int, Meta(ge=0, le=_MOST)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
# `$` would allow a line feed at the end.
SlotId = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]{0,63}\Z")]
Text = Annotated[str, Meta(max_length=2048)]
Version = Annotated[int, Meta(ge=1, le=1 << 30)]
Words = Annotated[tuple[bytes, ...], Meta(max_length=STRINGS_COUNT)]
Inline = Annotated[bytes, Meta(max_length=OUTPUT_BYTES)]


class Hello(msgspec.Struct, frozen=True):
    """HELLO: a set introduces itself, and says for how long a GRANT lasts."""

    oldest: Version
    newest: Version
    set_name: Name
    build: Text
    lease_s: Annotated[float, Meta(ge=0.1, le=300)]


class Welcome(msgspec.Struct, frozen=True):
    """WELCOME: the executor's node, and the part of it that this set may use. `cpu_percent` is in hundredths of a
    core."""

    version: Version
    node: Name
    build: Text
    cpu_percent: Annotated[int, Meta(ge=1, le=6_553_600)]
    memory_mib: Annotated[int, Meta(ge=1, le=1 << 30)]
    max_slots: Annotated[int, Meta(ge=1, le=100_000)]
    cpu_features: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[a-z0-9_.-]{1,64}\Z")], ...], Meta(max_length=1024)
    ]
    dresses: bool = False
    """True if the executor limits the CPU of slots and dresses them, as the files that it is left say."""
    shows: bool = False
    """True if the executor knows SHOW."""


class Health(msgspec.Struct, frozen=True):
    """HEALTH: whether the node takes new tasks, and if not, why."""

    ready: bool
    reason: Text = ""


class Expect(msgspec.Struct, frozen=True):
    """EXPECT: a slot is about to be started, whose guest will say this token."""

    slot_id: SlotId
    token: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Content(msgspec.Struct, frozen=True):
    """CONTENT: a part of a file to be left beside a slot's socket. After the last one it is whole."""

    slot_id: SlotId
    data: bytes
    last: bool
    file: Annotated[str, Meta(pattern=r"^(content|dressing|cpu)\Z")] = "content"


class Expected(msgspec.Struct, frozen=True):
    """EXPECTED: the executor listens for the slot, or has left its content; with `error`, it cannot."""

    slot_id: SlotId
    error: Text = ""


class SlotMessage(msgspec.Struct, frozen=True):
    """DISCARD, READY."""

    slot_id: SlotId


class Spent(msgspec.Struct, frozen=True):
    """FREED, LEFT_OVER: CPU time that was used in the slot."""

    slot_id: SlotId
    cpu_us: Number


class SlotReport(msgspec.Struct, frozen=True):
    """LOST, UNFIT: what happened in the slot."""

    slot_id: SlotId
    reason: Text


class Task(msgspec.Struct, frozen=True, array_like=True):
    """TASK: a program to run in a slot, as the new stream. `stdin` None: it follows on the channel STDIN."""

    slot_id: SlotId
    task_id: Annotated[str, Meta(max_length=128)]
    lease_number: Number
    argv: Words
    env: Words
    stdin: Annotated[bytes, Meta(max_length=STDIN_BYTES)] | None
    outputs: Annotated[tuple[bytes, ...], Meta(max_length=FILES_COUNT)]
    streams_at_once: bool
    prestart: bool


class Output(msgspec.Struct, frozen=True, array_like=True):
    """OUTPUT: the outputs outgrew one message; these are their first bytes, and the channels bring the rest."""

    stdout: Inline
    stderr: Inline


class Exit(msgspec.Struct, frozen=True, array_like=True):
    """EXIT: the program has ended. A file is its size in bytes, or an errno as a negative number.

    `freed`: the slot is clean, and takes the next task.
    """

    task_id: Annotated[str, Meta(max_length=128)]
    lease_number: Number
    how: Annotated[int, Meta(ge=0, le=2)]
    code: Annotated[int, Meta(ge=0, le=4095)]
    killed: bool
    handed_over: bool
    prestarted: bool
    freed: bool
    oom_kills: Number
    wall_us: Number
    cpu_us: Number
    max_rss_kib: Number
    memory_peak_kib: Number
    stdout: Inline
    stderr: Inline
    files: Annotated[tuple[Annotated[int, Meta(ge=-4095, le=_MOST)], ...], Meta(max_length=FILES_COUNT)]
    notes: Annotated[tuple[Text, ...], Meta(max_length=16)] = ()


class Read(msgspec.Struct, frozen=True):
    """READ: send these bytes of an output file of the run `run`, on the channel STDOUT of the new stream."""

    run: Number
    file: Annotated[int, Meta(ge=0, lt=FILES_COUNT)]
    first: Number
    length: Number


class Reason(msgspec.Struct, frozen=True):
    """FAULT, GOODBYE: why the link ends. END: why the bytes end early; empty where they are all."""

    reason: Text = ""


BODIES: Final[dict[int, type[msgspec.Struct]]] = {
    frames.HELLO: Hello,
    frames.EXPECT: Expect,
    frames.CONTENT: Content,
    frames.DISCARD: SlotMessage,
    frames.TASK: Task,
    frames.READ: Read,
    frames.WELCOME: Welcome,
    frames.HEALTH: Health,
    frames.EXPECTED: Expected,
    frames.READY: SlotMessage,
    frames.FREED: Spent,
    frames.LOST: SlotReport,
    frames.LEFT_OVER: Spent,
    frames.UNFIT: SlotReport,
    frames.OUTPUT: Output,
    frames.EXIT: Exit,
    frames.GOODBYE: Reason,
    frames.END: Reason,
    frames.FAULT: Reason,
}
"""The message in the body of each kind of frame that has one."""

encode: Final[Callable[[msgspec.Struct], bytes]] = msgspec.msgpack.Encoder().encode
_DECODERS: Final[dict[type[msgspec.Struct], msgspec.msgpack.Decoder[Any]]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in set(BODIES.values())
}


def decode(body: memoryview, message: type[M]) -> M:
    """The message in a frame's body; its bytes are copied out. Raises `LinkError`, and nothing else."""
    try:
        decoded: M = _DECODERS[message].decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LinkError(f"a message {message.__name__} that cannot be read: {error}") from error
    return decoded


def decode_number(body: memoryview, layout: Any) -> int:
    """The number that is a frame's whole body, by `frames.CLOCK` or `frames.COUNT`. Raises `LinkError`."""
    if len(body) != layout.size:
        raise LinkError("a number of the wrong length")
    number: int = layout.unpack(body)[0]
    return number


def cut(text: str) -> str:
    """Return the text as far as a message holds it."""
    return text if len(text) <= 2048 else text[:2047] + "…"


def agree(hello: Hello) -> int:
    """The newest version that both ends speak. Raises `LinkError`."""
    version = min(hello.newest, VERSION_NEWEST)
    if version < max(hello.oldest, VERSION_OLDEST):
        raise LinkError(
            f"the set speaks versions {hello.oldest} to {hello.newest} of the link's protocol, this executor"
            f" {VERSION_OLDEST} to {VERSION_NEWEST}: upgrade the older one"
        )
    return version
