"""Rows that must survive a killed process before they are in the database: one `write` each, folded in later.

A commit of one small row costs SQLite some ten writes and fifty microseconds; thousands of rows in one transaction
cost a few microseconds each. So a row goes to the end of a segment file first, and is as safe from `kill -9` as
the page cache is. Against loss of power it is not safe, nor needs to be. Segments are deleted once their rows are
in the database; what a killed process left is read when the store opens.
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
"""Begins every segment: the layout of `Row`."""
UNFOLDED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Above this rows are refused: the database has not taken any for too long."""
_RECORD: Final = struct.Struct("<II")

_encode = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(Row)


class Batch:
    """Rows by task id that are on their way into the database, and the segments that hold them."""

    def __init__(self, rows: dict[str, Row], segments: list[Path], size_bytes: int) -> None:
        self.rows = rows
        self.segments = segments
        self.size_bytes = size_bytes


class Journal:
    """The journal of the store at `path`; its segments lie beside it. Used on one thread."""

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
        """Whether rows wait to be taken."""
        return bool(self._rows)

    @property
    def taken(self) -> bool:
        """Whether a batch is on its way."""
        return self._taken is not None

    def get(self, task_id: str) -> Row | None:
        """The newest row of a task that is not in the database yet."""
        row = self._rows.get(task_id)
        if row is None and self._taken is not None:
            row = self._taken.rows.get(task_id)
        return row

    def append(self, row: Row) -> None:
        """Keep a row. Raises `OSError`, `StoreError`; then nothing is kept."""
        payload = _encode(row)
        record = _RECORD.pack(len(payload), zlib.crc32(payload)) + payload
        taken_bytes = 0 if self._taken is None else self._taken.size_bytes
        if self._size_bytes + taken_bytes + len(record) > UNFOLDED_BYTES_MAX:
            raise StoreError(f"store {self._path}: the database takes no rows, and its journal is full")
        if self._fd < 0:
            self._begin()
        try:
            if os.write(self._fd, record) != len(record):
                # As good as full: the next one would say so.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._cut_off()
            raise
        self._end += len(record)
        self._rows[row[0]] = row
        self._size_bytes += len(record)

    def take(self) -> Batch | None:
        """All rows, to be written to the database; `folded` or `put_back` must follow before the next."""
        assert self._taken is None
        if not self._rows:
            return None
        self._end_segment()
        self._taken = Batch(self._rows, self._segments, self._size_bytes)
        self._rows, self._segments, self._size_bytes = {}, [], 0
        return self._taken

    def folded(self) -> None:
        """What was taken is in the database. A segment that cannot be deleted now is so after the next batch."""
        batch, self._taken = self._taken, None
        assert batch is not None
        for number, segment in enumerate(batch.segments):
            try:
                segment.unlink(missing_ok=True)
            except OSError as error:
                log.error("a segment of the journal stays", segment=str(segment), error=str(error))
                # And all behind it: read again after a crash, older rows must not come without the newer.
                self._segments = batch.segments[number:] + self._segments
                return

    def put_back(self) -> None:
        """What was taken is not in the database: it waits again, before what came since."""
        batch, self._taken = self._taken, None
        assert batch is not None
        self._rows = batch.rows | self._rows
        self._segments = batch.segments + self._segments
        self._size_bytes += batch.size_bytes

    def close(self) -> None:
        """Close the segment and forget the rows; what was not folded is read when the store opens again."""
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
        """Nothing may follow half a record: it would never be read."""
        try:
            os.ftruncate(self._fd, self._end)
        except OSError:
            self._end_segment()

    def _end_segment(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    # -- what an earlier process left

    def left(self) -> list[Path]:
        """Segments of an earlier process, the oldest first; new ones are numbered behind them."""
        name = re.compile(re.escape(self._path.name) + r"-rows-(\d+)")
        found = {
            int(match[1]): entry
            for entry in self._path.parent.iterdir()
            if (match := name.fullmatch(entry.name))
        }
        self._number = max(found, default=-1) + 1
        return [found[number] for number in sorted(found)]


def read(segment: Path) -> Iterator[Row]:
    """A segment's rows, as far as they are whole. Raises `StoreError` for another program's layout."""
    content = segment.read_bytes()
    if not content.startswith(MAGIC):
        if MAGIC.startswith(content):
            return
        raise StoreError(
            f"{segment} is not of this program's layout: run the program that wrote it once more"
        )
    at = len(MAGIC)
    while at + _RECORD.size <= len(content):
        size, checksum = _RECORD.unpack_from(content, at)
        payload = content[at + _RECORD.size : at + _RECORD.size + size]
        # After a loss of power there may be zeros.
        if not size or len(payload) != size or zlib.crc32(payload) != checksum:
            return
        try:
            row = _decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise StoreError(f"{segment}: a row cannot be read: {error}") from error
        yield row
        at += _RECORD.size + size
