"""The book of accounts as a file: signed, written whole, changed by one writer at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from scheduler.accounts.book import Book
from scheduler.accounts.sealing import Seal, SealError
from scheduler.lock import FileLock
from scheduler.whole_file import write_whole

T = TypeVar("T")

MAX_BOOK_BYTES: Final = 256 << 20
_FIRST_WORDS: Final = b"gcompute-accounts 1 "
"""Begins the first line, which ends with the signature of all that follows it."""
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_DECODER: Final = msgspec.json.Decoder(Book)


class BookUnreadable(Exception):
    """The file of accounts is missing, damaged, or not signed by a known master key."""


def encode(book: Book, seal: Seal) -> bytes:
    """The content of the file."""
    content = _ENCODER.encode(book) + b"\n"
    return _FIRST_WORDS + seal.sign(content).encode() + b"\n" + content


def decode(data: bytes, seal: Seal, source: str) -> Book:
    """The book in a file's content. Raises `BookUnreadable`."""
    first, newline, content = data.partition(b"\n")
    if not newline or not first.startswith(_FIRST_WORDS):
        raise BookUnreadable(f"{source}: is not a file of accounts of this version")
    try:
        # The signature first: nothing of a file that anybody may have written is parsed.
        seal.check(content, first[len(_FIRST_WORDS) :].decode("ascii", "replace"))
        return _DECODER.decode(content)
    except (SealError, msgspec.DecodeError) as error:
        raise BookUnreadable(f"{source}: {error}") from error


def digest_of(data: bytes) -> str:
    """Tells two files with one version apart."""
    return hashlib.sha256(data).hexdigest()


def read(path: Path) -> bytes:
    """The file's content. Raises `BookUnreadable`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BOOK_BYTES + 1)
    except OSError as error:
        raise BookUnreadable(f"{path}: {error.strerror}") from error
    if len(data) > MAX_BOOK_BYTES:
        raise BookUnreadable(f"{path}: is larger than {MAX_BOOK_BYTES >> 20} MiB")
    return data


class BookFile:
    """Changes the file of accounts. A crash leaves either the old or the new content."""

    def __init__(self, path: Path, seal: Seal) -> None:
        self._path = path
        self._seal = seal

    def create(self) -> None:
        """Make a file without accounts. Raises `FileExistsError`."""
        if self._path.exists():
            raise FileExistsError(f"{self._path} exists already")
        self._write(Book())

    def look(self) -> Book:
        """The book as it is. Raises `BookUnreadable`."""
        return decode(read(self._path), self._seal, str(self._path))

    def change(self, change: Callable[[Book], tuple[Book, T]]) -> T:
        """Apply `change` to the book, and write what it returns before its answer is given back.

        Raises `BookUnreadable`, `LockHeld` while another writer is at work, and what `change` raises: then the file
        stays as it is.
        """
        with self._locked():
            book, answer = change(self.look())
            self._write(book)
        return answer

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self._path.with_name(f"{self._path.name}.lock"))
        lock.what = str(self._path)
        lock.take()
        try:
            yield
        finally:
            lock.release()

    def _write(self, book: Book) -> None:
        data = encode(book, self._seal)
        # A book that cannot be read back is not written: the error is raised here, and not at every set.
        decode(data, self._seal, str(self._path))
        write_whole(self._path, data)
