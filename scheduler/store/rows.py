"""Encodes tasks and results as rows: the whole as MessagePack, plus the columns that queries filter on."""

from __future__ import annotations

from typing import Final

import msgspec

from scheduler.errors import StoreError
from scheduler.store.contract import Results
from scheduler.task import FINAL_STATES, Task

Row = tuple[str, str, str, str, str, str | None, int | None, bytes]
"""The columns id, account, kind, state, image, name, expires_us, facts, in the order of `save_tasks`.

`add_tasks` has the row number before them."""


DEAD: Final = "dead"
"""The state in the row of a dead letter, whose facts say failed."""


class _LeaseOnly(msgspec.Struct):
    lease_number: int = 0


_encode = msgspec.msgpack.Encoder().encode
_task_decoder: Final = msgspec.msgpack.Decoder(Task)
_lease_decoder: Final = msgspec.msgpack.Decoder(_LeaseOnly)
_results_decoder: Final = msgspec.msgpack.Decoder(Results)


def task_row(task: Task) -> Row:
    """Return the row for the task's present state; later changes of the object do not affect it.

    Raises `StoreError` for text that is not Unicode (arguments with lone surrogates, decoded from other bytes).
    """
    spec = task.spec
    state = task.state
    try:
        facts = _encode(task)
    except UnicodeEncodeError as error:
        raise StoreError(f"task {task.id} has text that is not Unicode: {error.reason}") from error
    return (
        task.id,
        spec.account,
        spec.kind.value,
        DEAD if task.dead else state.value,
        spec.image,
        spec.name,
        task.expires_us if state in FINAL_STATES else None,
        facts,
    )


def read_task(facts: bytes) -> Task:
    try:
        return _task_decoder.decode(facts)
    except msgspec.MsgspecError as error:
        raise StoreError(f"a task's row cannot be read: {error}") from error


def lease_number_in(facts: bytes) -> int:
    """The number of a task's newest lease, read without the rest of the task."""
    try:
        return _lease_decoder.decode(facts).lease_number
    except msgspec.MsgspecError as error:
        raise StoreError(f"a task's row cannot be read: {error}") from error


def results_body(results: Results) -> bytes:
    return _encode(results)


def read_results(body: bytes) -> Results:
    try:
        return _results_decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise StoreError(f"a task's results cannot be read: {error}") from error
