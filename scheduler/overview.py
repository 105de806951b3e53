"""The whole set as its operators see it: machines, pools and accounts, over all accounts."""

from __future__ import annotations

from collections.abc import Callable

from scheduler.image import Image
from scheduler.policy import account_state, node_state, pool_state
from scheduler.policy.account_state import AccountState
from scheduler.policy.cell import Cell
from scheduler.policy.cores_wanted import CoresWanted
from scheduler.policy.node_state import NodeState
from scheduler.policy.pool_state import PoolState
from scheduler.policy.totals import totals
from scheduler.pool import PoolKey


class Overview:
    """Looks at a cell, and changes nothing. Used on the event loop; a call takes time for every pool that there is.

    `image_of`: the image of a pool; None where it is not known.
    """

    def __init__(
        self, cell: Cell, image_of: Callable[[PoolKey], Image | None], clock: Callable[[], float]
    ) -> None:
        self._cell = cell
        self._image_of = image_of
        self._clock = clock
        self._cores_wanted = CoresWanted()

    def nodes(self, most: int, after: str = "") -> list[NodeState]:
        """The first `most` machines by name, of those behind `after`."""
        return node_state.states(self._cell.books, most, after)

    def cores_wanted(self) -> dict[str, float]:
        """The cores that normal tasks want, by the CPU features that they need; see `scheduler.policy.cores_wanted`."""
        return self._cores_wanted.look(self._cell.books, self._clock())

    def pools(self, most: int, after: str = "", account: str | None = None) -> list[PoolState]:
        """The first `most` pools behind a cursor, see `pool_state.pools`. Raises `BadRequest`."""
        return pool_state.pools(self._cell, self._clock(), most, after, account)

    def image_name(self, pool: PoolKey) -> str | None:
        """A reference by which a task of the pool named its image; None where it is not known any more."""
        image = self._image_of(pool)
        return None if image is None else image.reference

    def accounts(self, most: int, after: str = "") -> list[AccountState]:
        """The first `most` accounts behind a cursor, see `account_state.accounts`. Raises `BadRequest`."""
        return account_state.accounts(self._cell.books, self._clock(), most, after)

    def totals(self) -> dict[str, float]:
        """Gauges of the whole set by name, as its metrics have them."""
        return totals(self._cell.books, self._clock())
