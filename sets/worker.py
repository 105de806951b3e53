"""gunicorn's asgi worker with our own connections, and with an orderly drain at its end."""

from __future__ import annotations

import asyncio
import resource
from typing import Final

from gunicorn.workers import gasgi  # type: ignore[import-untyped]

from sets.http.connection import Connection
from sets.memory import collect_garbage_rarely

DRAIN_POLL_S: Final = 0.05
CONNECTIONS_MAX: Final = 16_384
"""Maximum number of open connections; at most half of the process's descriptors, as slots and files need some."""
CHECK_S: Final = 1.0
"""Seconds between two checks of connections that wait for a request."""


class SetWorker(gasgi.ASGIWorker):  # type: ignore[misc]
    """`gunicorn.workers.gasgi.ASGIWorker` with `Connection`, and a drain.

    After SIGTERM `/readyz` is 503 and new tasks are refused, while other requests are still answered. The set's parts
    close when no request is under way and `drain_notice_s` has passed, or after `drain_timeout_s`. SIGINT does the
    same without waiting.
    """

    def init_process(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            # Connections, slots, and up to 64 output files of each task that ends.
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.connections_max = CONNECTIONS_MAX if hard < 0 else min(CONNECTIONS_MAX, hard // 2)
        config = self.app.config
        # The header that names the set in every answer.
        self.set_header = f"x-set: {config.name}\r\n".encode()
        self.body_stall_s = float(config.body_stall_s)
        self.connections: set[Connection] = set()
        self._drain_timeout_s = float(config.drain_timeout_s)
        self._drain_notice_s = config.drain_notice_s
        # The worker uses its protocol class in the middle of a long method; replacing this name is the only way in.
        gasgi.ASGIProtocol = Connection
        super().init_process()

    def run(self) -> None:
        self.loop.call_later(CHECK_S, self._check_connections)
        collect_garbage_rarely()
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
        # gunicorn's own quick exit would not close the set's parts.
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
