"""The registrar: the one process that may register jobs. It takes neutral orders of one set over a unix socket.

A token that may register jobs is root's on every node, since a job can mount what it likes. So the set, which speaks to
the world, does not have it. It names pools and numbers; the jobs are made here, from the template.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from scheduler.background import Background
from scheduler.errors import EngineUnavailable, SchedulerError
from scheduler.launchers.nomad.api import Cluster, ClusterRefused
from scheduler.launchers.nomad.book import Action, Book, Deregister, Kill, Purge
from scheduler.launchers.nomad.events import Event, Events
from scheduler.launchers.nomad.job import OrderRefused, check, variables, written
from scheduler.launchers.nomad.nodes import NodeBook
from scheduler.launchers.nomad.orders import (
    MESSAGE_BYTES,
    VERSION,
    Add,
    Added,
    Ahead,
    ClusterState,
    Drop,
    Found,
    Hello,
    Keep,
    Line,
    NodeState,
    Replaced,
    Report,
    ToRegistrar,
)
from scheduler.launchers.nomad.pulls import Pulls
from scheduler.launchers.nomad.settings import TEMPLATE, RegistrarSettings
from scheduler.launchers.nomad.words import Kind
from scheduler.trouble import Trouble

log = structlog.get_logger()

_INSTALLATION: Final = re.compile(r"[0-9a-f]{12}")
_NOT_REACHED: Final = "the registrar has not reached the cluster yet"
_NODE_GONE: Final = "NodeDeregistration"
_TICK_S: Final = 0.5
_ADDS_WAITING: Final = 1000
"""Orders that may wait for their turn; the set sends no more than it has slots."""
_HELLO_S: Final = 10.0
_ABSENT_S: Final = 90.0
"""How long a set may be away, in seconds, before slots that have not started are given up: a restart takes less."""


class Registrar:
    """Serves one set. `guest` and `seccomp` name the files of this build on the nodes; `clock` gives seconds, and never
    goes back."""

    def __init__(
        self,
        settings: RegistrarSettings,
        guest: str,
        seccomp: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises `SettingsError`."""
        settings.token()
        settings.certificate()
        self._settings = settings
        self._guest = guest
        self._seccomp = seccomp
        self._cluster = Cluster(settings)
        self._events = Events(settings, self._relist, self._seen, self._lost)
        self._pulls = Pulls(settings, self._cluster, guest, seccomp)
        self._book = Book(settings.purge_after_s)
        self._installation = ""
        self._line: Line | None = None
        self._clock = clock
        self._left_at = clock()
        self._background = Background()
        self._listed = asyncio.Event()
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._adds = 0
        self._nodes = NodeBook(settings.node_pool)
        self._reason = _NOT_REACHED
        self._away = Trouble("the cluster does not answer", "the cluster answers again")
        self._failed = Trouble("a call of the cluster failed", "calls of the cluster succeed again")

    async def serve(self) -> None:
        """Serve until cancelled. Jobs go on; the next run finds them. Raises `SettingsError` and `OSError`."""
        path = Path(self._settings.socket)
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, str(path), limit=MESSAGE_BYTES)
        path.chmod(0o660)
        log.info("registrar started", set=self._settings.set_name, cluster=self._settings.address)
        try:
            while True:
                await asyncio.sleep(_TICK_S)
                if self._line is None and self._clock() - self._left_at > _ABSENT_S:
                    self._book.drop_unstarted(self._clock())
                self._act()
        finally:
            server.close()
            if self._line is not None:
                self._line.close()
            await self._background.stop(0)
            self._cluster.close()
            path.unlink(missing_ok=True)

    # -- the set

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(reader, writer, ToRegistrar)
        try:
            async with asyncio.timeout(_HELLO_S):
                hello = await line.read()
                self._check(hello)
            assert isinstance(hello, Hello)
            await self._greet(hello, line)
            while True:
                self._take(await line.read(), line)
        except (EngineUnavailable, TimeoutError) as error:
            if self._line is line:
                log.info("set gone", reason=str(error) or "it said nothing")
            else:
                # Another connection of the set has taken its place, or it only looked, as `gcompute doctor` does.
                log.debug("caller gone", reason=str(error) or "it said nothing")
        except OrderRefused as error:
            log.warning("set refused", reason=str(error))
            line.send(ClusterState(f"the registrar refuses this set: {error}"))
        finally:
            if self._line is line:
                self._line, self._left_at = None, self._clock()
            line.close()

    def _check(self, hello: object) -> None:
        if not isinstance(hello, Hello):
            raise OrderRefused("hello", "the first message is another one")
        if hello.version != VERSION:
            raise OrderRefused("version", f"the set speaks version {hello.version}, not {VERSION}")
        if hello.set_name != self._settings.set_name:
            raise OrderRefused("set_name", f"this registrar serves set {self._settings.set_name}")
        if not _INSTALLATION.fullmatch(hello.installation):
            raise OrderRefused("installation", "it is not 12 hexadecimal digits")
        if self._installation not in ("", hello.installation):
            # Another one's slots would count beside those of the first, which nobody would end.
            raise OrderRefused(
                "installation",
                f"the set has another state_dir than before; restart the registrar (it served {self._installation})",
            )

    async def _greet(self, hello: Hello, line: Line) -> None:
        """Answer with what is there, once the cluster has told it. A later connection takes the place of an earlier."""
        if self._line is not None:
            self._line.send(Replaced())
            self._line.close()
        self._line = line
        if not self._installation:
            self._installation = hello.installation
            self._background.spawn(self._events.follow())
        line.send(ClusterState("" if self._listed.is_set() else self._reason))
        await self._until_listed(line)
        line.send(Found(tuple(self._book.found()), self._settings.limits.inodes, self._settings.max_run_s))
        log.info("set connected", set=hello.set_name, installation=hello.installation)

    async def _until_listed(self, line: Line) -> None:
        """Wait for as long as the cluster is away, which nobody can bound, and not longer than the set stays.

        Raises `EngineUnavailable` when it leaves, and `OrderRefused` if it speaks before it was answered.
        """
        listed, said = asyncio.create_task(self._listed.wait()), asyncio.create_task(line.read())
        try:
            await asyncio.wait({listed, said}, return_when=asyncio.FIRST_COMPLETED)
            if said.done():
                raise OrderRefused(
                    "hello", f"a message {type(said.result()).__name__} came before the answer"
                )
        finally:
            listed.cancel()
            said.cancel()
            await asyncio.gather(listed, said, return_exceptions=True)

    def _take(self, message: object, line: Line) -> None:
        match message:
            case Add():
                self._order(message, line)
            case Ahead():
                self._background.spawn(self._pulls.want(self._installation, message))
            case Drop(slot_id):
                if self._book.knows(slot_id):
                    self._book.drop(slot_id, self._clock())
                    # Orders may wait for its start.
                    self._changed.set()
                    if (ending := self._book.ending(slot_id)) is not None:
                        # It had ended before this set connected.
                        line.send(ending)
                    self._act()
                else:
                    line.send(Report(slot_id, Kind.STOPPED, "no job has it"))
            case Keep(slot_ids):
                self._book.keep(slot_ids, self._clock())
                self._tell(self._nodes.all())
                self._tell(self._book.last_reports())
                self._act()

    def _tell(self, messages: Iterable[Report | NodeState]) -> None:
        for message in messages:
            if self._line is not None:
                self._line.send(message)
        self._changed.set()

    # -- orders

    def _order(self, add: Add, line: Line) -> None:
        """Take an order, which a `Drop` may follow at once; its job is registered in its turn."""
        if self._adds >= _ADDS_WAITING:
            line.send(Added(add.request, "too many orders are waiting; order less at a time"))
            return
        try:
            check(add, self._settings)
            if known := [slot.slot_id for slot in add.slots if self._book.knows(slot.slot_id)]:
                raise OrderRefused("slots.slot_id", f"slot {known[0]} was ordered before")
            if self._book.count() + len(add.slots) > (most := self._settings.max_slots):
                raise OrderRefused(
                    "slots",
                    f"the set has all the slots that its registrar allows: `max_slots` is {most}",
                )
        except OrderRefused as error:
            line.send(Added(add.request, str(error), error.field))
            return
        self._adds += 1
        job_id = f"{self._prefix}{secrets.token_hex(6)}"
        self._book.add(job_id, [slot.slot_id for slot in add.slots])
        self._background.spawn(self._add(job_id, add, line))

    async def _add(self, job_id: str, add: Add, line: Line) -> None:
        try:
            async with self._turn:
                await self._until_few_start(add)
                wanted = self._book.begin(job_id)
            slots = tuple(slot for slot in add.slots if slot.slot_id in wanted)
            if len(slots) < len(add.slots):
                gone = (slot.slot_id for slot in add.slots if slot.slot_id not in wanted)
                self._tell(
                    Report(each, Kind.STOPPED, "it was given up before it was ordered") for each in gone
                )
            if slots:
                await self._register(job_id, msgspec.structs.replace(add, slots=slots))
            line.send(Added(add.request))
        except SchedulerError as error:
            line.send(Added(add.request, str(error)))
        finally:
            self._adds -= 1

    async def _until_few_start(self, add: Add) -> None:
        """Wait until no more slots than allowed would start at the same time, but always let one job through."""
        said = False
        while (starting := self._book.starting()) and starting + len(add.slots) > self._most_starting:
            if not said:
                said = True
                words = f"it waits until others have started: {starting} are on their way"
                self._tell(Report(slot.slot_id, Kind.NOT_EVALUATED, words) for slot in add.slots)
            self._changed.clear()
            await self._changed.wait()

    @property
    def _most_starting(self) -> int:
        return max(1, self._nodes.taking) * self._settings.starts_per_node

    async def _register(self, job_id: str, add: Add) -> None:
        settings, book = self._settings, self._book
        values = variables(add, settings, job_id, self._installation, self._guest, self._seccomp)
        try:
            template = _template(Path(settings.template or TEMPLATE))
            job = await self._cluster.parse(template, written(values))
            await self._cluster.register(job)
        except ClusterRefused:
            book.refused(job_id)
            raise
        except SchedulerError:
            # Nobody knows whether it was registered: the next list tells, and the set has given these slots up.
            now = self._clock()
            for slot in add.slots:
                book.drop(slot.slot_id, now)
            book.registered(job_id)
            raise
        finally:
            self._changed.set()
        book.registered(job_id)
        log.info("job registered", job=job_id, slots=len(add.slots), account=add.pool.account)
        self._act()

    @property
    def _prefix(self) -> str:
        return f"gc-{self._settings.set_name}-{self._installation}-"

    # -- the cluster

    async def _relist(self) -> int:
        """List everything of this installation; returns the index from which events follow."""
        book = self._book
        begun = book.begun()
        jobs, index = await self._cluster.jobs(self._prefix)
        allocations, _ = await self._cluster.allocations(self._prefix)
        evaluations, _ = await self._cluster.evaluations(self._prefix)
        # Nodes that the cluster does not list now stand as they did.
        with contextlib.suppress(ClusterRefused):
            self._tell(self._nodes.listed(await self._cluster.nodes()))
        reports = book.listed(jobs, allocations, evaluations, begun, index)
        first = not self._listed.is_set()
        self._listed.set()
        self._away.over()
        self._report("")
        if not first and self._line is not None:
            # Jobs that appeared beside those ordered here are nobody's.
            book.drop_strangers(self._clock())
        self._tell(reports)
        self._act()
        self._background.spawn(self._pulls.compare())
        return index

    def _seen(self, event: Event) -> None:
        payload = event.payload
        if payload.allocation is not None and payload.allocation.job_id.startswith(self._prefix):
            self._tell(self._book.allocation(payload.allocation))
        if payload.evaluation is not None and payload.evaluation.job_id.startswith(self._prefix):
            self._tell(self._book.evaluation(payload.evaluation))
        if payload.node is not None:
            self._tell(self._nodes.seen(payload.node, gone=event.type == _NODE_GONE))
        if event.topic == "Allocation":
            self._act()

    def _lost(self, reason: str) -> None:
        self._away.met(reason)
        self._report(reason)

    def _report(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            if self._line is not None:
                self._line.send(ClusterState(reason))

    # -- what is to be done

    def _act(self) -> None:
        if self._reason:
            # The cluster is away, and calls would only wait. All that is still due is done when it is back.
            return
        for action in self._book.due(self._clock()):
            self._background.spawn(self._do(action))

    async def _do(self, action: Action) -> None:
        try:
            match action:
                case Kill(allocation_id):
                    await self._cluster.kill(allocation_id)
                case Deregister(job_id):
                    await self._cluster.deregister(job_id, purge=False)
                case Purge(job_id):
                    await self._cluster.deregister(job_id, purge=True)
        except SchedulerError as error:
            # It is due again, as long as it is needed.
            self._failed.met(str(error))
        else:
            self._failed.over()
            self._tell(self._book.done(action))


def _template(path: Path) -> str:
    """Read again for each job: a change counts from the next one on."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterRefused(f"the slots' template cannot be read: {error}") from error
