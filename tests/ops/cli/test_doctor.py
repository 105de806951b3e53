"""How `gcompute doctor` prints a finding: wrapped on a terminal, one line in a pipe."""

from __future__ import annotations

from ops.cli.doctor import lines
from ops.doctor.finding import Told, fail, ok

LONG = Told(
    "this machine",
    "epoll watches",
    fail(
        "fs.epoll.max_user_watches is 5491489: programs of one USER can take all watches",
        "sysctl -w fs.epoll.max_user_watches=197469248, and write it into /etc/sysctl.d/60-general-compute.conf",
    ),
)


def test_a_finding_is_wrapped_at_the_terminals_width_with_its_mend_below_it() -> None:
    assert lines(LONG, 72) == [
        "  ✗ epoll watches: fs.epoll.max_user_watches is 5491489: programs of one",
        "    USER can take all watches",
        "    → sysctl -w fs.epoll.max_user_watches=197469248, and write it into",
        "      /etc/sysctl.d/60-general-compute.conf",
    ]


def test_no_word_is_torn_in_a_narrow_terminal() -> None:
    # Not even one that is longer than the line.
    found = lines(LONG, 10)
    assert "      /etc/sysctl.d/60-general-compute.conf" in found
    assert all(len(line) <= 40 or len(line.split()) == 1 for line in found)


def test_a_finding_is_one_line_in_a_pipe() -> None:
    (line,) = lines(LONG, None)
    assert line.startswith("  ✗ epoll watches: fs.epoll")
    assert "all watches  → sysctl -w" in line
    assert lines(Told("this machine", "kernel", ok("Linux\n6.1")), None) == ["  ✓ kernel: Linux 6.1"]
