"""Decides how fast weight may move when sets must take over: at once if they can carry it, else in bounded moves. Pure.

Operators want an instant rollback, but done blindly it kills the old set: it has a few slots warm for 5 %, and 70 %
arrive at once. So with each move the growing sets may at most double what they carry, within what `max_inflight`
leaves; a set that carried the share moments ago gets it back at once. Moves follow each other every `MOVE_EVERY_S`. If
the sets have no room this would never end, so the last `FORCED_MOVES` of `MAX_MOVES` go evenly to the target in any
case: a sick canary must be gone within a minute.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

import msgspec

from router.routing.table import WEIGHT_TOTAL

MOVE_EVERY_S: Final = 5.0
MAX_MOVES: Final = 12
FORCED_MOVES: Final = 6
GROWTH: Final = 2.0
FIRST_SHARE: Final = 500
"""First weight of a set that carried nothing, in hundredths of a percent."""
ROOM_USED: Final = 0.8
"""Share of `max_inflight` that a move may fill, counted by the requests in flight now."""
WARM_S: Final = 300.0
"""Time in seconds within which a set gets back at once a share that it carried."""
WARM_MORE: Final = 1.1
"""Factor by which that share may be exceeded."""


class Load(msgspec.Struct, frozen=True):
    """A set's requests in flight, and their maximum (None: no limit), over all workers."""

    inflight: int = 0
    max_inflight: int | None = None

    def growth(self) -> float:
        """Return the factor by which its share may grow before `max_inflight` is near."""
        if self.max_inflight is None or self.inflight == 0:
            return inf
        return max(1.0, ROOM_USED * self.max_inflight / self.inflight)


def next_weight(
    weight: int, target: int, *, growing: Iterable[Load], warm: int = 0, moves_left: int = MAX_MOVES
) -> int:
    """Return the canary's weight after the next move from `weight` towards `target`, in hundredths of a percent.

    `growing`: the load of the sets that take over (the others when it falls, the canary when it rises). `warm`: a share
    that they are known to carry together, as far as `max_inflight` still agrees.
    """
    if weight == target:
        return target
    falling = target < weight
    carried = WEIGHT_TOTAL - weight if falling else weight
    wanted = WEIGHT_TOTAL - target if falling else target
    room = min((load.growth() for load in growing), default=inf)
    # Doubling from next to nothing takes long and protects nobody.
    freely = max(carried * GROWTH, FIRST_SHARE, warm * WARM_MORE)
    share = int(min(freely, carried * room if carried else freely))
    share = max(share, carried)
    if moves_left <= FORCED_MOVES:
        share = max(share, carried - (carried - wanted) // max(1, moves_left))
    share = min(wanted, share)
    return WEIGHT_TOTAL - share if falling else share
