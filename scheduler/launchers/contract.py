"""The contract of a launcher. It only starts and stops slots on an engine; tasks never pass through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from scheduler.image import Image
from scheduler.policy.node import Standing
from scheduler.pool import PoolKey


class SlotOrder(msgspec.Struct, frozen=True):
    """One slot to be started.

    `token`, a secret, is what its guest will say in HELLO. `node` is where it must run; empty: the launcher chooses.
    """

    slot_id: str
    pool: PoolKey
    image: Image
    token: str
    node: str = ""


SlotGone = Callable[[str, str], None]
"""Called with (slot id, reason in words) when a slot's container ended or could not start; from the event loop."""


NodeStands = Callable[[str, Standing, str], None]
"""Called with (node, how it stands, why), when a cluster says so; from the event loop. A node that stands open has no
reason; "" names the set's own machine."""


class Launcher(Protocol):
    """All methods are called from the event loop and may raise `EngineUnavailable`.

    Two installations may have sets of one name on one engine or cluster. A launcher marks everything that it starts
    with its own (`scheduler.installation.identify`), and removes and reports only what bears that mark. It does not
    touch slots of another installation, or of none.
    """

    @property
    def slot_life_s(self) -> float | None:
        """How long after its start the cluster ends a slot, in seconds; None: never. Known once it is open."""

    async def open(self) -> None:
        """Connect, and begin to remove each slot that earlier runs of this installation's set left behind.

        No executor lets the guest of an earlier run in. Slots that cannot be removed within seconds are removed later,
        and keep no slot from starting. `open` may be called again after it failed.
        """

    async def close(self) -> None:
        """Stop every slot that this launcher started, and leave nothing behind. Never raises."""

    async def check(self) -> None:
        """Return when the engine answers; raise `EngineUnavailable` with the reason otherwise."""

    async def start(self, order: SlotOrder) -> None:
        """Start a slot; returns once its container runs. A start that fails, or is cancelled, leaves nothing behind.

        Raises `EngineRefused`, also for a slot that was started already or is stopped meanwhile, `NoRoom` where other
        slots reserve what it needs, `ImageUnknown`, `ImageUnusable`.
        """

    def ready(self, slot_id: str) -> None:
        """The slot's guest has said hello, so that the slot runs, whether or not the engine has said so. Never raises.

        From now on the executor reports its end as well. Unknown ids are fine.
        """

    async def stop(self, slot_id: str) -> None:
        """Destroy a slot; unknown ids are fine."""

    async def there(self) -> frozenset[str]:
        """Return the ids of the slots of which anything is left: those that start, run, or are being removed.

        It includes those that earlier runs of this installation's set left behind. A slot that is not in it has no
        process, and no file that it wrote.
        """

    async def was_out_of_memory(self, slot_id: str) -> bool:
        """Return True if the kernel killed the slot's own init for memory; False if unknown."""
