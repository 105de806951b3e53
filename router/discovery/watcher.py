"""Asks the service registry about each service of the table, for as long as the table names it.

Each service has one question that the registry holds until there is news (a blocking query).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from router.backoff import Backoff
from router.discovery.directory import Address, Directory
from router.discovery.instances import Instance
from router.errors import reason_of
from router.routing.discovery import Discovery
from router.routing.table import Table

PAUSE_S: Final = 0.2
"""Least time between two questions about a service, in seconds, however often there is news."""
UNINDEXED_S: Final = 5.0
"""Pause between two questions if the registry tells no index, so that it can't hold them, in seconds."""
RETRY: Final = Backoff(0.5, 30.0)
"""First and longest pause after a question that failed, in seconds."""
log = structlog.get_logger()


class Watcher:
    """Keeps one task per service. `on_change` is called, from the event loop, when an address has changed.

    The addresses are kept in the file `path`, so that a router that starts while the registry is away knows them.
    """

    def __init__(self, on_change: Callable[[], None], path: Path | None) -> None:
        self._on_change = on_change
        self._path = path
        self._directory = Directory(_kept(path))
        self._tasks: dict[tuple[Discovery, str], asyncio.Task[None]] = {}

    @property
    def addresses(self) -> dict[str, Address]:
        """The addresses in force, by service."""
        return self._directory.addresses

    def follow(self, table: Table) -> None:
        """Watch the services that the table names, and no others. Call it after every change of the table."""
        discovery = table.discovery
        services = {entry.service for entry in table.sets.values() if entry.service}
        wanted = {(discovery, service) for service in services} if discovery is not None else set()
        for key in self._tasks.keys() - wanted:
            self._tasks.pop(key).cancel()
        for key in wanted - self._tasks.keys():
            self._tasks[key] = asyncio.create_task(self._watch(*key), name=f"discover-{key[1]}")

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, discovery: Discovery, service: str) -> None:
        # Its HTTP library takes memory that routers without a service registry do not need.
        from router.discovery.asking import ERRORS, ask, client_of

        index, failures, troubled = 0, 0, False
        while True:
            try:
                async with await asyncio.to_thread(client_of, discovery) as client:
                    while True:
                        found, index = await ask(client, discovery, service, index)
                        if troubled:
                            log.info("service registry answers again", service=service)
                        failures, troubled = 0, False
                        self._take(service, found)
                        await asyncio.sleep(PAUSE_S if index else UNINDEXED_S)
            except ERRORS as error:
                if not troubled:
                    log.warning(
                        "service registry cannot be asked: known addresses stay in force",
                        service=service,
                        url=discovery.url,
                        reason=reason_of(error),
                    )
                troubled, index = True, 0
            except Exception:
                log.exception("an address of a service could not be put in force", service=service)
                index = 0
            failures += 1
            await asyncio.sleep(RETRY.after(failures) * random.uniform(0.7, 1.3))

    def _take(self, service: str, found: tuple[Instance, ...]) -> None:
        before = self.addresses.get(service)
        if not self._directory.seen(service, found):
            return
        log.info(
            "service has an address",
            service=service,
            address=_text(self.addresses[service]),
            before=_text(before) if before is not None else None,
        )
        self._keep()
        self._on_change()

    def _keep(self) -> None:
        """All workers of a router keep the same file; each replaces it as a whole."""
        if self._path is None:
            return
        unfinished = self._path.with_name(f".{self._path.name}.{id(self):x}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(msgspec.json.encode(self.addresses))
            unfinished.replace(self._path)
        except OSError as error:
            log.error("addresses of services cannot be kept", path=str(self._path), reason=reason_of(error))


def _kept(path: Path | None) -> dict[str, Address]:
    if path is None:
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Address])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        log.error("kept addresses of services cannot be read", path=str(path), reason=reason_of(error))
        return {}


def _text(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
