"""Finds hints for a task's detail: the program's own words may show that a slot's limit made it fail. Pure.

A slot refuses with the kernel's errors. Only the program sees them, and most programs print them. Such words are no
proof, so each hint repeats them and leaves the conclusion to the reader.
"""

from __future__ import annotations

import re
from typing import Final

_HINTS: Final = (
    (
        rb"read-only file system|\bEROFS\b",
        "a slot is read-only but for its writable places: write to /tmp or HOME, or name the folder by the label "
        "org.general-compute.writable",
    ),
    (
        rb"operation not permitted|\bEPERM\b",
        "no program has capabilities, root neither: owners of files stay as they are, and some calls are refused",
    ),
    (
        rb"permission denied|\bEACCES\b",
        "root has no capabilities either: it reads and changes another user's files only where everybody may",
    ),
    (
        rb"no space left on device|\bENOSPC\b",
        "each writable place has a bound of its own, in bytes and in files",
    ),
    (
        rb"(?<![\w.~-])/(?:tmp|dev/shm)/[!-~][ -~]{0,199}no such file"
        rb"|(?:no such file|\bENOENT\b)[ -~]{1,99}(?<![\w.~-])/(?:tmp|dev/shm)/[!-~]+",
        "a task finds /tmp and /dev/shm empty: what the image has there is hidden, keep it elsewhere, such as in /app",
    ),
    (
        rb"too many open files|\bEMFILE\b",
        "a program's open files are limited",
    ),
    (
        rb"resource temporarily unavailable|can't start new thread|cannot fork|can't fork"
        rb"|unable to create (?:native )?thread|failed to create (?:a )?thread|pthread_create",
        "a slot's processes and threads are limited, all together",
    ),
    (
        rb"pseudo-?terminal|pty devices|/dev/ptmx|/dev/pts",
        "slots have no pseudo-terminals: programs read and write pipes",
    ),
    (
        rb"function not implemented|\bENOSYS\b",
        "slots have no System V IPC, POSIX message queues, inotify, io_uring or keyrings, as if the kernel lacked them",
    ),
    (
        rb"(?:only|must) (?:be )?run as pid 1|has to be run as pid 1|must be process 1",
        "process 1 of a slot belongs to the platform: run the program itself, without an init system before it",
    ),
    (
        rb"bad system call",
        "a 32-bit program's calls end it with SIGSYS",
    ),
    (
        rb"leaksanitizer has encountered a fatal error",
        "ptrace is refused, and finding leaks needs it: set the variable ASAN_OPTIONS=detect_leaks=0",
    ),
    (
        rb"network is unreachable|temporary failure in name resolution|could not resolve host"
        rb"|name or service not known|\bENETUNREACH\b|\bEAI_AGAIN\b",
        "slots have no network",
    ),
)
_COMPILED: Final = tuple((re.compile(words, re.IGNORECASE), hint) for words, hint in _HINTS)


def hints_of(stderr: bytes) -> list[str]:
    """Hints for what a failed program wrote to stderr (its first and last bytes); none where it says nothing known."""
    return [
        f"stderr says {match[0].decode()!r}: {hint}"
        for pattern, hint in _COMPILED
        if (match := pattern.search(stderr))
    ]
