"""Figures of slots: compared with a peer that spawns on the bare host; CPU, bodies, and growth over 100,000 tasks."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from ops.bench.client import KeepAlive, request_bytes, stream_through
from ops.bench.figures import Figure, Say, run_load
from ops.bench.peers import FLOOR_OVER_WATCHDOG, SpawnFloor, Watchdog, program_of, watchdog_binary
from ops.bench.stack import SET_NAME, BenchFailed, Stack
from sets.executor.cgroup import SlotCgroup

CLIENTS: Final = 16
BODY_BYTES: Final = 10_000_000
BODY_CLIENTS: Final = 4
SOAK_TASKS: Final = 100_000
REST_S: Final = 5.0
GROWTH_KIB: Final = 64
"""Growth in KiB that the kernel's own caches explain; 100,000 tasks that leak one byte each exceed it."""


def peer(stack: Stack, rounds: int, say: Say) -> Iterator[Figure]:
    """Measure tasks per second of 16 clients: set, router, of-watchdog (or the spawn loop) in turns; CPU per task."""
    binary = watchdog_binary()
    ours: list[float] = []
    routed: list[float] = []
    theirs: list[float] = []
    cpu: list[float] = []
    run_load(stack.set_port, "/v1/run/ncat:1", CLIENTS, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        program = program_of("ncat:1", "/ncat", Path(folder))
        floor = None if binary else SpawnFloor(Path(folder))
        with Watchdog(binary, program) if binary else nullcontext() as watchdog:
            for _ in range(rounds):
                if watchdog is not None:
                    theirs.append(run_load(watchdog.port, "/", CLIENTS, 3.0)["per_s"])
                elif floor is not None:
                    theirs.append(floor.per_s(program, 3.0) / FLOOR_OVER_WATCHDOG)
                before = _cpu_us(stack)
                result = run_load(stack.set_port, "/v1/run/ncat:1", CLIENTS, 3.0)
                cpu.append((_cpu_us(stack) - before) / result["requests"])
                ours.append(result["per_s"])
                routed.append(run_load(stack.router_port, "/v1/run/ncat:1", CLIENTS, 3.0)["per_s"])
    beside = "of-watchdog" if binary else f"spawn floor / {FLOOR_OVER_WATCHDOG}"
    medians = [statistics.median(values) for values in (ours, routed, theirs)]
    say("tasks/s: set {:.0f}, routed {:.0f}, ".format(*medians[:2]) + f"{beside} {medians[2]:.0f}")
    for what, value, target in (
        (f"sync `ncat`, 1 KB, {CLIENTS} clients, at the set, of {beside}", medians[0] / medians[2], 1.8),
        ("… routed", medians[1] / medians[2], 1.4),
    ):
        yield Figure(what, value, f"{value:.2f} ×", f"≥ {target} ×", value >= target)
    each = statistics.median(cpu)
    yield Figure("CPU per `ncat` task: set, guest and child", each, f"{each:.0f} µs", "≤ 280 µs", each <= 280)


def bodies(stack: Stack, rounds: int, say: Say) -> Iterator[Figure]:
    """Measure 10 MB through `cat` with four clients: the set and of-watchdog in turns."""
    binary = watchdog_binary()
    if binary is None:
        say("10 MB bodies: skipped, of-watchdog is neither in OF_WATCHDOG nor on PATH")
        return
    ours: list[float] = []
    theirs: list[float] = []
    with Watchdog(binary, Path("/bin/cat")) as watchdog:
        for _ in range(rounds):
            theirs.append(_many_bodies(watchdog.port, "/"))
            ours.append(_many_bodies(stack.set_port, "/v1/run/cat:1"))
    ratio = statistics.median(ours) / statistics.median(theirs)
    say(f"MB/s: set {statistics.median(ours):.0f}, of-watchdog {statistics.median(theirs):.0f}")
    yield Figure(
        "10 MB through `cat` at the set, of of-watchdog", ratio, f"{ratio:.2f} ×", "≥ 0.9 ×", ratio >= 0.9
    )


def soak(stack: Stack, rounds: int, say: Say) -> Iterator[Figure]:
    """Run 100,000 tasks in one slot, and measure the growth of its guest and its cgroup."""
    account = "X-Account: soak"
    path = "/v1/run/ncat:1?cpu=2"
    run_load(stack.set_port, path, 1, 2.0, account)
    slot = [one for one in _slots() if one["Labels"].get("org.general-compute.account") == "soak"]
    if len(slot) != 1:
        raise BenchFailed(f"{len(slot)} slots where one was expected")
    before, done = _guest_facts(int(str(slot[0]["Pid"]))), 0
    while done < SOAK_TASKS:
        done += int(run_load(stack.set_port, path, 4, 10.0, account)["requests"])
    after = _guest_facts(int(str(slot[0]["Pid"])))
    growth = {name: after[name] - before[name] for name in before}
    say(
        f"{done} tasks through one slot; growth: "
        + ", ".join(f"{name} {value:+d}" for name, value in growth.items())
    )
    grown = [name for name, value in growth.items() if value > (GROWTH_KIB if name.endswith("_kib") else 0)]
    text = "none" if not grown else ", ".join(f"{name} {growth[name]:+d}" for name in grown)
    yield Figure(f"{done} tasks through one slot: growth", float(len(grown)), text, "none", not grown)


def prestart(stack: Stack, rounds: int, say: Say) -> Iterator[Figure]:
    """Compare a numpy model with and without a prestarted process, in turns."""
    body = b" ".join(b"%.2f" % (number / 100) for number in range(512))
    connection = KeepAlive(stack.set_port)
    times: dict[str, list[float]] = {"0": [], "1": []}
    for _ in range(rounds + 2):
        for wanted, taken in times.items():
            # Separate slots, and time to load: the delay until the next task is not measured.
            time.sleep(0.4)
            request = request_bytes(
                f"/v1/run/model:1?prestart={wanted}", body, f"X-Account: prestart-{wanted}"
            )
            taken.append(_ask_ms(connection, request))
    connection.close()
    with_it, without = (statistics.median(times[wanted][2:]) for wanted in ("1", "0"))
    say(f"p50 ms: prestarted {with_it:.1f}, not {without:.1f}")
    ratio = with_it / without
    yield Figure(
        "numpy and a model, prestarted over not: p50", ratio, f"{ratio:.3f} ×", "≤ 0.1 ×", ratio <= 0.1
    )


def fresh(stack: Stack, rounds: int, say: Say) -> Iterator[Figure]:
    """Compare a new container for each task, started ahead, with `docker run`, in turns."""
    request = request_bytes("/v1/run/cat:1?isolation=fresh", b"x" * 1024, "X-Account: fresh")
    connection = KeepAlive(stack.set_port)
    ours: list[float] = []
    docker: list[float] = []
    for _ in range(rounds + 2):
        time.sleep(0.4)
        ours.append(_ask_ms(connection, request))
        began = time.perf_counter()
        command = ["docker", "run", "-i", "--rm", "--network", "none", "cat:1"]
        subprocess.run(command, input=b"x" * 1024, stdout=subprocess.PIPE, check=True)
        docker.append((time.perf_counter() - began) * 1e3)
    connection.close()
    mine, theirs = statistics.median(ours[2:]), statistics.median(docker[2:])
    say(f"p50 ms: fresh slot {mine:.1f}, docker run {theirs:.0f}")
    ratio = mine / theirs
    yield Figure(
        "`isolation=fresh`, over `docker run`: p50", ratio, f"{ratio:.3f} ×", "≤ 0.15 ×", ratio <= 0.15
    )


def _ask_ms(connection: KeepAlive, request: bytes) -> float:
    began = time.perf_counter()
    status, body = connection.ask(request)
    if status != 200:
        raise BenchFailed(f"answered {status} {body[:300]!r}")
    return (time.perf_counter() - began) * 1e3


def _many_bodies(port: int, path: str) -> float:
    """Return the MB/s of four clients that each send and receive four bodies."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(4):
                stream_through(port, path, BODY_BYTES)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(BODY_CLIENTS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise BenchFailed(f"a body did not come back: {failed[0]}")
    return 4 * BODY_CLIENTS * BODY_BYTES / 1e6 / (time.perf_counter() - began)


def _slots() -> list[dict[str, dict[str, str]]]:
    """Return labels and init's pid of the bench's slots."""
    label = f"label=org.general-compute.set={SET_NAME}"
    listed = subprocess.run(
        ["docker", "ps", "-q", "--filter", label], capture_output=True, check=True, text=True
    )
    ids = listed.stdout.split()
    if not ids:
        return []
    form = '{"Pid": {{.State.Pid}}, "Labels": {{json .Config.Labels}}}'
    inspected = subprocess.run(
        ["docker", "inspect", "--format", form, *ids], capture_output=True, check=True, text=True
    )
    return [json.loads(line) for line in inspected.stdout.splitlines()]


def _cpu_us(stack: Stack) -> int:
    """Return the CPU time so far of the set's processes and its slots, without the router."""
    total = stack.cpu_us("set")
    for slot in _slots():
        cgroup = SlotCgroup(int(str(slot["Pid"])))
        total += cgroup.cpu_us()
        cgroup.close()
    return total


def _guest_facts(pid: int) -> dict[str, int]:
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    facts = {"rss_kib": int(status["VmRSS"].split()[0]), "descriptors": len(list((process / "fd").iterdir()))}
    for place in ("tmp", "dev/shm"):
        usage = (process / "root" / place).stat()
        facts[f"{place} entries"] = len(list((process / "root" / place).iterdir())) + usage.st_nlink - 2
    facts["cgroup_kib"] = charge_at_rest_kib(pid)
    return facts


def charge_at_rest_kib(pid: int, rest_s: float = REST_S) -> int:
    """Return the memory charged to the cgroup of process `pid` at rest: the minimum over `rest_s` seconds.

    The kernel frees much of an ended process's memory later, in batches (RCU). Between tasks in quick succession the
    charge therefore varies by some MiB, whatever the number of tasks.
    """
    until = time.monotonic() + rest_s
    charges = [_charge_kib(pid)]
    while time.monotonic() < until:
        time.sleep(0.2)
        charges.append(_charge_kib(pid))
    return min(charges)


def _charge_kib(pid: int) -> int:
    """Return user plus kernel memory in KiB; the cgroup's `usage` would include what each CPU has reserved ahead."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            folder = Path(f"/sys/fs/cgroup/memory{path}")
            kernel = int((folder / "memory.kmem.usage_in_bytes").read_text())
            return (kernel + _memory_stat(folder, "rss", "cache")) // 1024
        folder = Path(f"/sys/fs/cgroup{path}")
        if not controllers and (folder / "memory.stat").exists():
            kernel = _memory_stat(folder, "kernel")
            # Before Linux 5.18 only its parts are listed.
            kernel = kernel or _memory_stat(folder, "slab", "kernel_stack", "pagetables", "percpu")
            return (kernel + _memory_stat(folder, "anon", "file", "sock")) // 1024
    raise BenchFailed("the slot's memory cgroup was not found")


def _memory_stat(folder: Path, *names: str) -> int:
    """Return the sum of these entries of a cgroup's memory.stat, in bytes."""
    entries = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return sum(int(value) for name, value in entries if name in names)
