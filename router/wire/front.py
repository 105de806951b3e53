"""Contract of what clients' connections belong to: the data plane."""

from __future__ import annotations

import asyncio
from typing import Protocol, TypeVar

from router.wire.limits import Limits
from router.wire.problems import OwnAnswer, Problem
from router.wire.request_head import RequestHead
from router.wire.stream import Buffers
from router.wire.work import Work

Client = TypeVar("Client", contravariant=True)
"""A client's connection (`downstream.py`)."""


class Front(Protocol[Client]):
    """The data plane: a connection asks it what to do, and reports what it did."""

    name: str
    loop: asyncio.AbstractEventLoop
    buffers: Buffers

    @property
    def limits(self) -> Limits: ...
    @property
    def draining(self) -> bool: ...
    def dispatch(self, client: Client, head: RequestHead) -> Work | Problem | OwnAnswer:
        """Decide about a request. Work that is returned is begun, and `work_ended` is called at its end."""

    def work_ended(self) -> None: ...
    def client_stalled(self) -> None: ...
    def error(self, problem: Problem, head: RequestHead | None, client: Client, *, logged: bool) -> OwnAnswer:
        """Count and log a problem; returns how the client is told. `head` is None where none could be read; `logged`:
        the access log knows of it."""

    def client_closed(self, client: Client) -> None: ...
