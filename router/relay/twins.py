"""Calls under an idempotency key that have no answer yet: a call under the same key goes to the set of the first.

The set may not have read the first call when it is asked about the key, so only the worker that sent it can tell.
"""

from __future__ import annotations

from typing import Protocol
from weakref import WeakValueDictionary

from router.routing.table import SetEntry


class Sent(Protocol):
    """A call at a set; `ended` once it is answered or given up."""

    @property
    def ended(self) -> bool: ...

    @property
    def entry(self) -> SetEntry: ...


class Twins:
    """The keyed calls of one worker, each as long as it is in work."""

    def __init__(self) -> None:
        self._calls: WeakValueDictionary[int, Sent] = WeakValueDictionary()

    def add(self, key: int, call: Sent) -> None:
        """A call under this key (its hash, with the account) is sent to a set."""
        self._calls[key] = call

    def set_of(self, key: int) -> str | None:
        """Return the name of the set at which a call under this key is in work now."""
        call = self._calls.get(key)
        return None if call is None or call.ended else call.entry.name
