"""``python -m ops.demo.nomad``: the demo's pictures through slots of a Nomad cluster, on this machine alone.

Starts an agent (needs `nomad` on PATH, and root), a registrar, a set and a router, and stops them in the end.
Ports are those of the local stack (GC_ROUTER_PORT, GC_ADMIN_PORT, GC_SET_A_PORT), which must not run meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from functools import partial
from types import FrameType
from typing import Final

import httpx

from ops.client import ClientError
from ops.demo.story import Story
from ops.images.builder import NAMES, Builder
from ops.local.parts import HOST, Ports
from ops.nomad.agent import Agent
from ops.setup import engine, processes
from ops.setup.engine import ROOT
from ops.setup.errors import OpsError

FOLDER: Final = ROOT / "var/demo-nomad"
READY_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 60.0
CORES: Final = os.cpu_count() or 1


def main() -> int:
    """Run the demo. Returns the exit code: 0, 1 if a step failed, 130 if it was interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    print("General Compute on Nomad, the demo: real pictures through slots that are Nomad jobs", flush=True)
    try:
        with ExitStack() as started:
            ports = Ports.of(os.environ)
            if not engine.running():
                started.callback(_stop_engines)
            host = engine.up()
            Builder(host).build(NAMES)
            agent = Agent(FOLDER / "agent", host, cpu_shares=1000 * CORES)
            started.callback(agent.wipe)
            agent.start()
            print(
                f"  Nomad's API: {agent.url}; its UI, if this build of nomad has one: {agent.url}/ui",
                flush=True,
            )
            _start_parts(started, agent, ports, host)
            story = Story(ports)
            story.pictures()
            _show_jobs(agent)
            print("\nSummary")
            for what, result in story.summary:
                print(f"  {what:42} {result}")
    except (OpsError, ClientError, httpx.HTTPError) as error:
        print(f"\ndemo: stopped early: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; everything is stopped", file=sys.stderr)
        return 130
    print(
        "  pictures and text lie in var/demo/; the agent, the registrar, the set and the router are stopped again"
    )
    return 0


def _start_parts(started: ExitStack, agent: Agent, ports: Ports, host: str) -> None:
    """Start the registrar, the set and the router, each when the one before it is ready."""
    socket = FOLDER / "registrar.sock"
    url = f"http://{HOST}:{ports.set_a}"
    files = {
        "registrar.yaml": f"set_name: a\nsocket: {socket}\naddress: {agent.url}\nnode_folder: {agent.node_folder}\n"
        f"status_url: {ports.router_url}\n",
        "set-a.yaml": f"name: a\nstate_dir: {FOLDER}/set-a\ncores: {CORES}\nlauncher: nomad\nregistrar: {socket}\n"
        f"node_folder: {agent.node_folder}\n",
        "router.yaml": f'version: 1\nsets:\n  a: {{url: "{url}", state: ready}}\ndefault:\n  weights: {{a: 100}}\n',
    }
    for name, text in files.items():
        (FOLDER / name).write_text(text)
    gcompute = str(ROOT / ".venv/bin/gcompute")
    environment = {**os.environ, "DOCKER_HOST": host, "PYTHONUNBUFFERED": "1"}
    router = ("--bind", f"{HOST}:{ports.router}", "--admin-bind", f"{HOST}:{ports.admin}")
    parts = (
        (("registrar", f"{FOLDER}/registrar.yaml"), ""),
        (("set", f"{FOLDER}/set-a.yaml", "--bind", f"{HOST}:{ports.set_a}"), f"{url}/readyz"),
        (
            ("router", f"{FOLDER}/router.yaml", *router, "--state-dir", f"{FOLDER}/router"),
            f"http://{HOST}:{ports.admin}/readyz",
        ),
    )
    for arguments, ready_url in parts:
        log = FOLDER / f"{arguments[0]}.log"
        pid = processes.start_detached([gcompute, *arguments], log, environment, ROOT)
        started.callback(processes.stop, pid, " ".join(arguments[:2]), STOP_TIMEOUT_S)
        there = partial(_answers, ready_url) if ready_url else socket.exists
        if not processes.wait_until(there, READY_TIMEOUT_S):
            raise OpsError(f"the {arguments[0]} did not become ready:\n{processes.tail(log)}")


def _stop_engines() -> None:
    """Stop the private engine that the demo started."""
    for private in engine.running():
        private.stop()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _show_jobs(agent: Agent) -> None:
    """Print the jobs as an operator sees them."""
    print("\nThe jobs in Nomad:")
    for job in httpx.get(f"{agent.url}/v1/jobs", timeout=30, trust_env=False).json():
        print(f"  {job['Status']:8} {job['Name']:40} {job['ID']}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
