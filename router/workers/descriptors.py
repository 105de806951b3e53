"""How many connections fit into the file descriptors that a process may have. Pure."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from router.errors import RouterError
from router.wire.limits import Limits

KEPT_BACK: Final = 64
"""For health checks, merged lists, the admin address, files and logs; a quarter, where there are few in all."""


class TooFewDescriptors(RouterError):
    """The process may have too few file descriptors to serve anybody."""


def fitted(limits: Limits, descriptors: int, open_now: int) -> Limits:
    """`limits` with no more connections than `descriptors` allow, of which `open_now` are open already.

    A tenth of the room is for kept connections to sets; clients may have the rest, as long as they are silent. Raises
    `TooFewDescriptors`.
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
