"""Names of the platform's files on every node. Each carries its content's digest, so that builds can share a node."""

from __future__ import annotations

import hashlib
from typing import Final

BIN: Final = "bin"
RUN: Final = "run"
HIDE: Final = "hide"
DEVICES: Final = "dev"
HOSTS: Final = "hosts"
SECCOMP: Final = "seccomp"
FEATURES: Final = "features.hcl"
"""Members of a node's folder (`RegistrarSettings.node_folder`)."""


def guest_name(program: bytes) -> str:
    """The guest's file in `BIN`."""
    return f"guest-{_digest(program)}"


def seccomp_name(profile: str) -> str:
    """The profile's file in `SECCOMP`."""
    return f"slots-{_digest(profile.encode())}.json"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
