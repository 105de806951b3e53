"""An executor's door for sets: listens, checks who calls, and gives each set a session of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from scheduler.background import Background
from scheduler.policy.node import NodeFacts
from sets.executor.link import frames, messages, tls
from sets.executor.link.expiry import ExpiryWatch, own_ends
from sets.executor.link.frames import LinkError
from sets.executor.link.names import Certificates, names_in, set_name
from sets.executor.link.served import NodeExecutor
from sets.executor.link.session import Session
from sets.executor.link.wire import Wire

log = structlog.get_logger()

HELLO_S: Final = 5.0
"""Longest time, in seconds, for a caller's handshake, and again for its HELLO."""
CALLERS_MOST: Final = 64
"""How many callers may be on their way to a session at a time; further ones are turned away."""
BACKLOG: Final = 64
PAUSE_S: Final = 0.1
"""Pause in seconds while no connection can be accepted."""


class Server:
    """Serves sets over links. `shares`: what each set may use of the node, by the set's name; others are refused.

    `executor_for` makes the executor of one set, which has a folder of its own. A set has one session: its next link
    takes over, once nothing of the one before runs any more.
    """

    def __init__(
        self,
        build: str,
        shares: Mapping[str, NodeFacts],
        executor_for: Callable[[str], NodeExecutor],
        certificates: Certificates,
    ) -> None:
        self._build = build
        self._shares = shares
        self._executor_for = executor_for
        self._certificates = certificates
        self._sessions: dict[str, Session] = {}
        # By set, the end of its last session, which empties the set's folder: the next one begins afterwards.
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._callers = 0
        self._unready: str | None = None
        self._background = Background()

    async def open(self, host: str, port: int) -> int:
        """Listen; returns the port, which was chosen if it was 0. Raises `OSError`, also for unusable certificates."""
        self._loop = asyncio.get_running_loop()
        # Now rather than at the first call.
        self._certificates.for_executor()
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        self._socket = socket.socket(family, kind, protocol)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.setblocking(False)
            self._socket.bind(address)
            self._socket.listen(BACKLOG)
        except OSError:
            self._socket.close()
            raise
        self._background.spawn(self._accept())
        self._background.spawn(ExpiryWatch(lambda: own_ends(self._certificates)).run())
        bound: int = self._socket.getsockname()[1]
        return bound

    async def drain(self, reason: str, grace_s: float) -> None:
        """Take no new tasks, and wait until those that run have ended."""
        self._unready = reason
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await asyncio.gather(*[session.drain(reason) for session in self._sessions.values()])

    async def close(self, reason: str) -> None:
        """Leave every set, once nothing of it runs here any more."""
        sessions = list(self._sessions.values())
        for session in sessions:
            session.leave(reason)
        await self._background.stop(0)
        self._socket.close()
        for session in sessions:
            await session.close()

    # -- callers

    async def _accept(self) -> None:
        while True:
            try:
                connection, address = await self._loop.sock_accept(self._socket)
            except OSError as error:
                log.error("a caller cannot be accepted", error=str(error))
                await asyncio.sleep(PAUSE_S)
                continue
            if self._callers >= CALLERS_MOST:
                connection.close()
                continue
            self._callers += 1
            self._background.spawn(self._greet(connection, str(address[0])))

    async def _greet(self, connection: socket.socket, address: str) -> None:
        hello: asyncio.Future[messages.Hello] = self._loop.create_future()

        def received(kind: int, channel: int, stream: int, body: memoryview) -> None:
            if kind != frames.HELLO or hello.done():
                raise LinkError("a set begins with one HELLO, and waits for WELCOME")
            hello.set_result(messages.decode(body, messages.Hello))

        def ended(reason: str) -> None:
            if not hello.done():
                hello.set_exception(LinkError(reason))
                # Nobody may be waiting for it yet.
                hello.exception()

        wire = Wire(self._loop, received, ended)
        try:
            async with asyncio.timeout(HELLO_S):
                await tls.accept(self._loop, wire, connection, self._certificates.for_executor())
            async with asyncio.timeout(HELLO_S):
                said = await hello
            await self._begin(wire, said)
        except (LinkError, OSError) as error:
            reason = _why(error)
            log.warning("caller refused", address=address, reason=reason)
            wire.fail(reason)
            connection.close()
        finally:
            self._callers -= 1

    async def _begin(self, wire: Wire, hello: messages.Hello) -> None:
        """Open the caller's session. Raises `LinkError`, `OSError`."""
        name = hello.set_name
        if set_name(name) not in names_in(wire.peer_certificate()):
            raise LinkError(f"the certificate is not that of set {name}")
        facts = self._shares.get(name)
        if facts is None:
            raise LinkError(f"this executor does not serve set {name}: add it to `sets` in its configuration")
        version = messages.agree(hello)
        before = self._sessions.get(name)
        if before is not None:
            before.end("another link of the same set took over")
        leaving = self._leaving.get(name)
        if leaving is not None:
            await asyncio.wait({leaving})
        if wire.over or name in self._sessions:
            raise LinkError("the set has gone, or called again")
        executor = self._executor_for(name)
        session = Session(
            wire, executor, hello.lease_s, facts.max_slots, lambda reason: self._ended(name, session, reason)
        )
        await executor.open(session)
        if wire.over or name in self._sessions:
            await executor.close()
            raise LinkError("the set has gone, or called again")
        self._sessions[name] = session
        welcome = messages.Welcome(
            version,
            facts.id,
            self._build,
            facts.cpu_percent,
            facts.memory_mib,
            facts.max_slots,
            tuple(sorted(facts.cpu_features)),
            dresses=True,
            shows=True,
        )
        wire.send(frames.WELCOME, welcome)
        session.begin()
        if self._unready is not None:
            session.tell_health(False, self._unready)
        log.info("set linked", set=name, build=hello.build, version=version)

    def _ended(self, name: str, session: Session, reason: str) -> None:
        log.warning("link ended", set=name, reason=reason)
        if self._sessions.get(name) is session:
            del self._sessions[name]
            self._leaving[name] = self._background.spawn(session.close())


def _why(error: Exception) -> str:
    """Return why a caller was refused, without the numbers of OpenSSL's source."""
    if isinstance(error, TimeoutError):
        return f"no HELLO within {HELLO_S:g} s"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS fails: {error.reason.replace('_', ' ').lower()}"
    return str(error)
