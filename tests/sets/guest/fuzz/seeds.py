"""Inputs to begin with: conversations whose messages the real encoder made, and what the program does meanwhile.

The records are those of `kernel.h`; a message of the executor's goes in as it is (`says`), or as a pattern that the
harness fills in (`task`), so that a mutated one still has lengths that add up.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from scheduler.execution import Work
from sets.executor import protocol

(
    MESSAGE_RAW,
    TASK_MADE,
    TASK_AGAIN,
    KILL_MADE,
    RETIRE_MADE,
    EXECUTOR_LOST,
    WRITES,
    READS,
    STUFFS,
    STEALS,
    ENDS,
    FORKS,
    FAILS,
    PIPES_OF,
    TOGETHER,
    ASKS_NETLINK,
    PIPES_MADE,
    READ_MADE,
    RELEASE_MADE,
    TAKES,
    DRESSED_MADE,
    AWAITS_DRESSING,
    SHOW_MADE,
) = range(23)
CALLS: Final = (
    "pipe2",
    "sendmsg",
    "recvmsg",
    "vfork",
    "execve",
    "poll",
    "write",
    "wait4",
    "socket",
    "connect",
    "close_range",
    "openat",
    "splice",
    "pread",
)

LOST: Final = bytes([EXECUTOR_LOST])
KILL: Final = bytes([KILL_MADE, 0])
RETIRE: Final = bytes([RETIRE_MADE])
SHOW: Final = bytes([SHOW_MADE, 0])
SUCCESS: Final = bytes([ENDS, 0, 0])
PIPES: Final = bytes([PIPES_MADE])
"""The executor answers OUTPUT."""
RELEASE: Final = bytes([RELEASE_MADE])
DRESSED: Final = bytes([DRESSED_MADE])
FILE_BYTES: Final = 100_000


def says(message: bytes, fds: int = 0) -> bytes:
    """The executor sends these bytes with that many descriptors. A tail of one value is told by its length."""
    kept = message.rstrip(message[-1:])
    tail = len(message) - len(kept)
    return bytes([MESSAGE_RAW, fds]) + _u24(tail) + message[-1:] + _u24(len(kept)) + kept


def asks(number: int, work: Work) -> bytes:
    """A TASK of the real encoder."""
    return says(protocol.encode_task(number, work), fds=1 if work.stdin is None else 0)


def task(
    *strings: bytes,
    flags: int = 0,
    envc: int = 0,
    filec: int = 0,
    stdin: int = 0,
    repeated: bytes = b"",
    times: int = 0,
    behind: Sequence[bytes] = (),
) -> bytes:
    """A TASK with the right number and lengths: `strings`, then `repeated` that many times, then `behind`."""
    head = b"".join(string + b"\0" for string in strings)
    tail = b"".join(string + b"\0" for string in behind)
    counts = bytes([TASK_MADE, flags]) + _u16(envc) + bytes([filec]) + _u16(stdin)
    return (
        counts
        + _u16(len(head))
        + head
        + bytes([len(repeated)])
        + repeated
        + _u16(times)
        + _u16(len(tail))
        + tail
    )


def again(flags: int = 0, stdin: int = 0) -> bytes:
    """The last `task` once more, with the next number."""
    return bytes([TASK_AGAIN, flags]) + _u16(stdin)


def writes(end: int, count: int) -> bytes:
    """The program writes to its stdout (1) or stderr (2)."""
    return bytes([WRITES, end - 1]) + _u24(count)


def reads(count: int, *, closes: bool = False) -> bytes:
    return bytes([READS, closes]) + _u24(count)


def stuffs(count: int) -> bytes:
    """The program opens its own stdin for writing, and does."""
    return bytes([STUFFS]) + _u24(count)


def steals(end: int, count: int) -> bytes:
    """The program reads its own output."""
    return bytes([STEALS, end - 1]) + _u24(count)


def ends(*, code: int | None = None, signal: int = 9) -> bytes:
    return bytes([ENDS]) + _u16(code << 1 if code is not None else (signal - 1) << 1 | 1)


def forks(children: int, *, one_ends: bool = False) -> bytes:
    return bytes([FORKS, children | (8 if one_ends else 0)])


def fails(call: str, which: int = 0, after: int = 0) -> bytes:
    """The guest's next call of that name, or one `after` it, fails in one of four ways."""
    return bytes([FAILS, CALLS.index(call), which | after << 2])


