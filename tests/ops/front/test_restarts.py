"""Routers restart one after the other under load, and clients notice nothing; with none left they are told."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

from tests.ops.front.conftest import Front, until
from tests.ops.front.fake_set import FakeSet
from tests.ops.front.http2 import Client

CLIENTS = 6
PAUSE_S = 0.03
"""Of each client, between two rounds."""
ROUNDS = 100
"""On one connection; nginx says goodbye to one after 1,000 requests."""
SEEN_AGAIN_S = 4.5
"""HAProxy's checks take so long to find a router alive again."""


class Load:
    """Clients by HTTP/2: two small reads and an asynchronous run at once, round after round,
    until the end. `outcomes` counts statuses, and whatever else came of a request."""

    def __init__(self, front: Front) -> None:
        self.outcomes: Counter[str] = Counter()
        self.runs = 0
        self._front = front
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(CLIENTS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _work(self) -> None:
        try:
            while not self._ending.is_set():
                with self._front.client() as client:
                    for _ in range(ROUNDS):
                        if self._ending.wait(PAUSE_S):
                            break
                        self._round(client)
        except (OSError, ConnectionError) as error:
            with self._lock:
                self.outcomes[repr(error)] += 1

    def _round(self, client: Client) -> None:
        reads = [client.begin("GET", "/v1/tasks/a-7", end=True) for _ in range(2)]
        run = client.begin("POST", "/v1/run/count:1", {"prefer": "respond-async"})
        client.send(run, b"x" * 1000, end=True)
        for stream in (*reads, run):
            answer = client.whole(stream)
            tidy = answer.ended and answer.reset is None
            with self._lock:
                self.outcomes[str(answer.status) if tidy else f"broken off: {answer.reset}"] += 1
                self.runs += stream == run


def test_a_restart_of_each_router_loses_no_request(front: Front, fake_set: FakeSet) -> None:
    before = fake_set.seen["/v1/run/count:1"]
    with Load(front) as load:
        until(lambda: load.runs > 50)
        for router in front.routers:
            router.stop()
            router.start()
            time.sleep(SEEN_AGAIN_S)
        done = load.runs
        until(lambda: load.runs > done + 20 or set(load.outcomes) != {"200"})
    assert set(load.outcomes) == {"200"}, load.outcomes
    # Nothing ran twice.
    assert fake_set.seen["/v1/run/count:1"] - before == load.runs


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
