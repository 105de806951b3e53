"""Resolves a set's host: a numeric address as it is, a name as it was resolved last.

Names are resolved beside the event loop, one lookup at a time for each set, as a slow resolver would hold up everybody.
Addresses stay in use while they are looked up again, and for as long as the resolver fails.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

import structlog

FRESH_S: Final = 10.0
"""Age, in seconds, from which addresses are looked up again when they are needed next."""
FAILED_S: Final = 1.0
"""Time, in seconds, for which a failed lookup is not repeated."""
LOOKUP_S: Final = 30.0
MOST_ADDRESSES: Final = 8

Address: TypeAlias = tuple[int, tuple[Any, ...]]
"""An address family, and the address in the form that `socket.connect` takes."""
Resolver: TypeAlias = Callable[..., Awaitable[Sequence[tuple[Any, ...]]]]
"""As `loop.getaddrinfo`."""

log = structlog.get_logger()


class Addresses:
    """The addresses of one host and port; a host "" has none. `error`: why the last lookup found none, or None."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, host: str, port: int, resolver: Resolver | None = None
    ) -> None:
        self._loop = loop
        self._host = host
        self._port = port
        self._resolver = resolver
        self._known = literal(host, port)
        self._found_at = math.inf if self._known else -math.inf
        self._failed_at = -math.inf
        self._lookup: asyncio.Task[None] | None = None
        self._closed = False
        self.error: OSError | None = None
        if not host:
            # Nothing to look up: another set's pool takes its place once the address is known.
            self._closed = True
            self.error = OSError("the service registry has not told its address yet")

    def known(self) -> tuple[Address, ...]:
        """Return the addresses to try now, the one that answered last first; () if none is known yet. Old ones are
        looked up again meanwhile."""
        if self._loop.time() - self._found_at > FRESH_S:
            self.look_up()
        return self._known

    def look_up(self) -> asyncio.Task[None] | None:
        """Return the lookup that runs, or begin one. None: one failed just now, see `error`."""
        if self._lookup is None:
            if self._closed or self._loop.time() - self._failed_at < FAILED_S:
                return None
            self._lookup = self._loop.create_task(self._resolve(), name=f"resolve-{self._host}")
        return self._lookup

    def answered(self, address: Address) -> None:
        """A connection was made there."""
        known = self._known
        if known and known[0] != address and address in known:
            self._known = (address, *(each for each in known if each != address))

    def close(self) -> None:
        """Stop looking up; those who wait for a lookup are told that it failed."""
        self._closed = True
        self.error = self.error or OSError("it left the configuration")
        if self._lookup is not None:
            self._lookup.cancel()

    async def _resolve(self) -> None:
        try:
            async with asyncio.timeout(LOOKUP_S):
                resolver: Resolver = self._resolver or self._loop.getaddrinfo
                found = await resolver(self._host, self._port, type=socket.SOCK_STREAM)
            known = tuple(dict.fromkeys((family, address) for family, _, _, _, address in found))
            if not known:
                raise OSError("it has no address")
        except (OSError, UnicodeError) as error:  # UnicodeError: no name that IDNA can write.
            reason = str(error) or "no answer in time"
            if self.error is None:
                log.warning(
                    "host cannot be resolved",
                    host=self._host,
                    reason=reason,
                    next="its last addresses stay in use" if self._known else "requests to it fail",
                )
            self.error = OSError(f"{self._host!r} cannot be resolved: {reason}")
            self._failed_at = self._loop.time()
        else:
            if self.error is not None:
                log.info("host is resolved again", host=self._host)
            self.error = None
            self._found_at = self._loop.time()
            first = self._known[:1]
            self._known = known[:MOST_ADDRESSES]
            if first:
                self.answered(first[0])
        finally:
            self._lookup = None


def literal(host: str, port: int) -> tuple[Address, ...]:
    """Return the address of a numeric host; () for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return ((family, (host, port)),)
    return ()
