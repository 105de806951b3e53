"""Records answers of a real agent for the tests: `python -m tests.scheduler.launchers.nomad.record`. Needs nomad."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from docker import DockerClient

from ops.nomad.cluster import CLIENTS, Cluster
from scheduler.launchers.nomad.node_files import guest_name, seccomp_name
from scheduler.launchers.seccomp import profile_json
from sets.guest import GUEST_BINARY
from tests.ports import free_port
from tests.scheduler.launchers.nomad.agents import CPU_SHARES, NODE, start_agent, start_cluster
from tests.scheduler.launchers.nomad.conversation import PREFIX, Talk, converse, kept, losses, status

RECORDINGS = Path(__file__).parent / "recordings"


@contextmanager
def registry(
    code: int, body: dict[str, Any] | None = None, hold: threading.Event | None = None
) -> Iterator[str]:
    """A registry that answers each request for a manifest in one way; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/v2/":
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if hold is not None:
                hold.wait(60)
            content = json.dumps(body or {}).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if code == 401:
                self.send_header("Www-Authenticate", 'Basic realm="here"')
            self.end_headers()
            self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


def failures(talk: Talk) -> Iterator[dict[str, Any]]:
    """Allocations that fail, each for another reason: a registry does not deliver the image, the node lacks a file."""

    def failed(name: str, job: str, run: str, *wanted: str, **names: str) -> dict[str, Any]:
        list(talk.started("", job, run=run, **names))
        ask = lambda: talk.allocations(name, job)  # noqa: E731
        step = talk.until(ask, status(*(wanted or ("failed",))))
        if wanted:
            step = talk.until(ask, lambda body: "ownload" in json.dumps(body))
        return kept(step)

    unknown = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
    with registry(404, unknown) as address:
        yield failed("a manifest that the registry lacks", "unknown", f"{address}/no/such:1")
    denied = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
    with registry(401, denied) as address:
        yield failed("a registry that refuses", "denied", f"{address}/private/image:1")
    with registry(500) as address:
        yield failed("a registry that fails", "broken", f"{address}/some/image:1")
    yield failed("a registry that is not there", "down", f"127.0.0.1:{free_port()}/some/image:1")
    hold = threading.Event()
    with registry(404, unknown, hold) as address:
        yield failed("an image that is being pulled", "pulling", f"{address}/large/image:1", "pending")
        hold.set()
    yield failed("a node without the guest of this build", "guest", "", guest="guest-0")
    yield failed("a node without the seccomp profile of this build", "seccomp", "", seccomp="slots-0.json")
    for job in ("unknown", "denied", "broken", "down", "pulling", "guest", "seccomp"):
        talk.step("", "DELETE", f"/v1/job/{PREFIX}{job}", params={"purge": "true"})


def lost_and_found(cluster: Cluster, run: str, guest: str, seccomp: str) -> Iterator[dict[str, Any]]:
    """What three servers say of slots whose clients they lose and find again."""

    def signal_clients(number: int) -> None:
        for client in CLIENTS:
            os.kill(cluster.agents[client].pid, number)

    talk = Talk(
        cluster.url(),
        str(cluster.node_folder("c1")),
        run,
        guest,
        seccomp,
        verify=ssl.create_default_context(cafile=str(cluster.ca_file)),
        headers={"X-Nomad-Token": cluster.management_token_file.read_text().strip()},
    )
    hold = threading.Event()
    unknown = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
    with registry(404, unknown, hold) as address:

        def find() -> None:
            signal_clients(signal.SIGCONT)
            hold.set()

        lose = lambda: signal_clients(signal.SIGSTOP)  # noqa: E731
        for step in losses(talk, f"{address}/large/image:1", lose, find):
            yield kept(step)


def main() -> None:
    version = subprocess.run(["nomad", "version"], capture_output=True, text=True, check=True).stdout.split()[
        1
    ]
    host = os.environ["DOCKER_HOST"]
    run = DockerClient(base_url=host).images.get("ncat:1").id or ""
    with (
        tempfile.TemporaryDirectory() as folder,
        start_agent(Path(folder) / "agent", host, cpu_shares=CPU_SHARES) as agent,
    ):
        names = guest_name(GUEST_BINARY.read_bytes()), seccomp_name(profile_json())
        talk = Talk(agent.url, str(agent.node_folder), run, *names)
        found = [kept(step) for step in converse(talk)]
        failed = list(failures(talk))
    with (
        tempfile.TemporaryDirectory() as far_folder,
        start_cluster(Path(far_folder) / "cluster", host) as cluster,
    ):
        lost = list(lost_and_found(cluster, run, *names))
    RECORDINGS.mkdir(exist_ok=True)
    for name, steps in (("conversation", found), ("failures", failed), ("losses", lost)):
        text = json.dumps(steps, indent=1).replace(folder, "/var/lib").replace(far_folder, "/var/lib")
        text = text.replace(f'"{NODE}"', '"local"')
        # What the machine looks like on which it was recorded.
        text = re.sub(r" on [0-9.]+:53", "", text).replace("registry-1.docker.io", "registry.example")
        (RECORDINGS / f"{name}-{version.lstrip('v')}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
