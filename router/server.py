"""Starts a router process: gunicorn's arbiter with our worker class, in the foreground, until SIGTERM."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]

from .admin.access import check_bind, read_token
from .assembly import Settings
from .config import ConfigError
from .errors import RouterError
from .worker import RouterWorker

EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h: the configuration file holds mistakes, and there is no last good copy."""

_log = logging.getLogger("router")


class _Arbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """SIGHUP makes the workers look at the file; gunicorn's own way replaces every worker, which costs
    connections."""

    def handle_hup(self) -> None:
        self.kill_workers(signal.SIGHUP)


class _Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, settings: Settings, options: Mapping[str, object]) -> None:
        self.settings = settings
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return None

    def run(self) -> None:
        _Arbiter(self).run()


def main(
    config_path: str,
    *,
    name: str = "router",
    bind: str = "127.0.0.1:8080",
    admin_bind: str = "127.0.0.1:8081",
    state_dir: str = "var/router",
    set_urls: Mapping[str, str] | None = None,
    admin_token_file: str | None = None,
) -> int:
    """Run a router in the foreground. `bind` and `admin_bind` are HOST:PORT. Returns the exit status: 78 when
    the configuration holds mistakes (each is told on standard error) and no last good copy lies in
    `state_dir`. An `admin_bind` that other machines can reach needs a token."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        token = read_token(Path(admin_token_file)) if admin_token_file else None
        check_bind(admin_bind, token)
    except RouterError as error:
        _log.error("%s", error)
        return EXIT_CONFIG
    settings = Settings(
        Path(config_path),
        name=name,
        state_dir=Path(state_dir),
        set_urls=dict(set_urls or {}),
        admin_token=token,
    )
    try:
        settings.config_file().first()
    except ConfigError:
        _log.error("no router without a configuration; correct %s and start again", config_path)
        return EXIT_CONFIG
    application = _Application(
        settings,
        {
            "bind": [bind, admin_bind],
            "workers": 1,
            "worker_class": RouterWorker,
            "timeout": 30,
            "graceful_timeout": int(settings.drain_s) + 5,
            "backlog": settings.limits.backlog,
            "control_socket_disable": True,
            "proc_name": f"gcompute-router-{name}",
            "loglevel": "warning",
            "asgi_lifespan": "off",
            "keepalive": 30,
        },
    )
    try:
        application.run()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0
