"""`python -m tests.crash`: play chapters of a seed until all rounds are done or the part's time is over.

The next call goes on after the last whole chapter. Prints each round, each broken promise with the folder of its
chapter, and counts; exits with 1 if a promise was broken. Needs root, and starts an engine of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.books import faults_of, summary
from tests.conftest import ROOT
from tests.crash.machine import Chapter, Machine
from tests.crash.record import Record
from tests.crash.rounds import Round, chapter

STATE = ROOT / "var" / "crash"


def play(machine: Machine, record: Record, rounds: list[Round]) -> None:
    """Play the next chapter and add it to the record."""
    folder = Path(tempfile.mkdtemp(prefix="chapter", dir=machine.folder))
    began_at = time.monotonic()
    books = Chapter(machine, folder, record.seed + record.chapters).play(
        rounds, lambda text: print(text, flush=True)
    )
    broken = faults_of(books)
    for each in broken:
        print(each, flush=True)
    if broken:
        kept = STATE / f"seed-{record.seed}-chapter-{record.chapters}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept, ignore_dangling_symlinks=True)
        record.broken += [f"chapter {record.chapters}: {each} ({kept})" for each in broken]
    shutil.rmtree(folder, ignore_errors=True)
    record.add(len(rounds), (time.monotonic() - began_at) / 60, summary(books))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=500, help="of the seed, all parts together")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="a part ends with the chapter after these"
    )
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("tests.crash: the engine that it kills needs root", file=sys.stderr)
        return 2
    record = Record.of(STATE, options.seed)
    over_at = time.monotonic() + options.minutes * 60
    # A short path, as sockets need.
    folder = Path(tempfile.mkdtemp(prefix="gck"))
    folder.chmod(0o755)
    with Machine(folder) as machine:
        while record.rounds < options.rounds and time.monotonic() < over_at:
            print(f"chapter {record.chapters} of seed {record.seed}", flush=True)
            play(machine, record, chapter(record.seed, record.chapters))
            record.keep(STATE)
    shutil.rmtree(folder, ignore_errors=True)
    print(record.text())
    return 1 if record.broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
