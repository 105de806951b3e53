"""Reads one layer, a tar archive from a stranger, into a tree. Blocks; bounded in memory, output and entries."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable
from typing import Final

from scheduler.errors import ImageUnusable
from scheduler.images.user import Owner
from scheduler.registry.tree import Found, Sort, Tree, normal

MAX_UNPACKED_BYTES: Final = 64 << 30
"""Limit of one layer's archive, in bytes; the time that a look may take is the usual limit."""
MAX_ENTRIES_READ: Final = 2_000_000

_PIECE_BYTES: Final = 256 << 10
_READ_BYTES: Final = 64 << 10
"""`tarfile` reads so many bytes at a time, a multiple of its blocks of 512."""
_HEADER_BYTES: Final = 1 << 20
"""Limit of the headers of one entry: `tarfile` keeps them in memory whole, and their sizes are the archive's to say."""
_MAX_MTIME_S: Final = 1 << 40
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


def read_layer(tree: Tree, next_chunk: Callable[[], bytes]) -> None:
    """Put a layer onto the tree. `next_chunk` gives the blob's bytes, and b"" at its end; it is read to its end.

    Raises `ImageUnusable` for what is no layer, and whatever `next_chunk` raises.
    """
    unpacked = Unpacked(next_chunk)
    try:
        _read_entries(tree, unpacked)
    except (tarfile.TarError, zlib.error, ValueError, OverflowError) as error:
        raise ImageUnusable(f"a layer is broken: {error}") from error
    unpacked.drain()


def _read_entries(tree: Tree, unpacked: Unpacked) -> None:
    layering = tree.layer()
    unpacked.allow(_HEADER_BYTES)
    with tarfile.open(fileobj=unpacked, mode="r|", bufsize=_READ_BYTES, errors="surrogateescape") as archive:  # type: ignore[call-overload]
        for _ in range(MAX_ENTRIES_READ):
            entry = archive.next()
            if entry is None:
                layering.done()
                return
            # Otherwise the archive would keep them all in memory.
            archive.members = []
            if entry.issparse():
                raise ImageUnusable("a layer has a sparse file; build the image with another tool")
            unpacked.allow(entry.size + _HEADER_BYTES)
            path = normal(entry.name)
            if path != "/":
                layering.add(path, _found(tree, archive, entry, path))
    raise ImageUnusable(f"a layer has too many files; at most {MAX_ENTRIES_READ} are read")


def _found(tree: Tree, archive: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> Found:
    target, data, size_bytes = "", None, 0
    if entry.isdir():
        sort = Sort.FOLDER
    elif entry.issym():
        sort, target = Sort.LINK, entry.linkname
    elif entry.islnk():
        sort, target = Sort.HARD_LINK, normal(entry.linkname)
    elif entry.isreg():
        sort, size_bytes = Sort.FILE, entry.size
        if tree.keeps_data(path, entry.size) and (file := archive.extractfile(entry)) is not None:
            data = file.read()
    else:
        sort = Sort.OTHER
    owner, mtime_s = Owner(entry.uid, entry.gid), min(max(0, int(entry.mtime)), _MAX_MTIME_S)
    return Found(sort, entry.mode & 0o7777, owner, mtime_s, size_bytes, target, data)


class Unpacked:
    """A blob's bytes, unpacked, as a file for `tarfile`. Reads no more than `allow` last said."""

    def __init__(self, next_chunk: Callable[[], bytes]) -> None:
        self._next_chunk = next_chunk
        self._ended = False
        self._packed = b""
        self._gzip: zlib._Decompress | None = None
        self._kept = b""
        # `_kept` was read up to here.
        self._at = 0
        self._left = 0
        self._total = 0
        self._begin()

    def allow(self, more_bytes: int) -> None:
        self._left = more_bytes

    def read(self, size: int) -> bytes:
        parts = []
        while size > 0:
            if self._at == len(self._kept):
                self._kept, self._at = self._piece(), 0
                if not self._kept:
                    break
            part = self._kept[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            self._left -= len(part)
            parts.append(part)
            if self._left < 0:
                raise ImageUnusable("a layer has an entry whose headers are too large; build the image again")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """`tarfile` closes what it reads; the blob goes on to its end."""

    def drain(self) -> None:
        """Read the blob to its end, so that its digest can be verified."""
        self._packed = b""
        while not self._ended:
            self._receive()
            self._packed = b""

    def _begin(self) -> None:
        while len(self._packed) < len(_ZSTD) and not self._ended:
            self._receive()
        if self._packed.startswith(_ZSTD):
            raise ImageUnusable(
                "a layer is packed with zstd, which is not read here; push the image with gzip"
            )
        if self._packed.startswith(_GZIP):
            self._gzip = zlib.decompressobj(wbits=31)

    def _receive(self) -> None:
        chunk = self._next_chunk()
        self._ended = not chunk
        self._packed += chunk

    def _piece(self) -> bytes:
        """The next bytes of the archive; b"" at its end."""
        while True:
            if not self._packed and not self._ended:
                self._receive()
            if self._gzip is None:
                piece, self._packed = self._packed, b""
            else:
                piece = self._gzip.decompress(self._packed, _PIECE_BYTES)
                self._packed = self._gzip.unconsumed_tail
                if self._gzip.eof:
                    self._next_member()
            self._total += len(piece)
            if self._total > MAX_UNPACKED_BYTES:
                raise ImageUnusable(f"a layer has more than {MAX_UNPACKED_BYTES >> 30} GiB")
            if piece or (self._ended and not self._packed):
                return piece

    def _next_member(self) -> None:
        """Some tools pack a layer in many gzip members, one after the other."""
        assert self._gzip is not None
        self._packed = self._gzip.unused_data
        while len(self._packed) < len(_GZIP) and not self._ended:
            self._receive()
        if self._packed.startswith(_GZIP):
            self._gzip = zlib.decompressobj(wbits=31)
        else:
            self._packed = b""
            self._gzip = None
            self.drain()
