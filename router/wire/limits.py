"""Bounds of the data plane: every buffer and every wait has one."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace


class Limits(msgspec.Struct, frozen=True):
    """Sizes in bytes, times in seconds."""

    request_line_bytes: int = 64 * 1024
    head_bytes: int = 128 * 1024
    pipeline_bytes: int = 160 * 1024
    """Unread requests held behind the one in work; more than one head, as a head must fit."""
    answer_head_bytes: int = 128 * 1024
    informational_answers: int = 8
    """1xx answers accepted before the real one."""
    header_s: float = 15.0
    """From a request's first byte to the end of its head."""
    keep_alive_s: float = 75.0
    body_idle_s: float = 120.0
    """Without a byte of the body while the router waits for one."""
    connect_s: float = 3.0
    first_byte_s: float = 60.0
    """From the request's last byte to the answer's first, where no task is waited for."""
    task_first_byte_s: float = 960.0
    """The same, in seconds, for a run or a call with `wait`: 300 s of work, the queue and an image's pull."""
    answer_idle_s: float = 960.0
    """Without a byte of an answer that has begun; a streaming task may be silent for its whole time."""
    peer_silent_s: float = 10.0
    """Without any packet of a set's machine, not even an acknowledgement: it is cut off or dead, however long its task
    may take. The kernel's probes (`silence.py`) fit into it several times."""
    write_stall_s: float = 300.0
    """Without progress towards a peer that does not read."""
    total_s: float = 6 * 3600.0
    linger_s: float = 30.0
    """After an answer that came before the body's end: how long the rest is read and dropped."""
    linger_idle_s: float = 5.0
    pool_idle_s: float = 30.0
    """How long an idle connection to a set is kept."""
    pool_idle_unsafe_s: float = 1.0
    """How long it is idle at most and may still carry a request that must not run twice."""
    pool_size: int = 256
    """Maximum number of idle connections to one set."""
    idle_connections: int = 65_536
    """Maximum number of idle connections to all sets."""
    connections: int = 16_384
    """Most connections of clients in one process."""
    descriptors: int = 1 << 30
    """For connections of clients and to sets together (descriptors.py)."""
    sweep_s: float = 0.5
    """How often time-outs are looked at."""
    backlog: int = 4096

    def with_times(self, times_s: Mapping[str, float]) -> Limits:
        """Return limits with these times, in seconds by name, in the place of their own: `header` is `header_s`."""
        return replace(self, **{f"{name}_s": value for name, value in times_s.items()})
