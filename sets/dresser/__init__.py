"""The program that dresses slots of a cluster: its source `dress.c`, and the built program `dress`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sets import built

DRESSER: Final = Path(__file__).with_name("dress")


def unusable() -> str:
    """Return why the built program cannot be used, and the remedy; empty if it was built from the present sources."""
    return built.unusable(DRESSER, DRESSER.parent, "the program that dresses slots", "build_dresser")
