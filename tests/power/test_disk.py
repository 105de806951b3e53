"""What a disk holds after a power cut, from the log that an emulator writes."""

from __future__ import annotations

import random
import struct
from io import BytesIO
from pathlib import Path

import pytest

from tests.power.__main__ import table
from tests.power.disk import DISCARD, FLUSH, FUA, SECTOR_BYTES, Entry, cut, entries

SECTORS = 64


def head(sector: int, sectors: int, flags: int = 0) -> bytes:
    return struct.pack("<QQQQ", sector, sectors, flags, 0).ljust(SECTOR_BYTES, b"\0")


def write(sector: int, text: bytes, sectors: int = 1, flags: int = 0) -> bytes:
    return head(sector, sectors, flags) + text * (SECTOR_BYTES * sectors // len(text))


def log_of(*parts: bytes) -> bytes:
    super_block = struct.pack("<QQQI", 0x6A736677736872, 1, len(parts), SECTOR_BYTES)
    return super_block.ljust(SECTOR_BYTES, b"\0") + b"".join(parts)


def after(folder: Path, seed: int, *parts: bytes) -> tuple[list[bytes], dict[str, int]]:
    """The first byte of each sector after a cut, and the numbers of writes."""
    disk, log = folder / "disk", folder / "log"
    disk.write_bytes(b"-" * SECTOR_BYTES * SECTORS)
    log.write_bytes(log_of(*parts))
    counts = cut(disk, log, random.Random(seed))
    content = disk.read_bytes()
    assert len(content) == SECTOR_BYTES * SECTORS
    return [content[at : at + 1] for at in range(0, len(content), SECTOR_BYTES)], dict(counts)


def test_what_was_flushed_stays(tmp_path: Path) -> None:
    sectors, counts = after(
        tmp_path, 1, write(3, b"a"), write(4, b"b", 2), head(0, 0, FLUSH), head(5, 1, DISCARD)
    )
    assert sectors[2:7] == [b"-", b"a", b"b", b"b", b"-"]
    assert counts == {"flushed": 2}


def test_a_write_that_is_flushed_by_itself_stays(tmp_path: Path) -> None:
    sectors, counts = after(tmp_path, 1, write(3, b"a", flags=FUA))
    assert (sectors[3], counts) == (b"a", {"flushed": 1})


def test_a_later_write_is_kept_lost_or_torn_between_sectors(tmp_path: Path) -> None:
    fates = {
        after(tmp_path, seed, head(0, 0, FLUSH), write(8, b"x", 16))[0][8:24].count(b"x")
        for seed in range(60)
    }
    assert {0, 16} < fates


def test_the_latest_of_two_writes_to_a_place_counts(tmp_path: Path) -> None:
    sectors, _ = after(tmp_path, 1, write(3, b"a"), write(3, b"b"), head(0, 0, FLUSH))
    assert sectors[3] == b"b"


def test_a_request_that_the_emulator_did_not_finish_is_skipped(tmp_path: Path) -> None:
    unfinished = bytes(3 * SECTOR_BYTES)
    sectors, _ = after(tmp_path, 1, write(3, b"a"), unfinished, write(5, b"c"), head(0, 0, FLUSH), unfinished)
    assert sectors[3:6] == [b"a", b"-", b"c"]


def test_data_are_not_taken_for_a_request() -> None:
    """A written sector may itself look like a request."""
    content = log_of(head(7, 1) + head(9, 1), head(0, 0, FLUSH))
    assert list(entries(BytesIO(content), SECTORS)) == [
        Entry(7, 1, 0, 2 * SECTOR_BYTES),
        Entry(0, 0, FLUSH, 4 * SECTOR_BYTES),
    ]


def test_another_file_is_no_log() -> None:
    with pytest.raises(ValueError, match="no log of writes"):
        list(entries(BytesIO(bytes(4096)), SECTORS))


def test_the_table_has_a_line_for_each_cut() -> None:
    lines = table([{"load_s": 12.5, "ends seen": 3, "flushed": 100, "lost": 2}]).splitlines()
    assert [line.split() for line in lines[1:]] == [["1", "12.5", "3", "100", "0", "0", "2"]]
