"""How many connections fit into the file descriptors that a process may have. Pure."""

from __future__ import annotations

from dataclasses import replace

from .errors import RouterError
from .wire.limits import Limits

KEPT_BACK = 64
"""For health checks, merged lists, the admin address, files and logs; a quarter, where there are few in all."""


class TooFewDescriptors(RouterError):
    """The process may have too few file descriptors to serve anybody."""


def fitted(limits: Limits, descriptors: int, open_now: int) -> Limits:
    """`limits` with no more connections than `descriptors` allow, of which `open_now` are open already.

    Each client may need a connection to a set, so they get as many; of what is left, kept ones may stay idle.
    Raises `TooFewDescriptors`.
    """
    room = descriptors - open_now - min(KEPT_BACK, descriptors // 4)
    connections = min(limits.connections, room * 2 // 5)
    if connections < 1:
        raise TooFewDescriptors(
            f"of {descriptors} file descriptors {open_now} are open already: no client could be served; raise the "
            "limit (ulimit -n, LimitNOFILE=, --ulimit nofile=)"
        )
    return replace(
        limits,
        connections=connections,
        idle_connections=min(limits.idle_connections, room - 2 * connections),
    )
