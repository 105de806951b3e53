"""The configuration of an executor that serves sets on other machines: one YAML file, read strictly."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from scheduler.policy.node import NodeFacts
from sets.config import NODE_NAME, SET_NAME, Positive, address_of, machine_memory_mib
from sets.executor.executor import LocalExecutor
from sets.yaml_file import ConfigError, parse_as, text_of

REFERENCE: Final = "sets/docs/settings.md"


class ShareConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The part of an executor's machine that a set may use. Shares of several sets may add up to more than there is:
    then their tasks compete."""

    cores: Annotated[float, Meta(ge=0.01, le=65_536)] | None = None
    """Cores that the set's running tasks share; by default all cores of the machine."""
    memory_mib: Positive | None = None
    """Memory that the set's running tasks share; by default three quarters of the machine's."""
    max_slots: Annotated[int, Meta(gt=0, le=100_000)] = 32
    """Slots of the set that exist here at the same time, busy and idle."""


class ExecutorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of an executor (`gcompute executor FILE`)."""

    node: str
    """Name of the machine, as in the sets' `executors` and in the certificate: lower-case letters, digits, dashes."""
    state_dir: str
    """Folder for the sockets of slots, one folder a set. One executor per folder."""
    certificates: str
    """Folder with the certificate of this node, as `gcompute cert executor` writes it."""
    sets: dict[str, ShareConfig]
    """Sets that may run tasks here, by name; others are refused."""
    run_folder: str | None = None
    """Folder for the sockets of slots that Nomad starts, as `python -m ops.nomad` lays it out; all slots of the machine
    see it. One executor per folder. By default, a folder in `state_dir`, of which each slot sees its own part alone."""
    bind: str = "127.0.0.1:8201"
    """Address and port on which the executor waits for sets."""
    drain_timeout_s: Annotated[int, Meta(ge=0, le=86_400)] = 30
    """How long a stopping executor lets running tasks go on."""
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    """Lowest level of the records that are logged."""

    @property
    def directory(self) -> Path:
        return Path(self.state_dir).resolve()

    def executor_for(self, set_name: str) -> LocalExecutor:
        """Return the executor of one set's slots."""
        if self.run_folder is not None:
            return LocalExecutor(Path(self.run_folder) / set_name, shared=True)
        return LocalExecutor(self.directory / set_name)

    def shares(self, cpu_features: frozenset[str]) -> dict[str, NodeFacts]:
        """Return the facts that each set is told of this machine."""
        return {
            name: NodeFacts(
                self.node,
                round((share.cores or os.cpu_count() or 1) * 100),
                share.memory_mib or machine_memory_mib() * 3 // 4,
                share.max_slots,
                cpu_features,
            )
            for name, share in self.sets.items()
        }


def load(path: Path) -> ExecutorConfig:
    """Read an executor's YAML file. Raises `ConfigError` with the file, the line or field, and the mistake."""
    return parse(text_of(path), str(path))


def parse(text: str, source: str) -> ExecutorConfig:
    """Like `load`, from text; `source` names the text in errors."""
    config = parse_as(ExecutorConfig, text, source, REFERENCE)
    if not NODE_NAME.fullmatch(config.node):
        raise ConfigError(
            f"{source}: node: {config.node!r} is not lower-case letters, digits and dashes, 63 at most"
        )
    for name in config.sets:
        if not SET_NAME.fullmatch(name):
            raise ConfigError(f"{source}: sets: {name!r} is not lower-case letters and digits, 31 at most")
    if not config.sets:
        raise ConfigError(f"{source}: sets: no set may run tasks here; name one")
    address_of(config.bind, f"{source}: bind")
    return config