def awaits_dressing(before: int = 0) -> bytes:
    """The guest is to be dressed first; `before` it has told so, that many of the next records happen. Comes first."""
    return bytes([AWAITS_DRESSING, before])


def asks_netlink(live: int = 0, *, cloexec: bool = True) -> bytes:
    """The program asks for a netlink socket while `live` exist."""
    return bytes([ASKS_NETLINK, live, cloexec])


def reads_file(file: int = 0, first: int = 0, length: int = FILE_BYTES) -> bytes:
    """The executor asks for bytes of an output file."""
    return bytes([READ_MADE, file]) + _u24(first) + _u24(length)


def takes(closes: int | None = None) -> bytes:
    """The executor empties its pipes; it closes one."""
    return bytes([TAKES, 0 if closes is None else 1 | closes << 1])


def together(records: int) -> bytes:
    return bytes([TOGETHER, records])


def small_pipes(pages: int = 1) -> bytes:
    return bytes([PIPES_OF, pages - 1])


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _u24(value: int) -> bytes:
    return value.to_bytes(3, "little")


def _spoilt(argc: int, envc: int = 0, filec: int = 0, strings: bytes = b"cat\0-n\0") -> bytes:
    """A TASK whose counts are not those of its strings."""
    head = struct.pack("<BBHIHHHHII", protocol.TASK, 0, 0, 1, argc, envc, filec, 0, len(strings), 0)
    return head + strings


CAT: Final = Work(argv=(b"/bin/cat",), stdin=b"in")
RICH: Final = Work(
    argv=(b"cat", b"-n"), env=(b"A=1", b"PATH=/a::/b"), outputs=(b"/out", b"/dir/file"), stdin=b"x" * 300
)
PIPED: Final = Work(argv=(b"/bin/cat",), stdin=None, stream=True)
READY: Final = Work(argv=(b"/bin/cat",), stdin=b"in", prestart=True)
LARGEST: Final = Work(argv=(b"x" * (protocol.STRINGS_BYTES - 1),), stdin=bytes(protocol.STDIN_BYTES))

