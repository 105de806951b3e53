"""The gunicorn worker class: the data plane on the traffic socket, Falcon on the admin socket, one uvloop.

The admin application is served by gunicorn's own ASGI protocol on the same loop, so it reads the data plane's
counts where they are: no thread, no lock, no shared memory. gunicorn's arbiter opens both sockets, so they
outlive a worker that crashes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from typing import Any, Final

import structlog
import uvloop
from gunicorn.asgi.protocol import ASGIProtocol  # type: ignore[import-untyped]
from gunicorn.workers.gasgi import ASGIWorker  # type: ignore[import-untyped]
from msgspec.structs import replace

from router.admin.all_workers import AllWorkers
from router.admin.app import create_app
from router.assembly import Router, Settings
from router.errors import reason_of
from router.workers.descriptors import fitted

HEARTBEAT_S: Final = 1.0
WORKER_BOOT_ERROR: Final = 3
"""Exit status that tells gunicorn's arbiter to stop and not to try again."""

GC_THRESHOLDS: Final = (50_000, 20, 100)
"""Thresholds of the garbage collector, high because few of our objects are in cycles: a scan of those of 10,000
connections holds requests up for 50 ms."""

SWITCH_INTERVAL_S: Final = 0.0005
"""Longest time, in seconds, that another thread may hold the interpreter, such as one that reads a changed file.

Each send and each receive releases the interpreter; with Python's own 5 ms, 200 of them would take a second.
"""

log = structlog.get_logger()


class RouterWorker(ASGIWorker):  # type: ignore[misc]  # gunicorn has no types
    """One process of the router. `cfg.bind` names two addresses: traffic, then admin.

    All workers accept on the same two sockets: a busy worker accepts less, and another one accepts the connections that
    a dying worker had not accepted yet.
    """

    index = 0
    """Its index among the workers, given by the arbiter just before the fork."""

    def _setup_event_loop(self) -> None:
        self.loop = uvloop.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self._ending = asyncio.Event()

    def init_process(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        super().init_process()

    def _settings(self) -> Settings:
        """The router's limits, with as many connections as this process may have descriptors."""
        settings: Settings = self.app.settings
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if descriptors == resource.RLIM_INFINITY:
            return settings
        limits = fitted(settings.limits, descriptors, len(os.listdir("/proc/self/fd")))
        if limits.connections < settings.limits.connections:
            log.warning(
                "too few file descriptors for all clients",
                descriptors=descriptors,
                clients=limits.connections,
                clients_wanted=settings.limits.connections,
                next="raise the hard limit (ulimit -Hn, LimitNOFILE=, --ulimit nofile=)",
            )
        return replace(settings, limits=limits)

    def load_wsgi(self) -> None:
        """Do nothing yet: the application needs the router, and that needs the running loop."""
        self.asgi: Any = None

    def init_signals(self) -> None:
        super().init_signals()
        self.loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _reload(self) -> None:
        log.info("reload requested")
        self._reload_task = self.loop.create_task(self.router.reload())

    def handle_exit_signal(self) -> None:
        """SIGTERM: finish what is in work."""
        super().handle_exit_signal()
        self._ending.set()

    def handle_quit_signal(self) -> None:
        """SIGINT, SIGQUIT: end at once."""
        super().handle_quit_signal()
        self._ending.set()

    async def _serve(self) -> None:
        self.router: Router
        try:
            self.router = Router(self._settings(), self.loop, self.app.group, self.index)
            workers = AllWorkers(self.router)
            await workers.start()
        except Exception as error:
            log.error("router cannot start", reason=reason_of(error))
            raise SystemExit(WORKER_BOOT_ERROR) from None
        self.asgi = create_app(self.router, workers)
        traffic, admin = self.sockets
        server = await self.loop.create_server(self._admin_protocol, sock=admin.sock, start_serving=True)
        self.router.start(traffic.sock.dup())
        # What is there now stays: no need to look through it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            while self.alive:
                self.notify()
                if self.ppid != os.getppid():
                    log.warning("parent process is gone: worker stops")
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), HEARTBEAT_S)
        finally:
            traffic.close()
            beat = self.loop.create_task(self._heartbeat())
            await self.router.stop(at_once=self._quick_shutdown)
            await workers.stop()
            beat.cancel()
            server.close()

    async def _heartbeat(self) -> None:
        """Keep the arbiter calm while requests finish."""
        while True:
            self.notify()
            await asyncio.sleep(HEARTBEAT_S)

    def _admin_protocol(self) -> Any:
        return ASGIProtocol(self)
