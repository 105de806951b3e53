"""Twenty rounds of `kill -9`: a set at each step and at a random moment, a guest, a container, the engine.

Afterwards nothing is lost, doubled, mixed, billed twice, unbilled or left over.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.books import faults_of, summary
from tests.crash.machine import Chapter, Machine
from tests.crash.rounds import chapter

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="a private engine needs root, as make test in CI has"),
    pytest.mark.timeout(3600),
]

SEED = 1


@pytest.fixture
def machine() -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="gck"))
    folder.chmod(0o755)
    with Machine(folder) as machine:
        yield machine
    shutil.rmtree(folder)


def test_books_are_right_after_twenty_rounds(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began_at = time.monotonic()
    rounds = chapter(SEED, 0)
    books = Chapter(machine, tmp_path, SEED).play(rounds, print)
    found = summary(books)
    with capsys.disabled():
        print(f"\n{len(rounds)} rounds of {time.monotonic() - began_at:.0f} s: {found}")
    assert faults_of(books) == []
    assert found["succeeded"] > 0
    assert found["tasks that ran again"] > 0
