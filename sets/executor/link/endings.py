"""The end of a program as a message: EXIT, in both directions."""

from __future__ import annotations

from collections.abc import Callable

from scheduler.execution import Ending, How, NoFile
from scheduler.source import Source
from scheduler.task import Lease
from sets.executor import protocol
from sets.executor.link.frames import LinkError
from sets.executor.link.messages import Exit


def encode_ending(ending: Ending, files: tuple[int, ...], *, freed: bool) -> Exit:
    """Return EXIT for an ending; its files are sizes, or negative errnos."""
    return Exit(
        task_id=ending.lease.task_id,
        lease_number=ending.lease.number,
        how=ending.how,
        code=ending.code,
        killed=ending.killed,
        handed_over=ending.handed_over,
        prestarted=ending.prestarted,
        freed=freed,
        oom_kills=ending.oom_kills,
        wall_us=ending.wall_us,
        cpu_us=ending.cpu_us,
        max_rss_kib=ending.max_rss_kib,
        memory_peak_kib=ending.memory_peak_kib,
        stdout=ending.stdout,
        stderr=ending.stderr,
        files=files,
        notes=ending.notes,
    )


def decode_ending(
    message: Exit, files: list[Source | NoFile], handed_back: Callable[[], None] | None
) -> Ending:
    """Return the ending in EXIT; `handed_back` is called when its files are closed."""
    return Ending(
        lease=Lease(message.task_id, message.lease_number),
        how=How(message.how),
        code=message.code,
        killed=message.killed,
        oom_kills=message.oom_kills,
        wall_us=message.wall_us,
        cpu_us=message.cpu_us,
        max_rss_kib=message.max_rss_kib,
        handed_over=message.handed_over,
        stdout=message.stdout,
        stderr=message.stderr,
        files=files,
        memory_peak_kib=message.memory_peak_kib,
        notes=message.notes,
        prestarted=message.prestarted,
        files_closed=handed_back,
        frees=message.freed,
    )


def check_code(message: Exit) -> None:
    """Raise `LinkError` for a code that no program ends with."""
    low, high = protocol.CODES[message.how]
    if not low <= message.code <= high:
        raise LinkError(f"a program that ended in way {message.how} with code {message.code}")
