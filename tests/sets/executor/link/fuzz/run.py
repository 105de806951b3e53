"""Fuzzes both ends of a link with atheris, guided by the parts of their code that an input reaches.

    python -m tests.sets.executor.link.fuzz.run --seconds 60 [set_end] [executor_end] [raw]

An input that breaks a promise is written into the folder given (var/fuzz/link by default), as crash-….
"""

from __future__ import annotations

import argparse
import logging
import random
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[5]
NAMES = ("set_end", "executor_end", "raw")
MAX_INPUT_BYTES = 240


def seeds(name: str) -> dict[str, bytes]:
    """Inputs to begin with, by name."""
    rng = random.Random(name)
    return {f"steps-{number}": rng.randbytes(4 * (number + 1)) for number in range(40)}


def command(name: str, folder: Path, *options: str) -> list[str]:
    """The command that fuzzes one target in a process of its own; `options` are libFuzzer's."""
    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    for stem, data in seeds(name).items():
        (corpus / f"seed-{stem}").write_bytes(data)
    limits = [f"-max_len={MAX_INPUT_BYTES}", "-timeout=20", f"-artifact_prefix={folder}/"]
    module = "tests.sets.executor.link.fuzz.run"
    return [sys.executable, "-m", module, "--one", name, *limits, *options, str(corpus)]


def fuzz_one(name: str, arguments: list[str]) -> None:
    """Fuzz in this process; never returns."""
    atheris: Any = import_module("atheris")  # It has no types, and no wheel for every platform.
    logging.disable(logging.CRITICAL)
    with atheris.instrument_imports(include=["sets.executor.link"], enable_loader_override=False):
        from tests.sets.executor.link.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    if sys.argv[1:2] == ["--one"]:
        fuzz_one(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "fuzz" / "link")
    parser.add_argument("targets", nargs="*", choices=[*NAMES, []], default=[])
    options = parser.parse_args()
    for name in options.targets or NAMES:
        ended = subprocess.run(command(name, options.folder, f"-max_total_time={options.seconds}"), cwd=ROOT)
        if ended.returncode:
            print(f"fuzz-link: {name} broke a promise; the input is in {options.folder}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
