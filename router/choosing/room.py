"""A set's report of its room at a health check: build, cores, slots, queue. Pure.

A router counts requests; a set with ten tasks queued and all cores busy has none in flight when all of them are
asynchronous. So the set's own figures are shown beside the router's.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

MAX_BUILD_CHARS: Final = 80
_MOST: Final = 1 << 40
_N = TypeVar("_N", int, float)


class Room(msgspec.Struct, frozen=True):
    """A set's figures; None where it does not tell. Times are seconds.

    `slots`: those that exist, in any state; `queued`: tasks that wait for a slot, `oldest_wait_s` the longest of them.
    """

    build: str = ""
    cores: float | None = None
    cores_busy: float | None = None
    slots: int | None = None
    slots_max: int | None = None
    queued: int | None = None
    oldest_wait_s: float | None = None

    @property
    def saturated(self) -> bool:
        """Tasks wait, and every core, or every slot, is in use: more work only waits longer."""
        if not self.queued:
            return False
        return _used_up(self.cores_busy, self.cores) or _used_up(self.slots, self.slots_max)


class _Told(msgspec.Struct):
    """The members of `/readyz` that are read; a set may tell more, or less."""

    build: str = ""
    cores: float | None = None
    cores_busy: float | None = None
    slots_idle: int | None = None
    slots_starting: int | None = None
    slots_running: int | None = None
    slots_max: int | None = None
    tasks_waiting: int | None = None
    oldest_wait_seconds: float | None = None


def room_from(body: bytes) -> Room:
    """The figures in the body of a health check's answer; a body that cannot be understood tells nothing."""
    try:
        found = msgspec.json.decode(body, type=_Told)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Room()
    by_state = (found.slots_idle, found.slots_starting, found.slots_running)
    slots = None if None in by_state else sum(count or 0 for count in by_state)
    return Room(
        build="".join(sign if sign.isprintable() else "?" for sign in found.build[:MAX_BUILD_CHARS]),
        cores=_sane(found.cores),
        cores_busy=_sane(found.cores_busy),
        slots=_sane(slots),
        slots_max=_sane(found.slots_max),
        queued=_sane(found.tasks_waiting),
        oldest_wait_s=_sane(found.oldest_wait_seconds),
    )


def _sane(value: _N | None) -> _N | None:
    return value if value is not None and 0 <= value < _MOST else None


def _used_up(busy: float | None, all_: float | None) -> bool:
    return busy is not None and all_ is not None and 0 < all_ <= busy
