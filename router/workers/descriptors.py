"""How many connections fit into the file descriptors that a process may have. Pure."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from router.errors import RouterError
from router.wire.limits import Limits

KEPT_BACK: Final = 64
"""Descriptors kept for health checks, merged lists, the admin address, files and logs; a quarter of them, if there are
few."""


class TooFewDescriptors(RouterError):
    """The process may have too few file descriptors to serve any client."""


def fitted(limits: Limits, descriptors: int, open_now: int) -> Limits:
    """Return `limits` with at most as many connections as `descriptors` allow, of which `open_now` are already open.

    A tenth of the room is for kept connections to sets; silent clients may use the rest. Raises `TooFewDescriptors`.
    """
    room = descriptors - open_now - min(KEPT_BACK, descriptors // 4)
    idle = min(limits.idle_connections, room // 10)
    if room - idle < 2:
        raise TooFewDescriptors(
            f"of {descriptors} file descriptors {open_now} are open already: no client could be served; raise the "
            "limit (ulimit -n, LimitNOFILE=, --ulimit nofile=)"
        )
    return replace(
        limits,
        descriptors=min(limits.descriptors, room),
        connections=min(limits.connections, room - idle - 1),
        idle_connections=idle,
    )
