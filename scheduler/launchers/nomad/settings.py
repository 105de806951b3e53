"""Settings of the registrar and of the launcher that talks to it. Each setting is described once, here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from scheduler.launchers.hardening import SlotLimits
from scheduler.registry.settings import RegistryName

Positive = Annotated[int, Meta(gt=0, le=1 << 30)]
Seconds = Annotated[float, Meta(gt=0, le=1e9)]

TEMPLATE: Final = Path(__file__).parents[3] / "jobspecs/slot.nomad.hcl"


class SettingsError(Exception):
    """A setting of the registrar is not valid."""


class RegistrarSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one registrar, which serves one set. The name of a size or a time ends with its unit.

    `python -m ops.docs` writes sets/docs/registrar.md from the docstrings here.
    """

    set_name: Annotated[str, Meta(pattern="^[a-z0-9]{1,31}$")]
    """Name of the set that the registrar serves."""
    socket: str
    """Unix socket at which the set finds the registrar. Its folder decides who else may connect."""
    address: Annotated[str, Meta(pattern="^https?://[^/ ]+$")] = "http://127.0.0.1:4646"
    """Address of a Nomad server or of an agent. Use `https` wherever the connection leaves the machine."""
    region: str = "global"
    """Region of the cluster in which slots run."""
    namespace: str = "default"
    """Namespace of the set's jobs. Give each set its own, so that its token reaches no other."""
    datacenters: tuple[str, ...] = ("*",)
    """Datacenters in which slots run."""
    node_pool: str = "default"
    """Node pool in which slots run."""
    ca_file: str | None = None
    """Certificates of the authority that signed the servers' certificates, in PEM; by default the system's."""
    cert_file: str | None = None
    """The registrar's own certificate in PEM, where the cluster wants one."""
    key_file: str | None = None
    """The key of `cert_file`."""
    token_file: str | None = None
    """File with the ACL token. Only the registrar's own user may read it: anybody who has it owns every node. Each call
    reads it, so a new token counts at once."""
    token_variable: str | None = None
    """Name of the environment variable with the ACL token, where no file is wanted."""
    template: str | None = None
    """Template of the slots' jobs; by default jobspecs/slot.nomad.hcl of this version."""
    runtime: Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{0,64}$")] = ""
    """OCI runtime of the slots, as the engines' daemon.json and `allow_runtimes` of Nomad's Docker plugin name it;
    by default the engines' own."""
    node_folder: Annotated[str, Meta(pattern="^/[A-Za-z0-9/._-]+$")] = "/var/lib/general-compute"
    """Folder on every node that `python -m ops.nomad` laid out."""
    status_url: Annotated[str, Meta(pattern='^(https?://[^ "]+)?$')] = ""
    """Page of the set, as a button on its jobs' pages in Nomad's UI."""
    limits: SlotLimits = SlotLimits()
    """Limits of a slot in addition to its tasks' resources."""
    registries: tuple[RegistryName, ...] = ()
    """Registries from which nodes may pull the set's images, as the images' names have them, such as
    `registry.example:5000`; `docker.io` for names without one. Repeat those of the set's own `registries` here: an
    attacker in the set can change its list, not this one. Without an entry, nodes only run images that they have."""
    max_slots: Annotated[int, Meta(gt=0, le=10_000)] = 1000
    """Slots that the set may have in the cluster at the same time, including those that are ending. It bounds what
    an attacker in the set gets."""
    max_cpu_percent: Positive = 6400
    """Largest CPU that the set may order for one slot, in hundredths of a core."""
    max_memory_mib: Positive = 262_144
    """Largest memory that the set may order for one slot."""
    cpu_reservation_percent: Annotated[int, Meta(ge=1, le=100)] = 10
    """Share of a slot's CPU that its job reserves; the slot's executor sets its limit. At 100 Nomad's driver does, and
    an idle slot keeps its CPU from others."""
    max_run_s: Annotated[int, Meta(ge=600, le=31_536_000)] = 90_000
    """How long after its start the cluster ends a slot, so that none is left for ever. A slot takes no task that may
    run for longer, so this must exceed the longest `timeout_s` of tasks. Restart the set after a change."""
    max_slots_per_job: Annotated[int, Meta(gt=0, le=50)] = 10
    """Slots in one job, at most."""
    starts_per_node: Annotated[int, Meta(gt=0, le=1000)] = 4
    """Slots that may be starting at the same time, for each node that takes slots."""
    purge_after_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """How long the job of slots that ended is kept, for operators to look at."""
    call_timeout_s: Seconds = 10.0
    """How long a call to the cluster may take."""
    relist_s: Seconds = 30.0
    """How often everything is listed, beside the events."""
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    """Lowest level of the records that are logged."""

    def token(self) -> str:
        """Return the ACL token; empty where the cluster has no ACLs. Raises `SettingsError`."""
        if self.token_file and self.token_variable:
            raise SettingsError("token_file and token_variable are both set; keep one of them")
        if self.token_variable:
            found = os.environ.get(self.token_variable, "").strip()
            if not found:
                raise SettingsError(f"token_variable: {self.token_variable} is not set in the environment")
            return found
        if self.token_file:
            try:
                found = Path(self.token_file).read_text(encoding="ascii").strip()
            except OSError as error:
                raise SettingsError(f"token_file: {self.token_file}: {error.strerror}") from error
            except UnicodeDecodeError as error:
                raise SettingsError(
                    f"token_file: {self.token_file} holds characters that no token has"
                ) from error
            if not found:
                raise SettingsError(f"token_file: {self.token_file} is empty")
            return found
        return ""

    def verify(self) -> str | bool:
        """The authority's certificates, or True: the system's."""
        return self.ca_file or True

    def certificate(self) -> tuple[str, str] | None:
        """The registrar's certificate and key. Raises `SettingsError`."""
        if (self.cert_file is None) != (self.key_file is None):
            raise SettingsError("cert_file and key_file belong together; set both or neither")
        if self.cert_file is None or self.key_file is None:
            return None
        return self.cert_file, self.key_file


class NomadSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the launcher in a set reaches its registrar. `run_folder` holds the slots' sockets on this node."""

    set_name: str
    installation: str
    registrar: Path
    run_folder: Path
    connect_timeout_s: float = 10.0
    blocked_wait_s: float = 3.0
    start_limit_s: float = 50.0
