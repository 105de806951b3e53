"""Follows the file of accounts: a set goes on with what it knows when the file is away, damaged or an older one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from scheduler.accounts.book import Book
from scheduler.accounts.book_file import BookUnreadable, decode, digest_of, read
from scheduler.accounts.sealing import Seal
from scheduler.whole_file import write_whole

log = structlog.get_logger()

LOOK_EVERY_S: Final = 1.0
_NOTHING: Final = Book()
_COPY: Final = "accounts.copy"
"""The last accepted file, in the set's own folder: what the set knows after a restart, if the file is away."""


class Edition:
    """One content of the file that was accepted."""

    def __init__(self, data: bytes, book: Book) -> None:
        self.data = data
        self.book = book
        self.digest = digest_of(data)


def next_edition(known: Edition | None, found: Edition) -> Edition:
    """The one that counts from now on. Raises `BookUnreadable` if the found one is older, or another of one version."""
    if known is None or found.book.version > known.book.version or found.digest == known.digest:
        return found
    if found.book.version == known.book.version:
        raise BookUnreadable(
            f"version {known.book.version} exists twice, with different content: "
            "only one writer may change the accounts"
        )
    raise BookUnreadable(
        f"version {found.book.version} is older than {known.book.version}, which is known; "
        "`gcompute account restore` makes an old file the newest version"
    )


class AccountsFollower:
    """The book of accounts, as far as this set knows it. `folder` is the set's own."""

    def __init__(self, path: Path, seal: Seal, folder: Path) -> None:
        self._path = path
        self._copy = folder / _COPY
        self._seal = seal
        self._known: Edition | None = None
        self._seen: tuple[int, int, int] | None = None
        self.trouble: str | None = None
        """Says why the file was not accepted when it was last looked at."""

    @property
    def book(self) -> Book:
        """The newest accepted book."""
        return self._known.book if self._known else _NOTHING

    def open(self) -> None:
        """Read the file, or else the copy of what was last known. Raises `BookUnreadable` if there is neither."""
        if self._copy.exists():
            try:
                self._accept(self._edition(self._copy))
            except BookUnreadable as error:
                log.error("copy of the accounts is not readable", error=str(error))
        self.look()
        if self._known is None:
            raise BookUnreadable(self.trouble or f"{self._path}: holds no accounts")

    def look(self) -> None:
        """Read the file if it has changed; keep what is known if it cannot be accepted."""
        try:
            seen = self._identity()
            # One that was refused is read again: it may have been half written, within one tick of the file's clock.
            if seen == self._seen and self.trouble is None:
                return
            found = next_edition(self._known, self._edition(self._path))
            if self._known is None or found.digest != self._known.digest:
                self._keep(found.data)
            self._accept(found)
            self._seen = seen
        except BookUnreadable as error:
            self._say(str(error))
        else:
            self._say(None)

    async def follow(self, changed: Callable[[Book], None]) -> None:
        """Look at the file every second, until cancelled. `changed` is called with each new book."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            before = self._known
            # In a thread: reading and checking a large book takes a while. Nothing else changes these fields meanwhile.
            await asyncio.to_thread(self.look)
            if self._known is not before:
                changed(self.book)

    def _edition(self, path: Path) -> Edition:
        data = read(path)
        return Edition(data, decode(data, self._seal, str(path)))

    def _identity(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise BookUnreadable(f"{self._path}: {error.strerror}") from error
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _accept(self, edition: Edition) -> None:
        if self._known is None or edition.digest != self._known.digest:
            log.info("accounts read", version=edition.book.version, accounts=len(edition.book.accounts))
        self._known = edition

    def _keep(self, data: bytes) -> None:
        """Keep a copy in the set's own folder; a set without room for it goes on all the same."""
        try:
            write_whole(self._copy, data)
        except OSError as error:
            log.warning("copy of the accounts not written", error=error.strerror)

    def _say(self, trouble: str | None) -> None:
        if trouble != self.trouble:
            if trouble is None:
                log.info("accounts in force again", version=self.book.version)
            else:
                log.error("accounts not accepted", error=trouble, known_version=self.book.version)
        self.trouble = trouble
