"""One Nomad agent, server and client, on this machine: for the demo and the tests. Needs `nomad` on PATH and root."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from ops.nomad import configuration
from ops.nomad.node import lay_out
from ops.nomad.process import AgentProcess, program
from ops.setup.errors import OpsError

START_TIMEOUT_S: Final = 120.0
ADDRESS: Final = "127.0.2.1"


@dataclass(frozen=True)
class Ports:
    http: int = 4646
    rpc: int = 4647
    serf: int = 4648


class Agent:
    """An agent whose configuration and state are in `folder`; it listens on a loopback address only.

    It runs the configuration of production, client.hcl and server.hcl, with the folder, the engine and the CPU of this
    machine put in. `node` is the node's name. It offers `cpu_shares`, 1000 for a core, and `memory_mib`, 0 for all.
    `acl`: calls need a token.
    """

    def __init__(
        self,
        folder: Path,
        docker_host: str,
        *,
        address: str = ADDRESS,
        ports: Ports | None = None,
        cpu_shares: int = 2000,
        memory_mib: int = 0,
        node: str = "local",
        acl: bool = False,
    ) -> None:
        self.folder = folder.absolute()
        self.node_folder = self.folder / "node"
        self.ports = ports or Ports()
        self.url = f"http://{address}:{self.ports.http}"
        self._process = AgentProcess(self.folder)
        self.log = self._process.log
        self._address = address
        self._docker_host = docker_host
        self._cpu_shares = cpu_shares
        self._memory_mib = memory_mib
        self.node = node
        self._acl = acl
        self.token = ""
        """The management token that the first start of an agent with ACLs makes; lost with this object."""

    @property
    def pid(self) -> int:
        """The agent's process; 0 if it does not run."""
        return self._process.pid

    def start(self) -> None:
        """Lay the node out and start the agent; returns once it takes slots. Raises `OpsError`."""
        program()
        lay_out(self.node_folder)
        self._process.start(self._configuration())
        self._until_ready()

    def _until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError, ValueError):
                if self._acl and not self.token:
                    made = httpx.post(f"{self.url}/v1/acl/bootstrap", timeout=5, trust_env=False)
                    self.token = made.json()["SecretID"]
                nodes = self.ask("GET", "/v1/nodes").json()
                if any(_takes_slots(node) for node in nodes):
                    return
            if not self.pid:
                break
            time.sleep(0.1)
        raise OpsError(f"the Nomad agent did not become ready:\n{self._process.said()}")

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Call the agent's API as its owner. Raises `httpx.HTTPError`."""
        headers = {"X-Nomad-Token": self.token} if self.token else {}
        return httpx.request(
            method, f"{self.url}{path}", headers=headers, timeout=5, trust_env=False, **options
        )

    def stop(self) -> None:
        """Stop the agent. Slots go on: that is Nomad's way."""
        self._process.stop()

    def wipe(self) -> None:
        """Stop the agent and remove all that it had, but for containers."""
        self._process.wipe()

    def _configuration(self) -> str:
        base = f"""
name                 = "{self.node}"
bind_addr            = "{self._address}"
data_dir             = "{self._process.data}"
disable_update_check = true
leave_on_interrupt   = false
leave_on_terminate   = false
ports {{
  http = {self.ports.http}
  rpc  = {self.ports.rpc}
  serf = {self.ports.serf}
}}
advertise {{
  http = "{self._address}"
  rpc  = "{self._address}"
  serf = "{self._address}"
}}
acl {{
  enabled = {str(self._acl).lower()}
}}
telemetry {{
  collection_interval = "30s"
}}
"""
        alone = {
            "bootstrap_expect = 3": "bootstrap_expect = 1",
            configuration.SERVERS: "[]",
            '"KEY"': '""',
            '"strict"': '"none"',
        }
        client = configuration.client(
            self._address, self.node_folder, self._docker_host, "[]", self._cpu_shares, self._memory_mib
        )
        return "\n".join((base, client, configuration.read("server.hcl", alone)))


def _takes_slots(node: dict[str, object]) -> bool:
    drivers = node.get("Drivers")
    docker = drivers.get("docker") if isinstance(drivers, dict) else None
    return node.get("Status") == "ready" and isinstance(docker, dict) and bool(docker.get("Healthy"))
