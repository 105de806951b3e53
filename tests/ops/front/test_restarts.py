"""Routers restart one after the other under load, and clients notice nothing; with none left they are told."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from pathlib import Path

from tests.ops.front.conftest import Front, program, until
from tests.ops.front.fake_set import FakeSet

SECONDS = 14
CLIENTS = 6
PER_S = 20
"""Requests of each client."""


def load(front: Front, body: Path | None) -> subprocess.Popen[str]:
    """Small requests by HTTP/2 at a steady rate; with `body`, asynchronous runs."""
    command = [program("h2load"), "-D", str(SECONDS), "-c", str(CLIENTS), "--rps", str(PER_S), "-m", "2"]
    path = "/v1/tasks/a-7"
    if body is not None:
        command += ["-d", str(body), "-H", "Prefer: respond-async"]
        path = "/v1/run/count:1"
    return subprocess.Popen(
        [*command, front.url(path).replace("front.test", "127.0.0.1")], stdout=subprocess.PIPE, text=True
    )


def results(process: subprocess.Popen[str]) -> dict[str, int]:
    """What h2load counted."""
    said, _ = process.communicate(timeout=SECONDS + 30)
    lines = [line for line in said.splitlines() if line.startswith(("requests:", "status codes:"))]
    assert len(lines) == 2, said
    return {name: int(count) for count, name in re.findall(r"(\d+) (\w+)", " ".join(lines))}


def test_a_restart_of_each_router_loses_no_request(front: Front, fake_set: FakeSet, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x" * 1000)
    before = fake_set.seen["/v1/run/count:1"]
    processes = [load(front, None), load(front, body)]
    try:
        until(lambda: fake_set.seen["/v1/run/count:1"] > before + 50)
        for router in front.routers:
            router.stop()
            router.start()
            # The balancer's checks find it alive again.
            threading.Event().wait(4.5)
        assert all(process.poll() is None for process in processes)  # The load outlasted the restarts.
    finally:
        found = [results(process) for process in processes]
    for counts in found:
        assert counts["failed"] == counts["errored"] == counts["timeout"] == 0, counts
        assert counts["2xx"] == counts["succeeded"] == counts["done"] > SECONDS * PER_S, counts
        assert counts["4xx"] == counts["5xx"] == 0, counts
    # Nothing ran twice. What h2load had under way at its end, it did not count.
    ran = fake_set.seen["/v1/run/count:1"] - before
    assert found[1]["done"] <= ran <= found[1]["done"] + 2 * CLIENTS


def test_a_run_in_work_outlasts_its_router_s_stop(front: Front, fake_set: FakeSet) -> None:
    before = fake_set.seen["/v1/tasks/a-9"]
    with front.client() as client:
        streams = [client.begin("GET", "/v1/tasks/a-9?wait=3", end=True) for _ in range(6)]
        until(lambda: fake_set.seen["/v1/tasks/a-9"] == before + 6)
        try:
            for router in front.routers:  # One has at least half of them.
                router.stop()
                router.start()
        finally:
            statuses = [client.whole(stream).status for stream in streams]
    assert statuses == [200] * 6


def test_no_router_at_all_is_a_problem(front: Front) -> None:
    try:
        for router in front.routers:
            router.stop()
        answer = front.ask("/v1/tasks/a-2")
        assert answer.status in (502, 503)
        assert answer.header("content-type") == "application/problem+json"
        problem = json.loads(answer.body)
        assert (problem["status"], problem["type"].rpartition("/")[2].partition("-")[0]) == (
            answer.status,
            "front",
        )
    finally:
        for router in front.routers:
            router.start()
        until(lambda: front.ask("/v1/tasks/a-2").status == 200)
