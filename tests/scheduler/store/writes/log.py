"""Reads what recorder.c wrote: the changes of files and folders, syncs, and lines that the program said, in order."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

_HEAD = struct.Struct("<IIIIQQ")


class What(IntEnum):
    """As in recorder.c. A file is known by its inode number, which a later file may have again."""

    CREATE = 1
    MKDIR = 2
    WRITE = 3
    TRUNCATE = 4
    SYNC = 5
    RENAME = 6
    UNLINK = 7
    RMDIR = 8
    SAY = 9
    SYNC_FAILED = 10


@dataclass(frozen=True)
class Call:
    """`name`, `to`: paths below the recorded folder; `offset`: of a write; the new size of a truncated file."""

    what: What
    file: int
    offset: int = 0
    name: str = ""
    to: str = ""
    data: bytes = b""


@dataclass
class _Files:
    """Numbers of our own, as the system gives an inode's number to another file once the first one is gone."""

    now: dict[int, int] = field(default_factory=dict)
    count: int = 0

    def new(self, inode: int) -> int:
        self.count += 1
        self.now[inode] = self.count
        return self.count


def read(log: Path) -> list[Call]:
    """The calls of a log. The recorder may have been killed in its last record, which is left out."""
    content = log.read_bytes()
    files = _Files()
    calls = []
    at = 0
    while at + _HEAD.size <= len(content):
        number, *sizes, inode, offset = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        parts = []
        for size in sizes:
            parts.append(content[at : at + size])
            at += size
        if at > len(content):
            break
        what = What(number)
        if what is What.MKDIR and not parts[0] and inode in files.now:
            # Another process begins; the folder itself is there.
            continue
        if what in (What.CREATE, What.MKDIR):
            file = files.new(inode)
        elif what in (What.WRITE, What.TRUNCATE, What.SYNC, What.SYNC_FAILED, What.RENAME):
            file = files.now[inode]
        else:
            file = 0
        calls.append(Call(what, file, offset, parts[0].decode(), parts[1].decode(), parts[2]))
    return calls
