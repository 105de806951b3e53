"""Access tokens: any set accepts them, nothing stores them, and a changed one is none."""

from __future__ import annotations

import pytest

from scheduler.accounts.access_tokens import TokenExpired, TokenUnknown, account_of, make
from scheduler.accounts.book import Book, Changes
from scheduler.accounts.sealing import Seal
from tests.scheduler.accounts.conftest import NOW_US


@pytest.fixture
def book(changes: Changes) -> Book:
    book, _ = changes.create(Book(), "alice-1")
    book, _ = changes.create(book, "bob")
    return book


def public_key(book: Book, name: str) -> str:
    return next(iter(book.account(name).keys))


def test_a_token_opens_at_any_set_that_has_the_book(seal: Seal, book: Book) -> None:
    token = make(seal, public_key(book, "alice-1"), NOW_US + 100)
    another_set = Seal([b"n" * 32, b"k" * 32])
    assert account_of(token, seal, book, NOW_US) == "alice-1"
    assert account_of(token, another_set, book, NOW_US + 99) == "alice-1"


def test_a_token_ends_with_its_time_and_with_its_key(seal: Seal, book: Book, changes: Changes) -> None:
    key = public_key(book, "bob")
    token = make(seal, key, NOW_US + 100)
    with pytest.raises(TokenExpired):
        account_of(token, seal, book, NOW_US + 100)
    ending, _ = changes.rotate_keys(book, "bob", NOW_US + 50)
    with pytest.raises(TokenExpired):
        account_of(token, seal, ending, NOW_US + 50)
    with pytest.raises(TokenUnknown, match="gone"):
        account_of(token, seal, changes.remove_key(book, "bob", key), NOW_US)


def test_each_changed_character_makes_it_worthless(seal: Seal, book: Book) -> None:
    token = make(seal, public_key(book, "bob"), NOW_US + 100)
    for place, character in enumerate(token):
        changed = token[:place] + ("A" if character != "A" else "B") + token[place + 1 :]
        with pytest.raises(TokenUnknown):
            account_of(changed, seal, book, NOW_US)


@pytest.mark.parametrize(
    "token",
    ["", "gca", "gca_bob_", "gca_bob_AAAA", "gc_bob_0", "gca__", "x" * 600, "gca_bob_é", "gca_bob_=="],
)
def test_what_is_no_token_is_refused(seal: Seal, book: Book, token: str) -> None:
    with pytest.raises(TokenUnknown):
        account_of(token, seal, book, NOW_US)


def test_a_token_of_a_foreign_installation_is_refused(seal: Seal, book: Book) -> None:
    token = make(seal, public_key(book, "bob"), NOW_US + 100)
    whole = make(seal, public_key(book, "bob"), NOW_US + 100)
    for cut in (1, 4, 30):
        with pytest.raises(TokenUnknown):
            account_of(whole[:-cut], seal, book, NOW_US)
    with pytest.raises(TokenUnknown):
        account_of(token, Seal([b"n" * 32]), book, NOW_US)
    with pytest.raises(TokenUnknown):
        account_of(token.replace("_bob_", "_alice-1_"), seal, book, NOW_US)
