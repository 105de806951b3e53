"""A data centre is cut off and heals: clients go on by themselves, and no accepted task is lost."""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.books import Call, Outcome, Output, read_output
from tests.cluster.centres import CLIENT_HOST, Centres
from tests.cluster.drill import LOST, Times, report, text
from tests.cluster.network import why_not
from tests.cluster.parts import until

docker = pytest.mark.docker
hosts = pytest.mark.skipif(bool(why := why_not()), reason=why or "-")
PATIENCE_S = 180.0
"""Far longer than any answer takes that does not wait for a dead machine."""
RESTS_MS = 20_000
"""Time of the run that is caught: enough for a slow machine to see it and to cut the wire."""


def calls() -> list[Call]:
    """Four calls around a cut at 10 s that heals at 20 s: before, caught by it, refused in it, after it."""
    return [
        Call("sync", "m1", 1.0, 2.0, 200),
        Call("sync", "m2", 9.0, 19.5, 502, "router-set-lost", executed=True),
        Call("async", "m3", 12.0, 12.1, 503, "set-full", executed=False),
        Call("sync", "m4", 21.0, 26.0, 200),
    ]


def test_a_report_tells_what_clients_met_and_when_it_was_over() -> None:
    outcomes = [Outcome("m5", "x-1", {"state": "succeeded"}), Outcome("m6", "y-1", {"state": "queued"})]
    found = report(calls(), outcomes, Times(10.0, 20.0), {"x-1": "dc1", "y-1": "dc2"})
    assert {name: phase.asked for name, phase in found.phases.items()} == {"before": 1, "cut": 2, "healed": 1}
    assert text(found).splitlines() == [
        "before: 1 requests, the longest took 1.0 s",
        "cut: 2 requests, the longest took 10.5 s",
        "    1 async: 503 set-full, did not run",
        "    1 sync: 502 router-set-lost, may have run",
        "    the last of these began after 2.0 s and ended after 9.5 s",
        "healed: 1 requests, the longest took 5.0 s",
        "    1 sync: slower than 3 s",
        "    the last of these began after 1.0 s and ended after 6.0 s",
        "dc1 accepted 1 asynchronous tasks: 1 succeeded",
        "dc2 accepted 1 asynchronous tasks: 1 queued",
        "lost: y-1",
    ]


class Client:
    """A client of the balancer, on a host of its own; a new connection for each request."""

    def __init__(self, centres: Centres) -> None:
        self._centres = centres
        self._trust = ssl.create_default_context(cafile=str(centres.ca))

    def ask(self, method: str, path: str, url: str = "", **options: Any) -> httpx.Response | None:
        """One request, at the balancer unless `url` says where; None if the connection ended without an answer. Raises
        `httpx.TimeoutException`."""

        def act() -> httpx.Response | None:
            with httpx.Client(
                base_url=url or self._centres.url, verify=self._trust, timeout=PATIENCE_S, trust_env=False
            ) as http:
                try:
                    return http.request(method, path, **options)
                except (httpx.ReadError, httpx.RemoteProtocolError):
                    return None

        return self._centres.network.on(CLIENT_HOST, act)

    def run(self, rest_ms: int = 0, url: str = "", **headers: str) -> tuple[str, httpx.Response | None]:
        """A run of the rig's algorithm; returns its mark. Headers are written with underscores."""
        mark = uuid.uuid4().hex
        query = {"arg": [mark, "0", str(rest_ms)], "cpu": "0.2", "memory_mib": "64", "queue_timeout_s": "60"}
        path = f"/v1/run/{self._centres.image}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return mark, self.ask("POST", path, url, params=query, content=b"input", headers=named)

    def submit(self) -> str:
        """Submit until it is accepted; returns the task."""
        accepted: list[str] = []

        def submitted() -> bool:
            _, answer = self.run(Prefer="respond-async")
            if answer is not None and answer.status_code == 202:
                accepted.append(answer.json()["id"])
            return bool(accepted)

        until(submitted, "a task is accepted", PATIENCE_S)
        return accepted[0]

    def submit_to(self, centre: str) -> str:
        """Submit until a data centre's set has accepted a task."""
        accepted: list[str] = []

        def submitted() -> bool:
            accepted.append(self.submit())
            return self._centres.centre_of(accepted[-1]) == centre

        until(submitted, f"{centre} accepts a task", PATIENCE_S)
        return accepted[-1]

    def until_task(self, task: str, check: Callable[[httpx.Response], bool], what: str) -> None:
        def asked() -> bool:
            answer = self.ask("GET", f"/v1/tasks/{task}")
            return answer is not None and check(answer)

        until(asked, what, PATIENCE_S)


@pytest.fixture
def centres(docker_host: str, tmp_path: Path) -> Iterator[Centres]:
    with Centres(docker_host, tmp_path, 1) as centres:
        yield centres
        for part in centres.parts:
            part.stop()
        assert centres.left() == []


@docker
@hosts
@pytest.mark.timeout(1200)
def test_clients_go_on_when_a_data_centre_is_cut_off_and_its_tasks_are_there_again_after(
    centres: Centres,
) -> None:
    client = Client(centres)
    kept = client.submit_to(LOST)
    until(lambda: centres.running() == 0, "nothing runs")
    with ThreadPoolExecutor(1) as pool:
        caught = pool.submit(client.run, RESTS_MS, centres.router_url("dc1"), x_set=centres.sets[LOST])
        until(lambda: centres.running() == 1, "a run is under way behind the other data centre's router")
        centres.network.cut(LOST)
        # That router notices by itself that nobody is there any more, and repeats the run at its own set.
        mark, answer = caught.result()
        assert answer is not None
        assert answer.status_code == 200, answer.text
        assert answer.headers["X-Set"] == centres.sets["dc1"]
        assert isinstance(read_output(answer.content, mark, b"input"), Output)
    in_a_row = 0

    def goes_on() -> bool:
        nonlocal in_a_row
        _, answer = client.run()
        in_a_row = in_a_row + 1 if answer is not None and answer.status_code == 200 else 0
        return in_a_row == 10

    until(goes_on, "ten runs in a row go well, though half of the platform is gone", PATIENCE_S)
    client.until_task(kept, lambda answer: answer.status_code == 503, "its owner is known to be away")
    centres.network.heal(LOST)
    client.until_task(
        kept,
        lambda answer: answer.status_code == 200 and answer.json()["state"] == "succeeded",
        "the task of the lost data centre is there again",
    )
    client.submit_to(LOST)
