"""The book of accounts: one immutable record, and the changes that make its next version. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from scheduler.accounts.account import (
    ACCOUNT_NAME,
    MAX_CREDENTIALS,
    Account,
    Key,
    Quotas,
    Scope,
    Suspension,
    Token,
)
from scheduler.accounts.sealing import Seal

S = TypeVar("S", bound=msgspec.Struct)

MAX_ACCOUNTS: Final = 100_000
PUBLIC_KEY_PREFIX: Final = "gck"
_NAME_CHARACTERS: Final = 128
_WHY_CHARACTERS: Final = 500
_PUBLIC_HEX: Final = 20
_PRIVATE_HEX: Final = 40
_TOKEN_ID_HEX: Final = 12
_TOKEN_SECRET_HEX: Final = 48


class BookError(Exception):
    """A change of the book is not possible; the message names the field and what to do."""


class Book(msgspec.Struct, frozen=True):
    """All accounts. `version` grows by one with each change."""

    version: Annotated[int, Meta(ge=0)] = 0
    written_us: int = 0
    accounts: dict[str, Account] = {}

    def account(self, name: str) -> Account:
        """The account of that name. Raises `BookError`."""
        account = self.accounts.get(name)
        if account is None:
            raise BookError(f"there is no account {name!r}; `gcompute account list` shows those that exist")
        return account


class NewKey(msgspec.Struct, frozen=True):
    """A pair of keys, when it was made: only now the private one can be seen."""

    public_key: str
    private_key: str


class NewToken(msgspec.Struct, frozen=True):
    """A token, when it was made: only now it can be seen whole."""

    token_id: str
    token: str


class Changes:
    """Makes changes of a book. `random_hex`: gives so many random hexadecimal digits, fit for secrets."""

    def __init__(self, seal: Seal, now_us: int, random_hex: Callable[[int], str]) -> None:
        self._seal = seal
        self._now_us = now_us
        self._random_hex = random_hex

    def create(self, book: Book, name: str) -> tuple[Book, NewKey]:
        """A new account with one pair of keys."""
        if not ACCOUNT_NAME.fullmatch(name):
            raise BookError(f"name: {name!r:.80} is not lower-case letters, digits and dashes, 63 at most")
        if name in book.accounts:
            raise BookError(f"name: the account {name!r} exists already")
        if len(book.accounts) >= MAX_ACCOUNTS:
            raise BookError(f"there are {MAX_ACCOUNTS} accounts already, the most that a book holds")
        pair, key = self._new_key(name, "", None)
        account = Account(self._now_us, keys={pair.public_key: key})
        return self._with(book, name, account), pair

    def suspend(self, book: Book, name: str, why: str, tasks: Literal["finish", "cancel"]) -> Book:
        """Let an account begin nothing new. Accepted tasks end as usual, or are cancelled."""
        if not why.strip() or len(why) > _WHY_CHARACTERS:
            raise BookError(f"why: say why, in 1 to {_WHY_CHARACTERS} characters; the account's users see it")
        suspension = Suspension(self._now_us, why, tasks)
        return self._with(book, name, _replaced(book.account(name), suspension=suspension))

    def resume(self, book: Book, name: str) -> Book:
        """End a suspension."""
        account = book.account(name)
        if account.suspension is None:
            raise BookError(f"the account {name!r} is not suspended")
        return self._with(book, name, _replaced(account, suspension=None))

    def set_quotas(self, book: Book, name: str, quotas: Quotas) -> Book:
        """Replace an account's quotas."""
        return self._with(book, name, _replaced(book.account(name), quotas=quotas))

    def add_key(self, book: Book, name: str, label: str, expires_us: int | None) -> tuple[Book, NewKey]:
        """A further pair of keys; the others stay valid, so that programs can change over one by one."""
        account = book.account(name)
        self._check_credential(label, expires_us, len(account.keys), "keys")
        pair, key = self._new_key(name, label, expires_us)
        keys = {**account.keys, pair.public_key: key}
        return self._with(book, name, _replaced(account, keys=keys)), pair

    def rotate_keys(self, book: Book, name: str, until_us: int) -> tuple[Book, NewKey]:
        """A new pair of keys, without an end; all present ones end at `until_us`, or earlier if they would."""
        book, pair = self.add_key(book, name, "", None)
        account = book.account(name)
        keys = {
            public: key if public == pair.public_key else _replaced(key, expires_us=_earlier(key, until_us))
            for public, key in account.keys.items()
        }
        rotated = _replaced(account, keys=keys)
        return msgspec.structs.replace(book, accounts={**book.accounts, name: rotated}), pair

    def remove_key(self, book: Book, name: str, public_key: str) -> Book:
        """Remove a pair of keys. What was made with it, such as access tokens, is worth nothing from now on."""
        account = book.account(name)
        if public_key not in account.keys:
            raise BookError(f"the account {name!r} has no key {public_key!r:.80}")
        keys = {public: key for public, key in account.keys.items() if public != public_key}
        return self._with(book, name, _replaced(account, keys=keys))

    def add_token(
        self, book: Book, name: str, label: str, scopes: tuple[Scope, ...], expires_us: int | None
    ) -> tuple[Book, NewToken]:
        """A new bearer token. It names its account, so that the router can route by it without knowing any token."""
        account = book.account(name)
        self._check_credential(label, expires_us, len(account.tokens), "tokens")
        if not scopes:
            raise BookError(f"scopes: name one at least of {', '.join(Scope)}")
        token_id = self._random_hex(_TOKEN_ID_HEX)
        # Without underscores after the name: the last one separates the name from the secret.
        token = f"gc_{name}_{token_id}{self._random_hex(_TOKEN_SECRET_HEX)}"
        record = Token(hash_of(token), self._now_us, label, scopes, expires_us)
        tokens = {**account.tokens, token_id: record}
        return self._with(book, name, _replaced(account, tokens=tokens)), NewToken(token_id, token)

    def remove_token(self, book: Book, name: str, token_id: str) -> Book:
        """Remove a bearer token."""
        account = book.account(name)
        if token_id not in account.tokens:
            raise BookError(f"the account {name!r} has no token {token_id!r:.80}")
        tokens = {known: token for known, token in account.tokens.items() if known != token_id}
        return self._with(book, name, _replaced(account, tokens=tokens))

    def restore(self, book: Book, old: Book) -> Book:
        """The content of an older book as the next version."""
        return Book(max(book.version, old.version) + 1, self._now_us, old.accounts)

    def reseal(self, book: Book) -> Book:
        """Encrypt every private key with the present master key, so that earlier ones can be thrown away."""
        accounts = {
            name: _replaced(account, keys={public: self._resealed(name, public, key)
                                           for public, key in account.keys.items()})
            for name, account in book.accounts.items()
        }  # fmt: skip
        return Book(book.version + 1, self._now_us, accounts)

    def _resealed(self, name: str, public: str, key: Key) -> Key:
        context = _context(name, public)
        return _replaced(key, sealed=self._seal.seal(self._seal.open(key.sealed, context), context))

    def _new_key(self, name: str, label: str, expires_us: int | None) -> tuple[NewKey, Key]:
        pair = NewKey(
            f"{PUBLIC_KEY_PREFIX}_{name}_{self._random_hex(_PUBLIC_HEX)}", self._random_hex(_PRIVATE_HEX)
        )
        sealed = self._seal.seal(pair.private_key, _context(name, pair.public_key))
        return pair, Key(sealed, self._now_us, label, expires_us)

    def _check_credential(self, label: str, expires_us: int | None, count: int, what: str) -> None:
        if len(label) > _NAME_CHARACTERS or not label.isprintable():
            raise BookError(f"name: at most {_NAME_CHARACTERS} printable characters")
        if expires_us is not None and expires_us <= self._now_us:
            raise BookError("expires: lies in the past")
        if count >= MAX_CREDENTIALS:
            raise BookError(f"the account has {count} {what} already, the most that are possible; remove one")

    def _with(self, book: Book, name: str, account: Account) -> Book:
        book = msgspec.structs.replace(book, accounts={**book.accounts, name: account})
        return msgspec.structs.replace(book, version=book.version + 1, written_us=self._now_us)


def private_key_of(seal: Seal, name: str, public_key: str, key: Key) -> str:
    """The private key of a pair. Raises `SealError`."""
    return seal.open(key.sealed, _context(name, public_key))


def hash_of(token: str) -> str:
    """The hash by which a token is known: SHA-256 in hexadecimal. A token has 192 random bits, so it needs no salt."""
    return hashlib.sha256(token.encode()).hexdigest()


def token_id_of(token: str) -> str:
    """The part of a token that is no secret; a text of any other form has none that is known."""
    return token.rpartition("_")[2][:_TOKEN_ID_HEX]


def name_in(credential: str) -> str | None:
    """The account that a token or a public key names: `gc_NAME_…`, `gck_NAME_…`."""
    prefix, _, rest = credential.partition("_")
    name, _, secret = rest.rpartition("_")
    return name if prefix in ("gc", PUBLIC_KEY_PREFIX) and secret and ACCOUNT_NAME.fullmatch(name) else None


def _earlier(key: Key, until_us: int) -> int:
    return until_us if key.expires_us is None else min(key.expires_us, until_us)


def _context(name: str, public_key: str) -> str:
    return f"{name} {public_key}"


def _replaced(record: S, **changes: object) -> S:
    return msgspec.structs.replace(record, **changes)
