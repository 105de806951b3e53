"""Figures of async tasks and their store: rates, submit latency, restart with a backlog, a million ended tasks."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import json
import os
import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ops.bench.client import KeepAlive, request_bytes
from ops.bench.figures import SMALL, Figure, Say, p, run_load
from ops.bench.simulated import SLEEP, build_sleeper
from ops.bench.stack import SET_NAME, BenchFailed, Stack
from scheduler.clock import wall_us
from scheduler.store.contract import Body, Results
from scheduler.store.sqlite import SqliteStore
from scheduler.task import Kind, State, Task, TaskIds, TaskSpec

CLIENTS: Final = 16
PATH: Final = "/v1/run/ncat:1"
ASYNC: Final = "Prefer: respond-async"
BLOCK_BYTES: Final = 4096
FSYNCS: Final = 100
BACKLOG: Final = 100_000
FIRST_START_S: Final = 5.0
PATIENCE_S: Final = 120.0
KEPT: Final = 1_000_000
AT_ONCE: Final = 2_000
"""Tasks that are written to a store at the same time."""
ACCOUNT: Final = "default"


def rate(stack: Stack, rounds: int, say: Say) -> Iterator[Figure]:
    """Measure async tasks a second, from submission to the result on disk, of sync tasks; then submits at little load.

    A round of async tasks lasts six seconds, and sync ones run before and after each.
    """
    synchronous = [run_load(stack.set_port, PATH, CLIENTS, 3.0)["per_s"]]
    asynchronous: list[float] = []
    for _ in range(rounds):
        result = run_load(stack.set_port, PATH, CLIENTS, 6.0, ASYNC, "--to-the-end")
        asynchronous.append(result["per_s"])
        synchronous.append(run_load(stack.set_port, PATH, CLIENTS, 3.0)["per_s"])
    per_s, sync_per_s = statistics.mean(asynchronous), statistics.median(synchronous)
    ratio = per_s / sync_per_s
    say(f"tasks/s: async {per_s:.0f}, sync {sync_per_s:.0f}")
    what = f"async `ncat`, 1 KB, {CLIENTS} clients, submit to result on disk, {6 * rounds} s: tasks/s of sync"
    yield Figure(what, ratio, f"{ratio:.2f} ×", "≥ 0.6 ×", ratio >= 0.6)
    yield _submits(stack, per_s / 5, 4.0 * rounds, say)


def _submits(stack: Stack, per_s: float, seconds: float, say: Say) -> Figure:
    fsyncs_ms = _fsyncs_ms(stack.set_folder)
    result = run_load(stack.set_port, PATH, CLIENTS, seconds, ASYNC, "--per-s", f"{per_s:.3f}")
    fsyncs_ms += _fsyncs_ms(stack.set_folder)
    one_ms = p(fsyncs_ms, 50)
    say(
        f"{per_s:.0f} submits/s: p50 {result['p50_ms']:.2f} ms, p99 {result['p99_ms']:.2f} ms; "
        f"one fsync: p50 {one_ms:.2f} ms, p99 {p(fsyncs_ms, 99):.2f} ms"
    )
    ratio = result["p99_ms"] / one_ms
    return Figure(
        "submit at 20 % of that load: p99 over the median fsync", ratio, f"{ratio:.1f} ×", "≤ 4 ×", ratio <= 4
    )


def _fsyncs_ms(folder: Path) -> list[float]:
    """The times of appending a block to a file of the set's disk and syncing it."""
    path = folder / "fsync"
    times: list[float] = []
    with path.open("wb", buffering=0) as file:
        for _ in range(FSYNCS):
            began = time.perf_counter()
            file.write(b"x" * BLOCK_BYTES)
            os.fsync(file.fileno())
            times.append((time.perf_counter() - began) * 1e3)
    path.unlink()
    return times


def restart(_: Stack, __: int, say: Say) -> Iterator[Figure]:
    """Kill a set that has 100,000 queued tasks, start it again, and measure when the first task starts."""
    build_sleeper()
    with Stack(f"max_waiting: {2 * BACKLOG}\nmax_waiting_account: {2 * BACKLOG}\n") as stack:
        queued = 0
        while queued < BACKLOG:
            path = f"/v1/run/{SLEEP}?arg=1000"
            queued += int(run_load(stack.set_port, path, CLIENTS, 5.0, ASYNC)["requests"])
        stack.kill_set()
        began, began_us = time.monotonic(), wall_us()
        stack.start_set()
        took_s = _first_start_us(stack, began + PATIENCE_S, began_us) / 1e6
        say(f"{queued} tasks were queued; answers after {time.monotonic() - began:.1f} s at most")
    what = f"{queued} queued tasks, kill -9, restart: first task started"
    yield Figure(what, took_s, f"{took_s:.2f} s", f"≤ {FIRST_START_S:g} s", took_s <= FIRST_START_S)