CONVERSATIONS: Final[dict[str, bytes]] = (
    {
        "small": asks(1, CAT) + reads(2) + writes(1, 2) + SUCCESS,
        "rich": asks(1, RICH)
        + writes(1, 300)
        + writes(2, 10)
        + ends(code=3)
        + RELEASE
        + asks(2, CAT)
        + SUCCESS
        + RETIRE,
        "piped": asks(1, PIPED) + PIPES + writes(1, 200_000) + takes() + takes() + SUCCESS + takes(),
        "outgrown": asks(1, CAT) + writes(1, 100_000) + writes(2, 61_440) + PIPES + takes() + SUCCESS,
        "outgrown_at_the_end": asks(1, CAT)
        + together(2)
        + writes(1, 65_536)
        + SUCCESS
        + PIPES
        + asks(2, CAT)
        + SUCCESS,
        "pipes_with_the_task": task(b"cat", flags=8)
        + writes(1, 100)
        + SUCCESS
        + task(b"cat", flags=10)
        + writes(1, 100)
        + SUCCESS
        + task(b"cat", flags=9)
        + writes(1, 100_000)
        + SUCCESS
        + task(b"cat", flags=8)
        + together(2)
        + writes(2, 65_536)
        + SUCCESS,
        "pipes_for_a_waiting_program": task(b"cat", flags=12)
        + SUCCESS
        + again(flags=12, stdin=9)
        + writes(1, 100_000)
        + SUCCESS
        + again(flags=14)
        + writes(2, 100)
        + SUCCESS
        + again(flags=13)
        + reads(100)
        + SUCCESS,
        "pipes_and_an_answer": task(b"cat", flags=10) + PIPES,
        "slow_reader": asks(1, PIPED)
        + small_pipes()
        + PIPES
        + writes(1, 60_000)
        + writes(2, 5_000)
        + takes()
        + SUCCESS
        + takes()
        + KILL
        + asks(2, CAT)
        + SUCCESS,
        "reader_gone": asks(1, PIPED)
        + PIPES
        + writes(1, 100_000)
        + takes(0)
        + takes(1)
        + writes(2, 9)
        + SUCCESS,
        "killed_before_its_pipes": asks(1, PIPED) + KILL + PIPES + asks(2, CAT) + SUCCESS,
        "lost_before_its_pipes": asks(1, PIPED) + writes(1, 9) + SUCCESS + LOST + asks(1, CAT) + SUCCESS,
        "shown": task(b"cat")
        + writes(1, 9)
        + SHOW
        + PIPES
        + SHOW
        + writes(2, 9)
        + SUCCESS
        + SHOW
        + again(flags=8)
        + writes(2, 9)
        + SHOW
        + writes(1, 9)
        + SUCCESS,
        "shown_while_its_files_are_read": asks(1, RICH)
        + SUCCESS
        + SHOW
        + reads_file(0)
        + SHOW
        + RELEASE
        + SHOW,
        "files_read": asks(1, RICH)
        + SUCCESS
        + reads_file(0)
        + reads_file(1, 10, 20)
        + takes()
        + reads_file(0, 99_999, 1)
        + KILL
        + reads_file(1, 100_000, 0)
        + takes()
        + RELEASE
        + asks(2, CAT)
        + SUCCESS,
        "files_lost": asks(1, RICH) + SUCCESS + reads_file(0) + LOST + asks(1, CAT) + SUCCESS,
        "files_retired": asks(1, RICH) + SUCCESS + reads_file(0) + RETIRE,
        "files_and_their_reader_gone": asks(1, RICH) + SUCCESS + reads_file(0) + takes(0) + RELEASE,
        "files_that_cannot_be_read": asks(1, RICH)
        + SUCCESS
        + fails("pread")
        + reads_file(0)
        + fails("pread", 1)
        + fails("write")
        + reads_file(1)
        + takes()
        + RELEASE,
        "file_that_is_none": asks(1, RICH) + SUCCESS + reads_file(2),
        "file_beyond_its_end": asks(1, RICH) + SUCCESS + reads_file(0, 1),
        "task_before_the_release": asks(1, RICH) + SUCCESS + asks(2, CAT),
        "pipes_twice": asks(1, PIPED) + PIPES + PIPES,
        "pipes_unasked": asks(1, CAT) + PIPES,
        "release_of_nothing": asks(1, CAT) + SUCCESS + RELEASE,
        "two_outputs_full": asks(1, CAT) + writes(1, 61_440) + writes(2, 61_440) + ends(signal=11),
        "killed": asks(1, CAT) + says(protocol.encode_kill(1)) + asks(2, CAT) + SUCCESS,
        "late_kill": asks(1, CAT) + SUCCESS + says(protocol.encode_kill(1)) + says(protocol.encode_retire()),
        "retired_while_it_runs": asks(1, CAT) + says(protocol.encode_retire()),
        "lost_while_it_runs": asks(1, CAT) + writes(1, 10) + forks(3) + LOST + asks(1, CAT) + SUCCESS,
        "largest": says(protocol.encode_task(1, LARGEST)) + SUCCESS,
        "most_strings": task(b"cat", repeated=b"\0", times=8191) + SUCCESS,
        "most_variables": task(b"cat", envc=8191, repeated=b"A=\0", times=8191) + SUCCESS,
        "most_files": task(b"cat", filec=64, repeated=b"/out\0", times=64) + SUCCESS + RELEASE,
        "all_kinds_of_files": task(
            b"cat",
            filec=10,
            behind=(
                b"/out",
                b"/dir",
                b"/dir/file",
                b"/link",
                b"/link/x",
                b"/fifo",
                b"/proc/self",
                b"/none",
                b"/",
                b"//",
            ),
        )
        + SUCCESS,
        "not_executable": task(b"/bin/denied")
        + task(b"/bin/text.x")
        + task(b"")
        + task(b"none", envc=1, behind=(b"PATH=",))
        + task(b"cat", envc=1, behind=(b"PATH=" + b"/a" * 2200 + b":/b",)),
        "program_that_does_not_read": task(b"cat", stdin=61_440)
        + SUCCESS
        + small_pipes()
        + again(stdin=61_440)
        + SUCCESS
        + again(stdin=61_440)
        + reads(5000)
        + reads(60_000)
        + SUCCESS,
        "program_that_closes_its_input": small_pipes()
        + task(b"cat", stdin=9000)
        + reads(0, closes=True)
        + SUCCESS,
        "program_that_steals": task(b"cat") + writes(1, 9000) + steals(1, 4000) + writes(2, 1) + SUCCESS,
        "orphans": task(b"cat") + forks(5) + forks(2, one_ends=True) + SUCCESS,
        "waiting": asks(1, READY) + SUCCESS + asks(2, READY) + SUCCESS + asks(3, CAT) + SUCCESS,
        "waiting_with_other_arguments": task(b"cat", flags=4)
        + SUCCESS
        + task(b"bat", flags=4)
        + SUCCESS
        + SUCCESS,
        "waiting_for_a_pipe": task(b"cat", flags=5)
        + SUCCESS
        + again(flags=5)
        + reads(9)
        + reads(70_000)
        + fails("splice")
        + reads(70_000)
        + reads(70_000)
        + SUCCESS
        + again(flags=1)
        + reads(1, closes=True)
        + SUCCESS
        + task(b"bat", flags=1)
        + SUCCESS,
        "waiting_is_unfit": task(b"cat", flags=4)
        + SUCCESS
        + writes(1, 5)
        + again(flags=4)
        + SUCCESS
        + SUCCESS
        + again(),
        "waiting_and_killed": task(b"cat", flags=4)
        + SUCCESS
        + KILL
        + again(flags=4)
        + KILL
        + LOST
        + task(b"cat")
        + SUCCESS,
        "waiting_stuffs_its_input": task(b"cat", flags=4, stdin=8)
        + SUCCESS
        + stuffs(64_000)
        + again(stdin=4000)
        + SUCCESS,
        "netlink": task(b"cat")
        + asks_netlink(59)
        + asks_netlink(cloexec=False)
        + asks_netlink(60)
        + fails("vfork")
        + asks_netlink()
        + fails("socket")
        + asks_netlink()
        + fails("socket", after=1)
        + asks_netlink()
        + SUCCESS,
        "waiting_asks_netlink": task(b"cat", flags=4)
        + SUCCESS
        + asks_netlink()
        + asks_netlink(60)
        + again(flags=4)
        + asks_netlink()
        + together(2)
        + asks_netlink()
        + SUCCESS,
        "together": together(4)
        + task(b"cat")
        + writes(1, 70_000)
        + KILL
        + SUCCESS
        + together(2)
        + LOST
        + task(b"cat"),
        "malformed_after_a_task": asks(1, CAT) + SUCCESS + says(protocol.encode_task(7, CAT)),
        "malformed_while_it_runs": asks(1, CAT) + asks(2, CAT),
        "descriptors_too_many": says(protocol.encode_task(1, CAT), fds=2),
        "descriptor_with_nothing": bytes([MESSAGE_RAW, 1]),
        "fewer_strings_than_counted": says(_spoilt(argc=5)),
        "more_strings_than_counted": says(_spoilt(argc=1)),
        "variable_without_a_name": says(_spoilt(argc=1, envc=1, strings=b"cat\0=n\0")),
        "one_file_too_many": task(b"cat", filec=65, repeated=b"/out\0", times=65),
        "one_string_too_many": task(b"cat", repeated=b"\0", times=8192),
        "descriptor_with_a_kill": asks(1, CAT) + SUCCESS + says(protocol.encode_kill(1), fds=1),
        "descriptor_with_a_kill_while_it_runs": asks(1, CAT) + says(protocol.encode_kill(1), fds=1),
        "descriptor_that_is_not_announced": says(protocol.encode_task(1, CAT), fds=1),
        "variable_without_a_value": says(_spoilt(argc=1, envc=1)),
        "file_that_is_not_absolute": says(_spoilt(argc=1, filec=1)),
        "strings_without_an_end": says(_spoilt(argc=2, strings=b"cat\0-n")),
        "of_no_known_type": says(b"\7" + bytes(7)),
        "short": says(b"\2"),
        "flags_of_a_kill": asks(1, CAT) + says(b"\2\1" + bytes(6)),
        "task_while_it_runs": asks(1, CAT) + says(b"\1" + bytes(7)),
        "kill_of_another": asks(1, CAT) + says(protocol.encode_kill(9)) + SUCCESS,
        "lost_while_it_waits": task(b"cat", flags=4) + SUCCESS + LOST + task(b"cat") + SUCCESS,
        "lost_as_output_is_handed_over": task(b"cat", flags=2)
        + fails("sendmsg")
        + writes(1, 9)
        + SUCCESS
        + task(b"cat")
        + writes(1, 61_440)
        + fails("sendmsg")
        + writes(1, 9)
        + SUCCESS
        + task(b"cat")
        + writes(2, 61_440)
        + fails("sendmsg")
        + writes(2, 9)
        + SUCCESS,
        "full_at_the_end": task(b"cat")
        + together(2)
        + writes(1, 65_536)
        + SUCCESS
        + task(b"cat")
        + together(2)
        + writes(2, 65_536)
        + SUCCESS
        + task(b"cat")
        + together(3)
        + writes(2, 65_536)
        + fails("sendmsg")
        + SUCCESS,
        "message_there_before_the_start_ahead": task(b"cat", flags=4)
        + together(2)
        + again(flags=4)
        + SUCCESS
        + SUCCESS,
        "dressed": awaits_dressing()
        + DRESSED
        + asks(1, CAT)
        + SUCCESS
        + LOST
        + asks(1, RICH)
        + SUCCESS
        + RELEASE,
        "dressed_and_waiting": awaits_dressing()
        + DRESSED
        + task(b"cat", flags=4)
        + SUCCESS
        + again()
        + SUCCESS,
        "dressed_twice": awaits_dressing() + DRESSED + DRESSED,
        "dressed_unasked": asks(1, CAT) + SUCCESS + DRESSED,
        "dressed_by_a_number": awaits_dressing() + says(b"\4\0\0\0\1\0\0\0"),
        "dressed_with_a_descriptor": awaits_dressing() + says(protocol.encode_dressed(), fds=1),
        "task_before_it_is_dressed": awaits_dressing() + asks(1, CAT),
        "kill_before_it_is_dressed": awaits_dressing() + KILL,
        "short_before_it_is_dressed": awaits_dressing() + says(b"\4"),
        "retired_before_it_is_dressed": awaits_dressing() + RETIRE,
        "retired_by_a_number_before_it_is_dressed": awaits_dressing() + says(b"\3\0\0\0\1\0\0\0"),
        "lost_before_it_is_dressed": awaits_dressing() + LOST,
        "hello_is_lost_before_it_is_dressed": awaits_dressing(2)
        + fails("connect")
        + fails("sendmsg")
        + DRESSED
        + asks(1, CAT)
        + SUCCESS,
        "report_of_its_dressing_is_lost": awaits_dressing()
        + fails("sendmsg")
        + DRESSED
        + asks(1, CAT)
        + SUCCESS,
        "truncated": says(protocol.encode_task(1, RICH)[:40]),
        "too_long": says(bytes(139_999)),
    }
    | {
        f"failing_{call}": b"".join(
            fails(call, which)
            + task(b"cat", flags=flags, filec=1, stdin=10, behind=(b"/dir/file",))
            + SUCCESS
            for which in range(2)
            for flags in (4, 0)
        )
        for call in CALLS
    }
    | {
        f"failing_{call}_ahead_{after}": task(b"cat", flags=4)
        + fails(call, after=after)
        + SUCCESS
        + again(flags=4)
        + SUCCESS
        for call in CALLS
        for after in range(3)
    }
)
"""By name. What each comes to is told in `test_fuzz.py`."""
