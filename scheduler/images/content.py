"""Files of an image that a slot's HOME begins with, as the guest reads them (PROTOCOL.md, "Content"). Pure."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final

import msgspec

from scheduler.images.user import Owner

MAX_ENTRIES: Final = 256
"""Maximum number of files, links and folders of one HOME. The guest compares each after every task."""

_HEAD: Final = struct.Struct("<BxHIIqQ")
_READ: Final = 4
_ENTER: Final = 1


class Kind(IntEnum):
    FOLDER = 1
    FILE = 2
    LINK = 3


class Entry(msgspec.Struct, frozen=True):
    """`path` is absolute; `data` a file's bytes or a link's target; `owner` and `mode` are those in the image."""

    path: str
    kind: Kind
    owner: Owner = Owner()
    mode: int = 0o755
    mtime_s: int = 0
    data: bytes = b""


def seen_by(owner: Owner, entries: Iterable[Entry]) -> Iterator[Entry]:
    """Return the entries, parents first, as this user may see them once they belong to it.

    An entry of another user keeps the rights that this user has to it. A file that it cannot read becomes an empty one
    without rights, and the content of a folder that it cannot enter is left out. Root can read everything.
    """
    closed: list[str] = []
    for entry in entries:
        if any(entry.path.startswith(folder) for folder in closed):
            continue
        mode, data = entry.mode & 0o777, entry.data
        if owner.uid not in (0, entry.owner.uid):
            own = mode >> 3 & 7 if owner.gid == entry.owner.gid else mode & 7
            mode = own << 6 | mode & 0o077
            if entry.kind is Kind.FOLDER and not own & _ENTER:
                closed.append(entry.path + "/")
            if entry.kind is Kind.FILE and not own & _READ:
                mode, data = 0, b""
        yield msgspec.structs.replace(entry, owner=owner, mode=mode, data=data)


def packed(entries: Iterable[Entry]) -> bytes:
    """The file that the guest reads; b"" for no entries."""
    parts = []
    for entry in entries:
        path = os.fsencode(entry.path)
        head = _HEAD.pack(entry.kind, entry.mode, len(path), 0, entry.mtime_s, len(entry.data))
        parts += [head, path, b"\0", entry.data, b"\0"]
    return b"".join(parts)
