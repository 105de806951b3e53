"""A set follows the file of accounts; it goes on with what it knows when the file is away, damaged or rolled back."""

from __future__ import annotations

from pathlib import Path

import pytest

from scheduler.accounts.book import Changes
from scheduler.accounts.book_file import BookFile, BookUnreadable
from scheduler.accounts.following import AccountsFollower
from scheduler.accounts.sealing import Seal
from scheduler.lock import FileLock, LockHeld


class Site:
    """A file of accounts, and a set that follows it."""

    def __init__(self, folder: Path, seal: Seal, changes: Changes) -> None:
        self.path = folder / "accounts"
        self.seal = seal
        self._changes = changes
        self._own = folder / "set"
        self._own.mkdir()
        self.file = BookFile(self.path, seal)
        self.file.create()

    def create(self, name: str) -> None:
        self.file.change(lambda book: self._changes.create(book, name))

    def follower(self, seal: Seal | None = None) -> AccountsFollower:
        """A set that starts now."""
        follower = AccountsFollower(self.path, seal or self.seal, self._own)
        follower.open()
        return follower


@pytest.fixture
def site(tmp_path: Path, seal: Seal, changes: Changes) -> Site:
    return Site(tmp_path, seal, changes)


def test_a_saved_change_is_seen(site: Site) -> None:
    follower = site.follower()
    assert (follower.book.version, follower.trouble) == (0, None)
    site.create("alice")
    follower.look()
    assert list(follower.book.accounts) == ["alice"]


def test_the_file_goes_away_and_the_set_goes_on_even_after_a_restart(site: Site) -> None:
    site.create("alice")
    follower = site.follower()
    site.path.unlink()
    follower.look()
    assert list(follower.book.accounts) == ["alice"]
    assert "No such file" in (follower.trouble or "")
    again = site.follower()
    assert list(again.book.accounts) == ["alice"]
    assert "No such file" in (again.trouble or "")


def test_a_damaged_file_is_not_accepted_until_it_is_mended(site: Site) -> None:
    site.create("alice")
    follower = site.follower()
    good = site.path.read_bytes()
    for bad in (b"", good[:-5], good.replace(b"alice", b"mally"), b"{}", good + b"x"):
        site.path.write_bytes(bad)
        follower.look()
        assert follower.trouble is not None, bad
        assert list(follower.book.accounts) == ["alice"]
    site.path.write_bytes(good)
    follower.look()
    assert follower.trouble is None


def test_an_older_file_is_refused_even_after_a_restart(site: Site) -> None:
    site.create("alice")
    old = site.path.read_bytes()
    site.create("bob")
    follower = site.follower()
    site.path.write_bytes(old)
    for each in (follower, site.follower()):
        each.look()
        assert sorted(each.book.accounts) == ["alice", "bob"]
        assert "older than 2" in (each.trouble or "")


def test_two_files_of_one_version_are_not_mixed_up(site: Site) -> None:
    before = site.path.read_bytes()
    site.create("alice")
    follower = site.follower()
    site.path.write_bytes(before)
    site.create("mallory")
    follower.look()
    assert list(follower.book.accounts) == ["alice"]
    assert "exists twice" in (follower.trouble or "")
    site.create("bob")
    follower.look()
    assert sorted(follower.book.accounts) == ["bob", "mallory"]


def test_a_set_that_knows_nothing_does_not_start_without_the_file(site: Site) -> None:
    site.path.unlink()
    with pytest.raises(BookUnreadable, match="No such file"):
        site.follower()


def test_a_file_of_another_master_key_is_refused(site: Site) -> None:
    with pytest.raises(BookUnreadable, match="not in the key file"):
        site.follower(Seal([b"n" * 32]))


def test_one_writer_changes_the_file_at_a_time(site: Site) -> None:
    lock = FileLock(site.path.with_name("accounts.lock"))
    lock.take()
    with pytest.raises(LockHeld, match="in use by process"):
        site.create("alice")
    lock.release()
    site.create("alice")
    assert site.file.look().version == 1


def test_a_change_that_fails_leaves_the_file(site: Site) -> None:
    before = site.path.read_bytes()
    site_change = site.file.change
    with pytest.raises(ZeroDivisionError):
        site_change(lambda book: (book, 1 // 0))
    assert site.path.read_bytes() == before
    assert site.path.stat().st_mode & 0o777 == 0o600
