"""The measurements, what each is compared with, and its target."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ops.bench.client import BLOCK, KeepAlive, request_bytes, stream_through
from ops.bench.stack import BenchFailed, Stack
from ops.setup.engine import ROOT

SMALL: Final = b"x" * 1024
LARGE_BYTES: Final = 100_000_000
MEMORY_LIMIT_MIB: Final = 120.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Figure:
    """A line of the table. `good` compares `value` with `target`."""

    what: str
    value: float
    text: str
    target: str
    good: bool


def p(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def latency(stack: Stack, rounds: int, say: Say) -> Iterator[Figure]:
    """Measure one sync `cat` of 1 KB at a time: bare subprocess, the set, the router, in turns."""
    request = request_bytes("/v1/run/cat:1", SMALL)
    cat = shutil.which("cat") or "cat"
    at_set, at_router = KeepAlive(stack.set_port), KeepAlive(stack.router_port)
    bare: list[float] = []
    direct: list[float] = []
    routed: list[float] = []

    def once(times: list[float], connection: KeepAlive) -> None:
        began = time.perf_counter()
        status, body = connection.ask(request)
        times.append((time.perf_counter() - began) * 1e3)
        if status != 200 or body != SMALL:
            raise BenchFailed(f"cat answered {status} {body[:200]!r}")

    for _ in range(30):
        once([], at_set)
        once([], at_router)
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([cat], input=SMALL, stdout=subprocess.PIPE, check=True)
        bare.append((time.perf_counter() - began) * 1e3)
        once(direct, at_set)
        once(routed, at_router)
    at_set.close()
    at_router.close()
    medians = [p(times, 50) for times in (bare, direct, routed)]
    say(
        "p50 ms: subprocess.run {:.3f}, set {:.3f}, router {:.3f}".format(*medians)
        + "; p99 ms: {:.3f}, {:.3f}, {:.3f}".format(*[p(times, 99) for times in (bare, direct, routed)])
    )
    over, more = medians[1] - medians[0], medians[2] - medians[1]
    yield Figure(
        "sync `cat`, 1 KB, at the set: p50 over `subprocess.run`",
        over,
        f"{over:+.2f} ms",
        "≤ +1.0 ms",
        over <= 1.0,
    )
    yield Figure("… through the router: p50 more", more, f"{more:+.2f} ms", "≤ +0.5 ms", more <= 0.5)
    routed_over = medians[2] - medians[0]
    yield Figure(
        "… routed: p50 over `subprocess.run`",
        routed_over,
        f"{routed_over:+.2f} ms",
        "≤ +0.7 ms",
        routed_over <= 0.7,
    )
    tail = p(routed, 99) - p(bare, 99)
    yield Figure("… routed: p99 over `subprocess.run`'s", tail, f"{tail:+.2f} ms", "≤ +3 ms", tail <= 3)


def throughput(stack: Stack, rounds: int, say: Say) -> Iterator[Figure]:
    """Measure 100 MB through `cat`, routed and through a bare pipe, in turns, and the memory used."""
    routed: list[float] = []
    bare: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        stream_through(stack.router_port, "/v1/run/cat:1", LARGE_BYTES)
        routed.append(LARGE_BYTES / 1e6 / (time.perf_counter() - began))
        bare.append(_bare_pipe())
    ratio = statistics.median(routed) / statistics.median(bare)
    say(f"MB/s: routed {statistics.median(routed):.0f}, bare pipe {statistics.median(bare):.0f}")
    yield Figure(
        "100 MB through `cat`, routed, of a bare `cat` pipe", ratio, f"{ratio:.2f} ×", "≥ 0.4 ×", ratio >= 0.4
    )
    peaks = stack.peak_memory_mib()
    most = max(peaks.values())
    say("peak memory MiB: " + ", ".join(f"{name} {peak:.0f}" for name, peak in peaks.items()))
    yield Figure(
        "… largest process",
        most,
        f"{most:.0f} MiB",
        f"≤ {MEMORY_LIMIT_MIB:.0f} MiB",
        most <= MEMORY_LIMIT_MIB,
    )


def _bare_pipe() -> float:
    began = time.perf_counter()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def feed() -> None:
            left = LARGE_BYTES
            while left:
                left -= stdin.write(memoryview(BLOCK)[: min(left, len(BLOCK))]) or 0
            stdin.close()

        feeder = threading.Thread(target=feed)
        feeder.start()
        received = 0
        while data := stdout.read(1 << 20):
            received += len(data)
        feeder.join()
    if received != LARGE_BYTES:
        raise BenchFailed(f"the bare pipe gave {received} bytes")
    return LARGE_BYTES / 1e6 / (time.perf_counter() - began)


def cold_start(stack: Stack, rounds: int, say: Say) -> Iterator[Figure]:
    """Compare the first task of a pool without a slot with `docker run` of the same image, in turns."""
    ours: list[float] = []
    docker: list[float] = []
    connection = KeepAlive(stack.set_port)
    for number in range(rounds):
        # A new account has no slot yet.
        request = request_bytes("/v1/run/cat:1", SMALL, f"X-Account: cold-{number}")
        began = time.perf_counter()
        status, body = connection.ask(request)
        ours.append((time.perf_counter() - began) * 1e3)
        if status != 200 or body != SMALL:
            raise BenchFailed(f"a cold cat answered {status} {body[:200]!r}")
        began = time.perf_counter()
        command = ["docker", "run", "-i", "--rm", "--network", "none", "cat:1"]
        subprocess.run(command, input=SMALL, stdout=subprocess.PIPE, check=True)
        docker.append((time.perf_counter() - began) * 1e3)
    connection.close()
    ratio = p(ours, 50) / p(docker, 50)
    say(f"p50 ms: cold start {p(ours, 50):.0f}, docker run {p(docker, 50):.0f}")
    yield Figure(
        "cold start of a local image over `docker run`", ratio, f"{ratio:.2f} ×", "≤ 0.7 ×", ratio <= 0.7
    )


def submit(stack: Stack, rounds: int, say: Say) -> Iterator[Figure]:
    """Measure async submits of 1 KB by 16 clients; each answer means that the task is on disk."""
    rates: list[float] = []
    for number in range(rounds):
        # Clients submit faster than two cores can run tasks: a new account for each round stays below its limit.
        account = f"X-Account: submit-{number}"
        result = run_load(stack.set_port, "/v1/run/ncat:1", 16, 4.0, "Prefer: respond-async", account)
        rates.append(result["per_s"])
        say(f"submits/s {result['per_s']:.0f}, p50 {result['p50_ms']:.1f} ms, p99 {result['p99_ms']:.1f} ms")
    rate = statistics.median(rates)
    what = "async submit, 1 KB, 16 clients, on disk when answered"
    yield Figure(what, rate, f"{rate:.0f}/s", "≥ 1000/s", rate >= 1000)


def run_load(port: int, path: str, clients: int, seconds: float, *headers: str) -> dict[str, float]:
    """Run `ops.bench.load` as a process. Raises `BenchFailed` if an answer was not a success."""
    command = [sys.executable, "-m", "ops.bench.load", str(port), path, str(clients), str(seconds), *headers]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=seconds + 120)
    result: dict[str, float] = json.loads(done.stdout)
    if result["bad"] or not result["requests"]:
        raise BenchFailed(
            f"{result['bad']:.0f} of {result['requests']:.0f} answers failed: {result['first_bad']}"
        )
    return result
