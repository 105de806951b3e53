"""The lock of a store, which one process uses at a time."""

from __future__ import annotations

from scheduler.errors import StoreError
from scheduler.lock import FileLock, LockHeld


class StoreLock(FileLock):
    """A `FileLock` whose failure is the store's."""

    what = "the store"

    def take(self) -> None:
        """Take the lock. Raises `StoreError` with the owner if another process (or object) holds it."""
        try:
            super().take()
        except LockHeld as error:
            raise StoreError(f"{error}; give each set a store of its own") from error
