"""A disk with a volatile cache, after a power cut: which of the writes since its last flush arrived, and how much.

QEMU's driver blklogwrites logs what the machine sends to its disk, in the format of Linux' dm-log-writes. The disk
after a cut is the disk before the boot, with the logged writes up to the last flush, and a random part of those after
it: each arrived, was lost, or was torn between sectors. A disk promises nothing else.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SECTOR_BYTES = 512
FLUSH, FUA, DISCARD = 1, 2, 4
"""Flags of an entry: everything before it is on the disk; this write is on the disk; there are no data."""
LARGEST_SECTORS = 1 << 16
"""More than a request of a machine has: 32 MiB."""
_SUPER = struct.Struct("<QQQI")
_MAGIC = 0x6A736677736872
_HEAD = struct.Struct("<QQQQ")
_REST = bytes(SECTOR_BYTES - _HEAD.size)


@dataclass(frozen=True)
class Entry:
    """A request to the disk. `sector`, `sectors`: the place that it writes; `at`: the offset of its data in the log."""

    sector: int
    sectors: int
    flags: int
    at: int


def entries(log: BinaryIO, disk_sectors: int) -> Iterator[Entry]:
    """The requests in a log, in order.

    The emulator may have been killed while it wrote some of them. They had no answer, so they are skipped: the next
    sector that can be the head of a request is one.
    """
    magic, _, _, sector_bytes = _SUPER.unpack(log.read(_SUPER.size))
    if magic != _MAGIC or sector_bytes != SECTOR_BYTES:
        raise ValueError("this is no log of writes in sectors of 512 bytes")
    at = SECTOR_BYTES
    while True:
        log.seek(at)
        head = log.read(SECTOR_BYTES)
        if len(head) < SECTOR_BYTES:
            return
        at += SECTOR_BYTES
        sector, sectors, flags, size = _HEAD.unpack_from(head)
        if not (sectors or flags) or flags > FLUSH | FUA | DISCARD or size or head[_HEAD.size :] != _REST:
            continue
        if sectors > LARGEST_SECTORS or sector + sectors > disk_sectors:
            continue
        yield Entry(sector, sectors, flags, at)
        if not flags & DISCARD:
            at += sectors * SECTOR_BYTES


def cut(disk: Path, log: Path, dice: random.Random) -> Counter[str]:
    """Make `disk`, which is as it was before the boot, what it may be after the cut. Returns numbers of writes."""
    counts: Counter[str] = Counter()
    with disk.open("r+b") as target, log.open("rb") as source:
        found = list(entries(source, disk.stat().st_size // SECTOR_BYTES))
        flushed = max((number for number, each in enumerate(found) if each.flags & FLUSH), default=-1)
        for number, each in enumerate(found):
            if each.flags & DISCARD or not each.sectors:
                continue
            if number <= flushed or each.flags & FUA:
                arrived = "flushed"
            else:
                arrived = dice.choice(["kept", "lost", "torn"] if each.sectors > 1 else ["kept", "lost"])
            counts[arrived] += 1
            if arrived != "lost":
                _write(target, source, each, dice if arrived == "torn" else None)
    return counts


def _write(target: BinaryIO, source: BinaryIO, entry: Entry, dice: random.Random | None) -> None:
    """Write an entry's data; with `dice`, only some of its sectors."""
    source.seek(entry.at)
    data = source.read(entry.sectors * SECTOR_BYTES)
    if dice is None:
        target.seek(entry.sector * SECTOR_BYTES)
        target.write(data)
        return
    for number in range(entry.sectors):
        if dice.random() < 0.5:
            target.seek((entry.sector + number) * SECTOR_BYTES)
            target.write(data[number * SECTOR_BYTES : (number + 1) * SECTOR_BYTES])
