"""Accounts for a set under test: a file of them, its master key, and a token of each."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from scheduler.accounts.account import Quotas, Scope
from scheduler.accounts.book import Book, Changes, NewKey, NewToken
from scheduler.accounts.book_file import BookFile
from scheduler.accounts.sealing import Seal, new_key


class People:
    """The accounts of a test. `settings` has the lines of the set's file that turn authentication on."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "accounts"
        key = new_key()
        key_file = folder / "accounts.key"
        key_file.touch(0o600)
        key_file.write_text(key)
        self.seal = Seal([bytes.fromhex(key)])
        self.file = BookFile(self.path, self.seal)
        self.file.create()
        self.settings = f"authentication: true\naccounts_file: {self.path}\n"

    def add(self, name: str, quotas: Quotas | None = None) -> NewKey:
        """A new account, without a token."""
        pair = self.file.change(lambda book: self.changes().create(book, name))
        if quotas is not None:
            self.file.change(lambda book: (self.changes().set_quotas(book, name, quotas), None))
        return pair

    def token(
        self, name: str, *scopes: Scope, expires_us: int | None = None, changes: Changes | None = None
    ) -> NewToken:
        """A new token of an account; by default with all that an account may do."""
        scopes = scopes or (Scope.RUN, Scope.IMAGES)
        made = changes or self.changes()
        return self.file.change(lambda book: made.add_token(book, name, "", scopes, expires_us))

    def changes(self, now_us: int | None = None) -> Changes:
        """Changes that are made now, or at another time."""
        now_us = time.time_ns() // 1000 if now_us is None else now_us
        return Changes(self.seal, now_us, lambda digits: secrets.token_hex(digits // 2))

    def book(self) -> Book:
        return self.file.look()


def bearer(token: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {token}"}
