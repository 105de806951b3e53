"""The workers of one router: how many, which one this is, and what they share. Made once, before they are forked."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .errors import RouterError
from .occupancy import Loads, Occupancy

MOST_WORKERS = 64


class CrewError(RouterError):
    """The workers cannot be set up."""


@dataclass(frozen=True)
class Crew:
    """`folder` holds what the workers tell each other; None: there is one, and nobody to tell. `boot` is another
    word at every start of the router, and the same after a worker's."""

    count: int = 1
    folder: Path | None = None
    occupancy: Occupancy | None = None
    boot: str = field(default_factory=lambda: secrets.token_hex(4))

    @classmethod
    def make(cls, count: int, folder: Path) -> Crew:
        """Empty the folder, which is this user's alone, and map the shared memory. Raises `CrewError`."""
        if not 1 <= count <= MOST_WORKERS:
            raise CrewError(f"a router may have 1 to {MOST_WORKERS} workers, not {count}")
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            os.chmod(folder, 0o700)
        except OSError as error:
            raise CrewError(f"{folder} cannot be made anew: {error.strerror}") from error
        return cls(count, folder, Occupancy(count) if count > 1 else None)

    def free_index(self, taken: Iterable[int]) -> int:
        """The lowest index that no living worker has."""
        return min(set(range(self.count)) - set(taken), default=self.count - 1)

    def loads(self, index: int) -> Loads:
        return Loads(self.occupancy, index)

    def part(self, index: int, whole: int) -> int:
        """A worker's part of something that all share; the parts add up to the whole."""
        return whole // self.count + (index < whole % self.count)

    def left(self, index: int) -> None:
        """A worker is no more: it has nothing in flight."""
        if self.occupancy is not None:
            self.occupancy.clear(index)
