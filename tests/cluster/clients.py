"""The load of `load.py` as a process, on a host of its own if it shall be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tests.cluster.books import Call, Outcome
from tests.cluster.history import Look
from tests.cluster.load import Plan
from tests.conftest import ROOT

SETTLE_S = 3600.0
"""Longest time for all accepted tasks to end once the faults are healed."""


class Clients:
    """Starts with the load. `inside` makes the command that runs it on another host, such as `Network.command`."""

    def __init__(self, plan: Plan, inside: Callable[..., list[str]] = lambda *words: [*words]) -> None:
        self._file = Path(plan.file)
        self.looks: list[Look] = []
        """What onlookers saw, once the clients have told all."""
        words = (sys.executable, "-m", "tests.cluster.load", json.dumps(asdict(plan)))
        self._process = subprocess.Popen(inside(*words), cwd=ROOT, stdin=subprocess.PIPE, text=True)

    def end_load(self) -> None:
        """Send nothing new."""
        self._tell()

    def told(self) -> tuple[list[Call], list[Outcome]]:
        """Follow the accepted tasks to their ends; return all that the clients were told. The load has ended."""
        self._tell()
        if self._process.wait(SETTLE_S):
            raise RuntimeError(f"the clients ended with {self._process.returncode}")
        found = json.loads(self._file.read_text())
        self.looks = [Look(**each) for each in found["looks"]]
        return [Call(**each) for each in found["calls"]], [Outcome(**each) for each in found["outcomes"]]

    def stop(self) -> None:
        """Kill them, if they still run."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _tell(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
