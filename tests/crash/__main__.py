"""`python -m tests.crash`: play chapters of a seed until all rounds are done or the part's time is over.

The next call goes on after the last whole chapter. Prints each round, each broken promise with the folder of its
chapter, and counts; exits with 1 if a promise was broken. Needs root, and starts an engine of its own; with
`--simulated` slots are in memory, and rounds take a fraction of a second; with `--writes` a round is a loss of power
after a call of a recorded store, and what was not synced has one of its fates.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.cluster.books import Books, faults_of, summary
from tests.conftest import ROOT
from tests.crash.machine import Chapter, Machine
from tests.crash.record import Record
from tests.crash.rounds import chapter
from tests.crash.simulated import read
from tests.scheduler.store.writes import sweep

STATE = ROOT / "var" / "crash"
SIMULATED_ROUNDS = 100
"""Rounds of a chapter with slots in memory."""
WRITES_TASKS = 40
"""Tasks of an actor whose calls are recorded: some four thousand calls, and as many tries."""


def real(machine: Machine, record: Record, folder: Path) -> tuple[int, Books]:
    """Play the next chapter; return the number of its rounds, and the books."""
    rounds = chapter(record.seed, record.chapters)
    played = Chapter(machine, folder, record.seed + record.chapters)
    return len(rounds), played.play(rounds, lambda text: print(text, flush=True))


def simulated(faults: float, record: Record, folder: Path) -> tuple[int, Books]:
    """Play the next rounds with slots in memory; return their number, and the books."""
    seed = f"{record.seed}{record.chapters:04}"
    numbers = (seed, str(SIMULATED_ROUNDS), str(faults))
    words = (sys.executable, "-m", "tests.crash.simulated", str(folder), *numbers)
    subprocess.run(words, cwd=ROOT, check=True)
    return SIMULATED_ROUNDS, read(folder)


def writes(record: Record, folder: Path) -> tuple[int, Books]:
    """Record a log, and try what a loss of power leaves after its calls; a round is a try."""
    seed = f"{record.seed}.{record.chapters}"
    calls = sweep.record(folder, seed, WRITES_TASKS)
    tries = sweep.worth_trying(calls, seed)
    found = sweep.sweep(calls, tries, seed, folder)
    return sum(map(len, tries.values())), Books([], [], [], [], [str(fault) for fault in found])


def play(record: Record, name: str, within: Path, part: Callable[[Record, Path], tuple[int, Books]]) -> None:
    """Play the next chapter in a folder of its own, and add it to the record."""
    print(f"chapter {record.chapters} of {name}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="chapter", dir=within))
    began_at = time.monotonic()
    rounds, books = part(record, folder)
    broken = faults_of(books)
    for each in broken:
        print(each, flush=True)
    if broken:
        kept = STATE / f"{name}-chapter-{record.chapters}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept, ignore_dangling_symlinks=True)
        record.broken += [f"chapter {record.chapters}: {each} ({kept})" for each in broken]
    shutil.rmtree(folder, ignore_errors=True)
    record.add(rounds, (time.monotonic() - began_at) / 60, summary(books))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=500, help="of the seed, all parts together")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="a part ends with the chapter after these"
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--simulated", action="store_true", help="real store, slots in memory")
    kind.add_argument("--writes", action="store_true", help="loss of power after calls of a recorded store")
    parser.add_argument(
        "--faults", type=float, default=0.0, help="with --simulated: share of the store's calls that fail"
    )
    options = parser.parse_args()
    in_memory = options.simulated or options.writes
    if not in_memory and os.geteuid() != 0:
        print("tests.crash: the engine that it kills needs root", file=sys.stderr)
        return 2
    kinds = {"simulated": options.simulated, "writes": options.writes, "faults": options.faults}
    name = "-".join([*(kind for kind, chosen in kinds.items() if chosen), f"seed-{options.seed}"])
    file = STATE / f"{name}.json"
    record = Record.of(file, options.seed)
    over_at = time.monotonic() + options.minutes * 60
    # A short path, as sockets need.
    folder = Path(tempfile.mkdtemp(prefix="gck"))
    folder.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        part = writes if options.writes else partial(simulated, options.faults)
        if not in_memory:
            part = partial(real, stack.enter_context(Machine(folder)))
        while record.rounds < options.rounds and time.monotonic() < over_at:
            play(record, name, folder, part)
            record.keep(file)
    print(record.text())
    return 1 if record.broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
