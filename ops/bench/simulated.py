"""Holds the simulator to reality: the same tasks at the same times, in a real set and in a simulated one; its speed."""

from __future__ import annotations

import heapq
import json
import subprocess
import time
from collections.abc import Iterator
from typing import Final

from ops.bench.client import KeepAlive, request_bytes
from ops.bench.figures import Figure, Say, p
from ops.bench.stack import BenchFailed, Stack
from ops.simulator.play import Play
from ops.simulator.report import report_of
from ops.simulator.scenario import read, shipped, shortened
from ops.simulator.sources import Planned, account_sources, course

SLEEP: Final = "bench-sleep:1"
"""An image whose tasks hold a core without using it, so that other programs of the machine disturb them little."""
WITHIN: Final = 0.2
"""Largest difference between simulated and real waits, as a share of the real ones."""
PER_S_AT_LEAST: Final = 20_000.0
LONGEST_S: Final = {"pictures": 900.0, "hundred-thousand-cores": 600.0}
"""Longest CPU time, in seconds, that a whole run of a scenario may take."""
WHOLE: Final = 10
"""Rounds of a whole run; with fewer, a scenario is pressed into a part of its time."""
PATIENCE_S: Final = 120.0
"""Longest wait for the last tasks, in seconds."""


def reality(stack: Stack, minutes: int, say: Say) -> Iterator[Figure]:
    """Run some minutes of the scenario `two-cores` both ways, and compare how long tasks waited for their slots."""
    build_sleeper()
    scenario = shortened(read(shipped()["two-cores"]), 60.0 * minutes)
    plans = list(heapq.merge(*map(course, account_sources(scenario)), key=_arrival))
    tasks = _run(stack, plans)
    waited_s = [task["queue_us"] / 1e6 for task in tasks]
    beside_ms = [
        task["duration_us"] / 1e3 - 1e3 * plan.run_s for task, plan in zip(tasks, plans, strict=True)
    ]
    say(
        f"{len(tasks)} tasks; each ran {p(beside_ms, 50):.1f} ms longer than asked, p95 {p(beside_ms, 95):.1f} ms"
    )
    play = Play(scenario)
    for source in play.sources:
        # Programs take longer on a busy machine; the simulator is to foretell waits, not that.
        ran_s = iter(
            [
                task["duration_us"] / 1e6
                for task, plan in zip(tasks, plans, strict=True)
                if plan.source == source.index
            ]
        )
        source.choices = [choice._replace(duration_s=ran_s.__next__) for choice in source.choices]
    simulated = report_of("two-cores", scenario, play.run(), 0.0)
    for name, real_s, simulated_s in (
        ("p50", p(waited_s, 50), simulated.all.wait_p50_s),
        ("p95", p(waited_s, 95), simulated.all.wait_p95_s),
    ):
        yield compared(f"simulated over real waits, {minutes} min of 2 cores: {name}", real_s, simulated_s)


def compared(what: str, real_s: float, simulated_s: float | None) -> Figure:
    """The line of the table for a simulated wait beside the real one."""
    ratio = (simulated_s or 0.0) / real_s if real_s else 0.0
    text = f"{ratio:.2f} × ({real_s:.2f} s)"
    return Figure(what, ratio, text, f"{1 - WITHIN:g} to {1 + WITHIN:g} ×", abs(ratio - 1) <= WITHIN)


def speed(_: Stack, rounds: int, say: Say) -> Iterator[Figure]:
    """Measure simulated tasks for each second of CPU time, in a day of pictures and on 100,000 cores."""
    for name, longest_s in LONGEST_S.items():
        whole = read(shipped()[name])
        scenario = shortened(whole, whole.length_s * min(WHOLE, rounds) / WHOLE)
        play = Play(scenario)
        began = time.process_time()
        play.run()
        took_s = time.process_time() - began
        per_s = play.tasks / took_s
        say(f"{name}: {play.tasks} tasks in {took_s:.1f} s of CPU time")
        if name == "pictures":
            what = "simulated tasks for each second of CPU time"
            yield Figure(
                what, per_s, f"{per_s:,.0f}/s", f"≥ {PER_S_AT_LEAST:,.0f}/s", per_s >= PER_S_AT_LEAST
            )
        if rounds >= WHOLE:
            yield Figure(
                f"scenario {name}, whole: CPU time",
                took_s,
                f"{took_s:.0f} s",
                f"≤ {longest_s:.0f} s",
                took_s <= longest_s,
            )


def build_sleeper() -> None:
    """Build the image `SLEEP`, whose tasks sleep for as many seconds as their argument says."""
    dockerfile = b'FROM cat:1\nENTRYPOINT ["/bin/sleep"]\n'
    done = subprocess.run(
        ["docker", "build", "--quiet", "--tag", SLEEP, "-"],
        input=dockerfile,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise BenchFailed(f"the image {SLEEP} was not built: {done.stderr.decode().strip()}")


def _run(stack: Stack, plans: list[Planned]) -> list[dict[str, int]]:
    """Run the tasks in the set, each at its time; returns their facts."""
    connection = KeepAlive(stack.set_port)
    began = time.monotonic()
    ids = []
    for plan in plans:
        time.sleep(max(0.0, began + plan.at_s - time.monotonic()))
        ids.append(_submit(connection, plan))
    tasks = [_outcome(connection, task_id, plan) for task_id, plan in zip(ids, plans, strict=True)]
    connection.close()
    return tasks


def _submit(connection: KeepAlive, plan: Planned) -> str:
    # There is one image for all that an account runs: what an image is called makes no difference to waits.
    path = f"/v1/run/{SLEEP}?arg={plan.run_s:.6f}"
    status, body = connection.ask(
        request_bytes(path, b"", "Prefer: respond-async", f"X-Account: {plan.key.account}")
    )
    if status != 202:
        raise BenchFailed(f"a submission was answered with {status}: {body[:300]!r}")
    found: str = json.loads(body)["id"]
    return found


def _outcome(connection: KeepAlive, task_id: str, plan: Planned) -> dict[str, int]:
    deadline = time.monotonic() + PATIENCE_S
    request = (
        f"GET /v1/tasks/{task_id} HTTP/1.1\r\nHost: bench\r\nX-Account: {plan.key.account}\r\n\r\n".encode()
    )
    while True:
        status, body = connection.ask(request)
        task = json.loads(body)
        if status == 200 and task["state"] == "succeeded":
            return {name: task[name] for name in ("queue_us", "duration_us")}
        if status != 200 or task["state"] not in ("queued", "running") or time.monotonic() > deadline:
            raise BenchFailed(f"task {task_id} did not succeed: {status}, {body[:300]!r}")
        time.sleep(0.1)


def _arrival(plan: Planned) -> float:
    return plan.at_s
