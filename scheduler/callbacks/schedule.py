"""The schedule of the callbacks that wait: which one is tried next, in turns, and within which bounds. Pure.

A *lane* is all that one account sends to one receiver. Accounts have turns, and within an account its lanes, so that a
receiver that never answers holds up only its own lane. A lane whose receiver cannot be reached rests for longer and
longer, and is then tried with one callback at a time. Times are microseconds since the epoch.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final

import msgspec

from scheduler.backoff import Backoff

REST: Final = Backoff(1.0, 300.0)
"""How long a lane rests, in seconds, after each try in a row that did not reach its receiver."""


class Bounds(msgspec.Struct, frozen=True):
    """Tries under way at the same time: in all, of an account, to a receiver, and of an account to a receiver."""

    in_all: int = 32
    account: int = 8
    receiver: int = 8
    lane: int = 2


class Entry(msgspec.Struct, frozen=True, order=True):
    """A callback that waits. Entries sort by `due_us`; after `ends_us` it is not worth another try."""

    due_us: int
    task_id: str
    ends_us: int
    account: str
    receiver: str


class _Lane:
    __slots__ = (
        "account",
        "entries",
        "failures",
        "ready",
        "receiver",
        "rests_until_us",
        "running",
        "timers_us",
    )

    def __init__(self, account: _Account, receiver: _Receiver) -> None:
        self.account = account
        self.receiver = receiver
        self.entries: list[Entry] = []
        self.running = 0
        self.failures = 0
        self.rests_until_us = 0
        # It is in its account's queue of lanes.
        self.ready = False
        # The times at which it is looked at again, the next one last.
        self.timers_us: list[int] = []


class _Account:
    __slots__ = ("count", "in_turn", "lanes", "name", "ready", "running")

    def __init__(self, name: str) -> None:
        self.name = name
        self.lanes: dict[str, _Lane] = {}
        self.ready: deque[_Lane] = deque()
        self.running = 0
        self.count = 0
        # It is in the queue of accounts.
        self.in_turn = False


class _Receiver:
    __slots__ = ("blocked", "lanes", "name", "running")

    def __init__(self, name: str) -> None:
        self.name = name
        self.running = 0
        self.lanes = 0
        # Lanes with work, while the receiver has as many tries as it may.
        self.blocked: list[_Lane] = []


class Schedule:
    """Decides which callback is tried next. The same task's callback is never in it twice."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds()
        self._accounts: dict[str, _Account] = {}
        self._receivers: dict[str, _Receiver] = {}
        self._known: set[str] = set()
        self._turns: deque[_Account] = deque()
        self._timers: list[tuple[int, int, _Lane]] = []
        self._order = count()
        self.running = 0

    def __len__(self) -> int:
        """How many callbacks wait or are being tried."""
        return len(self._known)

    def count_of(self, account: str) -> int:
        """How many of an account's callbacks wait or are being tried."""
        found = self._accounts.get(account)
        return 0 if found is None else found.count

    def add(self, entry: Entry, now_us: int) -> None:
        """Let a callback wait for its time; does nothing for one that is known."""
        if entry.task_id in self._known:
            return
        self._known.add(entry.task_id)
        account = self._accounts.get(entry.account)
        if account is None:
            account = self._accounts[entry.account] = _Account(entry.account)
        account.count += 1
        lane = account.lanes.get(entry.receiver)
        if lane is None:
            receiver = self._receivers.get(entry.receiver)
            if receiver is None:
                receiver = self._receivers[entry.receiver] = _Receiver(entry.receiver)
            receiver.lanes += 1
            lane = account.lanes[entry.receiver] = _Lane(account, receiver)
        heappush(lane.entries, entry)
        self._place(lane, now_us)

    def take(self, now_us: int) -> Entry | None:
        """Return a callback to try now, which counts as running until `ended`; None if none is due or may be tried."""
        self._ring(now_us)
        while self._turns and self.running < self._bounds.in_all:
            account = self._turns.popleft()
            account.in_turn = False
            while account.ready:
                lane = account.ready.popleft()
                lane.ready = False
                if lane.receiver.running >= self._bounds.receiver:
                    lane.receiver.blocked.append(lane)
                    continue
                entry = heappop(lane.entries)
                for part in (self, account, lane, lane.receiver):
                    part.running += 1
                self._place(lane, now_us)
                self._offer(account)
                return entry
            if not account.lanes:
                del self._accounts[account.name]
        return None

    def ended(self, entry: Entry, now_us: int, *, reached: bool, again: Entry | None = None) -> list[Entry]:
        """A try has ended. `reached`: the receiver answered. `again`: the callback waits for another try.

        Returns the callbacks of the same lane whose time is over while its receiver cannot be reached: they are no
        longer in the schedule.
        """
        account = self._accounts[entry.account]
        lane = account.lanes[entry.receiver]
        for part in (self, account, lane, lane.receiver):
            part.running -= 1
        self._forget(entry)
        overdue: list[Entry] = []
        if reached:
            lane.failures = lane.rests_until_us = 0
        else:
            lane.failures += 1
            if lane.ready:
                lane.ready = False
                account.ready.remove(lane)
            lane.rests_until_us = now_us + round(REST.after(lane.failures) * 1_000_000)
            overdue = self._overdue(lane, now_us)
        if again is not None:
            self.add(again, now_us)
        blocked, lane.receiver.blocked = lane.receiver.blocked, []
        for each in (lane, *blocked):
            self._place(each, now_us)
        self._offer(account)
        self._tidy(lane)
        return overdue

    def next_us(self) -> int | None:
        """The time at which `take` may return another callback; None: not before something is added or ends."""
        return self._timers[0][0] if self._timers else None

    def _ring(self, now_us: int) -> None:
        while self._timers and self._timers[0][0] <= now_us:
            _, _, lane = heappop(self._timers)
            lane.timers_us.pop()
            self._place(lane, now_us)

    def _place(self, lane: _Lane, now_us: int) -> None:
        """Put a lane with work where it belongs: ready, at a timer, or nowhere until one of its tries ends."""
        most = 1 if lane.failures else self._bounds.lane
        if lane.ready or not lane.entries or lane.running >= most:
            return
        at_us = max(lane.entries[0].due_us, lane.rests_until_us)
        if at_us > now_us:
            if not lane.timers_us or at_us < lane.timers_us[-1]:
                lane.timers_us.append(at_us)
                heappush(self._timers, (at_us, next(self._order), lane))
            return
        lane.ready = True
        lane.account.ready.append(lane)
        self._offer(lane.account)

    def _offer(self, account: _Account) -> None:
        """Queue an account for its turn, if it has a lane that is ready and may have another try."""
        if not account.in_turn and account.ready and account.running < self._bounds.account:
            account.in_turn = True
            self._turns.append(account)

    def _overdue(self, lane: _Lane, now_us: int) -> list[Entry]:
        overdue = [entry for entry in lane.entries if entry.ends_us <= now_us]
        if overdue:
            lane.entries = [entry for entry in lane.entries if entry.ends_us > now_us]
            heapify(lane.entries)
            for entry in overdue:
                self._forget(entry)
        return overdue

    def _forget(self, entry: Entry) -> None:
        self._known.discard(entry.task_id)
        self._accounts[entry.account].count -= 1

    def _tidy(self, lane: _Lane) -> None:
        """Drop what has nothing left to do, so that the schedule holds no more than waits."""
        if lane.entries or lane.running or lane.ready or lane in lane.receiver.blocked:
            return
        account, receiver = lane.account, lane.receiver
        del account.lanes[receiver.name]
        receiver.lanes -= 1
        if not receiver.lanes:
            del self._receivers[receiver.name]
        if not account.lanes and not account.in_turn:
            del self._accounts[account.name]
