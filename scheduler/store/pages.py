"""Pages of lists, newest first: one query a state, merged. Called in a reader's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from heapq import merge
from itertools import islice
from typing import Any, Final

from scheduler.callback import CallbackFilter, CallbackState
from scheduler.store.contract import TaskFilter
from scheduler.store.rows import DEAD
from scheduler.store.sql import queries
from scheduler.task import State

PAGE_LIMIT: Final = 1_001
"""Maximum number of entries in a page: one more than in the API's, so that it knows whether another page exists."""
_AFTER_ALL_IDS: Final = "\U0010ffff"
_STATES: Final[dict[State | None, tuple[str, ...]]] = {
    None: (*(state.value for state in State), DEAD),
    **{state: (state.value,) for state in State},
    State.FAILED: (State.FAILED.value, DEAD),
}
"""The states of rows that a page of tasks has, by the state that is asked for."""


def of_tasks(db: sqlite3.Connection, asked: TaskFilter) -> list[bytes]:
    """The facts of the tasks that are asked for."""
    if asked.name is not None:
        query = "page_name"
    elif asked.image is not None:
        query = "page_image"
    else:
        query = "page_state"
    values = {"account": asked.account, "image": asked.image, "name": asked.name}
    return _newest(
        db, query, (DEAD,) if asked.dead else _STATES[asked.state], values, asked.before, asked.limit
    )


def of_callbacks(db: sqlite3.Connection, asked: CallbackFilter) -> list[bytes]:
    """The records of the callbacks that are asked for."""
    states = [state.value for state in CallbackState] if asked.state is None else [asked.state.value]
    return _newest(db, "page_callbacks", states, {"account": asked.account}, asked.before, asked.limit)


def _newest(
    db: sqlite3.Connection,
    query: str,
    states: Iterable[str],
    values: dict[str, Any],
    before: str | None,
    limit: int,
) -> list[bytes]:
    """The second column of the newest rows of all states; the first is their order."""
    limit = max(0, min(limit, PAGE_LIMIT))
    bounds = {"before": _AFTER_ALL_IDS if before is None else before, "limit": limit}
    by_state = [db.execute(queries()[query], values | bounds | {"state": state}) for state in states]
    return [found for _, found in islice(merge(*by_state, reverse=True), limit)]
