"""Records what a real Nomad makes of jobspecs/: `python -m tests.jobspecs.record`. Needs nomad, and no agent."""

from __future__ import annotations

import json
import subprocess

from tests.jobspecs.parses import NAMES, RECORDINGS, digest, given, parse


def main() -> None:
    said = subprocess.run(["nomad", "version"], capture_output=True, text=True, check=True).stdout
    RECORDINGS.mkdir(exist_ok=True)
    for name in NAMES:
        recording = {
            "nomad": said.split()[1],
            "hcl": digest(name),
            "variables": given(name),
            "job": parse(name),
        }
        (RECORDINGS / f"{name}.json").write_text(json.dumps(recording, indent=1) + "\n")


if __name__ == "__main__":
    main()
