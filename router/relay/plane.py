"""The data plane of one process: listens, accepts clients, and gives each of their requests its work."""

from __future__ import annotations

import asyncio
import errno
import math
import socket
from collections.abc import Callable
from time import monotonic
from typing import Final, cast

import structlog

from router.choosing.choice import Choice
from router.choosing.request import Destination, Purpose
from router.dialects.contract import Dialect
from router.errors import reason_of
from router.relay.access_log import AccessLog
from router.relay.exchange import Exchange
from router.relay.fronts import Fronts
from router.relay.traffic import Traffic
from router.routing.table import SetEntry, Table
from router.wire.certificate import Certificate
from router.wire.downstream import ClientConnection
from router.wire.limits import Limits
from router.wire.problems import OwnAnswer, Problem
from router.wire.request_head import RequestHead
from router.wire.tls import Handshakes, TlsSocket
from router.wire.work import Work
from router.workers.occupancy import Loads

ACCEPTS_AT_ONCE: Final = 64
CHECKS_AT_ONCE: Final = 512
DRAIN_IDLE_S: Final = 1.0
ROOM_IDLE_S: Final = 1.0
"""Time in seconds for which a client must have been silent to be closed when others need its place."""
FULL_TOLD_S: Final = 60.0
DRAIN_POLL_S: Final = 0.02
_MERGED: Final = Destination.MERGED
_NOWHERE: Final = Destination.NOWHERE
_PAGE: Final = Destination.PAGE
MergeFactory = Callable[["DataPlane", ClientConnection, RequestHead], Work | Problem]
InquiryFactory = Callable[["DataPlane", ClientConnection, RequestHead, Purpose, Choice, SetEntry], Work]

log = structlog.get_logger()


