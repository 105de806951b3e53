"""How much each account has used of the cores while tasks wait, and who has used least. Pure.

An account uses what its running tasks hold, for as long as they hold it, and CPU time beyond that: a task that sleeps
for an hour on a core has used an hour of it. A task that holds half of all memory has used half of the cores.

Use counts only while tasks wait. Once none does, all of it is forgotten: cores that nobody else wants are free of
charge. An account that begins to wait begins just before the one that has used least, so it owes nothing for the time
before, and nobody owes it anything.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Mapping
from typing import Final

from scheduler.policy.limits import SCAN_LIMIT, USUAL_WEIGHT

SMOOTHING: Final = 0.2
"""Weight of the newest task in the mean duration of an account's tasks."""
_FRESH_S: Final = 0.05
"""How old, in seconds, a number in a line may be. A decision would otherwise compute those of many accounts again."""
_HEAD_START: Final = 1e-3
"""How much less than the account that has used least a newcomer has used, in hundredths of a core for one second. So
it comes before that account, whose next task may be a long one on all cores."""
_STALE_ENTRIES: Final = 64
"""How many entries of a line may be out of date, beside one for each account, before the line is built again."""


class Account:
    """An account and what it has used until `at` in its `period`, in hundredths of a core for one second."""

    __slots__ = (
        "at",
        "held",
        "name",
        "period",
        "pools",
        "served",
        "shares",
        "spent",
        "task_s",
        "waiting",
        "waits_since",
        "weight",
    )

    def __init__(self, name: str, weight: int, shares: Shares) -> None:
        self.name = name
        self.shares = shares
        self.weight = weight
        # How many pools it has, and how many of its tasks wait.
        self.pools = 0
        self.waiting = 0
        # Since when at least one of them has waited.
        self.waits_since = 0.0
        # How many of its tasks have begun since it last left a place to an account without any.
        self.served = 0
        # Hundredths of a core that its running tasks are charged (`Pool.charge_percent`).
        self.held = 0
        self.spent = 0.0
        self.at = 0.0
        self.period = 0
        # The mean duration of its tasks, in seconds; 0 until one has ended.
        self.task_s = 0.0

    def used(self, now: float) -> float:
        """Return what it has used until now, divided by its weight. This never falls within a period."""
        return (self.spent + self.held * (now - self.at)) / self.weight

    def claim(self, now: float) -> float:
        """Return `used` plus what its running tasks will still use if each lasts as long as its tasks do on average."""
        return (self.spent + self.held * (now - self.at + self.task_s)) / self.weight

    def settle(self, now: float) -> None:
        """Count what it has held until now: what it holds is about to change, and tasks wait."""
        if self.period != self.shares.period:
            self.period = self.shares.period
            self.spent = 0.0
            self.at = self.shares.began_at
        self.spent += self.held * (now - self.at)
        self.at = now

    def task_waits(self, now: float) -> None:
        """One more of its tasks waits."""
        self.waiting += 1
        self.shares.waiting += 1
        if self.waiting == 1:
            self.shares.joined(self, now)

    def task_waits_no_longer(self) -> None:
        """One of its tasks has begun to run, or has left."""
        self.waiting -= 1
        self.shares.waiting -= 1
        if not self.waiting:
            self.shares.forget_line(self)

    def task_ran(self, charge_percent: int, run_s: float, cpu_us: int) -> None:
        """A task of the account has ended, for whose `run_s` seconds it was charged. Add the CPU time beyond that."""
        beyond = cpu_us / 1e4 - charge_percent * run_s
        if beyond > 0.0:
            self.spent += beyond


_Entry = tuple[float, int, Account, float]


class Line:
    """Accounts in the order of a number that only rises with time, unless `put` says that it has changed.

    A heap of accounts. Entries are lower bounds, and an entry is recomputed only when it reaches the top. Of equal
    numbers, the one that was put first comes first.
    """

    def __init__(self, number: Callable[[Account, float], float]) -> None:
        self._number = number
        # Entries: (number, serial, account, when the number was computed).
        self._heap: list[_Entry] = []
        # Only an account's latest entry counts.
        self._latest: dict[Account, _Entry] = {}
        self._serial = 0

    def put(self, account: Account, now: float) -> None:
        """Put the account into the line, behind those with the same number; or move it there."""
        self._serial += 1
        entry = self._latest[account] = (self._number(account, now), self._serial, account, now)
        heapq.heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._latest) + _STALE_ENTRIES:
            self._heap = list(self._latest.values())
            heapq.heapify(self._heap)

    def drop(self, account: Account) -> None:
        """Take the account out of the line."""
        del self._latest[account]
        if not self._latest:
            self._heap.clear()

    def first(self, now: float) -> Account | None:
        """The account whose number is the lowest, with numbers that are up to date within 50 ms."""
        heap, latest = self._heap, self._latest
        looked_at = 0
        while heap:
            entry = heap[0]
            account = entry[2]
            if latest.get(account) is not entry:
                heapq.heappop(heap)
                continue
            if now - entry[3] < _FRESH_S or looked_at == SCAN_LIMIT:
                return account
            number = self._number(account, now)
            if number <= entry[0]:
                return account
            looked_at += 1
            fresh = latest[account] = (number, entry[1], account, now)
            heapq.heapreplace(heap, fresh)
        return None

    def clear(self) -> None:
        """Take all accounts out of the line."""
        self._latest.clear()
        self._heap.clear()

    def in_order(self, now: float) -> Generator[Account, None, None]:
        """All accounts. Close it before anything changes."""
        taken: list[_Entry] = []
        try:
            while (account := self.first(now)) is not None:
                taken.append(heapq.heappop(self._heap))
                yield account
        finally:
            for entry in taken:
                heapq.heappush(self._heap, entry)


class Shares:
    """The accounts of a cell, and what each has used in this period.

    A period begins, at `began_at`, when the first task waits, and ends when none does. `waiting` tasks wait now.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self.waiting = 0
        self.accounts: dict[str, Account] = {}
        self._weights = weights
        # Those whose tasks wait.
        self._backlog = Line(Account.used)
        # The number of the period.
        self.period = 0
        self.began_at = 0.0

    def account(self, name: str) -> Account:
        """Return the account of this name, for one more pool of it."""
        account = self.accounts.get(name)
        if account is None:
            account = self.accounts[name] = Account(name, self._weights.get(name, USUAL_WEIGHT), self)
        account.pools += 1
        return account

    def forget_pool(self, account: Account) -> None:
        """One of the account's pools is forgotten."""
        account.pools -= 1
        if not account.pools:
            del self.accounts[account.name]

    def joined(self, account: Account, now: float) -> None:
        """The account's first task waits."""
        if self.waiting == 1:
            self.period += 1
            self.began_at = now
        account.settle(now)
        account.waits_since = now
        least = self._backlog.first(now)
        if least is not None:
            account.spent = max(account.spent, least.used(now) * account.weight - _HEAD_START)
            if not account.task_s:
                # Nothing is known of its tasks yet: they may well be like those of others.
                account.task_s = least.task_s
        self._backlog.put(account, now)

    def forget_line(self, account: Account) -> None:
        """None of the account's tasks waits."""
        self._backlog.drop(account)
