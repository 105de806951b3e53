"""Fuzzes the router's parser glue with atheris, guided by the code of the router that an input reaches.

python -m tests.router.wire.fuzz.run --seconds 60 [framing] [answers] [mixing]

Seeds are the corpus of requests and answers. New inputs stay in the given folder (var/fuzz/router by default), so that
the next run goes on from there. An input that breaks a promise is written there as crash-….
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from importlib import import_module
from logging import CRITICAL
from pathlib import Path
from typing import Any

import structlog

from tests.router.wire.cases import ANSWERS, REQUESTS

ROOT = Path(__file__).resolve().parents[4]
NAMES = ("framing", "answers", "mixing")
MAX_INPUT_BYTES = 2048


def seeds(name: str) -> dict[str, bytes]:
    """Inputs to begin with, by name."""
    rng = random.Random(name)
    if name == "framing":
        short = {path.stem: path.read_bytes() for path in REQUESTS if path.stat().st_size < MAX_INPUT_BYTES}
        return {stem: bytes([3, 1, 9, 30]) + data for stem, data in short.items()}
    if name == "answers":
        return {path.stem: path.read_bytes() for path in ANSWERS if path.stat().st_size < MAX_INPUT_BYTES}
    return {f"steps-{number}": rng.randbytes(3 * (number + 2)) for number in range(40)}


def command(name: str, folder: Path, *options: str) -> list[str]:
    """The command that fuzzes one target in a process of its own; `options` are libFuzzer's."""
    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    for stem, data in seeds(name).items():
        (corpus / f"seed-{stem}").write_bytes(data)
    limits = [f"-max_len={MAX_INPUT_BYTES}", "-timeout=20", f"-artifact_prefix={folder}/"]
    return [sys.executable, "-m", "tests.router.wire.fuzz.run", "--one", name, *limits, *options, str(corpus)]


def fuzz_one(name: str, arguments: list[str]) -> None:
    """Fuzz in this process; never returns."""
    atheris: Any = import_module("atheris")  # It has no types, and no wheel for every platform.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(CRITICAL))
    with atheris.instrument_imports(include=["router"], enable_loader_override=False):
        from tests.router.wire.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    if sys.argv[1:2] == ["--one"]:
        fuzz_one(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "fuzz" / "router")
    parser.add_argument("targets", nargs="*", choices=[*NAMES, []], default=[])
    options = parser.parse_args()
    for name in options.targets or NAMES:
        ended = subprocess.run(command(name, options.folder, f"-max_total_time={options.seconds}"), cwd=ROOT)
        if ended.returncode:
            print(f"fuzz-router: {name} broke a promise; the input is in {options.folder}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
