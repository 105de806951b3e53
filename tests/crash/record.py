"""The chapters of a seed that were played, kept in a file, so that a later part goes on after them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Record:
    """The chapters of a seed that are done, as a file has them. `counts`: sums of `books.summary`."""

    seed: int
    chapters: int = 0
    rounds: int = 0
    minutes: float = 0.0
    broken: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, file: Path, seed: int) -> Record:
        """The record in a file, or a new one."""
        return cls(**json.loads(file.read_text())) if file.exists() else cls(seed)

    def keep(self, file: Path) -> None:
        """Write the whole file, or leave the one that is there."""
        file.parent.mkdir(parents=True, exist_ok=True)
        written = file.with_suffix(".new")
        written.write_text(json.dumps(asdict(self), indent=1))
        written.rename(file)

    def add(self, rounds: int, minutes: float, counts: dict[str, Any]) -> None:
        """Add a chapter."""
        self.chapters += 1
        self.rounds += rounds
        self.minutes += minutes
        numbers = {name: count for name, count in counts.items() if isinstance(count, int)}
        self.counts = dict(Counter(self.counts) + Counter(numbers))

    def text(self) -> str:
        lines = [f"seed {self.seed}: {self.rounds} rounds in {self.minutes:.0f} minutes"]
        lines += [f"{name}: {count}" for name, count in self.counts.items()]
        return "\n".join([*lines, *(self.broken or ["no promise was broken"])])
