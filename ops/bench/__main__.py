"""`python -m ops.bench`: measure, print the table, exit with 1 if a figure misses its target."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from ops.bench import durable, figures, keep_alive, simulated, slotfigures
from ops.bench.stack import BenchFailed, Stack

PARTS: Final = {
    "latency": (figures.latency, 300, "a sync task at a time"),
    "throughput": (figures.throughput, 5, "100 MB through the whole path"),
    "cold": (figures.cold_start, 10, "cold starts, compared with docker run"),
    "peer": (slotfigures.peer, 3, "16 clients, compared with a peer"),
    "bodies": (slotfigures.bodies, 3, "10 MB bodies, compared with a peer"),
    "prestart": (slotfigures.prestart, 12, "a model that is loaded before its task"),
    "fresh": (slotfigures.fresh, 10, "fresh slots that are started ahead"),
    "soak": (slotfigures.soak, 1, "100,000 tasks through one slot (a minute)"),
    "reality": (simulated.reality, 10, "simulated waits, compared with real ones (ten minutes)"),
    "keep-alive": (keep_alive.compare, 10, "cold starts with a learnt keep-alive (some minutes)"),
    "simulator": (simulated.speed, 10, "the simulator's speed (some minutes)"),
    "async": (durable.rate, 10, "async tasks, from submission to the result on disk"),
    "kept": (durable.kept, 5, "a store with a million ended tasks (some minutes)"),
    "restart": (durable.restart, 1, "a restart with 100,000 queued tasks (some minutes)"),
    # Last, because the tasks that it queues go on running.
    "submit": (figures.submit, 3, "async submits"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="what to measure; all by default")
    parser.add_argument(
        "--rounds", type=float, default=1.0, help="factor for the number of rounds (0.1: a quick look)"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    found: list[figures.Figure] = []
    try:
        _check_engine()
        with Stack() as stack:
            for name in [part for part in PARTS if part in (options.parts or PARTS)]:
                measure, rounds, words = PARTS[name]
                print(f"{words} …", file=sys.stderr, flush=True)
                for figure in measure(stack, max(1, round(rounds * options.rounds)), _say):
                    found.append(figure)
    except BenchFailed as error:
        print(f"make bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps([figure.__dict__ for figure in found], indent=1) + "\n")
    return 0 if all(figure.good for figure in found) else 1


def table(found: list[figures.Figure]) -> str:
    """Return the figures as a Markdown table, with machine and date below."""
    lines = ["| what | measured | target | |", "|---|---|---|---|"]
    for figure in found:
        mark = "ok" if figure.good else "**short**"
        lines.append(f"| {figure.what} | {figure.text} | {figure.target} | {mark} |")
    lines.append(f"\n{datetime.date.today()}, {_machine()}")
    return "\n".join(lines)


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _machine() -> str:
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = platform.release().split("-")[0]
    return f"{os.cpu_count()} cores ({model}), {memory_gib:.0f} GiB, Linux {kernel}, Python {platform.python_version()}"


def _check_engine() -> None:
    if shutil.which("docker") is None:
        raise BenchFailed("the docker command is missing: `make bench` sets it up")
    done = subprocess.run(
        ["docker", "image", "inspect", "cat:1", "ncat:1", "model:1"], capture_output=True, check=False
    )
    if done.returncode:
        raise BenchFailed(
            f"the images cat:1, ncat:1 and model:1 are missing: run `make images` ({done.stderr.decode().strip()})"
        )


if __name__ == "__main__":
    # Stop the processes that this program started, on SIGTERM as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise SystemExit(main())
