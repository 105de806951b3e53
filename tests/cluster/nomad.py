"""The cluster of the rig with slots that Nomad starts: three servers, and a client on the host of each executor.

Needs `nomad` on PATH. Operators press the buttons of Nomad's UI, by its API.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import yaml

from ops.nomad.cluster import CLIENTS, NAMESPACE, SERVERS
from ops.nomad.cluster import Cluster as NomadAgents
from scheduler.launchers.nomad.node_files import RUN
from scheduler.launchers.nomad.records import TERMINAL
from tests.cluster.cluster import LABEL, LINK_PORT, SET_HOST, Cluster
from tests.cluster.network import NETWORK
from tests.cluster.parts import Part, until
from tests.scheduler.launchers.nomad.agents import CPU_SHARES, MEMORY_MIB

NUMBERS = {name: 10 * (name in CLIENTS) + int(name[1:]) for name in (*SERVERS, *CLIENTS)}
"""The last numbers of the agents' addresses, as `ops.nomad.cluster.Cluster` gives them."""
LEADER_S = 600.0
"""Longest wait for servers that answer: the faults that hit them, and an election on a slow machine."""

Json = Any


def why_no_nomad() -> str:
    """The reason why there can be no such cluster here; empty if there can."""
    return "" if shutil.which("nomad") else "nomad is not on PATH"


class NomadCluster(Cluster):
    """Use as a context manager, like `Cluster`. All agents run, and each client takes slots."""

    def __init__(self, docker_host: str, folder: Path, *, lease_s: float, seed: int) -> None:
        super().__init__(docker_host, folder, nodes=CLIENTS, lease_s=lease_s, seed=seed, numbers=NUMBERS)
        self.agents = NomadAgents(
            folder / "nomad",
            docker_host,
            network=NETWORK,
            inside=lambda name: self.network.command(name),
            cpu_shares=CPU_SHARES,
            memory_mib=MEMORY_MIB,
        )

    @property
    def parts(self) -> list[Part]:
        # The registrar stops last: it takes away what the set leaves.
        return [*super().parts, self.registrar]

    def _start_launcher(self, stack: ExitStack) -> None:
        for client in CLIENTS:
            # An agent takes the interface of the default route for the node's own.
            self.network.route_all(client)
        stack.callback(self._prune)
        stack.callback(self.agents.wipe)
        self.network.on(SERVERS[0], self.agents.start)
        answer = self.ask("GET", "/v1/nodes")
        assert answer is not None
        self.node_ids = {node["Name"]: node["ID"] for node in answer.json()}
        config = self.folder / "registrar.yaml"
        settings = {
            "socket": str(self.folder / "registrar.sock"),
            "set_name": self.set_name,
            "address": self.agents.url("s2"),
            "ca_file": str(self.agents.ca_file),
            "token_file": str(self.agents.registrar_token_file),
            "namespace": NAMESPACE,
            "node_folder": str(self.agents.node_folder(CLIENTS[0])),
            # Otherwise a job that ended is still there after the run.
            "purge_after_s": 5,
        }
        config.write_text(yaml.safe_dump(settings))
        self.registrar = Part(self.network, SET_HOST, self.folder, "registrar", str(config))

    def _prune(self) -> None:
        self.engine.containers.prune({"label": f"{LABEL}={self.set_name}"})

    def _set_settings(self) -> str:
        return (
            f"launcher: nomad\nregistrar: {self.folder / 'registrar.sock'}\n"
            f"node_folder: {self.agents.node_folder(CLIENTS[0])}\n"
        )

    def _executor_settings(self, node: str) -> str:
        return f"run_folder: {self.socket_folder(node)}\n"

    def _place(self, node: str) -> str:
        return f"{{address: '{self.network.address(node)}:{LINK_PORT}'}}"

    def socket_folder(self, node: str) -> Path:
        return self.agents.node_folder(node) / RUN

    # -- what an operator does

    def start_agent(self, name: str) -> None:
        self.network.on(name, lambda: self.agents.start_agent(name))

    def signal_agent(self, name: str, number: int) -> None:
        if pid := self.agents.agents[name].pid:
            os.kill(pid, number)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        """Call the API of the first server that answers; None if none does."""
        for server in SERVERS:
            ask = partial(self.agents.ask, method, path, agent=server, **options)
            with suppress(httpx.HTTPError):
                return self.network.on(server, ask)
        return None

    def insist(self, method: str, path: str, **options: Any) -> None:
        """Call the API until it says yes."""

        def done() -> bool:
            answer = self.ask(method, path, **options)
            return answer is not None and answer.is_success

        until(done, f"{method} {path}", LEADER_S)

    def allocations(self, node: str = "") -> list[Json] | None:
        """The set's allocations that have not ended; those of one node, if it is named. None: nobody answers."""
        query = f'namespace={NAMESPACE}&filter=JobID matches "^gc-{self.set_name}-"'
        answer = self.ask("GET", f"/v1/allocations?{query}")
        if answer is None or not answer.is_success:
            return None
        live = [each for each in answer.json() if each["ClientStatus"] not in TERMINAL]
        return [each for each in live if not node or each["NodeName"] == node]

    # -- the end

    def until_quiet(self) -> None:
        """Wait until nothing runs or waits, and the slots that live are those that the set has."""
        super().until_quiet()

        def same() -> bool:
            answer = self.set.ask("/readyz")
            live = self.allocations()
            if answer is None or answer.status_code != 200 or live is None:
                return False
            running = all(each["ClientStatus"] == "running" for each in live)
            return running and answer.json()["slots_idle"] == len(live) == len(self.slots())

        until(same, "the slots that live are those that the set has")

    def stop(self) -> None:
        self.router.stop()
        self.set.stop()
        # What is left after this wait is told by `left`.
        with suppress(AssertionError):
            until(lambda: self.allocations() == [] and not self.slots(), "all slots end with their set")
        super().stop()

    def _remains(self) -> list[Json]:
        # Nomad forgets slots whose engine died, and leaves their containers to the operator (ops/nomad/README.md).
        return [each for each in super()._remains() if each["State"] not in ("created", "exited", "dead")]

    def left(self) -> list[str]:
        live = self.allocations()
        if live is None:
            return [*super().left(), "allocations: no server answers"]
        return [*super().left(), *(f"allocation {each['ID']} ({each['ClientStatus']})" for each in live)]


