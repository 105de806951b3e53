"""Active health checks: asks every set's health path, each in a task of its own."""

from __future__ import annotations

import asyncio
import random
from typing import Final, Protocol

import structlog

from router.asking.credentials import Credentials
from router.choosing.health import HealthBoard
from router.choosing.room import Room, room_from
from router.routing.table import Table
from router.wire.fetch import FetchError, fetch
from router.wire.pool import SetPool

MAX_BODY_BYTES: Final = 64 * 1024
JITTER: Final = (0.85, 1.15)
log = structlog.get_logger()


class Checked(Protocol):
    """Whose sets are checked, and where the results go: the data plane."""

    loop: asyncio.AbstractEventLoop
    table: Table
    board: HealthBoard
    pools: dict[str, SetPool]
    rooms: dict[str, Room]
    """Each set's report of its room at the last health check that it answered."""


class Prober:
    """Keeps one checking task per set of the table in force. `follow` starts and stops them."""

    def __init__(self, plane: Checked) -> None:
        self._plane = plane
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._credentials = Credentials()

    def follow(self) -> None:
        """Check the sets of the table that the plane has now; call it after every change of the table."""
        wanted = set(self._plane.table.sets)
        for name in set(self._tasks) - wanted:
            self._tasks.pop(name).cancel()
        for name in wanted - set(self._tasks):
            self._tasks[name] = self._plane.loop.create_task(self._watch(name), name=f"probe-{name}")

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, name: str) -> None:
        while True:
            await self._check(name)
            await self._sleep(name)

    async def _sleep(self, name: str) -> None:
        """Wait for the next check; a set that refuses a connection meanwhile is asked sooner."""
        slept = 0.0
        # The workers of a router, and the instances, drift apart instead of asking all at once.
        part = random.uniform(*JITTER)
        while slept < (due := part * self._plane.board.next_probe_s(name)):
            step = min(0.25, due - slept)
            await asyncio.sleep(step)
            slept += step

    async def _check(self, name: str) -> None:
        plane = self._plane
        entry = plane.table.sets.get(name)
        if entry is None:
            return
        policy = plane.board.policy
        host = entry.authority.encode()
        try:
            answer = await fetch(
                plane.pools[name].addresses,
                policy.path.encode(),
                (
                    b"Host: %b\r\nUser-Agent: general-compute-router\r\n" % host,
                    *self._credentials.lines(entry),
                ),
                timeout_s=policy.timeout_s,
                max_bytes=MAX_BODY_BYTES,
            )
        except FetchError as error:
            if error.own:
                log.error("set could not be checked", set=name, reason=str(error))
                return
            plane.rooms.pop(name, None)
            if plane.board.probe_failed(name, plane.loop.time(), refused=error.refused):
                log.warning("set is down", set=name, reason=str(error))
            return
        plane.rooms[name] = room_from(answer.body)
        if 200 <= answer.head.status < 300:
            now = plane.loop.time()
            if plane.board.probe_ok(name, now):
                state = plane.board.of(name)
                if state.crashes > 1 and state.ejected(now):
                    left_s = state.ejected_until - now
                    log.warning(
                        "set is up after crashes: it gets no work for a while",
                        set=name,
                        crashes=state.crashes,
                        ejected_for_s=round(left_s),
                    )
                else:
                    log.info("set is up", set=name)
        elif plane.board.probe_failed(name, plane.loop.time()):
            log.warning("set is down", set=name, reason=f"{policy.path} answered {answer.head.status}")
