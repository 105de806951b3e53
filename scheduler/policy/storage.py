"""Bounds what each account keeps on the set's disk, and says whose new tasks are refused while the disk is short. Pure.

An account uses what it keeps (rows of its tasks and callbacks, inputs, results, output files) and what is being
written for it now (`Holding`). At its bound its new tasks are refused; those that it has may still write `OVERHANG`
times as much, so that work which was accepted can end. While the disk is short, new tasks of the accounts that use at
least the average are refused, and all else goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from scheduler.errors import DiskFull, StorageLimit

NO_BOUND: Final = 1 << 62
OVERHANG: Final = 1.25
"""How many times its bound an account may use by what its accepted tasks write."""
RELIEF: Final = 1.25
"""How many times the space that makes the disk short must be free before it is no longer short: a disk at its bound
must not refuse and accept in turns."""
MIB: Final = 1 << 20
DISK_AGAIN_S: Final = 10.0
"""When a caller that the disk refused may ask again, in seconds; tasks expire every few seconds."""


def _none(_: str) -> None:
    """No account has a bound of its own."""


class StorageLimits(msgspec.Struct, frozen=True):
    """Bounds in bytes: of each account for which `of_account` gives None, of all together, and of the free disk space
    below which the disk is short."""

    account_bytes: int = NO_BOUND
    of_account: Callable[[str], int | None] = _none
    all_bytes: int = NO_BOUND
    low_disk_bytes: int = 0

    def of(self, account: str) -> int:
        """The bound of an account."""
        own = self.of_account(account)
        return self.account_bytes if own is None else own


class KeptBytes(Protocol):
    """How many bytes each account keeps: the rows of its tasks, their inputs, results and output files."""

    @property
    def size_bytes(self) -> int:
        """The sum of all accounts."""

    @property
    def accounts(self) -> int:
        """How many accounts keep anything."""

    def of(self, account: str) -> int:
        """Bytes that the account keeps; holes of its files count."""


class Storage:
    """The use of every account. `kept` has what is committed; `short` is True while the disk is short of space."""

    def __init__(self, limits: StorageLimits, kept: KeptBytes) -> None:
        self.limits = limits
        self.short = False
        self._kept = kept
        self._free_bytes = 0
        self._held: dict[str, int] = {}
        self._held_bytes = 0

    @property
    def used_bytes(self) -> int:
        """The sum of all accounts."""
        return self._kept.size_bytes + self._held_bytes

    def used_by(self, account: str) -> int:
        """Bytes that the account keeps, and those that are being written for it."""
        return self._kept.of(account) + self._held.get(account, 0)

    def look(self, free_bytes: int) -> bool:
        """The disk has so much free space now. Returns True if it has become short, or is no longer."""
        self._free_bytes = free_bytes
        low_bytes, all_bytes = self.limits.low_disk_bytes, self.limits.all_bytes
        was_short = self.short
        if was_short:
            self.short = free_bytes < RELIEF * low_bytes or RELIEF * self.used_bytes > all_bytes
        else:
            self.short = free_bytes < low_bytes or self.used_bytes > all_bytes
        return self.short is not was_short

    def check(self, account: str, size_bytes: int = 0) -> None:
        """Raise `StorageLimit` or `DiskFull` if a new task of the account, with `size_bytes` of input, is refused."""
        used, bound = self.used_by(account), self.limits.of(account)
        if used + size_bytes > bound:
            raise StorageLimit(
                f"this account keeps {_mib(used)} MiB of inputs, results and output files in this set and may keep "
                f"{_mib(bound)}; results are removed when they expire"
            )
        if self.short and used and used * max(1, self._kept.accounts) >= self.used_bytes:
            raise DiskFull(
                f"the set's disk is short of space ({_mib(self._free_bytes)} MiB free, {_mib(self.used_bytes)} MiB "
                f"used by all accounts), and this account uses more of it than others ({_mib(used)} MiB); try another "
                "set, or again once some of its results have expired",
                retry_after_s=DISK_AGAIN_S,
            )

    def check_row(self, account: str) -> None:
        """Raise `StorageLimit` if the account may not even have the row of a sync task."""
        if not self._has_room(account, 0):
            self.check(account)

    def hold(self, account: str) -> Holding:
        """Count what is about to be written for the account, beginning with nothing."""
        return Holding(self, account)

    def _has_room(self, account: str, size_bytes: int) -> bool:
        return self.used_by(account) + size_bytes <= OVERHANG * self.limits.of(account)

    def _add(self, account: str, size_bytes: int) -> None:
        self._held_bytes += size_bytes
        held = self._held.get(account, 0) + size_bytes
        if held:
            self._held[account] = held
        else:
            self._held.pop(account, None)


class Holding:
    """Bytes that are being written for an account, until they are stored and counted there, or thrown away."""

    __slots__ = ("_account", "_storage", "size_bytes")

    def __init__(self, storage: Storage, account: str) -> None:
        self._storage = storage
        self._account = account
        self.size_bytes = 0

    def grow(self, size_bytes: int) -> None:
        """More of a new task's input is coming. Raises as `Storage.check`, and counts nothing then."""
        self._storage.check(self._account, size_bytes)
        self._count(size_bytes)

    def try_grow(self, size_bytes: int) -> bool:
        """An accepted task writes more; returns False, and counts nothing, if the account may keep no more of it."""
        if not self._storage._has_room(self._account, size_bytes):
            return False
        self._count(size_bytes)
        return True

    def release(self) -> None:
        """It is stored, or thrown away. Harmless when repeated."""
        self._count(-self.size_bytes)

    def _count(self, size_bytes: int) -> None:
        if size_bytes:
            self.size_bytes += size_bytes
            self._storage._add(self._account, size_bytes)


def _mib(size_bytes: int) -> int:
    """Rounded down."""
    return size_bytes // MIB
