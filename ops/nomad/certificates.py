"""The certificates of a cluster's agents, made by Nomad's own commands, as README.md tells operators to make them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ops.nomad.process import call

CA_FILE: Final = "ca.pem"
CERTIFICATE_FILE: Final = "agent.pem"
KEY_FILE: Final = "agent-key.pem"


def make_authority(folder: Path) -> None:
    """Make the authority of a cluster in `folder`, unless it is there. Raises `OpsError`."""
    if (folder / CA_FILE).exists():
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    call(["tls", "ca", "create"], folder)
    (folder / "nomad-agent-ca.pem").rename(folder / CA_FILE)


def issue(authority: Path, folder: Path, address: str, *, server: bool) -> None:
    """Make the certificate of one agent in `folder`, unless it is there. Raises `OpsError`."""
    if (folder / CERTIFICATE_FILE).exists():
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    role = "server" if server else "client"
    signer = [f"-ca={authority / CA_FILE}", f"-key={authority / 'nomad-agent-ca-key.pem'}"]
    call(["tls", "cert", "create", f"-{role}", f"-additional-ipaddress={address}", *signer], folder)
    (folder / CA_FILE).write_bytes((authority / CA_FILE).read_bytes())
    (folder / f"global-{role}-nomad-key.pem").rename(folder / KEY_FILE)
    (folder / f"global-{role}-nomad.pem").rename(folder / CERTIFICATE_FILE)
