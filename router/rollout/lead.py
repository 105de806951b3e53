"""One turn of the worker that leads: what is new, judged, and where it moves the rollout. Pure.

`leader.py` takes the turn with the state file and the tallies of all workers, `world.py` with a made-up data plane.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from router.counting.tally import Tally
from router.rollout.analysis import analyse
from router.rollout.certainty import telling
from router.rollout.glide import Load
from router.rollout.lately import Lately
from router.rollout.orders import others_of
from router.rollout.progress import advance
from router.rollout.record import AskGate, Edited, Gone, Happening, Progress, Tick
from router.rollout.sight import sight_of
from router.rollout.states import Phase
from router.routing.table import SetState, Table

_UNTOLD: Final[Mapping[str, str]] = {}


class Evidence(NamedTuple):
    """The workers' tallies of one stint, and each set's load now."""

    canary: Tally
    control: Tally
    loads: Mapping[str, Load]


class Lead:
    """Keeps the pieces of the evidence between the turns of one leader; another leader begins its own."""

    def __init__(self) -> None:
        self._lately = Lately()

    def turn(
        self,
        progress: Progress,
        file: Table,
        seen: Callable[[int], Evidence],
        now: float,
        builds: Mapping[str, str] = _UNTOLD,
    ) -> tuple[Progress, list[AskGate]]:
        """The progress after this turn, and the gates to ask.

        `file`: the table of the operators' file, without the rollout's weights. `seen`: the evidence of a stint, asked
        for only while a rollout runs. `now`: seconds since the epoch. `builds`: what sets told at their health checks.
        """
        found: list[Evidence] = []

        def kept(stint: int) -> Evidence:
            found.append(seen(stint))
            return found[-1]

        comparing = progress.comparing
        gates: list[AskGate] = []
        for happening in self._happenings(progress, file, kept, builds):
            progress, asked = advance(progress, happening, now)
            gates += asked
        if comparing and found:
            # After an abort, the evidence that decided it stays in sight.
            analysis = progress.analysis or progress.last_analysis
            sight = sight_of(progress.run, analysis, found[-1].canary, found[-1].control)
            progress = msgspec.structs.replace(progress, sight=sight)
        return progress, gates

    def _happenings(
        self,
        progress: Progress,
        file: Table,
        seen: Callable[[int], Evidence],
        builds: Mapping[str, str],
    ) -> list[Happening]:
        """Return the news: first the file, then the clock."""
        found: list[Happening] = [Edited(file.default.shares, file.version, file.sets.keys(), builds)]
        plan = progress.plan
        if plan is None or not progress.running:
            return found
        entry = file.sets.get(plan.set)
        if entry is None:
            return [Gone(), *found]
        if file.rollout is None:
            found.append(Gone(set_left=False))
        canary, control, loads = seen(progress.stint)
        analysis = None
        if progress.comparing:
            look = self._lately.look(progress, canary, control)
            if progress.without_control:
                control = progress.baseline or Tally()
                look = look.against(control)
            analysis = analyse(
                plan, canary, control, look, step=progress.step, elsewhen=progress.without_control
            )
            if progress.phase is Phase.WAITING and not progress.without_control:
                analysis = telling(plan, analysis, canary, control, look, progress.step, progress.clock_s)
        ready = entry.state is SetState.READY
        found.append(Tick(analysis, control, loads, ready, others_of(file, progress)))
        return found
