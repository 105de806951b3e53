"""Where a set's host leads: a numeric address as it is, a name as it was resolved last.

Names are resolved beside the event loop, one lookup at a time for each set, as a slow resolver would hold up everybody.
What was found stays in use while it is looked up again, and for as long as the resolver fails.
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
"""A family, and what `socket.connect` takes there."""
Resolver: TypeAlias = Callable[..., Awaitable[Sequence[tuple[Any, ...]]]]
"""As `loop.getaddrinfo`."""

log = structlog.get_logger()


class Addresses:
    """The addresses of one host and port. `error`: why the last lookup found none; None: it found some."""

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

    def known(self) -> tuple[Address, ...]:
        """Those to try now, what answered last first; () where none is known yet. Old ones are looked up again
        meanwhile."""
        if self._loop.time() - self._found_at > FRESH_S:
            self.look_up()
        return self._known

    def look_up(self) -> asyncio.Task[None] | None:
        """The lookup that runs, begun if need be. None: one failed just now, see `error`."""
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
        """Look nothing up any more; who waits for a lookup is told that it failed."""
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
    """The address that a numeric host is; () for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return ((family, (host, port)),)
    return ()
