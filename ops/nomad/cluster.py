"""A Nomad cluster on this machine: three servers and two clients, as README.md tells operators to set one up.

Certificates between the agents, tokens for callers, clients that were introduced, the policies and namespaces of this
folder. Each agent has a loopback address of its own, and both clients share one Docker engine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from ops.nomad import certificates, configuration
from ops.nomad.node import lay_out
from ops.nomad.process import AgentProcess, call, program
from ops.setup.errors import OpsError

SERVERS: Final = ("s1", "s2", "s3")
CLIENTS: Final = ("c1", "c2")
NETWORK: Final = "127.0.4"
START_TIMEOUT_S: Final = 300.0
NAMESPACE: Final = "gc-a"
"""Namespace of the slots of set `a`, for which the registrar's token is made."""
PLATFORM_CLIENT: Final = "c1"
"""The client that also has the folders of set `a`."""
SET_USER: Final = 10_001
REGISTRAR_USER: Final = 10_002
"""User ids of a set and of its registrar, as jobspecs/set.nomad.hcl runs them."""
PLATFORM: Final = "gc-platform"
"""Namespace of executors, sets and routers."""

_INTRODUCTION_S: Final = 1800
_POLICIES: Final = ("registrar", "operators")
_NAMESPACES: Final = ("slots", "platform")


