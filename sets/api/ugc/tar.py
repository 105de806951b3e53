"""UGC's tar of a task's results: ustar, made while it is sent. Pure, but for the bodies that it is given."""

from __future__ import annotations

import tarfile
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple

from sets.api.ugc.codes import RetCode, UgcError

END: Final = bytes(2 * tarfile.BLOCKSIZE)
"""The two zero blocks that end every archive, an empty one too."""
_MODE: Final = 0o600


class Member(NamedTuple):
    """A file of the archive: its name, its size, and its content, which is read when its turn comes."""

    name: str
    size_bytes: int
    pieces: Callable[[], AsyncIterator[bytes]]


def path_in_tar(path: str) -> str:
    """The name of an output file in the archive: its absolute path without the first slash."""
    return path.lstrip("/")


def header(name: str, size_bytes: int, modified_s: int) -> bytes:
    """The block before a file's content. Raises `UgcError` for a name that ustar cannot hold."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size_bytes, modified_s, _MODE
    try:
        return entry.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except ValueError as error:
        raise UgcError(RetCode.INNER_ERROR, f"{name[:120]!r} does not fit into a tar file: {error}") from None


def size_of(members: list[Member]) -> int:
    """The size of the whole archive, which the answer's head says."""
    padded = (tarfile.BLOCKSIZE + size + -size % tarfile.BLOCKSIZE for _, size, _ in members if size)
    return sum(padded) + len(END)


async def archive(members: list[Member], modified_s: int) -> AsyncIterator[bytes]:
    """The archive, in pieces. Empty members are left out."""
    for name, size_bytes, pieces in members:
        if not size_bytes:
            continue
        yield header(name, size_bytes, modified_s)
        async for piece in pieces():
            yield piece
        yield bytes(-size_bytes % tarfile.BLOCKSIZE)
    yield END
