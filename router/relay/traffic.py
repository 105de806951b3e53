"""State that all requests of a process share: the table in force, the sets' pools and health, and the counts.

It decides where a request goes and is told how it ended; it serves nobody itself (plane.py does).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final, Protocol

import structlog
from msgspec.structs import replace

from router.choosing.choice import Choice, Chooser, Load
from router.choosing.earlier_tables import EarlierTables
from router.choosing.health import Blame, HealthBoard, blame_for
from router.choosing.request import Destination, Purpose
from router.choosing.room import Room
from router.counting.curves import Curves
from router.counting.observer import Observer
from router.counting.stats import ProblemCounts, Recent, SetStats
from router.dialects.contract import Dialect
from router.relay.access_log import AccessLog
from router.relay.retry_budget import RetryBudget
from router.relay.twins import Twins
from router.routing.table import Table
from router.wire.failure import Failure
from router.wire.limits import Limits
from router.wire.pool import SetPool
from router.wire.request_head import RequestHead
from router.wire.stream import Buffers
from router.workers.occupancy import Loads

_RUN: Final = Destination.RUN

log = structlog.get_logger()


class Clients(Protocol):
    """The clients' side of the process: the data plane."""

    active: int
    """Requests in work."""

    def crowded(self) -> bool: ...


class Traffic:
    """Routes by the table given to `adopt`. Everything happens on the event loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        table: Table,
        clients: Clients,
        *,
        dialect: Dialect,
        limits: Limits | None = None,
        loads: Loads | None = None,
    ) -> None:
        self.loop = loop
        self.dialect = dialect
        self.limits = self._usual_limits = limits or Limits()
        """The limits of the process, with the time-outs of the table in force."""
        self.buffers = Buffers()
        self.board = HealthBoard(table.health)
        self.pools: dict[str, SetPool] = {}
        self.loads: dict[str, Load] = {}
        """The loads by which sets are chosen, over all workers together."""
        self._loads = loads or Loads()
        self.stats: dict[str, SetStats] = {}
        self.recent = Recent()
        self.rooms: dict[str, Room] = {}
        """Each set's report at the last health check that it answered."""
        self.curves = Curves()
        self.problems = ProblemCounts()
        self.table = table
        self.earlier = EarlierTables()
        self.twins = Twins()
        self.chooser = Chooser(table, self.board, self.loads, self.earlier)
        self.cancelled = 0
        self.retries = RetryBudget(lambda: clients.active)
        self._clients = clients
        self.draining = False
        self.log = AccessLog(loop, dialect)
        self.access: AccessLog | None = None
        """Gets each request that ended, if the file has an access log."""
        self.observer: Observer | None = None
        """Gets the outcome of each request, while a rollout compares two sets."""
        self._addresses: dict[str, tuple[str, int]] = {}
        self.adopt(table)

    def adopt(self, table: Table) -> None:
        """Put another table in force, in one swap; requests in work go on with what they have."""
        limits = self._usual_limits.with_times(table.timeouts.given_s)
        kept = min(limits.pool_size, limits.idle_connections // max(1, len(table.sets)))
        self.limits = replace(limits, pool_size=kept)
        for name, entry in table.sets.items():
            address = (entry.host, entry.port)
            if self._addresses.get(name) != address:
                if name in self.pools:
                    self.pools[name].close()
                    self.board.forget(name)
                    self.rooms.pop(name, None)
                self.pools[name], self.loads[name] = self._loads.pool(
                    self.loop, name, address, self.buffers, self.limits
                )
                self._addresses[name] = address
            self.stats.setdefault(name, SetStats())
        for name in set(self.pools) - set(table.sets):
            self.pools.pop(name).close()
            del self.loads[name]
            del self._addresses[name]
            self.rooms.pop(name, None)
        for pool in self.pools.values():
            pool.limits = self.limits
        self.board.adopt(table.sets, table.health)
        self.earlier.adopt(table, time.time())
        self.chooser = Chooser(table, self.board, self.loads, self.earlier)
        self.access = self.log.follow(table.access_log)
        self.table = table

    def choose(self, head: RequestHead, client: bytes, purpose: Purpose) -> Choice:
        """The set for a request by the table in force; `client` is its address."""
        facts = head.facts
        if facts is None:
            facts = head.facts = self.dialect.facts_of(head, client)
        idempotency_key = self.dialect.idempotency_key(head) if purpose.destination is _RUN else None
        now = self.loop.time()
        choice = self.chooser.choose(purpose, facts, idempotency_key, now)
        if self.observer is not None:
            choice.head = head
            if choice.entry is not choice.home:
                self.chooser.tell_passed_over(choice, self.observer, now)
        return choice

    def crowded(self) -> bool:
        """Return True if one more connection would use a descriptor that is kept back for other files."""
        return self._clients.crowded()

    def note_cancelled(self) -> None:
        """A request ended because its client left, or broke it."""
        self.cancelled += 1

    def count_on(
        self,
        *,
        cancelled: int,
        retries_refused: int,
        problems: Mapping[str, int],
        stats: Mapping[str, SetStats],
    ) -> None:
        """Go on from the counts of the worker before; none of them is traffic of this half minute."""
        self.cancelled = cancelled
        self.retries.count_on(retries_refused)
        self.problems.count_on(problems)
        self.stats.update(stats)
        now = self.loop.time()
        self.recent.tick(now, self.stats)
        self.curves.tick(now, self.stats)

    def drain(self) -> None:
        """From now on each answer tells its client that the connection ends."""
        self.draining = True

    def close(self) -> None:
        """Close the connections to sets, and the access log."""
        for pool in self.pools.values():
            pool.close()
        self.log.close()
        self.access = None

    def sweep(self, now: float) -> None:
        """Called twice a second: close old connections, and record the counts of this moment."""
        for pool in self.pools.values():
            pool.sweep(now)
        self.board.settle(now)
        self.recent.tick(now, self.stats)
        self.curves.tick(now, self.stats, self.observer)

    def patience_s(self, purpose: Purpose, head: RequestHead) -> float:
        """Return how long after its start a request that met back-pressure may still try another set: its own queue
        time, else the caller would wait twice as long."""
        return max(1.0, 0.9 * self.dialect.queue_timeout_s(head)) if purpose.destination is _RUN else 1.0

    def set_succeeded(self, name: str) -> None:
        self.board.succeeded(name)

    def set_failed(self, name: str, detail: str, blame: Blame = Blame.BAD) -> None:
        refused, lost = blame is Blame.REFUSED, blame is Blame.LOST
        if self.board.failed(name, self.loop.time(), refused=refused, lost=lost):
            self.board.of(name).because = detail
            self.stats[name].note_ejection()
            log.warning("set ejected after failures in a row", set=name, last=detail)

    def set_drains(self, name: str) -> None:
        """A set said that it is ending."""
        if self.board.drains(name, self.loop.time()):
            log.info("set drains: it gets no new work until its health check succeeds", set=name)

    def attempt_failed(self, name: str, failure: Failure, detail: str, *, reused: bool) -> None:
        """An attempt at a set ended without an answer, on a connection that was `reused` or new."""
        self.stats[name].note_failure(failure)
        blame = blame_for(failure, reused=reused)
        if blame is not None:
            self.set_failed(name, detail, blame)
