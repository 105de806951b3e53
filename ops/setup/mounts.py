"""The mount points of this machine, as the kernel lists them."""

from __future__ import annotations

from pathlib import Path


def mount_points() -> list[Path]:
    """Return where something is mounted in this process's mount namespace."""
    return [
        Path(_unescape(line.split()[4])) for line in Path("/proc/self/mountinfo").read_text().splitlines()
    ]


def _unescape(path: str) -> str:
    # mountinfo writes space, tab, newline and backslash as octal.
    for code, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, sign)
    return path
