"""TCP ports for servers that a test starts by number. Nobody else gets the same port while this test process lives.

A port that the kernel gives out is free only at that moment: until its server starts, or while it is down, another
connection may get it; and a port on which nobody should listen may get a listener. So ports are taken from below the
kernel's own range, and claimed against other test processes by a name that only one can hold.
"""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

LOWEST = 16_000
KERNELS_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

_claims: list[socket.socket] = []
"""Never closed: the kernel gives up a claim with the process."""


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens and that is given out once."""
    below = int(KERNELS_RANGE.read_text().split()[0])
    for port in random.SystemRandom().sample(range(LOWEST, below), 100):
        with suppress(OSError), socket.socket(socket.AF_UNIX) as claim:
            claim.bind(f"\0general-compute-tests-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
            _claims.append(claim.dup())
            return port
    raise RuntimeError(f"none of 100 ports between {LOWEST} and {below} was free")


def free_network() -> str:
    """The first three numbers of loopback addresses that are given out once, such as `127.9.200`."""
    for number in random.SystemRandom().sample(range(1 << 15), 100):
        network = f"127.{100 + (number >> 8)}.{number & 0xFF}"
        with suppress(OSError), socket.socket(socket.AF_UNIX) as claim:
            claim.bind(f"\0general-compute-tests-network-{network}")
            _claims.append(claim.dup())
            return network
    raise RuntimeError("none of 100 networks of loopback addresses was free")
