"""Nomad for slots, from the command line.

python -m ops.nomad layout [FOLDER]   make or complete a node's folder, /var/lib/general-compute by default
python -m ops.nomad up                start an agent of this machine's own, with this checkout's engine
python -m ops.nomad down              stop it; `wipe` also removes its state
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from ops.nomad.agent import Agent
from ops.nomad.node import lay_out
from ops.setup import engine
from ops.setup.engine import ROOT
from ops.setup.errors import OpsError, described

FOLDER: Final = ROOT / "var/nomad"


def main(arguments: list[str]) -> int:
    match arguments:
        case ["layout", *rest] if len(rest) <= 1:
            made = lay_out(Path(rest[0] if rest else "/var/lib/general-compute"))
            print("\n".join(made) or "nothing was missing")
        case ["up"]:
            agent = Agent(FOLDER, engine.up())
            agent.start()
            print(f"export NOMAD_ADDR={agent.url}")
        case ["down"]:
            Agent(FOLDER, "").stop()
        case ["wipe"]:
            Agent(FOLDER, "").wipe()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OpsError as error:
        sys.exit(f"ops.nomad: {error}")
    except OSError as error:
        sys.exit(f"ops.nomad: {described(error)}")
