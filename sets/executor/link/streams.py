"""The slots and streams of a link, as the set's end keeps them."""

from __future__ import annotations

from sets.executor.link.flow import Inbound, Outbound
from sets.executor.link.lease import clock_s
from sets.executor.run import SlotRun


class Slot:
    """A slot on the node. `since`: the time from which the CPU time of its next report counts."""

    __slots__ = ("busy", "ready", "run", "since")

    def __init__(self) -> None:
        self.ready = False
        self.busy = False
        self.run: int | None = None
        self.since = 0.0


class Stream:
    """A program that runs, or whose output is still to come; or an output file that is read."""

    __slots__ = ("began", "channels", "run", "slot_id", "stdin")

    def __init__(self, slot_id: str = "", run: SlotRun | None = None, stdin: Outbound | None = None) -> None:
        self.slot_id = slot_id
        self.run = run
        self.stdin = stdin
        self.channels: dict[int, Inbound] = {}
        self.began = clock_s()

    def end(self, reason: str) -> None:
        if self.stdin is not None:
            self.stdin.refuse()
        for inbound in self.channels.values():
            inbound.end(reason)
