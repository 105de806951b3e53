"""Starts a router process: gunicorn's arbiter with our worker class, in the foreground, until SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]

from router import log_lines
from router.admin.access import check_bind, read_token
from router.assembly import Settings
from router.config.reader import ConfigError
from router.errors import RouterError
from router.relay.fronts import Fronts
from router.wire.certificate import TlsFiles
from router.worker import RouterWorker
from router.workers.group import MOST_WORKERS, WorkerGroup

EXIT_CONFIG: Final = 78
"""EX_CONFIG of sysexits.h: the configuration file holds mistakes, and there is no last good copy."""

log = structlog.get_logger()


class _Arbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """SIGHUP makes the workers look at the file; gunicorn's own way replaces every worker, which costs
    connections."""

    def handle_hup(self) -> None:
        self.kill_workers(signal.SIGHUP)

    def handle_ttin(self) -> None:
        log.warning("SIGTTIN and SIGTTOU do nothing: the number of workers is fixed at the start")

    handle_ttou = handle_ttin

    def handle_usr2(self) -> None:
        """Refuse: a second arbiter would count requests in flight, and find its workers, in the first one's place."""
        log.warning("SIGUSR2 does nothing: start another router, then end this one")


class _Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, settings: Settings, group: WorkerGroup, options: Mapping[str, object]) -> None:
        self.settings = settings
        self.group = group
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return None

    def run(self) -> None:
        _Arbiter(self).run()

    def place(self, arbiter: _Arbiter, worker: RouterWorker) -> None:
        """Just before the fork."""
        worker.index = self.group.free_index(other.index for other in arbiter.WORKERS.values())

    def child_exited(self, arbiter: _Arbiter, worker: RouterWorker) -> None:
        """After a worker's end, before another one takes its place."""
        self.group.worker_ended(worker.index)


def main(
    config_path: str,
    *,
    name: str = "router",
    bind: str = "127.0.0.1:8080",
    admin_bind: str = "127.0.0.1:8081",
    state_dir: str = "var/router",
    set_urls: Mapping[str, str] | None = None,
    admin_token_file: str | None = None,
    workers: int = 1,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    trust_fronts: Sequence[str] = (),
) -> int:
    """Run a router in the foreground. `bind` and `admin_bind` are HOST:PORT. Returns the exit status: 78 when
    the configuration holds mistakes (each is told on standard error) and no last good copy lies in
    `state_dir`. An `admin_bind` that other machines can reach needs a token.

    `tls_cert`, `tls_key`: PEM files, together or not at all; clients then come by TLS. They are read again when they
    change. The admin address has none: it is for this machine, or behind something that has.

    `trust_fronts`: addresses or networks (10.0.0.0/24) of balancers in front: what they say in X-Forwarded-For and
    X-Forwarded-Proto is believed, and from nobody else.

    `workers`: processes that share both addresses. One by default: a core carries more requests than the sets of most
    machines, and what is judged by counting (passive ejection, the retry budget) is then judged by all requests."""
    log_lines.configure()
    try:
        token = read_token(Path(admin_token_file)) if admin_token_file else None
        check_bind(admin_bind, token)
    except RouterError as error:
        log.error("router cannot start", reason=str(error))
        return EXIT_CONFIG
    if not 1 <= workers <= MOST_WORKERS:
        log.error(
            "router cannot start", reason=f"a router may have 1 to {MOST_WORKERS} workers, not {workers}"
        )
        return EXIT_CONFIG
    if (tls_cert is None) != (tls_key is None):
        log.error("router cannot start", reason="TLS needs a certificate and its key: give both, or neither")
        return EXIT_CONFIG
    tls = TlsFiles(Path(tls_cert), Path(tls_key)) if tls_cert is not None and tls_key is not None else None
    settings = Settings(
        Path(config_path),
        name=name,
        state_dir=Path(state_dir),
        set_urls=dict(set_urls or {}),
        admin_token=token,
        tls=tls,
        trust_fronts=tuple(trust_fronts),
    )
    try:
        Fronts(trust_fronts)
        if tls is not None:
            tls.context()
    except RouterError as error:
        log.error("router cannot start", reason=str(error))
        return EXIT_CONFIG
    try:
        settings.config_file().first()
    except ConfigError:
        log.error(
            "router cannot start", reason=f"no valid configuration: correct {config_path} and start again"
        )
        return EXIT_CONFIG
    try:
        group = WorkerGroup.make(workers, Path(state_dir) / f"{name}.workers")
    except RouterError as error:
        log.error("router cannot start", reason=str(error))
        return EXIT_CONFIG
    application = _Application(
        settings,
        group,
        {
            "bind": [bind, admin_bind],
            "workers": workers,
            "worker_class": RouterWorker,
            "timeout": 30,
            "graceful_timeout": int(settings.drain_s) + 5,
            "backlog": settings.limits.backlog,
            "control_socket_disable": True,
            "proc_name": f"gcompute-router-{name}",
            "loglevel": "warning",
            "logger_class": log_lines.GunicornLog,
            "asgi_lifespan": "off",
            "keepalive": 30,
        },
    )
    application.cfg.set("pre_fork", application.place)
    application.cfg.set("child_exit", application.child_exited)
    try:
        application.run()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0
