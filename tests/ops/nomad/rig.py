"""A set on the cluster of three servers and two clients, with its registrar and an executor for each client it uses."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ops.certificates.authority import Authority
from ops.nomad.cluster import NAMESPACE, Cluster
from ops.setup import processes
from scheduler.launchers.nomad.node_files import RUN
from tests.conftest import SetProcess
from tests.scheduler.launchers.nomad.conftest import RegistrarProcess
from tests.sets.executor.link.test_processes import ExecutorProcess

PATIENCE_S = 240.0


def until(condition: Callable[[], object], said: Callable[[], str] = str) -> None:
    """Wait for what must happen; `said` gives the error otherwise."""
    assert processes.wait_until(lambda: bool(condition()), PATIENCE_S), said()


def registrar(cluster: Cluster, folder: Path, set_name: str, **settings: object) -> RegistrarProcess:
    """A registrar at an https address, with the cluster's authority and a token in a file."""
    given: dict[str, object] = {
        "set_name": set_name,
        "address": cluster.url("s2"),
        "ca_file": str(cluster.ca_file),
        "token_file": str(cluster.registrar_token_file),
        "namespace": NAMESPACE,
        "node_folder": str(cluster.node_folder("c1")),
    }
    made = RegistrarProcess(folder, {**given, **settings})
    made.start()
    return made


@contextmanager
def serve(cluster: Cluster, folder: Path, clients: Sequence[str], cores_each: int) -> Iterator[SetProcess]:
    """A set without slots of its own machine; each of `clients` has an executor."""
    name = f"tn{uuid.uuid4().hex[:10]}"
    authority = Authority(folder / "authority")
    authority.make()
    authority.issue_to_set(name, folder / name, 10)
    executors = {}
    with ExitStack() as started:
        for client in clients:
            place = folder / client
            authority.issue_to_executor(client, place, 10)
            share = f"{{{name}: {{cores: {cores_each}, memory_mib: {1024 * cores_each}, max_slots: 4}}}}\n"
            share += f"run_folder: {cluster.node_folder(client) / RUN}"
            executor = ExecutorProcess(place, client, place, share).start()
            started.callback(executor.stop)
            executors[client] = {"address": f"127.0.0.1:{executor.port}"}
        own = registrar(cluster, folder, name)
        started.callback(own.stop)
        settings = (
            f"launcher: nomad\nregistrar: {own.socket}\nnode_folder: {cluster.node_folder('c1')}\n"
            f"link_certificates: {folder / name}\nexecutors: {json.dumps(executors)}\n"
        )
        made = SetProcess(folder, name, settings).start()
        started.callback(made.stop)
        yield made
