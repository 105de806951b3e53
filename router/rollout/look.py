"""Evidence beside the tallies of a stint: its latest window, and what its slices say. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from router.counting.tally import Tally
from router.routing.plan import CheckName

Proof = Mapping[CheckName, float]
"""The log of the evidence that a check's rate is worse than allowed (`eprocess`)."""

NO_PROOF: Final[Proof] = MappingProxyType({})


class Window(NamedTuple):
    """Tallies of the latest window; `number` counts the stint's windows from 1."""

    canary: Tally
    control: Tally
    number: int
    proof: Proof = NO_PROOF

    @property
    def part(self) -> float:
        """Its part of the chance of a false alarm: over however many windows, together not more than one."""
        return 1.0 / (self.number * (self.number + 1))


class Look(NamedTuple):
    """The pieces of the evidence, read. `window`: None in the first one, which is the whole. `warm`: what came
    after both sets had settled; None: all. `clumps`: how many requests of canary and control count as one independent
    one."""

    window: Window | None = None
    warm: tuple[Tally, Tally] | None = None
    clumps: tuple[float, float] = (1.0, 1.0)
    proof: Proof = NO_PROOF
    bursts: Mapping[CheckName, float] = NO_PROOF
    """How many requests of the canary count as one for a check of rates, as errors come in bursts."""

    def against(self, control: Tally) -> Look:
        """Evidence against an earlier control, used when no current one exists."""
        window = self.window and self.window._replace(control=control, proof=NO_PROOF)
        return Look(window, bursts=self.bursts)


EVERYTHING: Final = Look()
