"""A machine of its own for each test of the runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sets.runtime.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    if os.geteuid() != 0:
        pytest.skip("mounts need root, as make test in CI has")
    made = Rig(tmp_path / "machine")
    yield made
    made.close()
