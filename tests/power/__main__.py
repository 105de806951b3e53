"""`python -m tests.power`: cut the power of a virtual machine under load, chapter by chapter, until all cuts are done.

The next call goes on after the last whole chapter. Prints each cut, each broken promise, and a table at the end; exits
with 1 if a promise was broken. Needs root. A cut takes two minutes where the processor is emulated.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.cluster.books import faults_of, summary
from tests.conftest import ROOT
from tests.crash.record import Record
from tests.power.chapter import Chapter
from tests.power.machine import prepared

STATE = ROOT / "var" / "power"
CUTS = 5
"""Cuts of a chapter: then everything runs to its end, and the books are compared."""
COLUMNS = ("load_s", "ends seen", "flushed", "kept", "torn", "lost")


def table(rows: list[dict[str, Any]]) -> str:
    """The cuts as a table; writes are those of the disk since its boot: flushed ones, and what became of the others."""
    lines = [
        ["cut", *COLUMNS],
        *([str(number), *(str(row.get(name, 0)) for name in COLUMNS)] for number, row in enumerate(rows, 1)),
    ]
    return "\n".join("".join(f"{cell:>11}" for cell in line) for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.power", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20, help="cuts of the seed, all parts together")
    parser.add_argument(
        "--minutes", type=float, default=120.0, help="a part ends with the chapter after these"
    )
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("tests.power: the disk of the machine is made as root", file=sys.stderr)
        return 2
    file, rows_file = STATE / f"seed-{options.seed}.json", STATE / f"seed-{options.seed}-cuts.json"
    record = Record.of(file, options.seed)
    rows = json.loads(rows_file.read_text()) if rows_file.exists() else []
    root = prepared()
    over_at = time.monotonic() + options.minutes * 60
    while record.rounds < options.rounds and time.monotonic() < over_at:
        number = record.chapters
        print(f"chapter {number} of seed {options.seed}", flush=True)
        folder = Path(tempfile.mkdtemp(prefix="gcp", dir="/var/tmp"))
        began_at = time.monotonic()
        cuts = min(CUTS, options.rounds - record.rounds)
        books, new = Chapter(root, folder, f"{options.seed} {number}").play(
            cuts, lambda text: print(text, flush=True)
        )
        if broken := faults_of(books):
            kept = STATE / f"seed-{options.seed}-chapter-{number}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept)
            record.broken += [f"chapter {number}: {each} ({kept})" for each in broken]
            print(*broken, sep="\n", flush=True)
        shutil.rmtree(folder)
        record.add(cuts, (time.monotonic() - began_at) / 60, summary(books))
        record.keep(file)
        rows += new
        rows_file.write_text(json.dumps(rows))
    print(table(rows), record.text(), sep="\n")
    return 1 if record.broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
