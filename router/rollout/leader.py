"""The leader's part: adds up what all workers saw, judges it, and moves the state on. Blocking file I/O."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from router.rollout.lead import Evidence, Lead
from router.rollout.progress import advance
from router.rollout.record import AskGate, GateSaid, Progress
from router.rollout.statefile import Lease, LeaseLost, StateFile
from router.rollout.tallies import Tallies, cohorts, loads
from router.routing.table import Table

_UNTOLD: Final[Mapping[str, str]] = {}
TICK_EVERY_S: Final = 1.0
SAVE_EVERY_S: Final = 2.0
"""Held seconds are saved this often; what really changes, at once."""
TRY_EVERY_S: Final = 1.0


class Leader:
    """Call `turn` about twice a second; it leads if nobody else does."""

    def __init__(
        self, state: StateFile, tallies: Tallies, clock: Callable[[], float], name: str = ""
    ) -> None:
        self._state = state
        self._lease = Lease(state, name)
        self._tallies = tallies
        self._clock = clock
        self._ahead: Progress | None = None
        """Our progress since it was saved; it counts as long as nobody else changed what is on the disk."""
        self._lead = Lead()
        self._saved_at = 0.0
        self._ticked_at = 0.0
        self._tried_at = -TRY_EVERY_S

    @property
    def leading(self) -> bool:
        return self._lease.epoch is not None

    @property
    def epoch(self) -> int | None:
        """The epoch that is ours; None while we do not lead."""
        return self._lease.epoch

    def turn(
        self, file: Table, builds: Mapping[str, str] = _UNTOLD
    ) -> tuple[Progress, tuple[AskGate, ...]] | None:
        """Tick if due; the progress and what to ask. `builds`: as of `Lead.turn`.

        None: another one leads, or nothing is due. `RolloutError`."""
        now = self._clock()
        if not self.leading:
            if 0.0 <= now - self._tried_at < TRY_EVERY_S:
                return None
            self._tried_at = now
            if not self._lease.take():
                return None
        if 0.0 <= now - self._ticked_at < TICK_EVERY_S:
            return None
        self._ticked_at = now
        asked: list[AskGate] = []

        def step(progress: Progress) -> Progress:
            progress, gates = self._lead.turn(
                progress, file, lambda stint: self._seen(stint, now), now, builds
            )
            asked.extend(gates)
            return progress

        progress = self._change(step, now)
        return None if progress is None else (progress, tuple(asked))

    def note(self, happening: GateSaid) -> None:
        """Something that was waited for. `RolloutError`."""
        now = self._clock()
        self._change(lambda progress: advance(progress, happening, now)[0], now)

    def mark_posted(self, serial: int) -> None:
        """The events up to `serial` were posted. `RolloutError`."""
        self._change(
            lambda progress: msgspec.structs.replace(progress, posted=max(progress.posted, serial)),
            self._clock(),
        )

    def drop(self) -> None:
        """Save the progress that is not on the disk yet, and stop leading."""
        if self.leading and self._ahead is not None:
            self._saved_at = 0.0
            with contextlib.suppress(Exception):
                self._change(lambda progress: msgspec.structs.replace(progress), self._clock())
        self._lease.drop()

    def _change(self, step: Callable[[Progress], Progress], now: float) -> Progress | None:
        """Change the state where it is worth a write, else keep it in mind."""
        ahead: list[Progress] = []

        def write(disk: Progress) -> Progress:
            mine = self._ahead
            base = mine if mine is not None and mine.revision == disk.revision else disk
            changed = step(base)
            ahead.append(changed)
            due = abs(now - self._saved_at) >= SAVE_EVERY_S and changed is not base
            if due or _worth(changed) != _worth(disk):
                self._saved_at = now
                return changed
            return disk

        try:
            disk = self._state.change(write, epoch=self._lease.epoch)
        except LeaseLost:
            self._ahead = None
            self._lease.drop()
            return None
        self._ahead = msgspec.structs.replace(ahead[0], revision=disk.revision)
        return self._ahead

    def _seen(self, stint: int, now: float) -> Evidence:
        views = self._tallies.read(stint)
        return Evidence(*cohorts(views, now), loads(views, now))


def _worth(progress: Progress) -> object:
    """The fields that must be on the disk before they count."""
    return (
        progress.phase,
        progress.stint,
        progress.weight,
        progress.hands_off,
        progress.base,
        progress.posted,
        progress.last_event,
    )
