"""A spool that is a tar archive: each file in it is one input, and its path is the input's name."""

from __future__ import annotations

import tarfile
from typing import Any, BinaryIO, Final

from scheduler.batches.item import Gap, Item, plain_name
from scheduler.errors import BadRequest

HEADER_BYTES: Final = 64 * 1024
"""Most bytes of one entry's headers, long names and attributes included: an archive may claim gigabytes."""
_COMPRESSED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_END: Final = bytes(tarfile.BLOCKSIZE)


class ArchiveReader:
    """Reads a tar archive (`scheduler.batches.item.Reader`).

    A folder is a gap; links, devices and files with holes are refused, and so is an archive without its end.
    """

    def read(self, spool: BinaryIO, item: int, number: int) -> Item | Gap | None:
        size_bytes = spool.seek(0, 2)
        spool.seek(item)
        found = _next(spool, item, number)
        if found is None:
            return None
        entry, next_item = found
        if entry.isdir():
            return Gap(next_item)
        where = f"entry {entry.name[:80]!r} (byte {item})"
        if not entry.isreg() or entry.issparse():
            raise BadRequest(
                f"{where}: it is {_kind(entry)}; a batch takes files and folders only", field="body"
            )
        if entry.size < 0 or entry.offset_data + entry.size > size_bytes:
            raise BadRequest(f"{where}: the archive ends within it; send the whole archive", field="body")
        name = plain_name(entry.name, where)
        return Item(item, next_item, name, entry.size, at=entry.offset_data)


def _next(spool: BinaryIO, item: int, number: int) -> tuple[tarfile.TarInfo, int] | None:
    """The entry whose headers begin at byte `item`, and where the next one's do; None at the end of the archive."""
    first = spool.read(tarfile.BLOCKSIZE)
    if first == _END:
        return None
    where = f"input {number} (byte {item})"
    if len(first) < tarfile.BLOCKSIZE and item:
        raise BadRequest(f"{where}: the archive has no end, so it is not whole; send all of it", field="body")
    spool.seek(item)
    try:
        headers: Any = _Headers(spool)
        archive = tarfile.TarFile(fileobj=headers, encoding="utf-8", errors="surrogateescape")
        entry = archive.next()
    except _TooLong:
        raise BadRequest(f"{where}: its headers are longer than {HEADER_BYTES} bytes", field="body") from None
    except Exception as error:
        # tarfile lets many kinds of errors through where a header is damaged.
        raise BadRequest(f"{where}: {_why(first, item, error)}", field="body") from None
    if entry is None:
        raise BadRequest(f"{where}: {_why(first, item, 'its header is damaged')}", field="body")
    if set(archive.pax_headers) - {"comment"}:
        raise BadRequest(
            f"{where}: the archive has attributes for all of its entries; write it with `--format=gnu`",
            field="body",
        )
    return entry, archive.offset


def _why(first: bytes, item: int, error: object) -> str:
    if not item and first.startswith(_COMPRESSED):
        return "the archive is compressed; send it as it is"
    return f"this is not a tar archive, or it is damaged: {error}"


def _kind(entry: tarfile.TarInfo) -> str:
    if entry.issym() or entry.islnk():
        return "a link"
    if entry.issparse():
        return "a file with holes"
    return "a device or a pipe" if entry.isdev() else "of an unknown kind"


class _TooLong(Exception):
    """The headers of one entry are too long."""


class _Headers:
    """A file of which only so many bytes may be read."""

    def __init__(self, spool: BinaryIO) -> None:
        self._spool = spool
        self._left_bytes = HEADER_BYTES

    def read(self, size_bytes: int = -1) -> bytes:
        if not 0 <= size_bytes <= self._left_bytes:
            raise _TooLong
        self._left_bytes -= size_bytes
        return self._spool.read(size_bytes)

    def seek(self, at: int, whence: int = 0) -> int:
        return self._spool.seek(at, whence)

    def tell(self) -> int:
        return self._spool.tell()
