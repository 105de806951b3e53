"""Sends a million requests while sets, workers and configuration are replaced, and reports the clients' errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ops.bench.figures import Figure
from ops.bench.stack import BenchFailed, free_port
from ops.bench_router.bench import Bench
from ops.bench_router.proxies import Place, router_command
from ops.bench_router.server import Server
from ops.bench_router.soaksets import SoakSet, made_sets
from ops.setup.engine import ROOT

REQUESTS: Final = 1_000_000
RELOADS: Final = 200
SET_RESTARTS: Final = 20
WORKER_RESTARTS: Final = 5
CLIENTS: Final = 32
WORKERS: Final = 2
FAILED_AT_MOST: Final = 1000
"""Number of failures after which the soak gives up."""
SETTLE_S: Final = 60.0
"""Longest time, in seconds, that a change may take until it is in force."""


@dataclass
class Seen:
    """The clients' counters, from the last line that they wrote."""

    answered: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)
    closed_idle: int = 0
    ended: bool = False

    @property
    def requests(self) -> int:
        return sum(self.answered.values()) + self.failures

    @property
    def failures(self) -> int:
        return sum(self.failed.values())


class Clients:
    """The load, as a process; `seen` follows it. Leaving the context ends it."""

    def __init__(self, port: int, at_least: int, path: str) -> None:
        words = (str(port), str(at_least), str(CLIENTS), path)
        self._command = [sys.executable, "-m", "ops.bench_router.soakload", *words]
        self.seen = Seen()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def await_requests(self, count: float) -> None:
        """Wait until this many requests have ended, or the clients have. Raises BenchFailed if too many failed."""
        while self.alive and (seen := self.seen).requests < count:
            if seen.failures > FAILED_AT_MOST:
                raise BenchFailed(
                    f"{seen.failures:,} of {seen.requests:,} requests failed: {' '.join(seen.samples[:1])}"
                )
            time.sleep(0.05)

    def end(self, timeout_s: float) -> None:
        """Let them finish. Raises BenchFailed if that takes too long."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise BenchFailed(f"the clients did not end within {timeout_s:.0f} s") from None
        self._reader.join()
        if not self.seen.ended:
            raise BenchFailed("the clients ended without a result")

    def _follow(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.seen = Seen(**json.loads(line))


class Operator:
    """Edits the router's file, restarts sets and workers, and waits until each change is in force."""

    def __init__(self, router: Server, admin_port: int, config: Path, sets: list[SoakSet]) -> None:
        self._router = router
        self._admin = f"http://127.0.0.1:{admin_port}"
        self._config = config
        self._sets = sets
        self._version = 1
        self._restarted = 0

    def reload(self) -> None:
        """Change the weights, by an atomic replacement of the file."""
        self._version += 1
        write_config(self._config, self._version, self._sets)
        self._await(lambda status: status["version"] == self._version, f"version {self._version} in force")

    def restart_set(self) -> None:
        """Restart the next set, once all are alive again."""
        one = self._sets[self._restarted % len(self._sets)]
        self._restarted += 1
        self.await_alive()
        one.server.stop(SETTLE_S)
        one.server.start()
        self.await_alive()

    def restart_worker(self) -> None:
        """Send SIGTERM to a worker; the arbiter starts another."""
        before = self._workers()
        os.kill(before[0], signal.SIGTERM)
        deadline = time.monotonic() + SETTLE_S
        while before[0] in (now := self._workers()) or len(now) < len(before):
            if time.monotonic() > deadline:
                raise BenchFailed("no new worker replaced the one that was sent SIGTERM")
            time.sleep(0.05)
        self.await_alive()

    def await_alive(self) -> None:
        """Wait until the router counts every set as alive. An ejected set is: it is used when no other is left."""
        names = [each.name for each in self._sets]
        self._await(
            lambda status: all(
                status["sets"][name]["health"] not in ("down", "refused", "draining") for name in names
            ),
            "all sets alive",
        )

    def _workers(self) -> list[int]:
        pid = self._router.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def _await(self, holds: Callable[[dict[str, Any]], bool], what: str) -> None:
        deadline = time.monotonic() + SETTLE_S
        error = "the status says otherwise"
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self._admin}/status", timeout=5) as answer:
                    if holds(json.load(answer)):
                        return
            except (OSError, ValueError, KeyError) as trouble:
                error = repr(trouble)
            time.sleep(0.05)
        raise BenchFailed(f"waited {SETTLE_S:.0f} s without success for {what}: {error}")


