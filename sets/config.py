"""A set's configuration: one YAML file, strict. Each setting is described once, here."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import yaml
from msgspec import Meta

from scheduler.policy.dispatch import Limits

SET_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9]{0,30})")
ACCOUNT_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

# The upper bounds keep every product of them within 64 bits, and out what can only be a slip.
Positive = Annotated[int, Meta(gt=0, le=1 << 30)]
Seconds = Annotated[float, Meta(gt=0, le=1e9)]


class ConfigError(Exception):
    """The set's configuration cannot be used."""


class AccountConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An account that may use the set when `authentication` is on. `token_hashes` are SHA-256 in hexadecimal of whole
    tokens (`gc_ACCOUNT_SECRET`; `gcompute token ACCOUNT` makes one)."""

    token_hashes: tuple[Annotated[str, Meta(pattern="^[0-9a-f]{64}$")], ...]
    max_input_mib: Positive | None = None


class OperatorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Someone with the scope `operator`: sees metrics and what tells of the whole set, runs no tasks. Hashes as of an
    account's tokens; `gcompute token --operator NAME` makes one."""

    token_hashes: tuple[Annotated[str, Meta(pattern="^[0-9a-f]{64}$")], ...]


class SetConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One set. Sizes and times carry their unit in the name."""

    name: str
    state_dir: str
    bind: str = "127.0.0.1:8101"
    authentication: bool = False
    accounts: dict[str, AccountConfig] = {}
    operators: dict[str, OperatorConfig] = {}
    """Who may read `/metrics` and `/v1/admin/` when `authentication` is on; when it is off, this machine may."""
    cores: Annotated[float, Meta(ge=0.01, le=65_536)] | None = None
    """Cores that running tasks share; all of the machine's by default."""
    memory_mib: Positive | None = None
    """Memory that running tasks share; three quarters of the machine's by default."""
    max_slots: Positive = 32
    max_waiting: Positive = 100_000
    max_waiting_account: Positive = 20_000
    max_input_mib: Positive = 16_384
    max_stdout_mib: Positive = 4096
    max_stderr_mib: Positive = 64
    max_file_mib: Positive = 1024
    """The largest output file that is kept, holes included."""
    max_files_mib: Positive = 2048
    """How much of all output files of one task is kept, holes included."""
    min_free_disk_mib: Positive = 256
    keep_idle_s: Seconds = 300
    slot_start_timeout_s: Seconds = 60
    body_stall_s: Annotated[int, Meta(gt=0, le=3600)] = 60
    """How long a request's body may stand still before it is given up with 408."""
    drain_timeout_s: Annotated[int, Meta(gt=0, le=86_400)] = 30
    """How long a set that was told to stop goes on answering requests that are under way."""
    drain_notice_s: Annotated[float, Meta(ge=0, le=600)] = 2.0
    """How long, at least, it goes on refusing new tasks by an answer, so that routers learn of it."""
    sync_keep_s: Positive = 900
    async_keep_s: Positive = 86_400
    docker_host: str | None = None
    """The engine; the environment's DOCKER_HOST or the usual socket by default."""
    runtime: str | None = None
    """The OCI runtime that slots run under, by its name in the engine's daemon.json; by default the engine's own."""
    pull: bool = False
    """Whether images that the engine does not hold are pulled from their registry."""
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"

    @property
    def directory(self) -> Path:
        return Path(self.state_dir).resolve()

    def limits(self) -> Limits:
        cores = self.cores or os.cpu_count() or 1
        memory_mib = self.memory_mib or _machine_memory_mib() * 3 // 4
        return Limits(
            cpu_percent=round(cores * 100),
            memory_mib=memory_mib,
            max_slots=self.max_slots,
            max_waiting=self.max_waiting,
            max_waiting_account=self.max_waiting_account,
            keep_idle_s=self.keep_idle_s,
        )


def load(path: Path) -> SetConfig:
    """Read a set's YAML. Raises `ConfigError` that names the file, the line or field, and what is wrong."""
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text") from error
    return parse(text, str(path))


def parse(text: str, source: str) -> SetConfig:
    """As `load`, from text; `source` names it in errors."""
    try:
        # The loader derives from SafeLoader.
        data = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: {error}") from error
    try:
        config = msgspec.convert(data, SetConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}; sets/config.py describes each field") from error
    if not SET_NAME.fullmatch(config.name):
        raise ConfigError(f"{source}: name: {config.name!r} is not lower-case letters and digits, 31 at most")
    for field, names in (("accounts", config.accounts), ("operators", config.operators)):
        for name in names:
            if not ACCOUNT_NAME.fullmatch(name):
                raise ConfigError(f"{source}: {field}: {name!r} is not lower-case letters, digits and dashes")
    if config.authentication and not config.accounts:
        raise ConfigError(f"{source}: authentication is on, but accounts is empty: nobody could use the set")
    return config


def _machine_memory_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice: the second would win silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be plain text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
