"""The `timeouts` section: how long the data plane waits for what. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

NAMES: Final = (
    "connect",
    "header",
    "body_idle",
    "first_byte",
    "task_first_byte",
    "answer_idle",
    "write_stall",
    "total",
    "keep_alive",
    "pool_idle",
)
"""The keys of the section; each with `_s` added is a time of `wire.limits.Limits`, which says what it means."""


class Timeouts(msgspec.Struct, frozen=True):
    """The file's times, in seconds by key. A key that it leaves out keeps the process's own time."""

    given_s: Mapping[str, float] = msgspec.field(default_factory=dict)