class DataPlane:
    """Serves clients on the sockets given to `listen`, by the table given to `adopt`.

    `merge` makes the work for the lists that are merged over sets, `inquire` that for idempotency keys which other
    sets may know (without it they are new work).
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        table: Table,
        *,
        dialect: Dialect,
        limits: Limits | None = None,
        loads: Loads | None = None,
        merge: MergeFactory,
        inquire: InquiryFactory | None = None,
    ) -> None:
        self.loop = loop
        self.name = name
        self.traffic = Traffic(loop, table, self, dialect=dialect, limits=limits, loads=loads)
        self.buffers = self.traffic.buffers
        self.requests = 0
        self.active = 0
        """Requests in work."""
        self.stalled_clients = 0
        self.clients: set[ClientConnection] = set()
        self.certificate: Certificate | None = None
        """The certificate for clients; None: they come without TLS."""
        self.fronts: Fronts | None = None
        """Balancers in front, which name the client of each request."""
        self.handshakes_failed = 0
        self._handshakes = Handshakes(loop, self._greet, self._handshake_failed)
        self._merge = merge
        self._inquire = inquire
        self._listeners: list[socket.socket] = []
        self._accepting = False
        self._fresh = 0
        """Clients accepted since the last sweep."""
        self._before = 0
        """Clients accepted between the last two sweeps."""
        self._full_told_at = -math.inf
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def limits(self) -> Limits:
        return self.traffic.limits

    @property
    def draining(self) -> bool:
        return self.traffic.draining

    # Requests.

    def dispatch(self, client: ClientConnection, head: RequestHead) -> Work | Problem | OwnAnswer:
        """Decide what to do about a request whose head was read."""
        if self.fronts is not None:
            scheme = b"http" if self.certificate is None else b"https"
            client.address, client.forwarded = self.fronts.client_of(head, client.peer, scheme)
        self.requests += 1
        traffic = self.traffic
        purpose = head.purpose
        if not isinstance(purpose, Purpose):
            purpose = head.purpose = traffic.dialect.purpose_of(head)
        if purpose.destination is _MERGED:
            merge = self._merge(self, client, head)
            if not isinstance(merge, Problem):
                self.active += 1
            return merge
        if purpose.destination is _NOWHERE:
            return traffic.dialect.not_relayed
        if purpose.destination is _PAGE:
            page = traffic.dialect.page(head)
            self.log_own(head, client, page.status, len(page.body))
            return page
        choice = traffic.choose(head, client.address, purpose)
        if choice.entry is None:
            assert choice.problem is not None
            return choice.problem
        self.active += 1
        if choice.keyed:
            return self._keyed(client, head, purpose, choice, choice.entry)
        return Exchange(traffic, client, head, purpose, choice, choice.entry)

    def _keyed(
        self, client: ClientConnection, head: RequestHead, purpose: Purpose, choice: Choice, entry: SetEntry
    ) -> Work:
        known = self.traffic.twins.set_of(choice.key)
        if choice.ask_first and self._inquire is not None and known is None:
            return self._inquire(self, client, head, purpose, choice, entry)
        return self.keyed_exchange(client, head, purpose, choice, entry)

    def keyed_exchange(
        self, client: ClientConnection, head: RequestHead, purpose: Purpose, choice: Choice, entry: SetEntry
    ) -> Exchange:
        """Work for a request with an idempotency key, at the set where a call under that key is in work, if any."""
        traffic = self.traffic
        there = traffic.table.sets.get(traffic.twins.set_of(choice.key) or "")
        if there is not None and there.name != entry.name:
            choice, entry = Choice(there, choice.home, choice.key), there
        exchange = Exchange(traffic, client, head, purpose, choice, entry)
        traffic.twins.add(choice.key, exchange)
        return exchange

    def count_on(self, *, requests: int, stalled_clients: int, handshakes_failed: int) -> None:
        """Go on from the counts of the worker before."""
        self.requests, self.stalled_clients = requests, stalled_clients
        self.handshakes_failed = handshakes_failed

    def work_ended(self) -> None:
        self.active -= 1

    def client_stalled(self) -> None:
        """A client read nothing of its answer for too long, and was cut off."""
        self.stalled_clients += 1

    def error(
        self, problem: Problem, head: RequestHead | None, client: ClientConnection, *, logged: bool
    ) -> OwnAnswer:
        self.traffic.problems.note(problem.name)
        if problem.status >= 500:
            log.warning(
                "request failed",
                status=problem.status,
                problem=problem.name,
                detail=problem.detail,
                request_id=head.request_id.decode("latin-1") if head is not None else None,
            )
        if not logged:
            self.log_problem(problem, head, client)
        return self.traffic.dialect.error(problem, head)

    def log_problem(self, problem: Problem, head: RequestHead | None, client: ClientConnection) -> None:
        """Log a request that no exchange logs."""
        if self.traffic.access is None or not self.traffic.access.wants(error=True):
            return
        if head is None:
            self.traffic.access.note_unread(client.peer, problem)
            return
        self._note_own(
            self.traffic.access,
            head,
            client,
            problem.status,
            0,
            f"{problem.name}: {problem.detail}",
            problem.executed,
        )

    def log_own(
        self, head: RequestHead, client: ClientConnection, status: int, bytes_out: int, reason: str = ""
    ) -> None:
        """Log an answer that the router merged from several, or a client (status 0) that left before one."""
        if self.traffic.access is not None and self.traffic.access.wants(error=False):
            self._note_own(self.traffic.access, head, client, status, bytes_out, reason, None)

    def _note_own(
        self,
        access: AccessLog,
        head: RequestHead,
        client: ClientConnection,
        status: int,
        bytes_out: int,
        reason: str,
        executed: bool | None,
    ) -> None:
        began = monotonic() - (self.loop.time() - client.at)
        access.note(head, client.address, status, began, 0, 0, bytes_out, None, "", 0, "", reason, executed)

    def client_closed(self, client: ClientConnection) -> None:
        self.clients.discard(client)
        self._room()

    def _room(self) -> None:
        """A connection has ended or fallen silent, so another one may come."""
        if not self._accepting and not self.draining and not self._is_full():
            self._resume_accepting()

    def _is_full(self) -> bool:
        open_ = len(self.clients) + len(self._handshakes)
        if open_ >= self.limits.connections:
            return True
        # A client that came just now will soon need a connection to a set, too.
        return open_ + self.active + self._fresh + self._before >= self._descriptors()

    def _descriptors(self) -> int:
        return self.limits.descriptors - self.limits.idle_connections

    def crowded(self) -> bool:
        return len(self.clients) + len(self._handshakes) + self.active > self._descriptors()

    # Listening.

    def listen(self, sock: socket.socket) -> None:
        """Accept clients on a bound, listening socket."""
        sock.setblocking(False)
        self._listeners.append(sock)
        self._resume_accepting()
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(self.limits.sweep_s, self._sweep)

    def _resume_accepting(self) -> None:
        self._accepting = True
        for sock in self._listeners:
            self.loop.add_reader(sock.fileno(), self._accept, sock)

    def _pause_accepting(self) -> None:
        self._accepting = False
        for sock in self._listeners:
            self.loop.remove_reader(sock.fileno())

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.error("cannot accept connections: pausing for a second", reason=reason_of(error))
                    self._pause_accepting()
                    self.loop.call_later(1.0, self._accept_again)
                    return
                raise
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._fresh += 1
            peer = address[0] if isinstance(address, tuple) else "unix"
            if self.certificate is None:
                self.clients.add(ClientConnection(self, sock, peer.encode()))
            else:
                self._handshakes.begin(self.certificate.context, sock, peer.encode())
            if self._is_full():
                self._full()
                return

    def _full(self) -> None:
        """Stop accepting: further clients wait in the backlog, or go to another worker."""
        self._pause_accepting()
        now = self.loop.time()
        if now - self._full_told_at > FULL_TOLD_S:
            self._full_told_at = now
            count = len(self.clients) + len(self._handshakes)
            log.warning("as many clients as allowed are connected: others wait", clients=count)

    def _greet(self, ready: TlsSocket, peer: bytes) -> None:
        # It has everything of a socket that a stream uses.
        self.clients.add(ClientConnection(self, cast(socket.socket, ready), peer, b"https"))

    def _handshake_failed(self) -> None:
        self.handshakes_failed += 1
        self._room()

    def _accept_again(self) -> None:
        if not self.draining and not self._accepting:
            self._resume_accepting()

    def _sweep(self) -> None:
        now = self.loop.time()
        self.traffic.sweep(now)
        self._sweeper = self.loop.call_later(self.limits.sweep_s, self._sweep)
        self._before, self._fresh = self._fresh, 0
        if not self._accepting:
            self._room()
        if not self._accepting and not self._before:
            # Still full, even now that every recent client is counted by what it really holds.
            self._close_idle(ROOM_IDLE_S)
        self._check_times(tuple(self.clients), 0)

    def _check_times(self, clients: tuple[ClientConnection, ...], start: int) -> None:
        """Check a few connections at a time, spread over the sweep: ten thousand at once would hold up requests for
        milliseconds."""
        now = self.loop.time()
        stop = start + CHECKS_AT_ONCE
        for client in clients[start:stop]:
            if client in self.clients:
                client.check_time(now)
        if stop < len(clients):
            pause_s = self.limits.sweep_s * CHECKS_AT_ONCE / len(clients)
            self.loop.call_later(pause_s, self._check_times, clients, stop)

    # The end.

    async def drain(self, bound_s: float) -> int:
        """Stop accepting, and let requests in work finish within `bound_s`; then close all. Returns how many were cut.

        A connection that was in use just now is likely to bring another request before its client can know: that
        request is answered, with `Connection: close`. A connection that stays silent for `DRAIN_IDLE_S` is closed.
        """
        self.traffic.drain()
        self._pause_accepting()
        for sock in self._listeners:
            sock.close()
        self._listeners.clear()
        deadline = self.loop.time() + bound_s
        self._close_idle(DRAIN_IDLE_S)
        while (self.clients or self._handshakes) and self.loop.time() < deadline:
            await asyncio.sleep(DRAIN_POLL_S)
            self._close_idle(DRAIN_IDLE_S)
            # Clients accepted before still get an answer, unless they are silent.
            self._handshakes.abandon(DRAIN_IDLE_S)
        self._handshakes.abandon(0.0)
        self._close_idle(0.0)
        cut = len(self.clients)
        for client in tuple(self.clients):
            client.shut()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.traffic.close()
        return cut

    def _close_idle(self, idle_s: float) -> None:
        for client in tuple(self.clients):
            client.close_if_idle(idle_s)
