"""One input of a batch, as it lies in the spool, and the rules for its name. Pure."""

from __future__ import annotations

from typing import BinaryIO, Final, NamedTuple, Protocol

import msgspec

from scheduler.errors import BadRequest

NAME_CHARS: Final = 255
"""Longest name of an input, which names its task and its entry in the result archive."""
ERROR_END: Final = ".error.json"
"""The end of the name of an entry that tells of a failure."""
FILES_END: Final = ".files"
"""The end of the name of the folder that holds a task's output files."""


class Item(NamedTuple):
    """An input. `next_item`: the byte of the spool behind it. Its bytes are `data`; None: those from `at` on."""

    item: int
    next_item: int
    name: str
    size_bytes: int
    data: bytes | None = None
    at: int = 0
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()


class ItemLimits(msgspec.Struct, frozen=True):
    """Limits of a batch: its inputs, and the bytes of each."""

    inputs: int
    input_bytes: int


class Reader(Protocol):
    """Reads the items of one format. All raise `BadRequest` that names the line or entry."""

    def read(self, spool: BinaryIO, item: int, number: int) -> Item | None:
        """The first input from byte `item` on, which is number `number` of the batch; None: no other follows.

        `item` is 0 or the `next_item` of the input before.
        """


def count(reader: Reader, spool: BinaryIO, limits: ItemLimits) -> int:
    """The number of inputs in a spool, each of which is checked. Reads the whole spool. Raises `BadRequest`."""
    names: set[int] = set()
    item = 0
    while True:
        found = reader.read(spool, item, len(names) + 1)
        if found is None:
            break
        if len(names) >= limits.inputs:
            raise BadRequest(
                f"the batch has more than {limits.inputs} inputs; send them as several batches", field="body"
            )
        if found.size_bytes > limits.input_bytes:
            raise BadRequest(
                f"the input {found.name!r} has {found.size_bytes} bytes; an input has at most {limits.input_bytes}",
                field="body",
            )
        # Hashes need a fraction of the room of names. Two names with one hash are as unlikely as a wrong bit in memory.
        known = hash(found.name)
        if known in names:
            raise BadRequest(
                f"the name {found.name!r} appears twice; names of inputs name the results, so each must be different",
                field="body",
            )
        names.add(known)
        item = found.next_item
    if not names:
        raise BadRequest("the batch has no inputs; send at least one", field="body")
    return len(names)


def plain_name(name: str, where: str) -> str:
    """The name of an input, a relative path without `.` and `..`. Raises `BadRequest` that says `where` it is wrong."""
    plain = name.removeprefix("./")
    parts = plain.split("/")
    wrong = ""
    if not plain or {"", ".", ".."} & set(parts):
        wrong = "is not a plain relative path, such as `scans/page-1.png`"
    elif len(plain) > NAME_CHARS:
        wrong = f"has more than {NAME_CHARS} characters"
    elif not plain.isprintable():
        wrong = "has characters that cannot be printed, or that are not UTF-8"
    elif any(part.endswith((ERROR_END, FILES_END)) for part in parts):
        wrong = f"ends in {ERROR_END} or {FILES_END}, which are names of the result archive"
    if wrong:
        raise BadRequest(f"{where}: the name {name[:80]!r} {wrong}", field="body")
    return plain
