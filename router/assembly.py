"""Wires the router's parts together; nothing else does."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import structlog

from router.asking.outcomes import Outcomes
from router.asking.probe import Prober
from router.choosing.earlier_tables import IDEMPOTENCY_S
from router.config.history import History, HistoryError
from router.config.history_writer import HistoryWriter
from router.config.watch import POLL_S, ConfigFile, Recorder
from router.dialects.both import BothDialects
from router.discovery.directory import placed
from router.discovery.watcher import Watcher
from router.relay.fronts import Fronts
from router.relay.inquiry import Inquiry
from router.relay.lists import Lists
from router.relay.plane import DataPlane
from router.rollout.runner import Runner
from router.routing.table import Table
from router.wire.certificate import Certificate, TlsFiles
from router.wire.limits import Limits
from router.workers.group import WorkerGroup

log = structlog.get_logger()


class Settings(msgspec.Struct, frozen=True):
    """Settings that a router is started with. `set_urls` replaces URLs of the YAML file by set name."""

    config_path: Path
    name: str = "router"
    state_dir: Path | None = None
    set_urls: Mapping[str, str] = msgspec.field(default_factory=dict)
    drain_s: float = 30.0
    """How long requests in work may go on after a stop was asked for."""
    admin_token: str | None = None
    """The token of the admin address; None: that address is on this machine's loopback only."""
    limits: Limits = msgspec.field(default_factory=Limits)
    tls: TlsFiles | None = None
    """Clients come by TLS with this certificate; None: without."""
    trust_fronts: tuple[str, ...] = ()
    """Addresses or networks of balancers in front, whose X-Forwarded-For is believed."""

    def __repr__(self) -> str:
        """Leave out the token, as a trace or a log may show this text."""
        return f"Settings({str(self.config_path)!r}, name={self.name!r})"

    @property
    def history(self) -> History | None:
        return None if self.state_dir is None else History(self.state_dir / f"{self.name}.history")

    @property
    def rollout_dir(self) -> Path | None:
        """Where the rollout's state lies; commands without a router use it too (`rollout.orders.give`)."""
        return None if self.state_dir is None else self.state_dir / f"{self.name}.rollout"

    @property
    def addresses_path(self) -> Path | None:
        """The file that keeps the addresses of services over a restart."""
        return None if self.state_dir is None else self.state_dir / f"{self.name}.addresses.json"

    def config_file(self, recorder: Recorder | None = None) -> ConfigFile:
        """The operators' file; what comes into force is told to `recorder`, else to the history."""
        copy = self.state_dir / f"{self.name}.last-good.yaml" if self.state_dir is not None else None
        history = recorder if recorder is not None else self.history
        return ConfigFile(self.config_path, last_good_path=copy, set_urls=self.set_urls, history=history)


SETTLED_S: Final = 3.0
"""Time in seconds after which every worker has loaded a changed file, and the history has it."""


class Router:
    """A running router on one event loop: worker `index` of its group."""

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        group: WorkerGroup | None = None,
        index: int = 0,
    ) -> None:
        self.settings = settings
        self.group = group or WorkerGroup()
        self.index = index
        self.history = settings.history
        self._history_writer = HistoryWriter(self.history) if self.history is not None else None
        self.file = settings.config_file(self._history_writer)
        self.watcher = Watcher(self._moved, settings.addresses_path)
        table = placed(self.file.first().table, self.watcher.addresses)
        self.plane = DataPlane(
            loop,
            settings.name,
            table,
            limits=settings.limits,
            loads=self.group.loads(index),
            dialect=BothDialects(),
            merge=Lists(),
            inquire=Inquiry,
        )
        if settings.tls is not None:
            self.plane.certificate = Certificate(settings.tls)
        if settings.trust_fronts:
            self.plane.fronts = Fronts(settings.trust_fronts)
        if self.history is not None:
            self._restore(self.history)
        self.rollout: Runner | None = None
        if settings.rollout_dir is not None:
            record = self._history_writer.record_weights if self._history_writer is not None else None
            self.rollout = Runner(
                self.plane.traffic,
                settings.rollout_dir,
                table,
                record=record,
                room=lambda limit: self.group.part(index, limit),
                outcomes=Outcomes(),
                health=lambda: self.plane.traffic.board.words(loop.time()),
            )
        self.prober = Prober(self.plane.traffic)
        self._watcher: asyncio.Task[None] | None = None
        self._catching_up: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()

    def _restore(self, history: History) -> None:
        """Restore earlier tables, so that an idempotency key from before the start still finds its set."""
        now = time.time()
        try:
            self.plane.traffic.earlier.restore(
                history.ended_since(now - IDEMPOTENCY_S, self.settings.set_urls), now
            )
        except HistoryError as error:
            log.error("earlier configurations are not known", reason=str(error))

    def start(self, sock: socket.socket) -> None:
        """Serve on a bound, listening socket."""
        self.plane.listen(sock)
        self.prober.follow()
        self.watcher.follow(self.plane.traffic.table)
        self._watcher = self.plane.loop.create_task(self._watch(), name="watch")
        if self.rollout is not None:
            self.rollout.start()

    async def reload(self, *, force: bool = True) -> bool:
        """Look at the file now; True when another table came into force. `force`: read it even if it looks the same."""
        if force and self.plane.certificate is not None:
            await asyncio.to_thread(self.plane.certificate.look)
        async with self._reloading:
            # Reading a large file takes a while: beside the event loop.
            loaded = await asyncio.to_thread(self.file.poll, force=force)
            if loaded is None:
                return False
            self._follow(loaded.table)
            self.watcher.follow(loaded.table)
            if self.history is not None and self.group.count > 1:
                task = self.plane.loop.create_task(self._catch_up(self.history))
                self._catching_up.add(task)
                task.add_done_callback(self._catching_up.discard)
            return True

    def _follow(self, table: Table) -> None:
        """Put a table of the file in force, with the addresses that its services have."""
        table = placed(table, self.watcher.addresses)
        if self.rollout is not None:
            self.rollout.follow(table)
        else:
            self.plane.traffic.adopt(table)
        self.prober.follow()

    def _moved(self) -> None:
        """A service has another address."""
        if self.file.loaded is not None:
            self._follow(self.file.loaded.table)

    async def _catch_up(self, history: History) -> None:
        """A table that was in force for a moment may have been seen by other workers alone."""
        await asyncio.sleep(SETTLED_S)
        now = time.time()
        try:
            ended = await asyncio.to_thread(history.ended_since, now - 2 * SETTLED_S, self.settings.set_urls)
        except HistoryError as error:
            log.error("configurations of other workers are not known", reason=str(error))
            return
        self.plane.traffic.earlier.restore(ended, now)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.reload(force=False)
                if self.plane.certificate is not None:
                    await asyncio.to_thread(self.plane.certificate.look)
            except Exception:
                log.exception("configuration could not be looked at", file=str(self.file.path))

    async def stop(self, *, at_once: bool = False) -> None:
        """Finish what is in work, within the bound (or not: `at_once`), and close all."""
        for task in (self._watcher, *self._catching_up):
            if task is not None:
                task.cancel()
        await self.watcher.stop()
        if self.rollout is not None:
            await self.rollout.stop()
        cut = await self.plane.drain(0.0 if at_once else self.settings.drain_s)
        if cut:
            log.warning("connections were cut at the end of the time to finish", connections=cut)
        await self.prober.stop()
        if self._history_writer is not None:
            self._history_writer.close()
