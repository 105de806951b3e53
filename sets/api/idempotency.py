"""Idempotency keys of calls: the digest of a request, and the calls that are being made under a key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from scheduler.errors import AccountLimit, ImageUnknown, ImageUnusable, Unavailable
from scheduler.store.contract import Idempotency
from scheduler.task import Kind, TaskSpec
from sets.api.call import RunCall

REFUSALS: Final = (Unavailable, AccountLimit, ImageUnknown, ImageUnusable)
"""Refusals that a used key does not meet: its task is there, and the call makes no other."""

_LATER_FIELDS: Final = ("retries", "retry_exit_codes")
"""Fields of `TaskSpec` that came after the first release."""
_NOT_ASYNC: Final = ("stream", "queue_timeout_s")
"""Parameters that mean nothing for an asynchronous call."""
_DEFAULTS: Final = msgspec.structs.asdict(RunCall())


class KeysInUse:
    """The keys under which calls are being made now: a set with half an input must not say that it knows no task."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], int] = {}

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Return True while a call of this account and key has no answer yet."""
        return key in self._calls

    @contextlib.contextmanager
    def call(self, account: str, key: str | None) -> Iterator[None]:
        """A call is made under a key; None: under none."""
        if key is None:
            yield
            return
        name = (account, key)
        self._calls[name] = self._calls.get(name, 0) + 1
        try:
            yield
        finally:
            self._calls[name] -= 1
            if not self._calls[name]:
                del self._calls[name]


def requested(reference: str, call: RunCall) -> bytes:
    """The request as its idempotency key remembers it, before its image is looked at: a tag may move meanwhile.

    A parameter counts only where it is not the default, so that a key holds when a release adds one.
    Raises `BadRequest`.
    """
    facts: dict[str, Any] = {
        name: value
        for name, value in msgspec.structs.asdict(call).items()
        if value != _DEFAULTS[name] and name not in _NOT_ASYNC
    }
    facts["image"] = reference
    facts["timeout_s"] = call.timeout(Kind.ASYNC)
    if call.retry_exit_codes:
        facts["retry_exit_codes"] = sorted(set(call.retry_exit_codes))
    return msgspec.msgpack.encode(dict(sorted(facts.items())))


def fingerprinted(spec: TaskSpec) -> bytes:
    """The request as earlier releases remembered it: the task that was made of it.

    A field that the first release did not know counts only where it is used. The trace is that of one try, so it does
    not count.
    """
    facts = msgspec.to_builtins(spec, builtin_types=(bytes,))
    del facts["trace"]
    for name in _LATER_FIELDS:
        if not facts[name]:
            del facts[name]
    return msgspec.msgpack.encode(facts)


def idempotency_of(
    key: str, body_digest: Any, reference: str, call: RunCall, spec: TaskSpec | None
) -> Idempotency:
    """The key and the digests of a request. `body_digest`: the hash of its body so far; `spec` None: not known.

    Raises `BadRequest`.
    """
    before = None
    if spec is not None:
        earlier = body_digest.copy()
        earlier.update(fingerprinted(spec))
        before = earlier.digest()
    digest = body_digest.copy()
    digest.update(requested(reference, call))
    return Idempotency(key, digest.digest(), before)
