"""Runs a set: gunicorn with one asgi worker on uvloop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import msgspec
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

from sets import log_lines, telemetry
from sets.assembly import assemble
from sets.config import SetConfig, load
from sets.guest import unusable
from sets.memory import keep_freed_memory
from sets.yaml_file import ConfigError

HEARTBEAT_TIMEOUT_S: Final = 60
CLOSE_TIMEOUT_S: Final = 45
"""Time, in seconds, that a set's parts have to close after the drain, before gunicorn kills the process."""


class SetServer(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured only from the set's configuration."""

    def __init__(self, config: SetConfig) -> None:
        self.config = config
        super().__init__()

    def load_config(self) -> None:
        settings: dict[str, Any] = {
            "bind": self.config.bind,
            "workers": 1,
            "worker_class": "sets.worker.SetWorker",
            "asgi_loop": "uvloop",
            "asgi_lifespan": "on",
            "graceful_timeout": self.config.drain_timeout_s + CLOSE_TIMEOUT_S,
            "timeout": HEARTBEAT_TIMEOUT_S,
            "backlog": 2048,
            "control_socket_disable": True,
            "proc_name": f"gc-set-{self.config.name}",
            "loglevel": self.config.log_level,
            "accesslog": None,
            "logger_class": log_lines.GunicornLog,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        # The loop thread and the store's writer thread share the interpreter. With the default of 5 ms the writer would
        # wait that long for its turn.
        sys.setswitchinterval(0.0005)
        keep_freed_memory()
        return assemble(self.config)


def main(config_path: Path, *, bind: str | None = None, runtime: str | None = None) -> int:
    """Run the set that `config_path` describes until a signal stops it; return an exit status.

    `bind` and `runtime` take the place of the file's.
    """
    try:
        config = load(Path(config_path))
    except ConfigError as error:
        print(f"gcompute set: {error}", file=sys.stderr)
        return 78
    log_lines.configure(config.log_level)
    try:
        config.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        print(f"gcompute set: state_dir: {config.directory}: {error.strerror}", file=sys.stderr)
        return 78
    if problem := unusable():
        print(f"gcompute set: {problem}", file=sys.stderr)
        return 70
    if config.telemetry and (missing := telemetry.missing()):
        print(f"gcompute set: {missing}", file=sys.stderr)
        return 78
    if bind is not None:
        config = msgspec.structs.replace(config, bind=bind)
    if runtime is not None:
        config = msgspec.structs.replace(config, runtime=runtime)
    try:
        SetServer(config).run()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0
