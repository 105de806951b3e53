"""One slot of a cluster as its launcher sees it: how its start goes, and what its failure means for the caller."""

from __future__ import annotations

import asyncio

from scheduler.errors import EngineRefused, EngineUnavailable, ImageDenied, ImageUnknown, SchedulerError
from scheduler.image import Image
from scheduler.images.reference import parse_reference
from scheduler.launchers.contract import SlotOrder
from scheduler.launchers.nomad.words import Kind


class Start:
    """A slot from its order on.

    `outcome` ends when the slot runs or cannot; `gone` is the reason of an end that came before the start returned.
    `connected`: its guest has said hello.
    """

    __slots__ = ("blocked", "connected", "gone", "kind", "order", "outcome", "returned", "words")

    def __init__(self, order: SlotOrder) -> None:
        self.order = order
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Retrieved, whether or not anybody still waits for it.
        self.outcome.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.kind = Kind.NOT_EVALUATED
        self.words = "its job is not registered yet"
        self.returned = False
        self.connected = False
        self.gone: str | None = None
        self.blocked: asyncio.TimerHandle | None = None

    @property
    def started(self) -> bool:
        """True if it ran."""
        return self.outcome.done() and not self.outcome.cancelled() and self.outcome.exception() is None

    def succeed(self) -> None:
        if not self.outcome.done():
            self.outcome.set_result(None)

    def fail(self, error: SchedulerError) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)

    def wait_no_longer(self) -> None:
        """Stop the timer of a slot that the cluster could not place."""
        if self.blocked is not None:
            self.blocked.cancel()
            self.blocked = None

    def error(self, kind: Kind, words: str) -> SchedulerError:
        """The error for a slot that could not start."""
        reference = self.order.image.reference
        if kind is Kind.IMAGE_UNKNOWN:
            return ImageUnknown(f"{reference}: {words}")
        if kind is Kind.REGISTRY_DENIED:
            return ImageDenied(f"{reference}: {words}")
        if kind is Kind.REGISTRY_DOWN:
            return EngineUnavailable(f"{reference}: {words}")
        return EngineRefused(words)


def run_name(image: Image) -> str:
    """The name by which a node runs an image: by digest where a registry gave one, else the id of a local image."""
    if image.location:
        return image.location
    if image.digest == image.image_id:
        return image.image_id
    reference = parse_reference(image.reference)
    return f"{reference.repository}@{image.digest}" if reference.repository else image.image_id
