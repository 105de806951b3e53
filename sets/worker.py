"""gunicorn's asgi worker as a set needs it: our own connections, and an end that loses and leaves nothing."""

from __future__ import annotations

import asyncio
import gc
import resource
from typing import Final

from gunicorn.workers import gasgi  # type: ignore[import-untyped]

from sets.http.connection import Connection

DRAIN_POLL_S: Final = 0.05
CONNECTIONS_MAX: Final = 16_384
"""Open connections; fewer where the process may not have twice as many descriptors: slots and files need theirs."""
CHECK_S: Final = 1.0
"""How often connections are looked at that wait for a request."""

GC_THRESHOLDS: Final = (10_000, 20, 20)
"""Few of our objects are in circles."""


class SetWorker(gasgi.ASGIWorker):  # type: ignore[misc]
    """`gunicorn.workers.gasgi.ASGIWorker` with `Connection`, and a drain.

    Told to stop, the set says so (`/readyz` is 503, new tasks are refused) and still answers, until no request is
    under way and `drain_notice_s` has passed, or `drain_timeout_s`; then its parts close. SIGINT does the same without
    waiting.
    """

    def init_process(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            # Connections, slots, and up to 64 output files of each task that ends.
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.connections_max = CONNECTIONS_MAX if hard < 0 else min(CONNECTIONS_MAX, hard // 2)
        config = self.app.config
        # Every answer names its set.
        self.set_header = f"x-set: {config.name}\r\n".encode()
        self.body_stall_s = float(config.body_stall_s)
        self.connections: set[Connection] = set()
        self._drain_timeout_s = float(config.drain_timeout_s)
        self._drain_notice_s = config.drain_notice_s
        # The worker names its protocol class in the middle of a long method: this is the seam that it leaves.
        gasgi.ASGIProtocol = Connection
        super().init_process()

    def run(self) -> None:
        self.loop.call_later(CHECK_S, self._check_connections)
        # What is there now stays: looking for garbage in it again and again would only cost time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        super().run()

    def _check_connections(self) -> None:
        self.loop.call_later(CHECK_S, self._check_connections)
        now_s = self.loop.time()
        for connection in list(self.connections):
            connection.check(now_s)

    def handle_exit_signal(self) -> None:
        self.asgi.drain()
        super().handle_exit_signal()

    def handle_quit_signal(self) -> None:
        # gunicorn's own quick end would not close the set's parts.
        self._drain_timeout_s = 0.0
        self.handle_exit_signal()

    async def _shutdown(self) -> None:
        self.asgi.drain()
        began = self.loop.time()
        while True:
            passed_s = self.loop.time() - began
            idle = all(connection.idle for connection in self.connections)
            if passed_s >= self._drain_timeout_s or (idle and passed_s >= self._drain_notice_s):
                break
            await asyncio.sleep(DRAIN_POLL_S)
        for connection in list(self.connections):
            connection.abort()
        await super()._shutdown()
