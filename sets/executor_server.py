"""Runs an executor: serves the slots of its machine to sets on others, until a signal stops it."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import structlog
import uvloop

from scheduler.lock import FileLock, FolderLock, LockHeld
from sets import log_lines
from sets.build import build_name
from sets.config import address_of
from sets.cpu import cpu_features
from sets.executor.link.names import Certificates
from sets.executor.link.server import Server
from sets.executor_config import ExecutorConfig, load
from sets.memory import collect_garbage_rarely, keep_freed_memory
from sets.yaml_file import ConfigError

log = structlog.get_logger()

LOCK_FILE: Final = "executor.lock"


async def serve(config: ExecutorConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises `OSError` when it cannot begin."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(
        build_name(),
        config.shares(cpu_features()),
        config.executor_for,
        Certificates(Path(config.certificates)),
    )
    host, port = address_of(config.bind, "bind")
    port = await server.open(host, port)
    collect_garbage_rarely()
    log.info("executor started", node=config.node, build=build_name(), port=port, sets=sorted(config.sets))
    await stop.wait()
    await server.drain("the executor is being stopped", config.drain_timeout_s)
    await server.close("the executor was stopped")
    log.info("executor stopped", node=config.node)


def main(config_path: Path) -> int:
    """Run the executor that `config_path` describes until a signal stops it; return an exit status."""
    try:
        config = load(config_path)
    except ConfigError as error:
        print(f"gcompute executor: {error}", file=sys.stderr)
        return 78
    log_lines.configure(config.log_level)
    keep_freed_memory()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Sockets of slots, pipes of running tasks, output files.
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as held:
        for field, folder, mode, lock in _locks(config):
            try:
                folder.mkdir(mode=mode, parents=True, exist_ok=True)
                lock.take()
            except LockHeld as error:
                print(
                    f"gcompute executor: {field}: {error}; give each executor a folder of its own",
                    file=sys.stderr,
                )
                return 78
            except OSError as error:
                print(f"gcompute executor: {field}: {folder}: {error.strerror}", file=sys.stderr)
                return 78
            held.callback(lock.release)
        try:
            uvloop.run(serve(config))
        except OSError as error:
            print(f"gcompute executor: {error}", file=sys.stderr)
            return 78
    return 0


def _locks(config: ExecutorConfig) -> Iterator[tuple[str, Path, int, FileLock | FolderLock]]:
    """The folders that this executor needs for itself: setting, folder, mode of a new one, lock."""
    yield "state_dir", config.directory, 0o700, FileLock(config.directory / LOCK_FILE)
    if config.run_folder is not None:
        # Two executors with the same set would remove each other's sockets.
        folder = Path(config.run_folder).resolve()
        yield "run_folder", folder, 0o311, FolderLock(folder)
