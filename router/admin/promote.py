"""Promoting a rollout by hand: through all steps that are left, to the last one's weight, without waiting."""

from __future__ import annotations

from typing import Any, Protocol

from router.rollout.orders import ANYHOW, Given
from router.rollout.states import NotAllowed


class Control(Protocol):
    """The part of `rollout.runner.Runner` that promotion uses."""

    def status(self) -> dict[str, Any]: ...

    async def command(
        self, verb: str, by: str = "", why: str = "", *, force: bool = False, given: Given = ANYHOW
    ) -> dict[str, Any]: ...


async def promote(
    control: Control, by: str = "", why: str = "", *, force: bool = False, given: Given = ANYHOW
) -> dict[str, Any]:
    """Skip step after step (each is an event of its own) until none is left. Returns the last status.

    An abort or a failed check in between ends it. Raises `NotAllowed` if there is nothing to skip, and `Moved` if the
    rollout is not the one that the order was `given` for, or another one was started in between.
    """
    status = control.status()
    if "skip" not in status["orders"]:
        raise NotAllowed(f"a rollout that is {status['phase']} cannot be promoted")
    reason = f"promoted: {why}" if why else "promoted"
    # A step with a gate takes two: into it, and out of it.
    for _ in range(2 * int(status["of"])):
        status = await control.command("skip", by, reason, force=force, given=given)
        given = Given(run=status["run"])
        if "skip" not in status["orders"]:
            break
    return status
