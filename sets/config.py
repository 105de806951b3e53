"""A set's configuration: one YAML file, read strictly. Each setting is described once, here."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from scheduler.accounts.account import ACCOUNT_NAME, Quotas
from scheduler.policy.limits import KeepAlive, Limits
from scheduler.policy.rates import Rate, Rates
from scheduler.policy.storage import MIB, StorageLimits
from scheduler.policy.tenancy import Tenancy
from scheduler.registry.allowed import AllowList
from scheduler.registry.settings import Origin, RegistryConfig, secret_in
from sets.callback_config import CallbacksConfig
from sets.yaml_file import ConfigError, parse_as, text_of

SET_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9]{0,30})")
NODE_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

REQUESTS_PER_S: Final = 2000
"""Requests of one account per second where accounts are known and the file says nothing: half of what a set serves."""
BURST_S: Final = 5
"""Seconds' worth of requests that may come at once."""

# The upper bounds keep every product within 64 bits, and catch slips of the keyboard.
Positive = Annotated[int, Meta(gt=0, le=1 << 30)]
Seconds = Annotated[float, Meta(gt=0, le=1e9)]
Weight = Annotated[int, Meta(ge=1, le=1000)]
TenancyName = Literal["shared", "dedicated"]


class OperatorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person or program with the scope `operator`: reads the state of the whole set, and runs no tasks."""

    token_hashes: tuple[Annotated[str, Meta(pattern="^[0-9a-f]{64}$")], ...]
    """SHA-256 in hexadecimal of each whole token; `gcompute token operator NAME` makes one."""
    may_order: bool = False
    """May also give the set orders: `gcompute set drain` and `resume`. Leave it off for routers and Prometheus."""


class RemoteExecutorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An executor on another machine (`gcompute executor`)."""

    address: str
    """Its address and port."""
    state_dir: str | None = None
    """Its `state_dir`, where it runs on this machine and the set's own engine starts its slots."""


class RegistrationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Consul agent with which the set registers while it runs, so that routers find it (`discovery`).

    A set that runs as a Nomad job needs none: its job's `service` block registers it.
    """

    consul: Origin
    """Address of the agent, such as `http://127.0.0.1:8500`. Its token needs `service` write for the service."""
    service: Annotated[str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9-]{0,63})?$")] = ""
    """Name of the service; by default `gc-set-` and the set's name."""
    address: str | None = None
    """Address and port at which routers reach the set; by default `bind`."""
    token_file: str | None = None
    """File that holds the agent's token; it is read at each use, so it can be replaced at any time."""
    ca_file: str | None = None
    """File with the certificates to trust for an `https` address; by default the usual authorities."""

    def token(self) -> str | None:
        """The token as its file has it now. Raises `ValueError`."""
        if self.token_file is None:
            return None
        return secret_in(self.token_file, "token_file of registration")


class SetConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of one set. The name of a size or a time ends with its unit.

    `python -m ops.docs` writes sets/docs/settings.md from the docstrings here.
    """

    name: str
    """Name of the set: lower-case letters and digits, 31 at most. The ids of its tasks begin with it."""
    state_dir: str
    """Folder for tasks, bodies and the installation's identity. It must survive restarts; one set per folder."""
    bind: str = "127.0.0.1:8101"
    """Address and port on which the set listens."""
    authentication: bool = False
    """Require a bearer token of an account for every call. When off, the header `X-Account` names the account."""
    accounts_file: str | None = None
    """File of the accounts, which `gcompute account` changes and every set follows; needed with `authentication`. A set
    that cannot read it goes on with what it knows."""
    accounts_key_file: str | None = None
    """File of the accounts' master key. By default the environment's `GC_ACCOUNTS_KEY`, else `accounts_file` with
    `.key` at its end."""
    operators: dict[str, OperatorConfig] = {}
    """Operators by name: they may read `/metrics` and `/v1/admin/` when `authentication` is on, and give orders with
    `may_order`. When it is off, every caller on this machine may."""
    cores: Annotated[float, Meta(ge=0.01, le=65_536)] | None = None
    """Cores that running tasks share; by default all cores of the machine."""
    memory_mib: Positive | None = None
    """Memory that running tasks share; by default three quarters of the machine's."""
    max_slots: Positive = 32
    """Slots that exist at the same time, busy and idle."""
    max_slots_account: Positive | None = None
    """Slots of one account, busy and idle, beyond which its tasks wait for one of them; by default all there are."""
    account_slots: dict[str, Positive] = {}
    """Slots of accounts by name; every other account has `max_slots_account`."""
    max_slots_image: Positive | None = None
    """Slots of one account for one image, whatever their sizes; by default as many as the account may have."""
    max_waiting: Positive = 100_000
    """Tasks that wait for a slot; the set refuses further ones with 503."""
    max_waiting_account: Positive = 20_000
    """Tasks of one account that wait for a slot; the set refuses further ones with 429."""
    max_requests_account_per_s: Positive | None = None
    """Requests of one account per second, of any kind; after a pause, five seconds' worth may come at once. The set
    refuses further ones with 429, before it reads a body. By default 2000 with `authentication`, and no bound without:
    there a caller may name any account."""
    max_pools: Positive = 20_000
    """Kinds of slots that tasks wait for or that slots are there for: one for each account, image, `cpu`, `memory_mib`,
    set of CPU features, `isolation` and `priority`. The set refuses tasks of further kinds with 503."""
    max_pools_account: Positive = 1000
    """Kinds of slots of one account; the set refuses its tasks of further kinds with 429."""
    max_new_pools_account_per_s: Annotated[float, Meta(gt=0, le=1e6)] = 2.0
    """Kinds of slots that one account may begin to use per second; after a pause, two minutes' worth may come at once.
    The set refuses tasks of further kinds with 429: each needs a slot that starts, some 50 ms of CPU time that no
    account is billed for."""
    account_weights: dict[str, Weight] = {}
    """Weights of accounts by name; every other account has 1. While accounts compete, one of weight 3 has three times
    as much of the cores, counted by how long its tasks hold them, and as many slots, as one of weight 1."""
    tenancy: TenancyName = "shared"
    """With `shared`, slots of several accounts may be on one machine at the same time. With `dedicated`, an account's
    slots have machines of their own; each serves one account at a time, and is emptied and cleaned between two."""
    account_tenancy: dict[str, TenancyName] = {}
    """Tenancy of accounts by name; every other account has `tenancy`."""
    node_turn_s: Seconds = 10
    """How long an account may use a machine of its own at least, while accounts that have none wait for one."""
    max_input_mib: Positive = 16_384
    """Largest input of one task."""
    max_stdout_mib: Positive = 4096
    """Largest standard output of an async task; a task that writes more fails."""
    max_stderr_mib: Positive = 64
    """Standard error kept of an async task; the rest is cut, and `detail` says so."""
    max_file_mib: Positive = 1024
    """Largest output file that is kept, holes included."""
    max_files_mib: Positive = 2048
    """Size of all kept output files of one task together, holes included."""
    min_free_disk_mib: Positive = 256
    """Free disk space below which the set refuses new async tasks and stores no further bodies."""
    low_disk_mib: Positive = 1024
    """Free disk space below which the disk is short: until a quarter more is free, the set refuses new tasks of the
    accounts that use most of it with 503, and ends what it has."""
    max_kept_mib: Positive | None = None
    """Storage of all accounts together: rows, inputs, results, output files and callbacks of their tasks, and what is
    being written of them. Above it the disk counts as short. By default four fifths of the disk of `state_dir`."""
    max_kept_account_mib: Positive | None = None
    """Storage of one account; the set refuses its further tasks with 429, before it reads an input whose length it
    knows. Tasks that it has accepted may write a quarter more: then their output counts as too large. By default half
    of `max_kept_mib`."""
    keep_idle_s: Seconds = 300
    """How long an idle slot is kept for its pool's next task; with `keep_alive: learnt`, what a start is worth: as much
    as a slot of 512 MiB that idles for that long."""
    keep_alive: Literal["learnt", "fixed"] = "learnt"
    """`learnt`: once a pool's idle times are known, its slots are there when a task is likely to come; `fixed`: each
    idle slot is kept for `keep_idle_s`."""
    slot_start_timeout_s: Seconds = 60
    """How long a slot may take to start before it is given up."""
    body_stall_s: Annotated[int, Meta(gt=0, le=3600)] = 60
    """How long a request's body may pause before the set answers 408."""
    drain_timeout_s: Annotated[int, Meta(gt=0, le=86_400)] = 30
    """How long a stopping set goes on answering requests that are under way."""
    drain_notice_s: Annotated[float, Meta(ge=0, le=600)] = 2.0
    """How long a stopping set at least goes on refusing new tasks with an answer, so that routers notice."""
    sync_keep_s: Positive = 900
    """How long a sync task and its output files can be fetched after its end."""
    async_keep_s: Positive = 86_400
    """How long an async task and its results can be fetched after its end."""
    dead_keep_s: Positive | None = None
    """How long a dead letter, a task that the platform gave up, is kept with its input; by default `async_keep_s`."""
    max_dead_account: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    """Dead letters of one account; its oldest ones become ordinary failed tasks first."""
    max_dead_account_mib: Positive = 1024
    """Inputs of the dead letters of one account together."""
    max_batch_inputs: Annotated[int, Meta(gt=0, le=1_000_000)] = 100_000
    """Inputs of one batch."""
    max_batch_mib: Positive = 16_384
    """Size of the inputs of one batch, as they are sent."""
    max_batches_account: Annotated[int, Meta(ge=0, le=100_000)] = 100
    """Batches of one account that are kept, running or ended."""
    executors: dict[str, RemoteExecutorConfig] = {}
    """Executors that run the set's tasks, by the name of their machine. With any, the set runs no task itself, and
    `cores`, `memory_mib` and `max_slots` are those of the executors."""
    link_certificates: str | None = None
    """Folder with the set's certificate for its executors, as `gcompute cert set` writes it."""
    link_lease_s: Annotated[float, Meta(ge=0.5, le=300)] = 2.0
    """How long an executor may be out of reach before its tasks are killed there and run elsewhere; a quarter more
    passes in between."""
    docker_host: str | None = None
    """Address of the engine; by default the environment's `DOCKER_HOST`, else the usual socket."""
    slot_files: str | None = None
    """Folder for copies of the files that the engine mounts into slots. A set that runs in a container needs it: the
    folder must have the same path on the engine's machine, and so must `state_dir`. By default the engine mounts the
    installation's own files."""
    runtime: str | None = None
    """OCI runtime of the slots, by its name in the engine's daemon.json; by default the engine's own. With `runsc`
    every task runs in a new container."""
    registries: Annotated[tuple[RegistryConfig, ...], Meta(max_length=64)] = ()
    """The registries that the set may contact, its own one first; images that the engine does not have are pulled from
    these. With `launcher: nomad` all images are found there by HTTP, and the set needs no engine. Without any, the set
    runs only images that the engine holds."""
    registration: RegistrationConfig | None = None
    """The Consul agent with which the set registers; by default none."""
    callbacks: CallbacksConfig | None = None
    """How callers hear that their tasks have ended (`X-Callback-Url`); by default no callback is accepted."""
    launcher: Literal["docker", "nomad"] = "docker"
    """Where slots run: as containers of this machine's engine, or as jobs of a Nomad cluster."""
    registrar: str | None = None
    """Unix socket of the set's registrar (`gcompute registrar`), which `launcher: nomad` needs."""
    node_folder: str = "/var/lib/general-compute"
    """Folder on this node that `python -m ops.nomad layout` made, for `launcher: nomad`."""
    images_ahead: Annotated[tuple[str, ...], Meta(max_length=100)] = ()
    """Images of a registry that every node of the cluster pulls ahead of the tasks, with `launcher: nomad`. Where a tag
    names another image later, that one is pulled within ten minutes."""
    max_followers: Positive = 256
    """Outputs that callers follow while their tasks run (`?follow=1`); the set refuses further ones with 503."""
    max_followers_account: Positive = 32
    """Outputs that one account follows; the set refuses further ones with 429."""
    follow_buffer_kib: Annotated[int, Meta(ge=64, le=1 << 20)] = 1024
    """How far a follower of a sync task's output may fall behind the task's own caller; further behind, its answer is
    broken off. Async tasks' outputs are kept, so their followers may read as slowly as they like."""
    telemetry: bool = False
    """Send traces and metrics to an OpenTelemetry collector, by OTLP over HTTP. The environment's `OTEL_` variables say
    where and how; see sets/docs/telemetry.md. It needs the package's extra `otel`."""
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    """Lowest level of the records that are logged."""

    @property
    def directory(self) -> Path:
        return Path(self.state_dir).resolve()

    def storage(self, quotas: Callable[[str], Quotas]) -> StorageLimits:
        """The bounds of what accounts keep, with each account's quotas; the folder must exist."""
        disk = os.statvfs(self.directory)
        all_bytes = (self.max_kept_mib or 0) * MIB or disk.f_blocks * disk.f_frsize * 4 // 5
        return StorageLimits(
            account_bytes=(self.max_kept_account_mib or 0) * MIB or all_bytes // 2,
            of_account=lambda name: _bytes(quotas(name).kept_mib),
            all_bytes=all_bytes,
            low_disk_bytes=self.low_disk_mib * MIB,
        )

    def rates(self, quotas: Callable[[str], Quotas]) -> Rates:
        """The bounds of how often accounts may send requests, with each account's quotas."""
        usual = self.max_requests_account_per_s or (REQUESTS_PER_S if self.authentication else None)
        return Rates(
            _rate(usual),
            lambda name: _rate(quotas(name).requests_per_s),
            # The slowest rate that a quota may have is one in ten seconds.
            longest_s=2 * BURST_S + 10,
        )

    def limits(self) -> Limits:
        cores = self.cores or os.cpu_count() or 1
        memory_mib = self.memory_mib or machine_memory_mib() * 3 // 4
        return Limits(
            cpu_percent=round(cores * 100),
            memory_mib=memory_mib,
            max_slots=self.max_slots,
            max_slots_account=self.max_slots_account,
            max_slots_image=self.max_slots_image,
            account_slots=self.account_slots,
            max_waiting=self.max_waiting,
            max_waiting_account=self.max_waiting_account,
            max_pools=self.max_pools,
            max_pools_account=self.max_pools_account,
            new_pools_account_per_s=self.max_new_pools_account_per_s,
            keep_idle_s=self.keep_idle_s,
            keep_alive=KeepAlive(self.keep_alive),
            account_weights=self.account_weights,
            tenancy=Tenancy(self.tenancy),
            account_tenancy={name: Tenancy(tenancy) for name, tenancy in self.account_tenancy.items()},
            node_turn_s=self.node_turn_s,
        )


