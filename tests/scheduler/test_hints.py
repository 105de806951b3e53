"""Words of programs, libraries and languages that a slot's limits make them say; each gives its hint."""

from __future__ import annotations

import pytest

from scheduler.hints import hints_of


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (b"touch: cannot touch '/app/x': Read-only file system", "org.general-compute.writable"),
        (b"OSError: [Errno 30] Read-only file system: '/app/x'", "org.general-compute.writable"),
        (b"Error: EROFS: read-only file system, open '/app/x'", "org.general-compute.writable"),
        (
            b"tar: x: Cannot change ownership to uid 1000: Operation not permitted",
            "no program has capabilities",
        ),
        (b"cat: /app/model: Permission denied", "another user's files"),
        (b"dd: error writing '/tmp/x': No space left on device", "bound of its own"),
        (b"sh: 0: cannot open /tmp/run.sh: No such file", "such as in /app"),
        (b"python3: can't open file '/tmp/a b.py': [Errno 2] No such file or directory", "such as in /app"),
        (b"FileNotFoundError: [Errno 2] No such file or directory: '/dev/shm/model'", "such as in /app"),
        (b"Error: ENOENT: no such file or directory, open '/tmp/run.js'", "such as in /app"),
        (b"OSError: [Errno 24] Too many open files", "open files are limited"),
        (b"RuntimeError: can't start new thread", "threads are limited"),
        (b"java.lang.OutOfMemoryError: unable to create native thread", "threads are limited"),
        (b"sh: 1: Cannot fork", "threads are limited"),
        (b"script: failed to create pseudo-terminal: No such file or directory", "no pseudo-terminals"),
        (b"OSError: out of pty devices", "no pseudo-terminals"),
        (b"fakeroot, while creating message channels: Function not implemented", "System V IPC"),
        (b"OSError: [Errno 38] Function not implemented", "inotify"),
        (b"s6-overlay-suexec: fatal: can only run as pid 1", "process 1"),
        (b"Bad system call", "SIGSYS"),
        (b"==1==LeakSanitizer has encountered a fatal error.", "detect_leaks=0"),
        (b"curl: (6) Could not resolve host: example", "no network"),
    ],
)
def test_words_that_are_known(said: bytes, hint: str) -> None:
    (found,) = hints_of(b"before\n" + said + b"\nafter")
    assert found.startswith("stderr says ")
    assert hint in found


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"exit",
        b"\xff\xfe",
        b"MYEROFS",
        b"all is well",
        b"cat: /app/tmp/x: No such file",
        b"No such file: a/tmp/x",
    ],
)
def test_words_that_are_not(said: bytes) -> None:
    assert hints_of(said) == []
