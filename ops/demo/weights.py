"""Reads the weights in the router's YAML file, changes them in place as an operator would, and restores them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ops.demo.errors import DemoFailed

# The default's weights in flow style; rules before it may have weights too.
WEIGHTS: Final = re.compile(r"^(default:.*?\bweights:\s*)\{([^}]*)\}", re.MULTILINE | re.DOTALL)
PAIR: Final = re.compile(r"([a-z0-9]+)\s*:\s*([0-9]+(?:\.[0-9]{1,2})?)")

Weights = Mapping[str, float]


class WeightsFile:
    """A router's YAML file whose default weights are changed temporarily.

    `restore` puts the old file back, unless somebody else has edited it meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = path.read_text()
        self._ours: str | None = None

    @property
    def weights(self) -> dict[str, float]:
        """Return the default weights as configured, in percent. Raises DemoFailed if they are not in flow style."""
        found = WEIGHTS.search(self.before)
        if not found:
            raise DemoFailed(f"{self.path}: there is no `weights: {{a: 95, b: 5}}` under `default:`")
        return {name: float(percent) for name, percent in PAIR.findall(found[2])}

    def change(self, weights: Weights) -> None:
        """Save the file with other default weights; everything else in it stays the same."""
        changed = WEIGHTS.sub(lambda found: f"{found[1]}{flow(weights)}", self.before, count=1)
        self._save(changed)
        self._ours = changed

    def restore(self) -> bool:
        """Put the file back; returns False if somebody else has edited it."""
        if self._ours is None:
            return True
        if self.path.read_text() != self._ours:
            return False
        self._save(self.before)
        self._ours = None
        return True

    def _save(self, text: str) -> None:
        # Atomic, so that no reader sees half a file.
        unfinished = self.path.with_suffix(f".{os.getpid()}.new")
        unfinished.write_text(text)
        unfinished.chmod(self.path.stat().st_mode)
        unfinished.replace(self.path)


def flow(weights: Weights) -> str:
    """``{a: 95, b: 5}``."""
    return "{" + ", ".join(f"{name}: {percent:g}" for name, percent in weights.items()) + "}"


def other_weights(weights: Weights) -> dict[str, float]:
    """Return the demo's new weights: even shares, or, if they are even already, 80 % for the first."""
    even = {name: 100 / len(weights) for name in weights}
    if weights != even:
        return even
    first, *others = weights
    return {first: 80.0, **{name: 20 / len(others) for name in others}}
