"""Decides which slots there should be: where each starts, and which ones give their places to others. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Final

from scheduler.errors import BadRequest
from scheduler.policy.books import Books
from scheduler.policy.decisions import Decision, StartSlot, StopSlot
from scheduler.policy.giving_way import give_own_place, give_place
from scheduler.policy.keep_alive import next_look, overdue
from scheduler.policy.limits import SCAN_LIMIT, USUAL_WEIGHT
from scheduler.policy.node import Node
from scheduler.policy.pool import NEVER, Pool, Slot

LIFE_MARGIN_S: Final = 120.0
"""How long before its cluster ends a slot its last task must be over, in seconds: time to kill it and to clean up, and
for clocks that differ."""
GIVERS_LIMIT: Final = 1024
"""How many pools with idle slots are compared to find the slot that gives its place to another pool."""

ASLEEP_MOST: Final = 10_000
"""How many pools without slots and tasks are kept because a slot will be started for them ahead of need."""


class Supply:
    """Starts slots for pools that want them, and stops idle ones."""

    def __init__(self, books: Books, slot_ids: Iterator[str]) -> None:
        self._books = books
        self._slot_ids = slot_ids

    def feed(self, decisions: list[Decision], now: float, grown: Pool | None = None) -> None:
        """Start slots for pools that want them, on places that are free or that idle slots of other pools give.

        `grown`: a task has just arrived in this pool. If it is the first of its account that waits, and the account has
        no slot, then one that has many gives an idle one, though its own tasks wait for cores beside it.
        """
        books = self._books
        new = (
            grown is not None
            and grown.account.waiting == 1
            and bool(books.turns.pools)
            and not books.demand.held(grown.key.account)
        )
        nobody_gives = (
            not (new or books.nodes.open or books.givers or books.spare_running) and books.parties is None
        )
        while not nobody_gives and (pool := books.demand.neediest()) is not None:
            if books.caps.fill(pool.key) and not self._make_room_among_own(pool, decisions, now):
                continue
            crowds = None if books.parties is None else partial(self._crowds, pool)
            node = books.nodes.place(pool.key, crowds)
            if node is None:
                victim = self._coldest_idle(pool, crowds)
                if victim is None and new and not books.demand.held(pool.key.account):
                    victim = self._idle_of_richest(pool, crowds)
                if victim is None:
                    if books.spare_running:
                        give_place(books, pool, decisions, now)
                    if not self._others_find_places(pool):
                        break
                    continue
                node = victim.node
                decisions.append(self.stop_idle(victim, now))
            decisions.append(self.start(pool, node, now))
        # For tasks that may come, and for spare ones, nobody else's slot goes.
        for pool in list(islice(books.modest, SCAN_LIMIT)):
            while pool in books.modest and (node := books.nodes.place(pool.key)) is not None:
                if books.caps.fill(pool.key):
                    books.caps.hold_back(pool)
                    books.file(pool, now)
                    break
                decisions.append(self.start(pool, node, now))

    def start(self, pool: Pool, node: Node, now: float) -> StartSlot:
        slot_id = next(self._slot_ids)
        self._books.add(slot_id, pool, node, now)
        return StartSlot(slot_id, pool.key, node.facts.id)

    def taker(self, slot: Slot, now: float) -> Pool | None:
        """Return the pool that takes a freed slot's place; None: its own pool keeps it.

        A pool takes it if (1) its account holds at least two slots fewer, by weight, so that no place goes to and fro,
        or (2) its account holds nothing, has waited for long enough, and the giver has had as many tasks as its weight
        is worth since it last gave a place in this way. By (2) weights count also where there are fewer places than
        accounts. The tasks are the account's, not the slot's: it could let slots of ever new pools take turns, none of
        which had many. Pools of one account are compared by (1), without weights.

        Those whose accounts may have no other slot come last: with them the place stays in the account.
        """
        demand, pool = self._books.demand, slot.pool
        taker = None if slot.node in self._books.nodes.open else self._neediest(slot, now)
        if taker is not None and self.gives_up(slot, taker, now):
            if taker.account is not pool.account and not demand.held(taker.key.account):
                pool.account.served = 0
            return taker
        own = self._books.caps.taker(slot)
        return own if own is not None and self.gives_up(slot, own, now) else None

    def _neediest(self, slot: Slot, now: float) -> Pool | None:
        """The neediest pool that may have a slot in this one's place."""
        books, pool = self._books, slot.pool
        node = None if self._alone and slot.node.is_ready else slot.node
        while (taker := books.demand.neediest(beside=pool, node=node)) is not None:
            if not books.caps.fill(taker.key, pool.key):
                return taker
            if books.spare_running or books.caps.giver(taker, books.givers) is not None:
                # `feed` makes room for it among its account's own.
                return None
            books.caps.hold_back(taker)
            books.file(taker, now)
        return None

    def gives_up(self, slot: Slot, taker: Pool, now: float) -> bool:
        """Return True if the slot's pool leaves the slot's place to this one (`taker`)."""
        demand, pool = self._books.demand, slot.pool
        if pool.is_spare:
            return True
        giver, wanting = pool.key.account, taker.key.account
        turns = 1.0
        if giver == wanting:
            gives_up = pool.slots - 1 >= taker.slots + 1
        else:
            weights = self._books.limits.account_weights
            worth, other = weights.get(giver, USUAL_WEIGHT), weights.get(wanting, USUAL_WEIGHT)
            gives_up = (demand.held(giver) - 1) * other >= (demand.held(wanting) + 1) * worth
            turns = worth / other
        if gives_up:
            return True
        if giver == wanting:
            has, since = taker.slots, next(iter(taker.waiting.values()))
        else:
            # An account that takes its tasks back and sends others does not hold up those behind it.
            has, since = demand.held(wanting), taker.account.waits_since
        return not has and pool.account.served >= turns and now - since > self._books.limits.patience_s

    def check(self, limit_s: float) -> None:
        """Raise `BadRequest` for a task that may run for longer than any slot is there."""
        life_s = self._books.slot_life_s
        if life_s is not None and limit_s + LIFE_MARGIN_S > life_s:
            raise BadRequest(
                f"timeout_s: at most {max(0.0, life_s - LIFE_MARGIN_S):g} in this set, whose cluster ends each slot "
                f"{life_s:g} s after its start",
                field="timeout_s",
            )

    def retire(self, pool: Pool, limit_s: float, now: float) -> list[Decision]:
        """A task of the pool may run for `limit_s`: let go of slots whose cluster would end them before its end.

        An idle one stops now, one that is busy after its task.
        """
        books, pool.longest_s = self._books, max(pool.longest_s, limit_s)
        if books.slot_life_s is None:
            return []
        decisions: list[Decision] = []
        soonest = NEVER
        for slot in [*pool.idle, *pool.running]:
            spent_at = slot.ends_at - pool.longest_s - LIFE_MARGIN_S
            if spent_at > now:
                soonest = min(soonest, spent_at)
            elif slot.task_id is None:
                decisions.append(self.stop_idle(slot, now))
            else:
                slot.spent = True
        if soonest < NEVER:
            books.look_at(pool, soonest)
        return decisions

    def look(self, pool: Pool, decisions: list[Decision], now: float) -> None:
        """Retire slots that are no longer worth their place, start others ahead of need, and forget an unused pool."""
        books, times = self._books, pool.idle_times
        if books.slot_life_s is not None:
            if not (pool.waiting or pool.running or pool.paused):
                pool.longest_s = 0.0
            decisions += self.retire(pool, 0.0, now)
        if times is not None:
            times.learn()
        if not pool.waiting:
            for slot in overdue(pool, books.limits.keep_idle_s, now):
                decisions.append(self.stop_idle(slot, now))
        if times is not None:
            pool.foreseen = times.wanted(now)
        at = next_look(pool, books.limits.keep_idle_s, now)
        if at < NEVER and pool.is_unused and (pool in books.asleep or len(books.asleep) < ASLEEP_MOST):
            books.asleep[pool] = None
        else:
            books.asleep.pop(pool, None)
        books.file(pool, now)
        if pool.slots or pool in books.asleep:
            books.look_at(pool, at)
        elif pool.is_unused and now >= pool.retry_at and pool not in books.modest:
            books.forget_pool(pool)

    def stop_idle(self, slot: Slot, now: float) -> StopSlot:
        self.lose(slot, now)
        self._books.file(slot.pool, now)
        return StopSlot(slot.id)

    def stop_idle_on(self, node: Node, now: float) -> list[Decision]:
        """Stop the node's idle slots."""
        idle = [slot for slot in self._books.slots_on.get(node, ()) if slot in slot.pool.idle]
        return [self.stop_idle(slot, now) for slot in idle]

    def lose(self, slot: Slot, now: float) -> None:
        """The slot is gone; its place is free."""
        self._books.forget(slot, now)
        if self._books.cramped:
            self._books.try_cramped(slot.node, now)

    def _make_room_among_own(self, pool: Pool, decisions: list[Decision], now: float) -> bool:
        """The pool's account may have no other slot: an idle one of its others stops, or a spare task gives way.

        Returns whether the pool may have a slot now.
        """
        books = self._books
        victim = books.caps.giver(pool, books.givers)
        if victim is not None:
            decisions.append(self.stop_idle(victim, now))
            return True
        books.caps.hold_back(pool)
        books.file(pool, now)
        if books.spare_running:
            give_own_place(books, pool, decisions, now)
        return False

    def _others_find_places(self, pool: Pool) -> bool:
        """The pool finds no place. If that is because of what its nodes are, it does not hold up others."""
        books = self._books
        if books.parties is None and (self._alone or not (books.nodes.open or books.givers)):
            return False
        pool.wants = False
        books.demand.drop(pool)
        books.cramped[pool] = None
        if books.parties is not None:
            books.homeless[pool] = None
        return True

    @property
    def _alone(self) -> bool:
        """True if there is one node, and it suits every pool that has a slot."""
        only = self._books.nodes.only
        return only is not None and not only.kept_for and self._books.parties is None

    def _crowds(self, pool: Pool, node: Node) -> bool:
        """Return True if the pool has as many slots on the node as it could run there: more would do nothing."""
        slots = self._books.slots_on.get(node, ())
        return sum(slot.pool is pool for slot in slots) >= node.could_hold(pool.key)

    def _coldest_idle(self, wanting: Pool, crowds: Callable[[Node], bool] | None = None) -> Slot | None:
        """The slot, longest idle, that gives its place to a pool, on a node that suits it.

        `crowds`: see `Nodes.place`; with it, only nodes without a free place are looked at.
        """
        books, best = self._books, None
        alone = self._alone
        for pool in list(islice(books.givers, GIVERS_LIMIT)):
            if not pool.idle or (len(pool.waiting) >= len(pool.idle) and not pool.is_spare):
                del books.givers[pool]
            elif pool is not wanting:
                for slot in islice(pool.idle, SCAN_LIMIT):
                    if alone or self._may_take(slot, wanting, crowds):
                        if best is None or slot.since < best.since:
                            best = slot
                        break
        return best

    def _idle_of_richest(self, wanting: Pool, crowds: Callable[[Node], bool] | None) -> Slot | None:
        """An idle slot of the account that holds most places by weight, if it holds two more than the pool's account.

        Its tasks wait for cores beside it: with many pools, one account could hold all places with slots that idle.
        """
        demand, weight_of = self._books.demand, self._books.limits.weight_of
        accounts = list(islice(self._books.turns.pools, SCAN_LIMIT))
        richest = max(accounts, key=lambda account: demand.held(account.name) / account.weight, default=None)
        if (
            richest is None
            or (demand.held(richest.name) - 1) * weight_of(wanting.key.account) < richest.weight
        ):
            return None
        for pool in islice(self._books.turns.pools[richest], SCAN_LIMIT):
            for slot in islice(pool.idle, SCAN_LIMIT):
                if self._may_take(slot, wanting, crowds):
                    return slot
        return None

    def _may_take(self, slot: Slot, wanting: Pool, crowds: Callable[[Node], bool] | None) -> bool:
        node = slot.node
        if not node.suits(wanting.key):
            return False
        return crowds is None or (node not in self._books.nodes.open and not crowds(node))
