"""Runs fuzz targets with atheris, each in a process of its own, guided by the parts of the code that an input reaches.

A package of targets makes a `Fuzzer` in its module `run`; beside it, the module `targets` has `TARGETS`: by name, a
function that takes any bytes and raises where a promise is broken.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from logging import CRITICAL
from pathlib import Path
from typing import Any, Final

import structlog

ROOT: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Fuzzer:
    """The fuzzing of one package.

    `package` holds `run` and `targets`; `watched` is the package whose code guides; `seeds` returns the inputs to begin
    with, by name, for a target. New inputs stay in var/fuzz/`name`, so that the next run goes on from there.
    """

    name: str
    package: str
    watched: str
    targets: tuple[str, ...]
    seeds: Callable[[str], dict[str, bytes]]
    max_input_bytes: int

    def command(self, target: str, folder: Path, *options: str) -> list[str]:
        """Return the command that fuzzes one target; `options` are libFuzzer's."""
        corpus = folder / target
        corpus.mkdir(parents=True, exist_ok=True)
        for stem, data in self.seeds(target).items():
            (corpus / f"seed-{stem}").write_bytes(data)
        limits = [f"-max_len={self.max_input_bytes}", "-timeout=20", f"-artifact_prefix={folder}/"]
        module = f"{self.package}.run"
        return [sys.executable, "-m", module, "--one", target, *limits, *options, str(corpus)]

    def main(self) -> int:
        """Fuzz as the command line says; return an exit status."""
        if sys.argv[1:2] == ["--one"]:
            self._fuzz(sys.argv[2], sys.argv[3:])
        parser = argparse.ArgumentParser(prog=f"python -m {self.package}.run")
        parser.add_argument("--seconds", type=int, default=60, help="for each target")
        parser.add_argument("--folder", type=Path, default=ROOT / "var" / "fuzz" / self.name)
        parser.add_argument("targets", nargs="*", choices=[*self.targets, []], default=[])
        options = parser.parse_args()
        for target in options.targets or self.targets:
            command = self.command(target, options.folder, f"-max_total_time={options.seconds}")
            if subprocess.run(command, cwd=ROOT).returncode:
                print(
                    f"fuzz-{self.name}: {target} broke a promise; the input is in {options.folder}",
                    file=sys.stderr,
                )
                return 1
        return 0

    def _fuzz(self, target: str, arguments: list[str]) -> None:
        """Fuzz in this process; never returns."""
        atheris: Any = import_module("atheris")  # It has no types, and no wheel for every platform.
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(CRITICAL))
        with atheris.instrument_imports(include=[self.watched], enable_loader_override=False):
            targets = import_module(f"{self.package}.targets").TARGETS
        atheris.Setup([sys.argv[0], *arguments], targets[target])
        atheris.Fuzz()


def random_steps(target: str, step_bytes: int, shortest: int = 1) -> dict[str, bytes]:
    """Return forty inputs of growing length, always the same ones, for a target whose input is a list of steps."""
    rng = random.Random(target)
    return {f"steps-{number}": rng.randbytes(step_bytes * (number + shortest)) for number in range(40)}
