"""Tells a set that takes long from a set whose machine is cut off or dead, by the packets alone.

A task may be silent for many minutes, and a set that does not read an upload for a while is no failure either. Its
machine acknowledges all the same: the kernel's probes, bytes that were sent, questions whether there is room again. If
none of these is answered for some time, nobody is there.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

PROBE_AFTER_S: Final = 3
"""Silence, in seconds, after which the kernel asks whether the peer's machine is still there."""
PROBE_EVERY_S: Final = 2
PROBES: Final = 4
"""Unanswered probes after which the kernel itself ends a connection, also an idle one that is kept."""
UNANSWERED: Final = 2
"""Repetitions without an answer that prove a silence. A single one may just be on its way: in front of a closed window
the kernel asks ever more rarely, so the last answer may be old."""

# The beginning of tcp_info: state, congestion state, repetitions of bytes, of probes; in milliseconds, at the end, the
# time since the last bytes and the last acknowledgement came.
_INFO: Final = struct.Struct("=xxBB48xII")


def probe(sock: socket.socket) -> None:
    """Have the kernel ask a silent peer's machine now and then."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_AFTER_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_EVERY_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)


def is_gone(sock: socket.socket, silent_s: float) -> bool:
    """Return True if the peer's machine has answered nothing for `silent_s` seconds, though it was asked."""
    with contextlib.suppress(OSError):
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        return shows_gone(info, silent_s)
    return False


def shows_gone(info: bytes, silent_s: float) -> bool:
    """Read `is_gone` from the kernel's tcp_info. Pure."""
    if len(info) < _INFO.size:
        return False
    repeated: int
    probed: int
    data_ms: int
    answer_ms: int
    repeated, probed, data_ms, answer_ms = _INFO.unpack(info)
    return max(repeated, probed) >= UNANSWERED and min(data_ms, answer_ms) > silent_s * 1000
