"""Builds a set from its configuration; the only module that names the concrete parts."""

from __future__ import annotations

from typing import Any

import structlog

from scheduler.errors import SchedulerError
from scheduler.installation import identify
from scheduler.launchers.docker import DockerLauncher
from scheduler.launchers.docker_config import DockerSettings
from scheduler.manager import Manager, ManagerSettings
from scheduler.store.blobs import BlobStore
from scheduler.store.sqlite import SqliteStore
from sets.api.accounts import Accounts
from sets.api.app import SetApp
from sets.api.metrics import SetMetrics
from sets.api.native import routes
from sets.api.runs import Runs
from sets.build import build_name
from sets.config import SetConfig
from sets.cpu import cpu_features
from sets.executor.executor import LocalExecutor
from sets.guest import GUEST_BINARY

log = structlog.get_logger()


class Life:
    """Opens and closes the parts of a set (a Falcon middleware)."""

    def __init__(self, manager: Manager, set_name: str, build: str) -> None:
        self._manager = manager
        self._set_name = set_name
        self._build = build

    async def process_startup(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        try:
            await self._manager.open()
        except (SchedulerError, OSError) as error:
            log.error("set cannot start", set=self._set_name, reason=str(error))
            raise
        log.info("set started", set=self._set_name, build=self._build)

    async def process_shutdown(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        await self._manager.close()
        log.info("set stopped", set=self._set_name)


def assemble(config: SetConfig) -> SetApp:
    """Build the whole set as an ASGI application; its parts open at start-up."""
    folder = config.directory
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    metrics = SetMetrics()
    store = SqliteStore(folder / "tasks.db", min_free_mib=config.min_free_disk_mib)
    blobs = BlobStore(folder / "blobs", min_free_mib=config.min_free_disk_mib)
    executor = LocalExecutor(folder / "slots")
    launcher = DockerLauncher(
        DockerSettings(
            set_name=config.name,
            installation=identify(folder),
            guest_binary=GUEST_BINARY,
            docker_host=config.docker_host,
            runtime=config.runtime,
            registries=config.registries,
        ),
        executor.folder_of,
        # A lambda, as the manager is made after the launcher.
        lambda slot_id, reason: manager.slot_lost(slot_id, reason),
    )
    mib = 1 << 20
    settings = ManagerSettings(
        set_name=config.name,
        limits=config.limits(),
        sync_keep_s=config.sync_keep_s,
        async_keep_s=config.async_keep_s,
        slot_start_timeout_s=config.slot_start_timeout_s,
        cpu_features=cpu_features(),
        stdout_max_bytes=config.max_stdout_mib * mib,
        stderr_max_bytes=config.max_stderr_mib * mib,
        file_max_bytes=config.max_file_mib * mib,
        files_max_bytes=config.max_files_mib * mib,
    )
    manager = Manager(settings, store, blobs, launcher.images, launcher, executor, metrics)
    build = build_name()
    metrics.watch(manager, build)
    life = Life(manager, config.name, build)
    accounts = Accounts(config)
    runs = Runs(manager, accounts, blobs, cpu_features())
    native = routes.build(manager, accounts, runs, metrics, config.name, build, life)
    return SetApp(native, manager)
