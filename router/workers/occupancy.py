"""Requests in flight per set, over all workers of a router: `max_inflight` bounds the router, not each worker.

A share of the limit for each worker would answer "full" while others have room, as connections never spread evenly, and
a limit of 2 could not be shared by four. So each worker has its own cell per set in memory that the arbiter mapped
before it forked them. Only its owner writes a cell, so there is no lock; a reader adds the cells up. Two workers that
look at the same moment may exceed a limit by one request each.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import mmap
import os
from typing import Final

import structlog

from router.wire.limits import Limits
from router.wire.pool import SetPool
from router.wire.stream import Buffers

ROWS: Final = 4096
"""Number of set names that a router can count in its life; each worker counts further sets alone."""
_WORD: Final = 8

log = structlog.get_logger()


class Occupancy:
    """Made before the fork, for `workers` processes; `row` and `cell` are then the same in all of them."""

    def __init__(self, workers: int, rows: int = ROWS) -> None:
        self.workers = workers
        self._rows = rows
        self._fd = os.memfd_create("occupancy", os.MFD_CLOEXEC)
        size = rows * (workers + 1) * _WORD
        os.ftruncate(self._fd, size)
        self._words = memoryview(mmap.mmap(self._fd, size)).cast("q")

    def row(self, name: str) -> int | None:
        """Return where a set's cells begin; they are taken on first use. None: there is no room."""
        words = self._words
        wanted = (
            int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True) or 1
        )
        start = wanted % self._rows
        fcntl.lockf(self._fd, fcntl.LOCK_EX)  # Ends with its process.
        try:
            for step in range(self._rows):
                at = (start + step) % self._rows * (self.workers + 1)
                if words[at] == 0:
                    words[at] = wanted
                if words[at] == wanted:
                    return at + 1
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)
        return None

    def add(self, cell: int, change: int) -> None:
        """Change a cell of one's own."""
        self._words[cell] += change

    def total(self, row: int) -> int:
        return sum(self._words[row : row + self.workers])

    def clear(self, index: int) -> None:
        """Forget the requests of a worker that has ended."""
        for at in range(1 + index, len(self._words), self.workers + 1):
            self._words[at] = 0


class Whole:
    """A set's load over all workers."""

    __slots__ = ("_occupancy", "_row")

    def __init__(self, occupancy: Occupancy, row: int) -> None:
        self._occupancy = occupancy
        self._row = row

    @property
    def inflight(self) -> int:
        return self._occupancy.total(self._row)


class CountedPool(SetPool):
    """A pool whose `inflight`, this worker's own, is in the shared memory too."""

    __slots__ = ("_cell", "_occupancy")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        address: tuple[str, int],
        buffers: Buffers,
        limits: Limits,
        occupancy: Occupancy,
        cell: int,
    ) -> None:
        self._occupancy = occupancy
        self._cell = cell
        super().__init__(loop, name, address, buffers, limits)

    def enter(self, *, reading: bool) -> None:
        super().enter(reading=reading)
        if not reading:
            self._occupancy.add(self._cell, 1)

    def leave(self, *, reading: bool) -> None:
        super().leave(reading=reading)
        if not reading:
            # One less, not "none": the pool before this one, of another address, may have requests in the cell too.
            self._occupancy.add(self._cell, -1)


class Loads:
    """Makes the pools of one worker, and gives the loads by which sets are chosen."""

    def __init__(self, occupancy: Occupancy | None = None, index: int = 0) -> None:
        self._occupancy = occupancy
        self._index = index

    def pool(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        address: tuple[str, int],
        buffers: Buffers,
        limits: Limits,
    ) -> tuple[SetPool, SetPool | Whole]:
        """Make a pool; return it and the load by which sets are chosen: the sum of all workers, if there are
        several."""
        if self._occupancy is not None:
            row = self._occupancy.row(name)
            if row is not None:
                counted = CountedPool(
                    loop, name, address, buffers, limits, self._occupancy, row + self._index
                )
                return counted, Whole(self._occupancy, row)
            log.error("too many sets: each worker counts max_inflight alone", set=name, max_sets=ROWS)
        pool = SetPool(loop, name, address, buffers, limits)
        return pool, pool
