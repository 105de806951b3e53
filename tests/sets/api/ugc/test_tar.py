"""UGC's tar: what Python's tarfile and the clients read of it."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator

import pytest

from sets.api.ugc.codes import UgcError
from sets.api.ugc.tar import END, Member, archive, header, path_in_tar, size_of


def member(name: str, content: bytes) -> Member:
    async def pieces() -> AsyncIterator[bytes]:
        for first in range(0, len(content), 1000):
            yield content[first : first + 1000]

    return Member(name, len(content), pieces)


def made(members: list[Member]) -> bytes:
    async def collect() -> bytes:
        return b"".join([piece async for piece in archive(members, 1_700_000_000)])

    return asyncio.run(collect())


def test_members_in_their_order_with_the_size_that_was_announced() -> None:
    contents = {"Stdout": b"x" * 5000, "Stderr": b"warning\n", "tmp/result": b"y" * 512, "tmp/\u56fe": b"z"}
    members = [member(name, content) for name, content in contents.items()]
    data = made(members)
    assert len(data) == size_of(members)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {entry.name: tar.extractfile(entry).read() for entry in tar} == contents  # type: ignore[union-attr]
        assert {entry.mode for entry in tar} == {0o600}
        assert all(entry.isreg() for entry in tar)
    assert data[257:263] == b"ustar\0"


def test_empty_members_are_left_out_and_the_end_is_always_there() -> None:
    empty = [member("Stdout", b""), member("Stderr", b"")]
    assert made(empty) == END
    assert size_of(empty) == len(END) == 1024
    with tarfile.open(fileobj=io.BytesIO(END)) as tar:
        assert tar.getnames() == []


def test_a_name_that_ustar_cannot_hold_is_an_error_and_no_other_name() -> None:
    assert path_in_tar("/tmp/result") == "tmp/result"
    long = "/".join(["d" * 90] * 2)
    assert header(long, 1, 0)
    for name in ("f" * 101, "d" * 160 + "/" + "f" * 90):
        with pytest.raises(UgcError, match="does not fit"):
            header(name, 1, 0)
    with pytest.raises(UgcError, match="does not fit"):
        header("huge", 1 << 33, 0)
