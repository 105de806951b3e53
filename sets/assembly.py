"""Builds a set from its configuration; the only module that names the concrete parts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from scheduler.batches.batches import Batches, BatchLimits
from scheduler.callbacks.deliveries import Deliveries
from scheduler.callbacks.networks import Networks
from scheduler.callbacks.sending import Sender
from scheduler.errors import SchedulerError
from scheduler.images.contract import ImageSource
from scheduler.installation import identify
from scheduler.launchers.contract import Launcher, NodeStands, SlotGone
from scheduler.launchers.docker import DockerLauncher
from scheduler.launchers.docker_config import DockerSettings
from scheduler.launchers.docker_separation import GVISOR
from scheduler.launchers.docker_source import EngineImages
from scheduler.launchers.nomad.ahead import ImagesAhead
from scheduler.launchers.nomad.launcher import NomadLauncher
from scheduler.launchers.nomad.node_files import RUN
from scheduler.launchers.nomad.settings import NomadSettings
from scheduler.manager import Manager
from scheduler.registry.source import RegistrySource
from scheduler.settings import ManagerSettings
from scheduler.store.blobs import BlobStore
from scheduler.store.callbacks import SqliteCallbacks
from scheduler.store.contract import DeadLetterLimits
from scheduler.store.sqlite import SqliteStore
from scheduler.task import Task
from sets.accounts_life import AccountsLife
from sets.api.accounts import Accounts
from sets.api.app import SetApp
from sets.api.batches import BatchCalls
from sets.api.metrics import SetMetrics
from sets.api.native import routes
from sets.api.native.view import task_json
from sets.api.runs import Runs
from sets.api.ugc.callers import UgcCallers
from sets.api.ugc.resource import UgcResource
from sets.api.ugc.tasks import UgcTasks
from sets.build import build_name
from sets.callback_config import CallbacksConfig, CallbackSecrets
from sets.config import SetConfig, address_of
from sets.cpu import cpu_features
from sets.executor.executor import LocalExecutor
from sets.executor.link.names import Certificates
from sets.executor.link.remote import Address, RemoteExecutor
from sets.registration import Registration
from sets.slot_files import mounted_files

if TYPE_CHECKING:
    from sets.telemetry.telemetry import Telemetry

log = structlog.get_logger()


class Life:
    """Opens and closes the parts of a set (a Falcon middleware)."""

    def __init__(
        self,
        manager: Manager,
        batches: Batches,
        deliveries: Deliveries,
        accounts: AccountsLife,
        set_name: str,
        build: str,
        registration: Registration | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._manager = manager
        self._telemetry = telemetry
        self._batches = batches
        self._deliveries = deliveries
        self._accounts = accounts
        self._registration = registration
        self._set_name = set_name
        self._build = build

    async def process_startup(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        if self._telemetry is not None:
            self._telemetry.open()
        try:
            await self._manager.open()
            await self._batches.open()
            await self._deliveries.open()
        except (SchedulerError, OSError) as error:
            log.error("set cannot start", set=self._set_name, reason=str(error))
            raise
        self._accounts.start(self._manager, self._batches)
        if self._registration is not None:
            await self._registration.open()
        log.info("set started", set=self._set_name, build=self._build)

    async def process_shutdown(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        if self._registration is not None:
            await self._registration.close()
        await self._accounts.stop()
        await self._batches.close()
        # The manager closes the store.
        await self._deliveries.close()
        await self._manager.close()
        if self._telemetry is not None:
            await self._telemetry.close()
        log.info("set stopped", set=self._set_name)


class Ends:
    """Passes what happens to tasks and slots on: to the metrics, the telemetry, the callbacks and the batches
    (`Observer`)."""

    def __init__(self, metrics: SetMetrics, deliveries: Deliveries, telemetry: Telemetry | None) -> None:
        self._metrics = metrics
        self._deliveries = deliveries
        self._telemetry = telemetry
        self.batches: Batches | None = None

    def slot_started(self, seconds: float) -> None:
        self._metrics.slot_started(seconds)
        if self._telemetry is not None:
            self._telemetry.slot_started(seconds)

    def task_ended(self, task: Task) -> None:
        self._metrics.task_ended(task)
        if self._telemetry is not None:
            self._telemetry.task_ended(task)
        self._deliveries.ended(task)
        if task.batch is not None and self.batches is not None:
            self.batches.task_ended(task)


def assemble(config: SetConfig) -> SetApp:
    """Build the whole set as an ASGI application; its parts open at start-up."""
    folder = config.directory
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    metrics = SetMetrics()
    accounts_life = AccountsLife(config)
    store = SqliteStore(
        folder / "tasks.db",
        min_free_mib=config.min_free_disk_mib,
        dead_letter_limits=DeadLetterLimits(config.max_dead_account, config.max_dead_account_mib << 20),
    )
    blobs = BlobStore(folder / "blobs", min_free_mib=config.min_free_disk_mib)
    build = build_name()
    # A lambda, as the manager is made after the launcher.
    images, launcher, executor = _slots(
        config,
        build,
        lambda slot_id, reason: manager.slot_lost(slot_id, reason),
        lambda node, standing, reason: manager.node_stands(node, standing, reason),
    )
    mib = 1 << 20
    settings = ManagerSettings(
        set_name=config.name,
        limits=config.limits(),
        storage=config.storage(accounts_life.quotas),
        sync_keep_s=config.sync_keep_s,
        async_keep_s=config.async_keep_s,
        dead_keep_s=config.dead_keep_s or config.async_keep_s,
        slot_start_timeout_s=config.slot_start_timeout_s,
        cpu_features=cpu_features(),
        build=build,
        own_node=not config.executors,
        stdout_max_bytes=config.max_stdout_mib * mib,
        stderr_max_bytes=config.max_stderr_mib * mib,
        file_max_bytes=config.max_file_mib * mib,
        files_max_bytes=config.max_files_mib * mib,
        max_followers=config.max_followers,
        max_followers_account=config.max_followers_account,
        follow_buffer_bytes=config.follow_buffer_kib << 10,
    )
    deliveries = _deliveries(config, store)
    telemetry = _telemetry(config, build, metrics)
    ends = Ends(metrics, deliveries, telemetry)
    manager = Manager(settings, store, blobs, images, launcher, executor, ends)
    batch_limits = BatchLimits(
        config.max_batch_inputs,
        config.max_batches_account,
        config.async_keep_s,
        # The rest is left to the account's single tasks.
        config.max_waiting_account // 2,
    )
    batches = ends.batches = Batches(batch_limits, manager, store.batches, blobs, images)
    metrics.watch(manager, build)
    metrics.watch_callbacks(deliveries)
    metrics.watch_batches(batches)
    metrics.watch_disk(folder, config.min_free_disk_mib << 20)
    if isinstance(executor, RemoteExecutor):
        metrics.watch_certificates(executor.certificates_end)
    registration = (
        Registration(config, config.registration, build) if config.registration is not None else None
    )
    if config.accounts_file is not None:
        metrics.watch_accounts(accounts_life.standing)
    life = Life(manager, batches, deliveries, accounts_life, config.name, build, registration, telemetry)
    accounts = Accounts(config, accounts_life.book)
    # Nothing in gVisor's sandboxes is read-only for root, so a task could leave messages there.
    runs = Runs(manager, accounts, blobs, fresh_only=config.runtime == GVISOR, traced=telemetry is not None)
    batch_calls = BatchCalls(runs, batches, blobs, config.max_batch_mib << 20)
    rates = config.rates(accounts_life.quotas)
    metrics.watch_rates(rates)
    native = routes.build(
        manager, accounts, rates, runs, batch_calls, deliveries, metrics, config.name, build, life
    )
    ugc = UgcTasks(manager, runs, blobs, UgcCallers(accounts, accounts_life.credentials, rates))
    native.add_route("/", UgcResource(ugc))
    return SetApp(native, manager)


def _telemetry(config: SetConfig, build: str, metrics: SetMetrics) -> Telemetry | None:
    if not config.telemetry:
        return None
    # OpenTelemetry is large, and an extra of the package: only a set that uses it imports it.
    from sets.telemetry.telemetry import Telemetry

    telemetry = Telemetry(config.name, build, metrics.families)
    metrics.watch_telemetry(telemetry.counts)
    return telemetry


def _deliveries(config: SetConfig, store: SqliteStore) -> Deliveries:
    settings = config.callbacks or CallbacksConfig()
    networks = Networks(settings.networks)
    return Deliveries(
        SqliteCallbacks(store),
        Sender(networks, ca_file=settings.ca_file),
        networks,
        CallbackSecrets(settings).of,
        lambda task: task_json(task, config.name, None),
        base_url=settings.url or "",
    )


def _slots(
    config: SetConfig, build: str, on_gone: SlotGone, on_node: NodeStands
) -> tuple[ImageSource, Launcher, LocalExecutor | RemoteExecutor]:
    """Where images are found, what starts slots, and what runs programs in them."""
    installation = identify(config.directory)
    guest, hosts = mounted_files(Path(config.slot_files) if config.slot_files else None)
    engine = DockerSettings(
        set_name=config.name,
        installation=installation,
        guest_binary=guest,
        hosts_file=hosts,
        docker_host=config.docker_host,
        runtime=config.runtime,
        registries=config.registries,
    )
    if config.launcher == "docker":
        executor = _executor(config, build, LocalExecutor(config.directory / "slots"), None)
        launcher = DockerLauncher(engine, executor.folder_of, on_gone, executor.leave)
        return launcher.images, launcher, executor
    run_folder = (Path(config.node_folder) / RUN).resolve()
    local = LocalExecutor(run_folder / installation, shared=True)
    executor = _executor(config, build, local, run_folder)
    source: EngineImages | RegistrySource
    if config.registries:
        source = RegistrySource(
            config.registries,
            volume_bytes=engine.volume_content_mib << 20,
            home_bytes=engine.home_content_kib << 10,
        )
    else:
        source = EngineImages(engine)
    cluster = NomadSettings(
        set_name=config.name,
        installation=installation,
        registrar=Path(config.registrar or ""),
        run_folder=run_folder,
        # The cell gives a start up without a reason of its own; the launcher is earlier, and knows one.
        start_limit_s=max(1.0, config.slot_start_timeout_s - 5),
    )
    ahead = ImagesAhead(config.images_ahead, source.images, source)
    return (
        source.images,
        NomadLauncher(cluster, source, executor.folder_of, on_gone, executor.leave, on_node, ahead),
        executor,
    )


def _executor(
    config: SetConfig, build: str, local: LocalExecutor, run_folder: Path | None
) -> LocalExecutor | RemoteExecutor:
    """The executors that the configuration names; without any, the set's own, which is `local`.

    `run_folder`: the folder on each node that its slots share.
    """
    if not config.executors:
        return local
    assert config.link_certificates is not None
    nodes = {}
    for node, executor in config.executors.items():
        host, port = address_of(executor.address, node)
        folder = run_folder
        if folder is None and executor.state_dir is not None:
            folder = Path(executor.state_dir).resolve()
        nodes[node] = Address(host, port, folder and folder / config.name)
    return RemoteExecutor(
        config.name,
        build,
        nodes,
        Certificates(Path(config.link_certificates)),
        config.link_lease_s,
        shared=run_folder is not None,
    )
