"""One set, its executors and a router, each on a host of its own; slots are real, on this machine's engine."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import docker

from ops.certificates.authority import Authority
from ops.setup.private_engine import PrivateEngine
from tests.cluster.network import Network
from tests.cluster.parts import Part, until
from tests.scheduler.launchers.rig import ImageMaker

HERE = Path(__file__).parent
SET_PORT, LINK_PORT, ROUTER_PORT, ADMIN_PORT = 8101, 8201, 8080, 8081
SET_HOST, ROUTER_HOST, CLIENT_HOST = "set", "router", "client"
LABEL = "org.general-compute.set"
CORES_EACH = 2


def compile_attempt(folder: Path) -> Path:
    """The program of `attempt.c`."""
    binary = folder / "attempt"
    source = HERE / "attempt.c"
    subprocess.run(["cc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o", binary, source], check=True)
    return binary


def attempt_image(maker: ImageMaker, folder: Path) -> str:
    """The image of `attempt.c`."""
    binary = compile_attempt(folder)
    return maker.make('ENTRYPOINT ["/attempt"]', files={"attempt": binary.read_bytes()})


def remains(api: docker.APIClient, set_name: str) -> list[dict[str, Any]]:
    """Return the containers of a set's slots that exist, whatever their state, as the engine lists them.

    An engine that was killed while it removed a container may list it for ever, though nothing of it is left: it does
    not find that one.
    """
    found = []
    for each in api.containers(all=True, filters={"label": f"{LABEL}={set_name}"}):
        with suppress(docker.errors.NotFound):
            api.inspect_container(each["Id"])
            found.append(each)
    return found


class Cluster:
    """Use as a context manager: all parts run, and are ready.

    `lease_s`: `link_lease_s` of the set; long where a slow machine must not lose nodes by itself. `numbers`: more
    hosts, as `Network` has them, of which some may be nodes.
    """

    def __init__(
        self,
        docker_host: str,
        folder: Path,
        *,
        nodes: Sequence[str],
        lease_s: float,
        seed: int,
        numbers: Mapping[str, int] | None = None,
    ) -> None:
        self._docker_host = docker_host
        self.engine = docker.DockerClient(base_url=docker_host, timeout=60)
        self.folder = folder
        self.set_name = f"x{uuid.uuid4().hex[:8]}"
        self.nodes = list(nodes)
        others = [node for node in nodes if node not in (numbers or {})]
        self.network = Network((SET_HOST, ROUTER_HOST, CLIENT_HOST, *others), seed, numbers)
        self.lease_s = lease_s
        self._maker = ImageMaker(self.engine.api)
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"http://{self.network.address(ROUTER_HOST)}:{ROUTER_PORT}"

    @property
    def parts(self) -> list[Part]:
        return [self.router, self.set, *self.executors.values()]

    def __enter__(self) -> Self:
        with self._stack as stack:
            stack.callback(self.engine.close)
            stack.callback(self._maker.clean)
            self.image = attempt_image(self._maker, self.folder)
            stack.enter_context(self.network)
            self._start_launcher(stack)
            self._write()
            # The set stops before its executors: the stack turns the order round.
            for part in reversed(self.parts):
                stack.callback(part.stop)
            for part in self.parts:
                part.start()
            for part in (self.set, self.router):
                part.until_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # -- where its slots come from

    def _start_launcher(self, stack: ExitStack) -> None:
        """Start what the set's launcher needs; `stack` ends it."""

    def _set_settings(self) -> str:
        """Settings of the set's launcher."""
        return ""

    def _executor_settings(self, node: str) -> str:
        return ""

    def _place(self, node: str) -> str:
        """A node as the set's file has it."""
        return f"{{address: '{self.network.address(node)}:{LINK_PORT}', state_dir: {self.state_dir(node)}}}"

    def socket_folder(self, node: str) -> Path:
        """The folder for the sockets of a node's slots."""
        return self.state_dir(node)

    def _write(self) -> None:
        """Certificates, configurations, and the parts themselves."""
        folder, network = self.folder, self.network
        authority = Authority(folder / "authority")
        authority.make()
        authority.issue_to_set(self.set_name, folder / "certificate", 10)
        self.executors: dict[str, Part] = {}
        for node in self.nodes:
            authority.issue_to_executor(node, folder / node / "certificate", 10)
            config = folder / f"{node}.yaml"
            config.write_text(
                f"node: {node}\nstate_dir: {self.state_dir(node)}\ncertificates: {folder / node / 'certificate'}\n"
                f"bind: {network.address(node)}:{LINK_PORT}\ndrain_timeout_s: 5\n{self._executor_settings(node)}"
                f"sets: {{{self.set_name}: {{cores: {CORES_EACH}, memory_mib: 4096, max_slots: 6}}}}\n"
            )
            self.executors[node] = Part(network, node, folder, "executor", str(config))
        places = ", ".join(f"{node}: {self._place(node)}" for node in self.nodes)
        config = folder / "set.yaml"
        config.write_text(
            f"name: {self.set_name}\nstate_dir: {folder / 'set'}\nlink_certificates: {folder / 'certificate'}\n"
            f"link_lease_s: {self.lease_s}\nexecutors: {{{places}}}\ndrain_timeout_s: 5\ndrain_notice_s: 1\n"
            # So that the books of a long run are whole.
            f"sync_keep_s: 86400\n{self._set_settings()}"
        )
        # On all addresses of its host, so that the rig may read its metrics there, as only its own machine may.
        bind = f"0.0.0.0:{SET_PORT}"
        self.set = Part(
            *(network, SET_HOST, folder, "set", str(config), "--bind", bind),
            url=f"http://127.0.0.1:{SET_PORT}",
        )
        config = folder / "router.yaml"
        config.write_text(
            f'version: 1\nsets: {{{self.set_name}: {{url: "http://{network.address(SET_HOST)}:{SET_PORT}"}}}}\n'
            f"default: {{weights: {{{self.set_name}: 100}}}}\n"
        )
        self.router = Part(
            *(network, ROUTER_HOST, folder, "router", str(config), "--name", "r1"),
            *(
                "--bind",
                f"{network.address(ROUTER_HOST)}:{ROUTER_PORT}",
                "--state-dir",
                str(folder / "router"),
            ),
            *("--admin-bind", f"127.0.0.1:{ADMIN_PORT}"),
            url=f"http://127.0.0.1:{ADMIN_PORT}",
        )

    def state_dir(self, node: str) -> Path:
        return self.folder / node / "state"

    @property
    def own_engine(self) -> PrivateEngine | None:
        """The engine, if it is this checkout's own, so that the rig may restart it."""
        own = PrivateEngine()
        return own if own.pid and own.layout.host == self._docker_host else None

    # -- slots

    def slots(self, node: str = "") -> list[str]:
        """The ids of the set's containers that run; those of one node, if it is named."""
        found = self.engine.api.containers(filters={"label": f"{LABEL}={self.set_name}"})
        place = f"{self.socket_folder(node)}" if node else ""
        return sorted(
            each["Id"]
            for each in found
            if any(mount.get("Source", "").startswith(place) for mount in each["Mounts"]) or not node
        )

    def left(self) -> list[str]:
        """What remains of slots, on the engine and in the executors' folders. All is stopped before."""
        found = self._remains()
        left = [f"container {' '.join(each['Names'])} ({each['Status']})" for each in found]
        for node in self.nodes:
            folder = self.socket_folder(node) / self.set_name
            left += [str(path) for path in folder.iterdir()] if folder.exists() else []
        return left

    def _remains(self) -> list[dict[str, Any]]:
        """Containers of slots that nothing would remove."""
        return remains(self.engine.api, self.set_name)

    def stop(self) -> None:
        """Stop all parts in order, the set before its executors."""
        for part in self.parts:
            part.stop()

    def until_quiet(self) -> None:
        """Wait until all nodes are linked, and nothing runs or waits."""
        wanted = ["gc_slots_running 0.0", "gc_tasks_waiting 0.0", "gc_cores_busy 0.0"]
        wanted.append(f"gc_cores {CORES_EACH * len(self.nodes):.1f}")

        def quiet() -> bool:
            found = self.set.ask("/metrics")
            return found is not None and all(f"\n{line}\n" in found.text for line in wanted)

        until(quiet, "the set has nothing to do any more")
