"""Gives turns to accounts that have something to run: the one that has used least of the cores comes first. Pure."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping

from scheduler.policy.pool import Pool
from scheduler.policy.shares import Account, Line, Shares


class Turns:
    """The accounts with a task that could run now: for each, its pools that have a waiting task and an idle slot.

    `shares` says what each account has used. What the running tasks of an account will still hold counts, too:
    otherwise one that has used little would take every core that becomes free until its tasks have run for a while.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self.shares = Shares(weights)
        # By account; nobody could run while this is empty.
        self.pools: dict[Account, dict[Pool, None]] = {}
        # Empty while there is one account alone.
        self._line = Line(Account.claim)
        self._serial = 0

    def add(self, pool: Pool, now: float) -> None:
        """The pool could run a task; harmless when that is known."""
        account = pool.account
        pools = self.pools.get(account)
        if pools is not None:
            pools.setdefault(pool)
            return
        if len(self.pools) == 1:
            self._line.put(next(iter(self.pools)), now)
        self.pools[account] = {pool: None}
        if len(self.pools) > 1:
            self._line.put(account, now)

    def discard(self, pool: Pool) -> None:
        """The pool cannot run a task; harmless when that is known."""
        account = pool.account
        pools = self.pools.get(account)
        if pools is not None and pool in pools:
            del pools[pool]
            if not pools:
                del self.pools[account]
                if len(self.pools) > 1:
                    self._line.drop(account)
                else:
                    self._line.clear()

    def first(self, now: float) -> Pool | None:
        """The pool whose turn it is."""
        if len(self.pools) > 1:
            account = self._line.first(now)
            assert account is not None
            return next(iter(self.pools[account]))
        for pools in self.pools.values():
            return next(iter(pools))
        return None

    def in_turn(self, now: float) -> Generator[Pool, None, None]:
        """All pools: the account whose turn it is first. Close it before the books change."""
        if len(self.pools) == 1:
            yield from next(iter(self.pools.values()))
            return
        accounts = self._line.in_order(now)
        try:
            for account in accounts:
                yield from self.pools[account]
        finally:
            accounts.close()

    def ordered(self, pools: Iterable[Pool], now: float) -> list[Pool]:
        """These pools, which all have turns, in the order of their turns."""
        return sorted(pools, key=lambda pool: (pool.account.claim(now), pool.took_turn))

    def took(self, pool: Pool, now: float) -> None:
        """A task of the pool runs: that was its account's turn, and the account's own pools take turns, too."""
        pools = self.pools[pool.account]
        del pools[pool]
        pools[pool] = None
        self._serial += 1
        pool.took_turn = self._serial
        if len(self.pools) > 1:
            self._line.put(pool.account, now)

    def released(self, account: Account, now: float) -> None:
        """A task of the account has ended: it holds less."""
        if len(self.pools) > 1 and account in self.pools:
            self._line.put(account, now)
