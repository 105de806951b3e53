"""The turns of accounts that have something to run, each as often as its weight says. Pure.

Each turn of an account moves its next one back by 1 / weight. An account that is new, or comes back, begins where
the others are now, so it neither owes nor owns what happened while it was away.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterable, Mapping
from typing import Final

from scheduler.policy.limits import USUAL_WEIGHT
from scheduler.policy.pool import Pool

_SWEPT_AT: Final = 256
"""How many accounts' next turns are remembered before those that have passed are forgotten."""
_STALE_ENTRIES: Final = 64
"""How many entries of the line may be out of date, beside one for each account, before it is made again."""


class Turns:
    """Accounts and, of each, the pools that have both a waiting task and an idle slot; a pool's turn comes likewise."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        # By account; nobody could run while this is empty.
        self.pools: dict[str, dict[Pool, None]] = {}
        # A heap of (turn, serial, account). Only the latest entry of each account counts.
        self._line: list[tuple[float, int, str]] = []
        self._latest: dict[str, tuple[float, int, str]] = {}
        self._serial = 0
        # When each account's next turn is, and the turn that was last taken.
        self._next: dict[str, float] = {}
        self._now = 0.0
        self._swept_at = _SWEPT_AT

    def add(self, pool: Pool) -> None:
        """The pool could run a task; harmless when that is known."""
        account = pool.key.account
        pools = self.pools.get(account)
        if pools is None:
            self.pools[account] = {pool: None}
            self._line_up(account, max(self._next.get(account, 0.0), self._now))
        else:
            pools.setdefault(pool)

    def discard(self, pool: Pool) -> None:
        """The pool cannot run a task; harmless when that is known."""
        account = pool.key.account
        pools = self.pools.get(account)
        if pools is not None and pool in pools:
            del pools[pool]
            if not pools:
                del self.pools[account]
                del self._latest[account]

    def first(self) -> Pool | None:
        """The pool whose turn it is."""
        line = self._line
        while line:
            entry = line[0]
            if self._latest.get(entry[2]) is entry:
                return next(iter(self.pools[entry[2]]))
            heapq.heappop(line)
        return None

    def in_turn(self) -> Generator[Pool, None, None]:
        """All pools: the account whose turn it is first. Close it before the books change."""
        taken: list[tuple[float, int, str]] = []
        line = self._line
        try:
            while line:
                entry = heapq.heappop(line)
                if self._latest.get(entry[2]) is entry:
                    taken.append(entry)
                    yield from self.pools[entry[2]]
        finally:
            for entry in taken:
                heapq.heappush(line, entry)

    def ordered(self, pools: Iterable[Pool]) -> list[Pool]:
        """These pools, which all have turns, in the order of their turns."""
        latest = self._latest
        return sorted(pools, key=lambda pool: (latest[pool.key.account], pool.took_turn))

    def took(self, pool: Pool) -> None:
        """A task of the pool runs: that was its account's turn."""
        account = pool.key.account
        pools = self.pools[account]
        # The account's own pools take turns, too.
        del pools[pool]
        pools[pool] = None
        pool.took_turn = self._serial
        turn = max(self._next.get(account, 0.0), self._now)
        self._now = turn
        self._next[account] = turn = turn + 1.0 / self._weights.get(account, USUAL_WEIGHT)
        self._line_up(account, turn)
        if len(self._next) > self._swept_at:
            self._next = {name: at for name, at in self._next.items() if at > self._now}
            self._swept_at = max(_SWEPT_AT, 2 * len(self._next))

    def forget(self) -> None:
        """Nobody waits: all accounts begin alike again."""
        if self._next and not self.pools:
            self._next.clear()
            self._line.clear()
            self._now = 0.0

    def _line_up(self, account: str, turn: float) -> None:
        self._serial += 1
        entry = self._latest[account] = (turn, self._serial, account)
        heapq.heappush(self._line, entry)
        if len(self._line) > 2 * len(self._latest) + _STALE_ENTRIES:
            self._line = [entry for entry in self._line if self._latest.get(entry[2]) is entry]
            heapq.heapify(self._line)
