"""Says in words how a slot's container ended."""

from __future__ import annotations

from typing import Final

KILLED: Final = 128 + 9
"""Exit code of a container whose init was killed by SIGKILL."""
NO_START: Final = 2
"""A guest's exit code; sets/guest/PROTOCOL.md."""


def how_it_ended(exit_code: int | None) -> str:
    if exit_code is None:
        return "its container ended"
    if exit_code == KILLED:
        return "its container was killed (exit code 137)"
    if exit_code == NO_START:
        return (
            "its guest could not start: the engine may allow containers fewer open files than programs may have (4096, "
            "or the registrar's `limits.ulimits.nofile`), then raise LimitNOFILE= of containerd's unit; or the kernel "
            f"has no seccomp filters; or a place is no folder (exit code {exit_code})"
        )
    return f"its container ended with exit code {exit_code}"
