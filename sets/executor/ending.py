"""The end of a program: what its guest and its slot's cgroup say, in one record."""

from __future__ import annotations

from collections.abc import Callable

from scheduler.execution import Ending, How, NoFile
from scheduler.source import Source
from scheduler.task import Lease
from sets.executor.cgroup import MemoryUse
from sets.executor.protocol import ExitMessage


def ending_of(
    message: ExitMessage,
    lease: Lease,
    cpu_us: int,
    memory: MemoryUse,
    files: list[Source | NoFile],
    files_closed: Callable[[], None] | None,
) -> Ending:
    """Return the end that an EXIT reports. `cpu_us`: the CPU time, microseconds, for which the task is billed."""
    return Ending(
        lease=lease,
        how=How(message.how),
        code=message.code,
        killed=message.killed,
        oom_kills=memory.oom_kills,
        memory_peak_kib=memory.peak_kib,
        wall_us=message.wall_us,
        cpu_us=cpu_us,
        max_rss_kib=message.max_rss_kib,
        handed_over=message.handed_over,
        stdout=message.stdout,
        stderr=message.stderr,
        files=files,
        prestarted=message.prestarted,
        notes=(message.why_not,) if message.why_not else (),
        files_closed=files_closed,
        frees=not message.cleaning,
    )
