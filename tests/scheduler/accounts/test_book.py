"""The book of accounts: each change makes the next version, and the one before stays as it was."""

from __future__ import annotations

import pytest

from scheduler.accounts.account import MAX_CREDENTIALS, Quotas, Scope, in_force
from scheduler.accounts.book import (
    Book,
    BookError,
    Changes,
    hash_of,
    name_in,
    private_key_of,
    token_id_of,
)
from scheduler.accounts.sealing import Seal, SealError
from tests.scheduler.accounts.conftest import NOW_US, ChangesAt


def test_a_new_account_has_a_pair_of_keys_whose_private_one_is_sealed(changes: Changes, seal: Seal) -> None:
    empty = Book()
    book, pair = changes.create(empty, "acme-2")
    assert (empty.version, book.version, list(book.accounts)) == (0, 1, ["acme-2"])
    assert name_in(pair.public_key) == "acme-2"
    key = book.account("acme-2").keys[pair.public_key]
    assert pair.private_key not in key.sealed
    assert private_key_of(seal, "acme-2", pair.public_key, key) == pair.private_key


def test_a_sealed_key_opens_for_its_own_account_only(changes: Changes, seal: Seal) -> None:
    book, pair = changes.create(Book(), "alice")
    key = book.account("alice").keys[pair.public_key]
    for name, public in (("bob", pair.public_key), ("alice", "gck_alice_other")):
        with pytest.raises(SealError, match="another account"):
            private_key_of(seal, name, public, key)


@pytest.mark.parametrize("name", ["", "Alice", "a_b", "-a", "a-", "a" * 64, "ä", "a/b", "a b"])
def test_names_outside_the_grammar_are_refused(changes: Changes, name: str) -> None:
    with pytest.raises(BookError, match=r"^name: "):
        changes.create(Book(), name)


def test_a_name_is_given_once(changes: Changes) -> None:
    book, _ = changes.create(Book(), "alice")
    with pytest.raises(BookError, match="exists already"):
        changes.create(book, "alice")


def test_keys_rotate_with_overlap(changes_at: ChangesAt) -> None:
    book, old = changes_at(NOW_US).create(Book(), "alice")
    book, new = changes_at(NOW_US).rotate_keys(book, "alice", NOW_US + 60)
    assert book.version == 2
    keys = book.account("alice").keys
    assert in_force(keys[old.public_key], NOW_US + 59)
    assert not in_force(keys[old.public_key], NOW_US + 60)
    assert in_force(keys[new.public_key], NOW_US + 10**15)
    book = changes_at(NOW_US).remove_key(book, "alice", old.public_key)
    assert list(book.account("alice").keys) == [new.public_key]
    with pytest.raises(BookError, match="has no key"):
        changes_at(NOW_US).remove_key(book, "alice", old.public_key)


def test_a_token_is_kept_as_its_hash_and_found_by_its_id(changes: Changes) -> None:
    book, _ = changes.create(Book(), "alice")
    book, made = changes.add_token(book, "alice", "ci", (Scope.READ,), None)
    record = book.account("alice").tokens[made.token_id]
    assert (name_in(made.token), token_id_of(made.token)) == ("alice", made.token_id)
    assert (record.hash, record.scopes, record.name) == (hash_of(made.token), (Scope.READ,), "ci")
    assert made.token not in repr(book)
    book = changes.remove_token(book, "alice", made.token_id)
    assert not book.account("alice").tokens


@pytest.mark.parametrize(
    ("label", "scopes", "expires_us", "field"),
    [
        ("x" * 129, (Scope.RUN,), None, "name"),
        ("a\nb", (Scope.RUN,), None, "name"),
        ("", (), None, "scopes"),
        ("", (Scope.RUN,), NOW_US, "expires"),
    ],
)
def test_a_token_that_cannot_be_is_refused_with_its_field(
    changes: Changes, label: str, scopes: tuple[Scope, ...], expires_us: int | None, field: str
) -> None:
    book, _ = changes.create(Book(), "alice")
    with pytest.raises(BookError, match=f"^{field}: "):
        changes.add_token(book, "alice", label, scopes, expires_us)


def test_credentials_of_an_account_are_bounded(changes: Changes) -> None:
    book, _ = changes.create(Book(), "alice")
    for _ in range(MAX_CREDENTIALS - 1):
        book, _ = changes.add_key(book, "alice", "", None)
    with pytest.raises(BookError, match="64 keys already"):
        changes.add_key(book, "alice", "", None)


def test_a_suspension_needs_a_reason_and_ends(changes: Changes) -> None:
    book, _ = changes.create(Book(), "alice")
    for why in ("", "  ", "x" * 501):
        with pytest.raises(BookError, match=r"^why: "):
            changes.suspend(book, "alice", why, "finish")
    book = changes.suspend(book, "alice", "unpaid since May", "cancel")
    suspension = book.account("alice").suspension
    assert suspension is not None
    assert (suspension.why, suspension.tasks) == ("unpaid since May", "cancel")
    book = changes.resume(book, "alice")
    assert book.account("alice").suspension is None
    with pytest.raises(BookError, match="not suspended"):
        changes.resume(book, "alice")


def test_a_change_of_an_account_leaves_the_others(changes: Changes) -> None:
    book, _ = changes.create(Book(), "alice")
    book, _ = changes.create(book, "bob")
    bob = book.account("bob")
    book = changes.set_quotas(book, "alice", Quotas(cpu_percent=400))
    assert book.account("alice").quotas.cpu_percent == 400
    assert book.account("bob") is bob
    with pytest.raises(BookError, match="no account 'carol'"):
        changes.set_quotas(book, "carol", Quotas())


def test_after_resealing_the_old_master_key_is_not_needed(changes: Changes) -> None:
    old, new = b"k" * 32, b"n" * 32
    book, pair = changes.create(Book(), "alice")
    both = Seal([new, old])
    again = Changes(both, NOW_US, lambda count: "0" * count).reseal(book)
    key = again.account("alice").keys[pair.public_key]
    assert private_key_of(Seal([new]), "alice", pair.public_key, key) == pair.private_key
    with pytest.raises(SealError, match="not in the key file"):
        private_key_of(Seal([old]), "alice", pair.public_key, key)
