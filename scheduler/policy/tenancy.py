"""Which accounts a node serves: all that share nodes, or one alone that needs nodes of its own. Pure.

A node that serves one account is that account's alone, until the last of its slots has ended and everything of them is
gone from the machine. Only then is it anybody else's.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

SHARERS: Final = ""
"""The party of all accounts that share nodes. Every other party is one account, and has its name."""


class Tenancy(StrEnum):
    """The slots that those of an account may have beside them on a node."""

    SHARED = "shared"
    """Slots of other accounts, walled off by their containers."""
    DEDICATED = "dedicated"
    """Nothing: the node serves this account alone, so that the machine is the wall."""


class Use(StrEnum):
    """The state of a node's tenancy."""

    FREE = "free"
    """It has no slot, and takes one of any party."""
    HELD = "held"
    """It takes slots of its tenant."""
    EMPTIED = "emptied"
    """It takes no slot: those of its tenant end, because its heir needs it."""
    KEPT = "kept"
    """It has no slot, and takes only those of its heir."""


_MOVES: Final = {
    # The first slot starts; the last one is gone.
    Use.FREE: {Use.HELD},
    Use.HELD: {Use.FREE, Use.EMPTIED},
    # The heir needs it no longer; the last slot is gone.
    Use.EMPTIED: {Use.HELD, Use.KEPT},
    # The heir's first slot starts; the heir needs it no longer.
    Use.KEPT: {Use.HELD, Use.FREE},
}
"""The legal moves of a node's tenancy."""


class Tenure:
    """The tenancy of one node. It outlives the node's absence: what was left there is still there when it is back.

    `since`: when the tenant's first slot started, on the cell's clock.
    """

    __slots__ = ("ended", "heir", "living", "node_id", "parties", "since", "tenant", "use")

    def __init__(self, node_id: str, parties: Parties) -> None:
        self.node_id = node_id
        self.parties = parties
        self.use = Use.FREE
        self.tenant: str | None = None
        self.heir: str | None = None
        self.since = 0.0
        # How many slots it has, and the ids of those that have ended but are not known to be gone.
        self.living = 0
        self.ended: set[str] = set()

    def admits(self, account: str) -> bool:
        """Return True if a slot of the account may start on the node now."""
        use = self.use
        if use is Use.EMPTIED or self.parties.wait_for_leftovers:
            return False
        if use is Use.FREE:
            return True
        party = self.parties.of(account)
        return party == (self.tenant if use is Use.HELD else self.heir)

    def holder(self) -> str | None:
        """The party that the node serves, or is about to serve; None where it is free."""
        return self.heir if self.heir is not None else self.tenant

    def slot_added(self, account: str, now: float) -> None:
        """A slot of the account starts."""
        if self.use is not Use.HELD:
            self._move(Use.HELD)
            self.tenant, self.heir, self.since = self.parties.of(account), None, now
        assert self.tenant == self.parties.of(account)
        self.living += 1

    def slot_ended(self, slot_id: str) -> None:
        """A slot is no longer used; `slot_removed` follows when nothing of it is left on the machine."""
        self.living -= 1
        self.ended.add(slot_id)

    def slot_removed(self, slot_id: str) -> bool:
        """Nothing of the slot is left; returns True if that was the last of the tenant."""
        self.ended.discard(slot_id)
        if self.living or self.ended or self.tenant is None:
            return False
        self._move(Use.KEPT if self.use is Use.EMPTIED else Use.FREE)
        self.tenant = None
        return True

    def promise(self, heir: str) -> None:
        """The node is to be emptied for this party."""
        self._move(Use.EMPTIED)
        self.heir = heir

    def withdraw(self) -> None:
        """The heir needs the node no longer; harmless where it has none."""
        if self.heir is not None:
            self._move(Use.HELD if self.use is Use.EMPTIED else Use.FREE)
            self.heir = None

    def _move(self, use: Use) -> None:
        if use not in _MOVES[self.use]:
            raise AssertionError(f"the tenancy of node {self.node_id} cannot go from {self.use} to {use}")
        self.use = use


class Parties:
    """Tells which accounts share nodes, and keeps the tenure of each node by its name.

    `usual`: the tenancy of accounts that `by_account` does not name. `wait_for_leftovers`: slots of an earlier run of
    the set may still be on any node, so no slot may start.
    """

    def __init__(self, usual: Tenancy, by_account: Mapping[str, Tenancy]) -> None:
        self.wait_for_leftovers = False
        self._usual = usual
        self._by_account = by_account
        self._tenures: dict[str, Tenure] = {}
        self._ended: dict[str, Tenure] = {}

    def of(self, account: str) -> str:
        """The party of the account."""
        tenancy = self._by_account.get(account, self._usual)
        return account if tenancy is Tenancy.DEDICATED else SHARERS

    def tenure(self, node_id: str) -> Tenure:
        """The tenure of a node that joins."""
        tenure = self._tenures.get(node_id)
        if tenure is None:
            tenure = self._tenures[node_id] = Tenure(node_id, self)
        return tenure

    def slot_ended(self, tenure: Tenure, slot_id: str) -> None:
        """A slot on the node is no longer used."""
        tenure.slot_ended(slot_id)
        self._ended[slot_id] = tenure

    def slot_removed(self, slot_id: str) -> str | None:
        """Nothing of the slot is left; returns the name of the node if it has just become empty."""
        tenure = self._ended.pop(slot_id, None)
        return tenure.node_id if tenure is not None and tenure.slot_removed(slot_id) else None

    def forget(self, node_id: str) -> None:
        """The node is away: forget its tenure, unless something of a slot may be left there."""
        tenure = self._tenures.get(node_id)
        if tenure is not None and tenure.use is Use.FREE:
            del self._tenures[node_id]
