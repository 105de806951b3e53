"""The accounts while a set runs: follows their file, and ends the tasks of accounts that were suspended so."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from scheduler.accounts.account import Quotas
from scheduler.accounts.book import Book
from scheduler.accounts.book_file import BookUnreadable
from scheduler.accounts.credentials import Credentials
from scheduler.accounts.following import AccountsFollower
from scheduler.accounts.sealing import SealError, load_for
from scheduler.background import Background
from scheduler.batches.batches import Batches
from scheduler.clock import wall_us
from scheduler.manager import Manager
from sets.config import SetConfig
from sets.yaml_file import ConfigError

_USUAL: Final = Quotas()
_NO_ACCOUNTS: Final = Book()


class AccountsLife:
    """Knows the accounts from its creation on. Raises `ConfigError` if they cannot be known at all."""

    def __init__(self, config: SetConfig) -> None:
        self._follower: AccountsFollower | None = None
        self._background = Background()
        self._ended: dict[str, int] = {}
        self.credentials: Credentials | None = None
        if config.accounts_file is None:
            return
        path = Path(config.accounts_file)
        try:
            seal = load_for(path, Path(config.accounts_key_file) if config.accounts_key_file else None)
            self._follower = AccountsFollower(path, seal, config.directory)
            self._follower.open()
        except (SealError, BookUnreadable) as error:
            raise ConfigError(f"accounts_file: {error}") from error
        self.credentials = Credentials(seal, self.book, wall_us)

    def book(self) -> Book:
        """The book as it is now; an empty one where the set has no accounts."""
        return _NO_ACCOUNTS if self._follower is None else self._follower.book

    def quotas(self, name: str) -> Quotas:
        """The quotas of an account as they are now."""
        account = self.book().accounts.get(name)
        return _USUAL if account is None else account.quotas

    def standing(self) -> tuple[int, bool]:
        """The version that counts, and whether the file is accepted now."""
        return self.book().version, self._follower is None or self._follower.trouble is None

    def start(self, manager: Manager, batches: Batches) -> None:
        """Follow the file from now on."""
        if self._follower is None:
            return

        def changed(book: Book) -> None:
            for name in self._to_end(book):
                manager.cancel_all(name)
                self._background.spawn(batches.cancel_all(name))

        changed(self._follower.book)
        self._background.spawn(self._follower.follow(changed))

    async def stop(self) -> None:
        """Follow the file no longer."""
        await self._background.stop(0)

    def _to_end(self, book: Book) -> list[str]:
        """The accounts whose tasks a suspension ends, each once for each suspension."""
        found = {
            name: account.suspension.since_us
            for name, account in book.accounts.items()
            if account.suspension is not None and account.suspension.tasks == "cancel"
        }
        new = [name for name, since_us in found.items() if self._ended.get(name) != since_us]
        self._ended = found
        return new
