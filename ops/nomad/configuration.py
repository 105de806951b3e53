"""The agents' configuration as operators have it, with the values of this machine put in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from scheduler.launchers.nomad.node_files import FEATURES

HERE: Final = Path(__file__).parent
SERVERS: Final = '["10.0.0.1", "10.0.0.2", "10.0.0.3"]'
"""Addresses of the servers in the files, which every operator replaces."""

# Looking for a cloud's metadata service takes seconds where there is none.
QUICK_START: Final = (
    'client {\n  options = { "fingerprint.denylist" = '
    '"env_aws,env_gce,env_azure,env_digitalocean,cni_plugins,bridge,nomad_plugins" }\n}\n'
)


def read(file: str, changes: Mapping[str, str]) -> str:
    """Return a file of this folder, such as `client.hcl`, with each key of `changes` replaced by its value.

    Raises `ValueError` if the file does not have a key: then nobody could trust the rest of it.
    """
    text = (HERE / file).read_text()
    for written, here in changes.items():
        if written not in text:
            raise ValueError(f"{file} does not have {written!r}")
        text = text.replace(written, here)
    return text


def client(
    address: str, node_folder: Path, docker_host: str, servers: str, cpu_shares: int, memory_mib: int
) -> str:
    """Return the configuration of a client on this machine, whose folder is laid out; `memory_mib` 0 offers all."""
    changes = {
        "/var/lib/general-compute": str(node_folder),
        "unix:///var/run/docker.sock": docker_host,
        "cpu_total_compute = 2000": f"cpu_total_compute = {cpu_shares}\n  memory_total_mb = {memory_mib}",
        SERVERS: servers,
        '"10.0.0.1" # HERE': f'"{address}"',
        # Another agent may share the engine, and each would remove the other's slots.
        "enabled = true\n      }": "enabled = false\n      }",
    }
    features = (node_folder / FEATURES).read_text()
    return "\n".join((read("client.hcl", changes), QUICK_START, features))
