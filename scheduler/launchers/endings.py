"""Says in words how a slot's container ended."""

from __future__ import annotations

from typing import Final

KILLED: Final = 128 + 9
"""Exit code of a container whose init was killed by SIGKILL."""
FEW_DESCRIPTORS: Final = 6
"""A guest's exit code; sets/guest/PROTOCOL.md."""


def how_it_ended(exit_code: int | None) -> str:
    if exit_code is None:
        return "its container ended"
    if exit_code == KILLED:
        return "its container was killed (exit code 137)"
    if exit_code == FEW_DESCRIPTORS:
        return (
            "its guest may open too few files: raise the engine's limit (LimitNOFILE= of containerd's and the engine's "
            f"units), or lower `nofile` in the set's `ulimits` (exit code {exit_code})"
        )
    return f"its container ended with exit code {exit_code}"
