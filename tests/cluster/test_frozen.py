"""An executor is frozen while its slot goes on: the task runs elsewhere meanwhile, and has one outcome and one bill."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.books import Output, read_output
from tests.cluster.cluster import CLIENT_HOST, Cluster
from tests.cluster.network import why_not
from tests.cluster.parts import all_tasks, until
from tests.cluster.witness import Witness

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(bool(why := why_not()), reason=why or "-"),
    pytest.mark.timeout(900),
]

PATIENCE_S = 300.0
BURN_MS = 300
RESTS_MS = 9_000
"""Longer than the set waits for its node, so that both programs of the task run for a while."""


@pytest.fixture
def cluster(docker_host: str, tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(docker_host, tmp_path, nodes=("n1", "n2"), lease_s=2.0, seed=1) as cluster:
        yield cluster


def submit(cluster: Cluster, mark: str) -> str:
    query = {"arg": [mark, str(BURN_MS), str(RESTS_MS)], "name": mark, "cpu": "0.5", "memory_mib": "64"}
    answer = cluster.network.on(
        CLIENT_HOST,
        lambda: httpx.post(
            f"{cluster.url}/v1/run/{cluster.image}",
            params=query,
            headers={"Prefer": "respond-async"},
            content=b"input",
            timeout=PATIENCE_S,
            trust_env=False,
        ),
    )
    assert answer.status_code == 202, answer.text
    task: str = answer.json()["id"]
    return task


def facts(cluster: Cluster, task: str) -> dict[str, Any]:
    answer = cluster.set.ask(f"/v1/tasks/{task}")
    return answer.json() if answer is not None and answer.status_code == 200 else {}


@pytest.mark.parametrize("thaws", ["while the other runs", "when the other has ended"])
def test_the_late_result_of_a_frozen_executor_is_refused(cluster: Cluster, thaws: str) -> None:
    mark = f"{cluster.set_name}-frozen"
    with Witness(mark) as witness:
        task = submit(cluster, mark)
        until(witness.running, "the task runs", PATIENCE_S)
        # The engine lists a container only some time after its program has begun.
        until(cluster.slots, "the engine lists its slot", PATIENCE_S)
        (frozen,) = (node for node in cluster.nodes if cluster.slots(node))
        cluster.executors[frozen].signal(signal.SIGSTOP)
        try:
            until(lambda: len(witness.lives) == 2, "it runs on the other node", PATIENCE_S)
            first, _ = sorted(witness.lives, key=lambda life: life.began_s)
            until(lambda: len(witness.running()) < 2, "the first program has ended", PATIENCE_S)
            if thaws == "when the other has ended":
                until(lambda: facts(cluster, task).get("state") == "succeeded", "the task ends", PATIENCE_S)
        finally:
            cluster.executors[frozen].signal(signal.SIGCONT)
        until(lambda: facts(cluster, task).get("state") == "succeeded", "the task ends", PATIENCE_S)
        cluster.until_quiet()
        ended_s = max(life.last_s for life in witness.lives if life.pid == first.pid)
    found = facts(cluster, task)
    assert found["attempts"] == 2, found
    stdout = cluster.set.ask(f"/v1/tasks/{task}/stdout")
    assert stdout is not None
    output = read_output(stdout.content, mark, b"input")
    assert isinstance(output, Output), output
    assert output.ended_us > ended_s * 1e6, "its result is that of the frozen executor's program"
    assert output.cpu_us <= found["cpu_us"] < 2 * output.cpu_us, "both runs are billed"
    (kept,) = all_tasks(cluster.set.ask, "default")
    assert (kept["id"], kept["cpu_us"]) == (task, found["cpu_us"])
