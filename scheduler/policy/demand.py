"""Decides which pool gets the next slot: of the pools that want one, that of the account that holds the fewest. Pure.

Slots take places in the set, and places are scarce. If requests were served in their order, an account that asks first
and most would take every place that becomes free. So the order is by what an account holds already, over its weight: a
newcomer, who holds nothing, is never behind those who hold much.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from itertools import islice
from typing import Final

from scheduler.policy.limits import SCAN_LIMIT, USUAL_WEIGHT
from scheduler.policy.node import Node
from scheduler.policy.pool import Pool

_STALE_ENTRIES: Final = 64
"""How many entries of the line may be out of date, in addition to one for each account, before it is rebuilt."""


class Demand:
    """Pools that want more slots and may have them now, and how many slots each account holds.

    Accounts that hold equally many come in the order in which they began to want at that number. Of an account's pools,
    the one with the fewest slots comes first, of equal ones the one that was served longest ago.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        # By account; nobody wants a slot while this is empty.
        self.wanting: dict[str, dict[Pool, None]] = {}
        self._held: dict[str, int] = {}
        # A heap of (slots held / weight, serial, account). Only an account's entry of the latest serial counts.
        self._line: list[tuple[float, int, str]] = []
        self._latest: dict[str, int] = {}
        self._serial = 0

    def __contains__(self, pool: Pool) -> bool:
        return pool in self.wanting.get(pool.key.account, ())

    def held(self, account: str) -> int:
        """How many slots the account has, those that start included."""
        return self._held.get(account, 0)

    def slot_added(self, pool: Pool) -> None:
        """A slot of the pool was started: its account's other pools come before it now."""
        account = pool.key.account
        self._held[account] = self.held(account) + 1
        pools = self.wanting.get(account)
        if pools is not None:
            if pool in pools:
                del pools[pool]
                pools[pool] = None
            self._line_up(account)

    def slot_removed(self, pool: Pool) -> None:
        account = pool.key.account
        left = self._held[account] - 1
        if left:
            self._held[account] = left
        else:
            del self._held[account]
        if account in self.wanting:
            self._line_up(account)

    def want(self, pool: Pool) -> None:
        """The pool wants one more slot, at least; harmless when that is known."""
        account = pool.key.account
        pools = self.wanting.get(account)
        if pools is not None:
            pools.setdefault(pool)
            return
        self.wanting[account] = {pool: None}
        self._line_up(account)

    def drop(self, pool: Pool) -> None:
        """Remove the pool's demand; does nothing if it had none."""
        account = pool.key.account
        pools = self.wanting.get(account)
        if pools is None or pool not in pools:
            return
        del pools[pool]
        if not pools:
            del self.wanting[account]
            del self._latest[account]

    def neediest(self, beside: Pool | None = None, node: Node | None = None) -> Pool | None:
        """The pool that gets the next slot; None where no pool wants one. `beside`: a pool to leave out.

        `node`: only pools that this node suits; accounts without such a pool are passed over.
        """
        line = self._line
        passed: list[tuple[float, int, str]] = []
        found: Pool | None = None
        while line and len(passed) < SCAN_LIMIT:
            _, serial, account = line[0]
            if self._latest.get(account) == serial:
                pools = self.wanting[account]
                suited = pools if node is None else [pool for pool in pools if node.suits(pool.key)]
                if suited:
                    for pool in islice(suited, SCAN_LIMIT):
                        if pool is not beside and (found is None or pool.slots < found.slots):
                            found = pool
                    break
                passed.append(line[0])
            heapq.heappop(line)
        for entry in passed:
            heapq.heappush(line, entry)
        return found

    def _line_up(self, account: str) -> None:
        self._serial += 1
        self._latest[account] = self._serial
        heapq.heappush(
            self._line, (self.held(account) / self._weights.get(account, USUAL_WEIGHT), self._serial, account)
        )
        if len(self._line) > 2 * len(self._latest) + _STALE_ENTRIES:
            self._line = [entry for entry in self._line if self._latest.get(entry[2]) == entry[1]]
            heapq.heapify(self._line)