def _rate(per_s: float | None) -> Rate | None:
    return None if per_s is None else Rate(per_s, max(1, int(per_s * BURST_S)))


def _bytes(mib: int | None) -> int | None:
    return None if mib is None else mib * MIB


def load(path: Path) -> SetConfig:
    """Read a set's YAML file. Raises `ConfigError` with the file, the line or field, and the mistake."""
    return parse(text_of(path), str(path))


def parse(text: str, source: str) -> SetConfig:
    """Like `load`, from text; `source` names the text in errors."""
    config = parse_as(SetConfig, text, source, "sets/docs/settings.md")
    if not SET_NAME.fullmatch(config.name):
        raise ConfigError(f"{source}: name: {config.name!r} is not lower-case letters and digits, 31 at most")
    named: dict[str, Iterable[str]] = {
        "operators": config.operators,
        "account_slots": config.account_slots,
        "account_weights": config.account_weights,
        "account_tenancy": config.account_tenancy,
        "callbacks: secrets": config.callbacks.secrets if config.callbacks else (),
    }
    for field, names in named.items():
        for name in names:
            if not ACCOUNT_NAME.fullmatch(name):
                raise ConfigError(f"{source}: {field}: {name!r} is not lower-case letters, digits and dashes")
    if config.launcher == "nomad" and config.registrar is None:
        raise ConfigError(
            f"{source}: launcher is nomad, but registrar is not set: name the registrar's socket"
        )
    if config.launcher == "docker" and config.images_ahead:
        raise ConfigError(f"{source}: images_ahead is set, but launcher is docker: remove one of them")
    if config.launcher == "docker" and config.registrar is not None:
        raise ConfigError(f"{source}: registrar is set, but launcher is docker: remove one of them")
    if config.authentication and config.accounts_file is None:
        raise ConfigError(
            f"{source}: authentication is on, but accounts_file is not set; `gcompute account init` makes the file"
        )
    _check_registries(config, source)
    _check_executors(config, source)
    _check_registration(config, source)
    _check_callbacks(config, source)
    return config


