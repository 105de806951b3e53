"""One Nomad agent, server and client, on this machine: for the demo and the tests. Needs `nomad` on PATH and root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from ops.nomad.node import lay_out
from ops.setup import processes
from ops.setup.errors import OpsError

HERE: Final = Path(__file__).parent
START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 60.0
_NODE_FOLDER: Final = "/var/lib/general-compute"
_ENGINE: Final = "unix:///var/run/docker.sock"


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
        address: str = "127.0.2.1",
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
        self.log = self.folder / "agent.log"
        self._address = address
        self._docker_host = docker_host
        self._cpu_shares = cpu_shares
        self._memory_mib = memory_mib
        self.node = node
        self._acl = acl
        self.token = ""
        """The management token that the first start of an agent with ACLs makes; lost with this object."""
        self._pid_file = self.folder / "agent.pid"
        self._mark = f"-config={self.folder}/agent.hcl"

    @property
    def pid(self) -> int:
        """The agent's process; 0 if it does not run."""
        return processes.running(self._pid_file, self._mark)

    def start(self) -> None:
        """Lay the node out and start the agent; returns once it takes slots. Raises `OpsError`."""
        program = shutil.which("nomad")
        if program is None:
            raise OpsError(
                "nomad is not on PATH; install it from HashiCorp's packages, or put a binary there"
            )
        lay_out(self.node_folder)
        (self.folder / "agent.hcl").write_text(self._configuration())
        if not self.pid:
            command = [program, "agent", self._mark]
            pid = processes.start_detached(command, self.log, _environment(), self.folder)
            self._pid_file.write_text(str(pid))
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
        raise OpsError(f"the Nomad agent did not become ready:\n{processes.tail(self.log)}")

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Call the agent's API as its owner. Raises `httpx.HTTPError`."""
        headers = {"X-Nomad-Token": self.token} if self.token else {}
        return httpx.request(
            method, f"{self.url}{path}", headers=headers, timeout=5, trust_env=False, **options
        )

    def stop(self) -> None:
        """Stop the agent. Slots go on: that is Nomad's way."""
        if pid := self.pid:
            processes.stop(pid, self._mark, STOP_TIMEOUT_S)
        self._pid_file.unlink(missing_ok=True)

    def wipe(self) -> None:
        """Stop the agent and remove all that it had, but for containers."""
        self.stop()
        for mounted in [
            *self.folder.glob("data/alloc/*/*/secrets"),
            *self.folder.glob("data/alloc/*/*/private"),
        ]:
            subprocess.run(["umount", "-l", str(mounted)], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _configuration(self) -> str:
        base = f"""
name                 = "{self.node}"
bind_addr            = "{self._address}"
data_dir             = "{self.folder}/data"
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
server {{
  bootstrap_expect = 1
}}
acl {{
  enabled = {str(self._acl).lower()}
}}
client {{
  memory_total_mb = {self._memory_mib}
  options = {{ "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean,cni_plugins,bridge,nomad_plugins" }}
}}
"""
        client = (HERE / "client.hcl").read_text()
        for production, here in (
            (_NODE_FOLDER, str(self.node_folder)),
            (_ENGINE, self._docker_host),
            ("cpu_total_compute = 2000", f"cpu_total_compute = {self._cpu_shares}"),
            # Another agent may share the engine.
            ("enabled = true\n      }", "enabled = false\n      }"),
        ):
            assert production in client, production
            client = client.replace(production, here)
        return "\n".join((base, client, (HERE / "server.hcl").read_text()))


def _takes_slots(node: dict[str, object]) -> bool:
    drivers = node.get("Drivers")
    docker = drivers.get("docker") if isinstance(drivers, dict) else None
    return node.get("Status") == "ready" and isinstance(docker, dict) and bool(docker.get("Healthy"))


def _environment() -> dict[str, str]:
    """The environment without variables that Nomad or its Docker client would follow."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("NOMAD_", "DOCKER_"))}