def soak(bench: Bench, factor: float) -> Iterator[Figure]:
    """Run the soak, scaled by `factor`, with at least one change of each kind."""
    requests = max(1000, round(REQUESTS * factor))
    counts = {
        "reload": max(1, round(RELOADS * factor)),
        "set": max(1, round(SET_RESTARTS * factor)),
        "worker": max(1, round(WORKER_RESTARTS * factor)),
    }
    with ExitStack() as stack:
        folder = bench.folder / "soak"
        folder.mkdir()
        sets = made_sets(folder, bench.say)
        for each in sets:
            stack.enter_context(each.server)
        router_folder = folder / "router"
        router_folder.mkdir()
        config = router_folder / "router.yaml"
        write_config(config, 1, sets)
        place = Place(router_folder, free_port(), 0, 0)
        admin_port = free_port()
        command = router_command(place, config, admin_port, workers=WORKERS)
        router = stack.enter_context(Server("router", command, ROOT, place.port, log_folder=router_folder))
        operator = Operator(router, admin_port, config, sets)
        operator.await_alive()
        with Clients(place.port, requests, sets[0].path) as clients:
            actions = {
                "reload": operator.reload,
                "set": operator.restart_set,
                "worker": operator.restart_worker,
            }
            for due, kind in planned(counts):
                clients.await_requests(due * requests)
                began = time.monotonic()
                actions[kind]()
                if kind != "reload":
                    seen = clients.seen
                    so_far = f"{seen.requests:,} requests, {seen.failures:,} failed"
                    bench.say(f"{kind} restarted in {time.monotonic() - began:.1f} s; so far {so_far}")
            clients.end(timeout_s=60 + 3600 * factor)
            seen = clients.seen
        operator.await_alive()
        labels: Counter[str] = Counter()
        for each in sets:
            labels.update(each.labels())
    for sample in seen.samples:
        bench.say("failed: " + " | ".join(sample.split()))
    bench.say(
        f"answered {seen.answered}, failed {seen.failed}, {seen.closed_idle} connections closed between requests"
    )
    yield from figures(seen, labels, counts)


def figures(seen: Seen, labels: Counter[str], counts: dict[str, int]) -> Iterator[Figure]:
    """Make the rows. `labels`: the number of tasks in the sets under each name of an async run."""
    words = f"{counts['reload']} reloads, {counts['set']} set restarts, {counts['worker']} worker restarts"
    yield _none(f"{seen.requests:,} requests through {words}: failed", seen.failures)
    yield _none("… async tasks doubled", sum(count - 1 for count in labels.values()))
    # A failed request may still have been accepted; an accepted one must have a task.
    yield _none("… accepted async tasks lost", max(0, seen.answered.get("async", 0) - len(labels)))


def planned(counts: dict[str, int]) -> list[tuple[float, str]]:
    """Return when each change is due, as a share of the requests: every kind evenly spread, in order."""
    return sorted(((number + 0.5) / count, kind) for kind, count in counts.items() for number in range(count))


def write_config(path: Path, version: int, sets: list[SoakSet]) -> None:
    """Write a router's file with these sets, atomically; the weights change with the version."""
    first = 30 + version * 7 % 41
    shares = [first, 100 - first]
    lines = [f"version: {version}", "sets:"]
    lines += [f'  {each.name}: {{url: "http://127.0.0.1:{each.server.port}", state: ready}}' for each in sets]
    weights = ", ".join(f"{each.name}: {share}" for each, share in zip(sets, shares, strict=True))
    lines += ["default:", f"  weights: {{{weights}}}", "health: {interval: 1s}"]
    lines += [f'access_log: {{to: "{path.with_name("access.log")}", sample: 1%}}']
    new = path.with_suffix(".new")
    new.write_text("\n".join(lines) + "\n")
    new.replace(path)


def _none(what: str, count: int) -> Figure:
    return Figure(what, float(count), f"{count:,}", "0", count == 0)
