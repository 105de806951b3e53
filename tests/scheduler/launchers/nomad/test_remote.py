"""A set whose executor is another process: Nomad starts slots on its node, and the link carries the tasks."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ops.certificates.authority import Authority
from ops.nomad.agent import Agent
from scheduler.launchers.nomad.node_files import RUN
from tests.conftest import SetProcess
from tests.scheduler.conftest import PATIENCE_S
from tests.scheduler.launchers.nomad.agents import NODE
from tests.scheduler.launchers.nomad.conftest import RegistrarProcess
from tests.sets.executor.link.test_processes import ExecutorProcess


@pytest.fixture
def remote_set(agent: Agent, docker_host: str, tmp_path: Path) -> Iterator[SetProcess]:
    """A set without slots on its own machine's executor; the node's executor and its registrar run beside it."""
    name = f"tr{uuid.uuid4().hex[:10]}"
    authority = Authority(tmp_path / "authority")
    authority.make()
    authority.issue_to_executor(NODE, tmp_path / NODE, 10)
    authority.issue_to_set(name, tmp_path / name, 10)
    share = f"{{{name}: {{cores: 2, memory_mib: 2048, max_slots: 4}}}}\nrun_folder: {agent.node_folder / RUN}"
    executor = ExecutorProcess(tmp_path, NODE, tmp_path / NODE, share).start()
    registrar = RegistrarProcess(
        tmp_path, {"address": agent.url, "node_folder": str(agent.node_folder), "set_name": name}
    )
    registrar.start()
    made = SetProcess(
        tmp_path,
        name,
        f"launcher: nomad\nregistrar: {registrar.socket}\nnode_folder: {agent.node_folder}\n"
        f"link_certificates: {tmp_path / name}\n"
        f"executors: {{{NODE}: {{address: '127.0.0.1:{executor.port}'}}}}\n",
    ).start()
    yield made
    made.stop()
    registrar.stop()
    executor.stop()


def test_tasks_run_in_slots_on_the_node_of_an_executor(remote_set: SetProcess, agent: Agent) -> None:
    with remote_set.client() as client:
        answer = client.post("/v1/run/cat:1", params={"queue_timeout_s": 60}, content=b"far away", timeout=90)
        assert (answer.status_code, answer.content) == (200, b"far away"), answer.text
        # Its executor has dressed the slot, as the set told it over the link.
        mounts = client.post("/v1/run/cat:1", params={"arg": "/proc/self/mounts"}).text
        (tmp,) = [line.split()[3].split(",") for line in mounts.splitlines() if " /tmp " in line]
        assert {"rw", "nosuid", "nodev", "noatime", "nr_inodes=65536"} <= set(tmp)
        assert "noexec" not in tmp
        large = os.urandom(3 << 20)
        assert client.post("/v1/run/cat:1", content=large).content == large
        query = {"filter": f'JobID matches "^gc-{remote_set.name}-"'}
        allocations = httpx.get(f"{agent.url}/v1/allocations", params=query, timeout=PATIENCE_S).json()
        assert {each["NodeName"] for each in allocations} == {NODE}