def _check_registries(config: SetConfig, source: str) -> None:
    try:
        AllowList(config.registries)
        for registry in config.registries:
            registry.check()
    except ValueError as error:
        raise ConfigError(f"{source}: registries: {error}") from error


def _check_registration(config: SetConfig, source: str) -> None:
    registration = config.registration
    if registration is None:
        return
    host, _ = address_of(registration.address or config.bind, f"{source}: registration: address")
    if host in ("0.0.0.0", "::"):
        raise ConfigError(
            f"{source}: registration: address: the set listens on {host}; say at which address routers reach it"
        )
    try:
        registration.token()
    except ValueError as error:
        raise ConfigError(f"{source}: registration: {error}") from error


def _check_callbacks(config: SetConfig, source: str) -> None:
    if config.callbacks is None:
        return
    try:
        config.callbacks.check()
    except ValueError as error:
        raise ConfigError(f"{source}: callbacks: {error}") from error


def _check_executors(config: SetConfig, source: str) -> None:
    for node, executor in config.executors.items():
        if not NODE_NAME.fullmatch(node):
            raise ConfigError(f"{source}: executors: {node!r} is not lower-case letters, digits and dashes")
        address_of(executor.address, f"{source}: executors: {node}: address")
    if config.executors and config.link_certificates is None:
        raise ConfigError(
            f"{source}: link_certificates: needed with executors; `gcompute cert set {config.name}` makes the folder"
        )


def address_of(text: str, where: str) -> tuple[str, int]:
    """Return the host and the port of `HOST:PORT`; an IPv6 host is in brackets. Raises `ConfigError`."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and int(port) < 65_536):
        raise ConfigError(f"{where}: {text!r} is not like 10.0.0.5:8201")
    return host.removeprefix("[").removesuffix("]"), int(port)


def machine_memory_mib() -> int:
    """Return the memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