class Cluster:
    """A cluster whose agents are in `folder`, at addresses of `network`: s1 at .1, c1 at .11.

    `inside` gives what stands in front of an agent's command, such as `ip netns exec NAME`. A client offers
    `cpu_shares`, 1000 for a core, and `memory_mib`, 0 for all.
    """

    def __init__(
        self,
        folder: Path,
        docker_host: str,
        *,
        network: str = NETWORK,
        inside: Callable[[str], Sequence[str]] = lambda name: (),
        cpu_shares: int = 2000,
        memory_mib: int = 0,
    ) -> None:
        self.folder = folder.absolute()
        self._docker_host = docker_host
        self._network = network
        self._cpu_shares = cpu_shares
        self._memory_mib = memory_mib
        self.agents = {name: AgentProcess(self.folder / name, inside(name)) for name in (*SERVERS, *CLIENTS)}
        self.platform = self.folder / "platform"
        """The folders of set `a` and its registrar, which the first client has."""
        self._started: list[AgentProcess] = []
        self.ca_file = self.folder / "authority" / certificates.CA_FILE
        self.management_token_file = self.folder / "management.token"
        self.registrar_token_file = self.folder / "registrar.token"

    def address(self, name: str) -> str:
        """Address of an agent."""
        number = int(name[1:])
        return f"{self._network}.{number if name in SERVERS else 10 + number}"

    def url(self, name: str = "s1") -> str:
        """Address of an agent's API."""
        return f"https://{self.address(name)}:4646"

    def node_folder(self, client: str) -> Path:
        """The folder of slots on a client, as `lay_out` makes it."""
        return self.folder / client / "node"

    def variables(self) -> dict[str, str]:
        """The environment in which the `nomad` program commands the cluster."""
        token = _secret(self.management_token_file)
        return {"NOMAD_ADDR": self.url(), "NOMAD_CACERT": str(self.ca_file), "NOMAD_TOKEN": token}

    def start(self) -> None:
        """Start what does not run; returns once both clients take slots. Raises `OpsError`."""
        program()
        certificates.make_authority(self.ca_file.parent)
        for name in SERVERS:
            self.start_agent(name)
        self._until("the servers elected no leader", self.leader)
        self._secure()
        for name in CLIENTS:
            self.start_agent(name)
        self._until("the clients did not become ready", self._takes_slots)

    def start_agent(self, name: str) -> None:
        """Start one agent, unless it runs. Raises `OpsError`."""
        agent = self.agents[name]
        certificates.issue(
            self.ca_file.parent, agent.folder / "tls", self.address(name), server=name in SERVERS
        )
        if name == PLATFORM_CLIENT:
            self._lay_out_platform()
        if name in CLIENTS:
            lay_out(self.node_folder(name))
            self._introduce(name)
        agent.start(self._configuration(name))
        self._started.append(agent)

    def command(self, *arguments: str) -> str:
        """Run the `nomad` program on the cluster; return what it printed. Raises `OpsError`."""
        return call(list(arguments), self.folder, **self.variables())

    def ask(self, method: str, path: str, *, agent: str = "s1", **options: Any) -> httpx.Response:
        """Call the API with the management token. Raises `httpx.HTTPError`."""
        headers = {"X-Nomad-Token": _secret(self.management_token_file)}
        trusted = ssl.create_default_context(cafile=str(self.ca_file))
        url = f"{self.url(agent)}{path}"
        with httpx.Client(verify=trusted, trust_env=False, timeout=10, headers=headers) as client:
            return client.request(method, url, **options)

    def leader(self, agent: str = "s1") -> str:
        """Name of the server that leads, as another agent knows it; empty where it knows none."""
        answer = self.ask("GET", "/v1/status/leader", agent=agent)
        host = answer.json().partition(":")[0] if answer.is_success else ""
        return next((name for name in SERVERS if self.address(name) == host), "")

    def stop(self) -> None:
        """Stop all agents, clients first. Slots go on: that is Nomad's way."""
        for name in (*CLIENTS, *SERVERS):
            self.agents[name].stop()

    def wipe(self) -> None:
        """Stop all agents and remove all that they had, but for containers."""
        for name in (*CLIENTS, *SERVERS):
            self.agents[name].wipe()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _configuration(self, name: str) -> str:
        tls = self.agents[name].folder / "tls"
        changes = {
            '"n1"': f'"{name}"',
            '"10.0.0.1"': f'"{self.address(name)}"',
            "/var/lib/nomad": str(self.agents[name].data),
            "/etc/nomad.d/tls": str(tls),
        }
        servers = "[" + ", ".join(f'"{self.address(each)}"' for each in SERVERS) + "]"
        base = configuration.read("base.hcl", changes)
        if name in SERVERS:
            gossip = {configuration.SERVERS: servers, '"KEY"': f'"{self._gossip_key()}"'}
            return base + configuration.read("server.hcl", gossip)
        client = configuration.client(
            self.address(name),
            self.node_folder(name),
            self._docker_host,
            servers,
            self._cpu_shares,
            self._memory_mib,
        )
        if name != PLATFORM_CLIENT:
            return base + client
        folders = {
            "/var/lib/general-compute-a": str(self.platform / "state"),
            '"/etc/general-compute/a"': f'"{self.platform / "config"}"',
            "/etc/general-compute/a-registrar": str(self.platform / "registrar"),
        }
        return base + client + configuration.read("platform.hcl", folders)

    def _lay_out_platform(self) -> None:
        """Make the folders of set `a` and its registrar, as platform.hcl says."""
        for name, owner in (("state", SET_USER), ("config", SET_USER), ("registrar", REGISTRAR_USER)):
            folder = self.platform / name
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chown(folder, owner, SET_USER)

    def _gossip_key(self) -> str:
        file = self.folder / "gossip.key"
        if not file.exists():
            _keep(file, call(["operator", "gossip", "keyring", "generate"], self.folder))
        return _secret(file)

    def _secure(self) -> None:
        """Make the first token, the namespaces, the policies, and the registrar's token, where they are missing."""
        if not self.management_token_file.exists():
            made = self.ask("POST", "/v1/acl/bootstrap")
            if not made.is_success:
                raise OpsError(
                    f"the cluster in {self.folder} has a first token that is lost ({made.text.strip()}): wipe it"
                )
            _keep(self.management_token_file, made.json()["SecretID"])
        for name in _NAMESPACES:
            self.command("namespace", "apply", str(configuration.HERE / f"namespaces/{name}.hcl"))
        for name in _POLICIES:
            file = str(configuration.HERE / f"policies/{name}.hcl")
            self.command("acl", "policy", "apply", f"gc-{name}", file)
        if not self.registrar_token_file.exists():
            _keep(self.registrar_token_file, self.token("registrar"))

    def token(self, policy: str) -> str:
        """Make a token with a policy of ops/nomad/policies, such as `registrar`. Raises `OpsError`."""
        template = "{{.SecretID}}"
        return self.command("acl", "token", "create", f"-policy=gc-{policy}", "-t", template).strip()

    def _introduce(self, client: str) -> None:
        """Give a client that has never been in the cluster the token that lets it in."""
        state = self.agents[client].data / "client"
        if (state / "client-id").exists():
            return
        made = self.command(
            "node", "intro", "create", f"-node-name={client}", f"-ttl={_INTRODUCTION_S}s", "-t", "{{.JWT}}"
        )
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        _keep(state / "intro_token.jwt", made)

    def _takes_slots(self) -> bool:
        nodes = self.ask("GET", "/v1/nodes").json()
        ready = {
            node["Name"]
            for node in nodes
            if node["Status"] == "ready" and (node.get("Drivers") or {}).get("docker", {}).get("Healthy")
        }
        return ready >= set(CLIENTS)

    def _until(self, problem: str, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError, ValueError):
                if condition():
                    return
            for agent in self._started:
                if not agent.pid:
                    raise OpsError(f"{problem}; an agent has ended:\n{agent.said()}")
            time.sleep(0.1)
        raise OpsError(f"{problem}; the end of {self.agents['s1'].log}:\n{self.agents['s1'].said()}")


def _keep(file: Path, secret: str) -> None:
    """Write a secret that only its owner may read."""
    file.touch(mode=0o600)
    file.write_text(secret.strip() + os.linesep)


def _secret(file: Path) -> str:
    return file.read_text().strip() if file.exists() else ""
