"""Two data centres, each a host with a set and a router; before them a balancer, HAProxy as `ops/front` has it."""

from __future__ import annotations

import re
import secrets
import subprocess
import uuid
from contextlib import ExitStack
from pathlib import Path

import docker

from tests.cluster.cluster import LABEL, ROUTER_PORT, SET_PORT, attempt_image
from tests.cluster.network import Network
from tests.cluster.parts import Part, until
from tests.conftest import ROOT
from tests.scheduler.launchers.rig import ImageMaker

ADMIN_PORT = 8081
CENTRES = ("dc1", "dc2")
FRONT_HOST, CLIENT_HOST = "front", "client"
FRONT = ROOT / "ops/front/haproxy.cfg"


class Centres:
    """Use as a context manager: all parts run, and the balancer has found both routers.

    Each router sends half of its requests to the set of its own data centre, and half to the other one. A request with
    the header `X-Set` goes to that set while it is there.
    """

    def __init__(self, docker_host: str, folder: Path, seed: int) -> None:
        self.engine = docker.DockerClient(base_url=docker_host, timeout=60)
        self.folder = folder
        tag = uuid.uuid4().hex[:6]
        self.sets = {centre: f"y{tag}{letter}" for centre, letter in zip(CENTRES, "ab", strict=True)}
        self.network = Network((FRONT_HOST, CLIENT_HOST, *CENTRES), seed)
        self._maker = ImageMaker(self.engine.api)
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        return f"https://{self.network.address(FRONT_HOST)}:443"

    def router_url(self, centre: str) -> str:
        """The address of a data centre's own router."""
        return f"http://{self.network.address(centre)}:{ROUTER_PORT}"

    @property
    def ca(self) -> Path:
        return self.folder / "front.crt"

    def __enter__(self) -> Centres:
        with self._stack as stack:
            stack.callback(self.engine.close)
            stack.callback(self._maker.clean)
            self.image = attempt_image(self._maker, self.folder)
            stack.enter_context(self.network)
            self._write()
            for part in self.parts:
                stack.callback(part.stop)
                part.start()
            for part in self.parts:
                part.until_ready()
            self._start_balancer(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def parts(self) -> list[Part]:
        return [*self.set_parts.values(), *self.routers.values()]

    def _write(self) -> None:
        folder, network = self.folder, self.network
        address = {centre: network.address(centre) for centre in CENTRES}
        router = folder / "router.yaml"
        urls = ", ".join(
            f'{name}: {{url: "http://{address[centre]}:{SET_PORT}"}}' for centre, name in self.sets.items()
        )
        weights = ", ".join(f"{name}: 50" for name in self.sets.values())
        rules = ", ".join(
            f"{{name: to-{name}, when: {{header: {{x-set: {name}}}}}, to: {name}}}"
            for name in self.sets.values()
        )
        router.write_text(
            f"version: 1\nsets: {{{urls}}}\nrules: [{rules}]\ndefault: {{weights: {{{weights}}}}}\n"
        )
        # The balancer checks the admin address, so others reach it as well.
        token = folder / "admin.token"
        token.write_text(secrets.token_hex(16))
        token.chmod(0o600)
        self.set_parts: dict[str, Part] = {}
        self.routers: dict[str, Part] = {}
        for centre, name in self.sets.items():
            config = folder / f"{centre}.yaml"
            config.write_text(f"name: {name}\nstate_dir: {folder / centre}\ncores: 2\ndrain_notice_s: 0\n")
            self.set_parts[centre] = Part(
                *(network, centre, folder, "set", str(config), "--bind", f"0.0.0.0:{SET_PORT}"),
                url=f"http://127.0.0.1:{SET_PORT}",
            )
            self.routers[centre] = Part(
                *(network, centre, folder, "router", str(router), "--name", f"r-{centre}"),
                *(
                    "--bind",
                    f"{address[centre]}:{ROUTER_PORT}",
                    "--state-dir",
                    str(folder / f"router-{centre}"),
                ),
                *("--admin-bind", f"0.0.0.0:{ADMIN_PORT}", "--admin-token-file", str(token)),
                *("--trust-front", network.address(FRONT_HOST)),
                url=f"http://127.0.0.1:{ADMIN_PORT}",
            )

    # -- the balancer

    def _start_balancer(self, stack: ExitStack) -> None:
        self._make_certificate()
        # As ops/front/README.md asks for.
        retries = self.network.command(FRONT_HOST, "sysctl", "-q", "-w", "net.ipv4.tcp_retries2=5")
        subprocess.run(retries, check=True)
        text = FRONT.read_text()
        routers = (self.network.address(centre) for centre in CENTRES)
        changes = {"/etc/haproxy/tls/front.pem": str(self.folder / "front.pem")}
        changes |= {f"127.0.0.{number}:8080": f"{to}:{ROUTER_PORT}" for number, to in enumerate(routers, 1)}
        for old, new in changes.items():
            assert old in text, old
            text = text.replace(old, new)
        config = self.folder / "haproxy.cfg"
        config.write_text(text)
        self.balancer_log = self.folder / "haproxy.log"
        command = self.network.command(FRONT_HOST, "haproxy", "-db", "-f", str(config))
        with self.balancer_log.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        until(lambda: self._answers(), "the balancer reaches a router")

    def _answers(self) -> bool:
        asked = self.network.command(
            *(CLIENT_HOST, "curl", "-q", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5"),
            *("--cacert", str(self.ca), f"{self.url}/v1/tasks"),
        )
        return subprocess.run(asked, capture_output=True, text=True).stdout == "200"

    def _make_certificate(self) -> None:
        key, address = self.folder / "front.key", self.network.address(FRONT_HOST)
        subprocess.run(
            [
                *(
                    "openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:prime256v1",
                    "-nodes",
                ),
                *("-days", "9", "-subj", "/CN=front", "-addext", f"subjectAltName=IP:{address}"),
                *("-keyout", str(key), "-out", str(self.ca)),
            ],
            check=True,
            capture_output=True,
        )
        (self.folder / "front.pem").write_bytes(self.ca.read_bytes() + key.read_bytes())

    def centre_of(self, task: str) -> str:
        """The data centre whose set has a task, by its id."""
        return next(centre for centre, name in self.sets.items() if task.startswith(f"{name}-"))

    def running(self) -> int:
        """How many tasks run in all sets."""
        found = 0
        for part in self.set_parts.values():
            answer = part.ask("/metrics")
            line = answer and re.search(r"^gc_slots_running (\d+)", answer.text, re.MULTILINE)
            found += int(line[1]) if line else 0
        return found

    def left(self) -> list[str]:
        """The containers that remain of the sets."""
        return [
            str(each.name)
            for name in self.sets.values()
            for each in self.engine.containers.list(all=True, filters={"label": f"{LABEL}={name}"})
        ]
