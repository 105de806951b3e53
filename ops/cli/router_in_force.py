"""The state of the running router that commands take into account: the weights that a rollout keeps in force over
the file, and which sets are up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from router.routing.table import Table

ENDED: Final = ("done", "aborted", "idle")
"""Phases in which a rollout moves no weight. An idle one still keeps a barred set at 0."""


@dataclass(frozen=True, slots=True)
class InForce:
    """A rollout's weights in force: its set and that one's weight, in hundredths of a percent; `others`: the weights of
    the other sets where the file gives them none; `phase` of the rollout."""

    set: str
    weight: int
    others: Mapping[str, int]
    phase: str
    dry_run: bool
    barred: bool = False
    """The set was taken back: its weight is 0 until the file gives it another one than before."""

    @classmethod
    def of(cls, rollout: Mapping[str, Any] | None) -> InForce | None:
        """Read the `rollout` of a router's status; None: the file's weights are in force."""
        told = rollout.get("in_force") if rollout else None
        if rollout is None or told is None:
            return None
        weight = round(float(told["weight"]) * 100)
        return cls(
            told["set"],
            weight,
            told["others"],
            rollout["phase"],
            bool(rollout["dry_run"]),
            any(bar["set"] == told["set"] for bar in rollout.get("barred", ())),
        )

    @property
    def ended(self) -> bool:
        return self.phase in ENDED

    @property
    def words(self) -> str:
        kind = "rollout before the dry run" if self.dry_run else "rollout"
        phase = "" if self.dry_run else f", which is {self.phase},"
        return f"the {kind} of {self.set}{phase} has {self.set} at {self.weight / 100:g} %"

    def over(self, table: Table) -> Table:
        """Return the table with these weights in place of the file's."""
        from router.rollout.overlay import overlay

        return overlay(table, self.set, self.weight, self.others)

    def stays(self, before: Table, after: Table) -> bool:
        """True if these weights stay in force when `after` replaces `before`: edited weights replace them, but cannot
        keep a set that is being taken back, nor one that was, unless its own weight was edited."""
        if self.phase == "aborting" or above_zero(before) == above_zero(after):
            return True
        share = after.default.shares.get(self.set, 0)
        return self.barred and share in (0, before.default.shares.get(self.set, 0))

    def after(self, before: Table, after: Table) -> Table:
        """Return the table in force once `after` has replaced `before`."""
        return self.over(after) if self.stays(before, after) else after


@dataclass(frozen=True, slots=True)
class Live:
    """The router that reads a file: `in_force`, each set's address and health word, and the `barred` sets, which a
    rollout took back, as the router's status shows them.

    Without an answer nothing is known, and every set counts as healthy.
    """

    in_force: InForce | None = None
    health: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    barred: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, status: Mapping[str, Any]) -> Live:
        """Read a router's status."""
        seen = {name: (str(each["url"]), str(each["health"])) for name, each in status["sets"].items()}
        rollout = status.get("rollout") or {}
        return cls(InForce.of(rollout), seen, tuple(rollout.get("barred", ())))

    def leaves_nobody(self, before: Table | None, after: Table) -> str:
        """Return why no set would take new requests with `after` in the file; empty if one would, or if `before` has
        the same problem."""
        from router.choosing.serving import leaves_nobody

        if self.in_force is None:
            return leaves_nobody(before, after, self._health(after))
        then = self.in_force.after(before, after) if before is not None else after
        return leaves_nobody(
            None if before is None else self.in_force.over(before), then, self._health(after)
        )

    def remarks(self, before: Table | None, after: Table) -> list[str]:
        """Return a sentence for each set that gets more weight, or is made `ready`, although it is down."""
        from router.choosing.serving import away, serves

        health = self._health(after)
        return [
            f"{name} is {away(after, name, health)}: until it is up, the other sets take its share"
            for name, share in after.default.shares.items()
            if share > (before.default.shares.get(name, 0) if before is not None else 0)
            and not serves(after, name, health)
        ]

    def _health(self, table: Table) -> dict[str, str]:
        # A set at another address is another process, whose health is not known yet.
        return {
            name: word
            for name, (url, word) in self.health.items()
            if name in table.sets and table.sets[name].url == url
        }


def above_zero(table: Table) -> dict[str, int]:
    """Return the default weights that are not 0."""
    return {name: share for name, share in table.default.shares.items() if share > 0}
