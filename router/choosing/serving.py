"""The sets that would serve requests under a table, by their states and their health now. Pure.

One rule guards every order that moves weight, from the command line, the admin address and the page alike: an order
must not take away the last set that serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from router.routing.rules import IfDown
from router.routing.table import SetState, Table, Weights

SERVING: Final = frozenset({"up", "slow start"})
"""The words of `HealthBoard.word` for a set that gets new work. An ejected set gets some only while no set is well."""

Health = Mapping[str, str]
"""The health word of each set; a set that is missing is taken for well: nobody has asked it yet."""

UNKNOWN: Final[Health] = {}


def serves(table: Table, name: str, health: Health) -> bool:
    """Return True if a set of the table takes new work: it is `ready`, and not known to be unwell."""
    return table.sets[name].state is SetState.READY and health.get(name, "up") in SERVING


def away(table: Table, name: str, health: Health) -> str:
    """Why a set takes no new work: its state in the file, else its health."""
    state = table.sets[name].state
    return str(state) if state is not SetState.READY else health.get(name, "up")


def unserved(table: Table, health: Health) -> dict[str, str]:
    """The parts of the table without a set that takes new work, by name, with each set's reason.

    Parts are the default weights, and every rule that refuses a request rather than let the default have it. A part in
    which no set has a weight counts, too.
    """
    parts = [("the default weights", table.default)]
    parts += [(f"rule {rule.name}", rule.weights) for rule in table.rules if rule.if_down is IfDown.FAIL]
    return {
        part: ", ".join(f"{name} is {away(table, name, health)}" for name in _weighted(weights))
        for part, weights in parts
        if not any(serves(table, name, health) for name in _weighted(weights))
    }


def leaves_nobody(before: Table | None, after: Table, health: Health) -> str:
    """Say why an order that turns `before` into `after` is refused; "" allows it.

    An order is refused if a part that some set serves now would then have none. `before` None: nobody knows what is
    served now, so every part counts as served.
    """
    already = unserved(before, health) if before is not None else {}
    new = [(part, why) for part, why in unserved(after, health).items() if part not in already]
    if not new:
        return ""
    part, why = new[0]
    others = len(new) - 1
    more = f" (and {others} more part{'' if others == 1 else 's'})" if others else ""
    return f"no set would take new requests of {part}{more}: {why or 'none has a weight'}"


def _weighted(weights: Weights) -> list[str]:
    return [entry.name for entry in weights.entries if weights.shares.get(entry.name, 0) > 0]
