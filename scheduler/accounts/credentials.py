"""Checks the pairs of keys and the access tokens of accounts, against the book as it is now."""

from __future__ import annotations

from collections.abc import Callable

from scheduler.accounts import access_tokens
from scheduler.accounts.account import in_force
from scheduler.accounts.book import Book, name_in, private_key_of
from scheduler.accounts.sealing import Seal


class Credentials:
    """`book` gives the book as it is now, `clock_us` microseconds since the epoch."""

    def __init__(self, seal: Seal, book: Callable[[], Book], clock_us: Callable[[], int]) -> None:
        self._seal = seal
        self._book = book
        self._clock_us = clock_us

    def pair(self, public_key: str) -> tuple[str, str] | None:
        """The account of a public key, and the private key that belongs to it; None if there is none in force."""
        name = name_in(public_key)
        account = self._book().accounts.get(name or "")
        key = account.keys.get(public_key) if account else None
        if name is None or key is None or not in_force(key, self._clock_us()):
            return None
        return name, private_key_of(self._seal, name, public_key, key)

    def new_access_token(self, public_key: str, lifetime_s: int) -> str:
        """An access token of the account that has this key."""
        return access_tokens.make(self._seal, public_key, self._clock_us() + lifetime_s * 1_000_000)

    def account_of(self, access_token: str) -> str:
        """The account of an access token. Raises `TokenUnknown` and `TokenExpired`."""
        return access_tokens.account_of(access_token, self._seal, self._book(), self._clock_us())
