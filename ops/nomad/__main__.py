"""Nomad for slots, from the command line.

python -m ops.nomad layout [FOLDER]   make or complete a node's folder, /var/lib/general-compute by default
python -m ops.nomad up                start an agent of this machine's own, with this checkout's engine
python -m ops.nomad down              stop it; `wipe` also removes its state
python -m ops.nomad cluster up        start three servers and two clients, with TLS and ACLs; prints how to command them
python -m ops.nomad cluster down      stop them; `cluster wipe` also removes their state

GC_NOMAD_ADDRESS sets the agent's loopback address (127.0.2.1), GC_NOMAD_NETWORK the first three numbers of the
cluster's (127.0.4).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from ops.nomad.agent import ADDRESS, Agent
from ops.nomad.cluster import NETWORK, Cluster
from ops.nomad.node import lay_out
from ops.setup import engine
from ops.setup.engine import ROOT
from ops.setup.errors import OpsError, described

FOLDER: Final = ROOT / "var/nomad"
CLUSTER_FOLDER: Final = ROOT / "var/nomad-cluster"


def main(arguments: list[str]) -> int:
    match arguments:
        case ["layout", *rest] if len(rest) <= 1:
            made = lay_out(Path(rest[0] if rest else "/var/lib/general-compute"))
            print("\n".join(made) or "nothing was missing")
        case ["up"]:
            address = os.environ.get("GC_NOMAD_ADDRESS", ADDRESS)
            agent = Agent(FOLDER, engine.up(), address=address)
            agent.start()
            print(f"export NOMAD_ADDR={agent.url}")
        case ["down"]:
            Agent(FOLDER, "").stop()
        case ["wipe"]:
            Agent(FOLDER, "").wipe()
        case ["cluster", "up"]:
            cluster = _cluster(engine.up())
            cluster.start()
            for name, value in cluster.variables().items():
                print(f"export {name}={value}")
        case ["cluster", "down"]:
            _cluster("").stop()
        case ["cluster", "wipe"]:
            _cluster("").wipe()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


def _cluster(docker_host: str) -> Cluster:
    network = os.environ.get("GC_NOMAD_NETWORK", NETWORK)
    # Both clients are this machine, and it also runs the platform's jobs: CPU is to keep nothing waiting.
    shares = 4000 * (os.cpu_count() or 1)
    return Cluster(CLUSTER_FOLDER, docker_host, network=network, cpu_shares=shares)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OpsError as error:
        sys.exit(f"ops.nomad: {error}")
    except OSError as error:
        sys.exit(f"ops.nomad: {described(error)}")
