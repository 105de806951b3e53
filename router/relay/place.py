"""A request's place at a set: counted in the set's pool from an attempt's begin to its end."""

from __future__ import annotations

from typing import Protocol

from router.wire.dial import Dial
from router.wire.pool import SetPool
from router.wire.upstream import SetConnection


class Visitor(Protocol):
    """Learns of a connection to the set: an exchange."""

    def on_connected(self, connection: SetConnection) -> None: ...
    def on_connect_failed(self, error: OSError) -> None: ...


class Place:
    """Entered at once; left by `drop` or `release`, once.

    `connection`: an idle one of the pool that is to carry the request; None: there is none, `dial` one. `reading`: the
    request takes no room at the set.
    """

    # Defaults in the class, not slots: every request makes a place, and few dial.
    _dial: Dial | None = None
    _left = False

    def __init__(self, pool: SetPool, connection: SetConnection | None, *, reading: bool) -> None:
        self._pool = pool
        self._reading = reading
        self.connection = connection
        pool.enter(reading=reading)

    def dial(self, visitor: Visitor, refusal: OSError | None) -> None:
        """Make a new connection. `visitor` learns how that ends, never from inside this call.

        `refusal`: fail with it.
        """

        def connected(connection: SetConnection) -> None:
            self._dial = None
            self.connection = connection
            visitor.on_connected(connection)

        self._dial = self._pool.connect(connected, visitor.on_connect_failed, refusal)

    def drop(self) -> None:
        """Leave; the connection, or the making of one, ends. Without effect on a place that was left."""
        if self._left:
            return
        connection, self.connection = self.connection, None
        self._leave()
        if connection is not None:
            connection.close()
        elif self._dial is not None:
            self._dial.cancel()
            self._dial = None

    def release(self, *, reusable: bool) -> None:
        """Leave; the connection goes back to its pool where it is `reusable`."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self._leave()
            connection.release(reusable=reusable)

    def _leave(self) -> None:
        self._left = True
        self._pool.leave(reading=self._reading)