class Operator:
    """Presses the buttons of Nomad's UI; each hits a slot of the given node, if there is one that lives."""

    def __init__(self, cluster: NomadCluster) -> None:
        self._cluster = cluster

    def stop_job(self, node: str, dice: int) -> None:
        self._press(node, dice, lambda each: ("DELETE", f"/v1/job/{each['JobID']}?namespace={NAMESPACE}"))

    def purge_job(self, node: str, dice: int) -> None:
        query = f"namespace={NAMESPACE}&purge=true"
        self._press(node, dice, lambda each: ("DELETE", f"/v1/job/{each['JobID']}?{query}"))

    def stop_allocation(self, node: str, dice: int) -> None:
        self._press(node, dice, lambda each: ("POST", f"/v1/allocation/{each['ID']}/stop"))

    def restart_allocation(self, node: str, dice: int) -> None:
        self._press(node, dice, lambda each: ("POST", f"/v1/client/allocation/{each['ID']}/restart"))

    def drain(self, node: str, dice: int) -> None:
        """Drain a node, which ends its slots at once, or never."""
        deadline_ns = random.Random(dice).choice([-1, 3600 * 10**9])
        spec = {"DrainSpec": {"Deadline": deadline_ns, "IgnoreSystemJobs": False}}
        self._cluster.ask("POST", f"/v1/node/{self._cluster.node_ids[node]}/drain", json=spec)

    def end_drain(self, node: str) -> None:
        """Let a node take slots again; returns once the servers say that it may."""
        body = {"DrainSpec": None, "MarkEligible": True}
        self._cluster.insist("POST", f"/v1/node/{self._cluster.node_ids[node]}/drain", json=body)

    def _press(self, node: str, dice: int, button: Callable[[Json], tuple[str, str]]) -> None:
        if live := self._cluster.allocations(node):
            method, path = button(random.Random(dice).choice(live))
            # It may have ended by now, or no server leads.
            self._cluster.ask(method, path, json={})
