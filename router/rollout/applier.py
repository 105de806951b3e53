"""Puts in force what the operators' file and the rollout's progress say together. No I/O."""

from __future__ import annotations

from typing import Protocol

from router.counting.observer import Observer
from router.rollout.orders import in_force
from router.rollout.record import Progress
from router.routing.table import Table


class Plane(Protocol):
    """The data plane, as far as a rollout changes it."""

    observer: Observer | None

    @property
    def table(self) -> Table: ...

    def adopt(self, table: Table) -> None: ...


class Applier:
    """Changes the table of `plane` only where file or rollout ask for another, and has `observer` watch the cohorts."""

    def __init__(self, plane: Plane, observer: Observer) -> None:
        self._plane = plane
        self._observer = observer
        self._file: Table | None = None
        self._in_force: tuple[tuple[str, int] | None, frozenset[str]] = (None, frozenset())

    def apply(self, file: Table, progress: Progress) -> bool:
        """Returns whether the file, or the rollout's weight, differs from the last call."""
        plane, observer = self._plane, self._observer
        in_force_now = progress.in_force, frozenset(progress.barred)
        changed = file is not self._file or in_force_now != self._in_force
        if changed:
            self._file, self._in_force = file, in_force_now
            table = in_force(file, progress)
            if table is not plane.table:
                plane.adopt(table)
        if progress.comparing and progress.plan is not None:
            default = plane.table.default
            plan = progress.plan
            observer.watch(progress.stint, plan.set, default, plan.judge_by, plan.shared_addresses)
            plane.observer = observer
        else:
            observer.rest()
            plane.observer = None
        return changed
