"""The two sets of the soak: real ones if an engine has their image, else fakes that answer like sets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.bench.figures import Say
from ops.bench.stack import free_port
from ops.bench_router.server import Server
from ops.setup.engine import ROOT

IMAGE: Final = "ncat:1"
WAITING_AT_MOST: Final = 1_000_000


@dataclass(frozen=True)
class SoakSet:
    """A set of the soak: `path` is the target of a POST; `labels()` counts its async tasks by name."""

    name: str
    server: Server
    path: str
    labels: Callable[[], Counter[str]]


def made_sets(folder: Path, say: Say) -> list[SoakSet]:
    """Make two sets without starting them."""
    # Unique names, as slots are found by their set's name and others may use the engine too.
    names = [f"soak{letter}{os.getpid()}" for letter in "ab"]
    real = _engine_has_image()
    say("two sets on the engine" if real else f"two fake sets: no engine holds {IMAGE} (make images)")
    return [_real(name, folder) if real else _fake(name, folder) for name in names]


def _engine_has_image() -> bool:
    try:
        command = ["docker", "image", "inspect", IMAGE]
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _real(name: str, folder: Path) -> SoakSet:
    port = free_port()
    config = folder / f"{name}.yaml"
    config.write_text(
        f"name: {name}\nstate_dir: {folder / name}\ncores: 2\nmax_slots: 8\nlog_level: warning\n"
        f"max_waiting: {WAITING_AT_MOST}\nmax_waiting_account: {WAITING_AT_MOST}\n"
    )
    command = [sys.executable, "-m", "ops.cli.main", "set", str(config), "--bind", f"127.0.0.1:{port}"]
    server = Server(name, command, ROOT, port, log_folder=folder)

    def labels() -> Counter[str]:
        found: Counter[str] = Counter()
        before = ""
        while True:
            url = f"http://127.0.0.1:{port}/v1/tasks?limit=500{before}"
            request = urllib.request.Request(url, headers={"X-Account": "soak-async"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                page = json.load(answer)
            found.update(task["name"] for task in page["tasks"])
            if page["next"] is None:
                return found
            before = f"&before={page['next']}"

    return SoakSet(name, server, f"/v1/run/{IMAGE}", labels)


def _fake(name: str, folder: Path) -> SoakSet:
    port = free_port()
    journal = folder / f"{name}.journal"
    command = [sys.executable, "-m", "ops.bench_router.fakeset", name, str(port), str(journal)]
    server = Server(name, command, ROOT, port, log_folder=folder)

    def labels() -> Counter[str]:
        return Counter(line.split(" ")[0] for line in journal.read_text().splitlines())

    return SoakSet(name, server, f"/v1/run/{IMAGE}", labels)
