"""What a rollout keeps in force over the operators' file, as commands that edit or compare files must know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router.table import Table

ENDED = ("done", "aborted")


@dataclass(frozen=True, slots=True)
class Force:
    """A set and its weight, in hundredths of a percent; `others`: what the other sets share where the file gives them
    nothing; `phase` of the rollout."""

    set: str
    weight: int
    others: Mapping[str, int]
    phase: str
    dry_run: bool

    @classmethod
    def of(cls, rollout: Mapping[str, Any] | None) -> Force | None:
        """From the `rollout` of a router's status; None: the file's weights count."""
        told = rollout.get("in_force") if rollout else None
        if rollout is None or told is None:
            return None
        weight = round(float(told["weight"]) * 100)
        return cls(told["set"], weight, told["others"], rollout["phase"], bool(rollout["dry_run"]))

    @property
    def ended(self) -> bool:
        return self.phase in ENDED

    @property
    def words(self) -> str:
        kind = "rollout before the dry run" if self.dry_run else "rollout"
        phase = "" if self.dry_run else f", which is {self.phase},"
        return f"the {kind} of {self.set}{phase} has {self.set} at {self.weight / 100:g} %"

    def over(self, table: Table) -> Table:
        """The table with these weights on top."""
        from router.rollout.overlay import overlay

        return overlay(table, self.set, self.weight, self.others)

    def stays(self, before: Table, after: Table) -> bool:
        """Whether these weights go on when `after` takes the place of `before`: edited weights count, except that they
        keep no set that is being taken back."""
        return self.phase == "aborting" or above_zero(before) == above_zero(after)

    def after(self, before: Table, after: Table) -> Table:
        """What is in force once `after` has taken the place of `before`."""
        return self.over(after) if self.stays(before, after) else after


def above_zero(table: Table) -> dict[str, int]:
    """The default weights, without those that are 0."""
    return {name: share for name, share in table.default.shares.items() if share > 0}
