"""Fuzzes the router's parser glue with atheris.

    python -m tests.router.wire.fuzz.run --seconds 60 [framing] [answers] [mixing]

Seeds are the corpus of requests and answers. An input that breaks a promise is written to the folder given
(var/fuzz/router by default), as crash-….
"""

from __future__ import annotations

from typing import Final

from tests.fuzzer import Fuzzer, random_steps
from tests.router.wire.cases import ANSWERS, REQUESTS

MAX_INPUT_BYTES: Final = 2048


def seeds(target: str) -> dict[str, bytes]:
    """Inputs to begin with, by name."""
    if target == "framing":
        short = {path.stem: path.read_bytes() for path in REQUESTS if path.stat().st_size < MAX_INPUT_BYTES}
        return {stem: bytes([3, 1, 9, 30]) + data for stem, data in short.items()}
    if target == "answers":
        return {path.stem: path.read_bytes() for path in ANSWERS if path.stat().st_size < MAX_INPUT_BYTES}
    return random_steps(target, 3, 2)


FUZZER: Final = Fuzzer(
    "router",
    "tests.router.wire.fuzz",
    "router",
    ("framing", "answers", "mixing"),
    seeds,
    MAX_INPUT_BYTES,
)

if __name__ == "__main__":
    raise SystemExit(FUZZER.main())
