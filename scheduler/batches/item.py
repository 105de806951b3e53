"""One input of a batch, as it lies in the spool, and the rules for its name. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple, Protocol

import msgspec

from scheduler.errors import BadRequest

NAME_CHARS: Final = 255
"""Longest name of an input, which names its task and its entry in the result archive."""
ERROR_END: Final = ".error.json"
"""The end of the name of an entry that tells of a failure."""
FILES_END: Final = ".files"
"""The end of the name of the folder that holds a task's output files."""
PORTION_ITEMS: Final = 200
"""Most parts of a spool that are checked at a time: other threads wait for these, some milliseconds of CPU time."""
PORTION_BYTES: Final = 1 << 20
"""A portion ends after the part that reaches this size."""
EXTRA_BYTES: Final = 2048
"""Most bytes around the inputs, such as headers, for each part of a spool on average. An attribute of five bytes costs
as much time as a small file, so a body of nothing but attributes would keep a processor busy for minutes."""
FOLDERS: Final = 4
"""Most folders that the names of the inputs have, for each input that a batch may have: each takes memory."""
EXTRA_ROOM_BYTES: Final = 1 << 20
"""Bytes around the inputs that every spool may have beyond that."""


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


class Gap(NamedTuple):
    """A part of a spool that is no input: an empty line, or a folder of an archive."""

    next_item: int


class ItemLimits(msgspec.Struct, frozen=True):
    """Limits of a batch: its inputs, and the bytes of each. It has at most as many gaps as it may have inputs."""

    inputs: int
    input_bytes: int


class Reader(Protocol):
    """Reads the parts of one format. All raise `BadRequest` that names the line or entry."""

    def read(self, spool: BinaryIO, item: int, number: int) -> Item | Gap | None:
        """The part that begins at byte `item`; if it is an input, it is number `number`. None: no other follows.

        `item` is 0 or the `next_item` of the part before.
        """


def inputs_from(reader: Reader, spool: BinaryIO, item: int, number: int) -> Iterator[Item]:
    """The inputs from byte `item` on, the first of which is number `number`. Raises `BadRequest`."""
    while (found := reader.read(spool, item, number)) is not None:
        if isinstance(found, Item):
            yield found
            number += 1
        item = found.next_item


class Counter:
    """Counts the inputs of a spool and checks each, a portion at a time."""

    def __init__(self, reader: Reader, spool: BinaryIO, limits: ItemLimits) -> None:
        self._reader = reader
        self._spool = spool
        self._limits = limits
        self._item = 0
        self._gaps = 0
        self._extra_bytes = 0
        # Hashes need a fraction of the room of names. Two names with one hash are as unlikely as a wrong bit in memory.
        self._names: set[int] = set()
        self._folders: set[int] = set()

    @property
    def inputs(self) -> int:
        """The inputs so far."""
        return len(self._names)

    def portion(self) -> bool:
        """Check the next portion. Returns False at the end of the spool. Raises `BadRequest`."""
        begins = self._item
        for _ in range(PORTION_ITEMS):
            found = self._reader.read(self._spool, self._item, self.inputs + 1)
            if found is None:
                if not self.inputs:
                    raise BadRequest("the batch has no inputs; send at least one", field="body")
                return False
            if isinstance(found, Item):
                self._check(found)
                self._extra_bytes += max(0, found.at - self._item)
            else:
                self._skip()
                self._extra_bytes += found.next_item - self._item
            self._item = found.next_item
            if self._extra_bytes > EXTRA_ROOM_BYTES + EXTRA_BYTES * (self.inputs + self._gaps):
                raise BadRequest(
                    f"the headers, folders and empty lines before byte {self._item} are too long for "
                    f"{self.inputs} inputs; write an archive with `--format=gnu`",
                    field="body",
                )
            if self._item - begins >= PORTION_BYTES:
                break
        return True

    def _check(self, found: Item) -> None:
        limits = self._limits
        if self.inputs >= limits.inputs:
            raise BadRequest(
                f"the batch has more than {limits.inputs} inputs; send them as several batches", field="body"
            )
        if found.size_bytes > limits.input_bytes:
            raise BadRequest(
                f"the input {found.name!r} has {found.size_bytes} bytes; an input has at most {limits.input_bytes}",
                field="body",
            )
        known = hash(found.name)
        if known in self._names:
            raise BadRequest(
                f"the name {found.name!r} appears twice; names of inputs name the results, so each must be different",
                field="body",
            )
        self._names.add(known)
        if known in self._folders:
            raise _both(found.name)
        if "/" in found.name:
            self._check_folders(found.name)

    def _check_folders(self, name: str) -> None:
        """An input and a folder of others cannot have one name: results are saved as files."""
        folder = name.rpartition("/")[0]
        while folder and (known := hash(folder)) not in self._folders:
            if known in self._names:
                raise _both(folder)
            if len(self._folders) >= FOLDERS * self._limits.inputs:
                raise BadRequest(
                    f"the names of the inputs have more than {FOLDERS * self._limits.inputs} folders; use fewer",
                    field="body",
                )
            self._folders.add(known)
            folder = folder.rpartition("/")[0]

    def _skip(self) -> None:
        self._gaps += 1
        if self._gaps > self._limits.inputs:
            raise BadRequest(
                f"the batch has more than {self._limits.inputs} empty lines or folders; leave them out",
                field="body",
            )


def _both(name: str) -> BadRequest:
    return BadRequest(
        f"the name {name!r} is that of an input and of a folder of others; results are saved as files, so choose "
        "another name",
        field="body",
    )


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