def _first_start_us(stack: Stack, deadline: float, began_us: int) -> int:
    """Microseconds from `began_us` until a task was started."""
    address = f"http://127.0.0.1:{stack.set_port}/v1/tasks?state=running&limit=10"
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                tasks = json.load(answer)["tasks"]
        except (urllib.error.HTTPError, OSError):
            tasks = []
        starts = [at for task in tasks if (at := _us(task["started_at"])) > began_us]
        if starts:
            return min(starts) - began_us
        time.sleep(0.1)
    raise BenchFailed(f"no task started within {PATIENCE_S:.0f} s after the restart")


def _us(moment: str) -> int:
    return int(datetime.datetime.fromisoformat(moment).timestamp() * 1e6)


def kept(empty: Stack, rounds: int, say: Say) -> Iterator[Figure]:
    """Compare a set that keeps a million ended tasks with one that keeps few, in turns; time list and status."""
    rates: dict[str, list[float]] = {"full": [], "few": []}
    known: list[str] = []
    with Stack(prepare=lambda folder: known.extend(asyncio.run(_fill(folder)))) as full:
        for _ in range(rounds):
            for name, stack in (("few", empty), ("full", full)):
                result = run_load(stack.set_port, PATH, CLIENTS, 3.0, ASYNC, "--to-the-end")
                rates[name].append(result["per_s"])
        lists_ms, states_ms = _looks_ms(full, known)
    per_s = {name: statistics.median(values) for name, values in rates.items()}
    say(
        f"async tasks/s: {per_s['full']:.0f} with {KEPT} ended tasks in the store, {per_s['few']:.0f} with few"
    )
    ratio = per_s["full"] / per_s["few"]
    what = f"async tasks/s with {KEPT} ended tasks in the store, of few"
    yield Figure(what, ratio, f"{ratio:.2f} ×", "≥ 0.9 ×", ratio >= 0.9)
    for name, times in (("list of 50 tasks", lists_ms), ("status of a task", states_ms)):
        worst = p(times, 99)
        say(f"{name}: p50 {p(times, 50):.2f} ms, p99 {worst:.2f} ms")
        yield Figure(f"… {name}: p99", worst, f"{worst:.2f} ms", "≤ 5 ms", worst <= 5)


async def _fill(folder: Path) -> list[str]:
    """Make a store with `KEPT` ended async tasks and their results; returns some of their ids."""
    folder.mkdir(mode=0o700, parents=True)
    store = SqliteStore(folder / "tasks.db")
    await store.open()
    ids = TaskIds(SET_NAME)
    now_us = wall_us()
    results = Results(stdout=Body(len(SMALL), SMALL[:64]))
    known = []
    for _ in range(0, KEPT, AT_ONCE):
        tasks = [_ended(ids.new(), now_us, number) for number in range(AT_ONCE)]
        known.append(tasks[0].id)
        await asyncio.gather(*(store.finish(task, results) for task in tasks))
    await store.close()
    return known


def _ended(task_id: str, now_us: int, number: int) -> Task:
    image = f"image-{number % 20}:1"
    spec = TaskSpec(ACCOUNT, image, "sha256:" + "d" * 64, name=f"name-{number % 100}", kind=Kind.ASYNC)
    state = State.FAILED if number % 10 == 0 else State.SUCCEEDED
    return Task(
        task_id,
        spec,
        now_us,
        state=state,
        exit_code=int(state is State.FAILED),
        attempts=1,
        lease_number=1,
        started_us=now_us,
        ended_us=now_us + 1000,
        duration_us=1000,
        cpu_us=800,
        expires_us=now_us + 7 * 86_400_000_000,
    )


def _looks_ms(stack: Stack, known: list[str]) -> tuple[list[float], list[float]]:
    """The times of lists, with and without filters and deep in the past, and of tasks' states."""
    connection = KeepAlive(stack.set_port)
    filters = ("", "&state=failed", "&image=image-3:1", "&name=name-42", "&state=failed&image=image-10:1")
    lists = [f"/v1/tasks?limit=50{one}" for one in filters]
    lists += [f"/v1/tasks?limit=50{one}&before={known[len(known) // 2]}" for one in filters]
    lists_ms = [_ask_ms(connection, path) for path in itertools.islice(itertools.cycle(lists), 400)]
    states_ms = [_ask_ms(connection, f"/v1/tasks/{task_id}") for task_id in known]
    connection.close()
    return lists_ms, states_ms


def _ask_ms(connection: KeepAlive, path: str) -> float:
    request = request_bytes(path, b"").replace(b"POST", b"GET", 1)
    began = time.perf_counter()
    status, body = connection.ask(request)
    took_ms = (time.perf_counter() - began) * 1e3
    if status != 200:
        raise BenchFailed(f"{path} answered {status} {body[:300]!r}")
    return took_ms
