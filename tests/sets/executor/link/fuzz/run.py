"""Fuzzes both ends of a link with atheris.

    python -m tests.sets.executor.link.fuzz.run --seconds 60 [set_end] [executor_end] [raw]

An input that breaks a promise is written to the folder given (var/fuzz/link by default), as crash-….
"""

from __future__ import annotations

from typing import Final

from tests.fuzzer import Fuzzer, random_steps


def seeds(target: str) -> dict[str, bytes]:
    """Inputs to begin with, by name."""
    return random_steps(target, 4)


FUZZER: Final = Fuzzer(
    "link",
    "tests.sets.executor.link.fuzz",
    "sets.executor.link",
    ("set_end", "executor_end", "raw"),
    seeds,
    240,
)

if __name__ == "__main__":
    raise SystemExit(FUZZER.main())
