"""A journal of rows that must survive a killed process before they reach the database: one `write` each.

Committing one small row costs SQLite about ten writes and fifty microseconds; thousands of rows in one transaction cost
a few microseconds each. So a row is appended to a segment file first, where it survives `kill -9` in the page cache. It
need not survive a loss of power. A segment is deleted once its rows are in the database; the segments of a killed
process are read when the store opens.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import structlog

from scheduler.errors import StoreError
from scheduler.store.rows import Row

log = structlog.get_logger()

MAGIC: Final = b"GC rows 1\n"
"""The first bytes of every segment: the version of `Row`'s layout."""
_ANY_MAGIC: Final = b"GC rows "
"""The first bytes of a segment of any layout."""
UNFOLDED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Size, in bytes, above which rows are refused: the database has not accepted any for too long."""
_RECORD: Final = struct.Struct("<II")

_encode = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(Row)


class Batch:
    """Rows by task id that are being written to the database, and the segments that hold them."""

    def __init__(self, rows: dict[str, Row], segments: list[Path], size_bytes: int) -> None:
        self.rows = rows
        self.segments = segments
        self.size_bytes = size_bytes


class Journal:
    """The journal of the store at `path`, with its segments in the same folder. Use it on one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, Row] = {}
        self._size_bytes = 0
        self._segments: list[Path] = []
        self._fd = -1
        self._end = 0
        self._number = 0
        self._taken: Batch | None = None

    def __bool__(self) -> bool:
        """True if rows wait to be taken."""
        return bool(self._rows)

    @property
    def taken(self) -> bool:
        """True if a batch is being written."""
        return self._taken is not None

    def get(self, task_id: str) -> Row | None:
        """Return the newest row of a task that is not in the database yet."""
        row = self._rows.get(task_id)
        if row is None and self._taken is not None:
            row = self._taken.rows.get(task_id)
        return row

    def append(self, row: Row) -> None:
        """Append a row. Raises `OSError`, `StoreError`; then nothing was appended."""
        payload = _encode(row)
        record = _RECORD.pack(len(payload), zlib.crc32(payload)) + payload
        taken_bytes = 0 if self._taken is None else self._taken.size_bytes
        if self._size_bytes + taken_bytes + len(record) > UNFOLDED_BYTES_MAX:
            raise StoreError(f"store {self._path}: the database takes no rows, and its journal is full")
        if self._fd < 0:
            self._begin()
        try:
            if os.write(self._fd, record) != len(record):
                # Nearly full: the next append would be refused.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._cut_off()
            raise
        self._end += len(record)
        self._rows[row[0]] = row
        self._size_bytes += len(record)

    def take(self) -> Batch | None:
        """Take all rows to write them to the database; call `folded` or `put_back` before the next `take`."""
        assert self._taken is None
        if not self._rows:
            return None
        self._end_segment()
        self._taken = Batch(self._rows, self._segments, self._size_bytes)
        self._rows, self._segments, self._size_bytes = {}, [], 0
        return self._taken

    def folded(self) -> None:
        """Delete the taken rows, which are in the database. A segment that cannot be deleted is tried again later."""
        batch, self._taken = self._taken, None
        assert batch is not None
        for number, segment in enumerate(batch.segments):
            try:
                segment.unlink(missing_ok=True)
            except OSError as error:
                log.error("a segment of the journal stays", segment=str(segment), error=str(error))
                # Keep all later segments too: older rows must not be read after a crash without the newer ones.
                self._segments = batch.segments[number:] + self._segments
                return

    def put_back(self) -> None:
        """Return the taken rows, which are not in the database, to the front of the waiting ones."""
        batch, self._taken = self._taken, None
        assert batch is not None
        self._rows = batch.rows | self._rows
        self._segments = batch.segments + self._segments
        self._size_bytes += batch.size_bytes

    def close(self) -> None:
        """Close the segment and forget the rows; those not in the database are read when the store opens again."""
        self._rows, self._segments, self._size_bytes = {}, [], 0
        self._taken = None
        self._end_segment()

    # -- segments

    def _begin(self) -> None:
        segment = self._path.with_name(f"{self._path.name}-rows-{self._number}")
        fd = os.open(segment, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._number += 1
        try:
            if os.write(fd, MAGIC) != len(MAGIC):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.close(fd)
            segment.unlink(missing_ok=True)
            raise
        self._fd, self._end = fd, len(MAGIC)
        self._segments.append(segment)

    def _cut_off(self) -> None:
        """Cut off half a record: nothing after it could be read."""
        try:
            os.ftruncate(self._fd, self._end)
        except OSError:
            self._end_segment()

    def _end_segment(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    # -- what an earlier process left

    def earlier_segments(self) -> list[Path]:
        """Return the segments of an earlier process, oldest first; new ones are numbered after them."""
        name = re.compile(re.escape(self._path.name) + r"-rows-(\d+)")
        found = {
            int(match[1]): entry
            for entry in self._path.parent.iterdir()
            if (match := name.fullmatch(entry.name))
        }
        self._number = max(found, default=-1) + 1
        return [found[number] for number in sorted(found)]


def read(segment: Path) -> Iterator[Row]:
    """Return the complete rows of a segment. Raises `StoreError` for another program's layout."""
    content = segment.read_bytes()
    if not content.startswith(MAGIC):
        # After a loss of power it may be cut off, or begin with zeros: then no row of it reached the disk in full.
        if MAGIC.startswith(content) or not content.startswith(_ANY_MAGIC):
            return
        raise StoreError(
            f"{segment} is not of this program's layout: run the program that wrote it once more"
        )
    at = len(MAGIC)
    while at + _RECORD.size <= len(content):
        size, checksum = _RECORD.unpack_from(content, at)
        payload = content[at + _RECORD.size : at + _RECORD.size + size]
        # After a loss of power the file may end in zeros.
        if not size or len(payload) != size or zlib.crc32(payload) != checksum:
            return
        try:
            row = _decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise StoreError(f"{segment}: a row cannot be read: {error}") from error
        yield row
        at += _RECORD.size + size
