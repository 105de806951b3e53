"""Batches for a dialect: from what a call asks for to a batch on disk."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from typing import Any, Final

from scheduler.batch import Batch, Format
from scheduler.batches.batches import Batches
from scheduler.errors import BatchUnknown, StorageLimit, Unavailable
from scheduler.policy.storage import Holding
from scheduler.store.contract import Blobs, Body
from scheduler.task import Kind, TaskSpec
from sets.api.body import RequestBody
from sets.api.call import RunCall
from sets.api.earlier_results import IDS_BYTES, EarlierResults
from sets.api.errors import BodyCutOff, BodyTooLarge
from sets.api.idempotency import REFUSALS, idempotency_of
from sets.api.runs import Runs

_IDS: Final = "ids"
"""Marks the digest of a request whose body has ids."""


class BatchCalls:
    """Submits batches, for all dialects of one set. `max_bytes`: the largest body of a batch."""

    def __init__(self, runs: Runs, batches: Batches, blobs: Blobs, max_bytes: int) -> None:
        self.batches = batches
        self._runs = runs
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._earlier = EarlierResults(batches.manager, batches.limits.inputs)

    async def submit(
        self,
        account: str,
        reference: str,
        call: RunCall,
        form: Format | None,
        length_bytes: int | None,
        body: RequestBody,
        key: str | None,
        allowed: Callable[[], None] = lambda: None,
    ) -> Batch:
        """Keep a batch, whose idempotency key is `key`; when this returns it survives loss of power.

        `form` None: the body has ids of earlier tasks, whose standard outputs are the inputs. `allowed` raises if the
        account may not make this call now. A call whose key has made its batch gets that batch in any case.
        Raises `SchedulerError`, as `Runs.accept` and `Batches.submit` do, `BodyCutOff` and `BodyTooLarge`.
        """
        digest = hashlib.sha256((form or _IDS).encode())
        with self._runs.keys.call(account, key):
            if key is not None and await self._knows(account, key):
                twin = await self._twin(account, reference, call, form, body, key, digest)
                if twin is None:
                    raise Unavailable("the key has just become free; send the request again")
                return twin
            allowed()
            accepted = await self._runs.accept(account, reference, call, Kind.ASYNC, None)
            if length_bytes is not None and length_bytes > self._max_bytes:
                raise BodyTooLarge(self._max_bytes)
            await self.batches.check_room(account)
            self._blobs.check_space()
            holding = self.batches.manager.storage.hold(account)
            try:
                if form is None:
                    form, spool = Format.TAR, await self._copy(account, body, holding, digest)
                else:
                    spool = await self._keep(length_bytes, body, holding, digest if key is not None else None)
                idempotency = None
                if key is not None:
                    idempotency = idempotency_of(key, digest, reference, call, accepted.spec)
                return await self.batches.submit(
                    accepted.spec, form, spool, accepted.max_input_bytes, idempotency
                )
            except StorageLimit as error:
                raise await self._runs.with_time(error, account) from None
            finally:
                holding.release()

    async def _knows(self, account: str, key: str) -> bool:
        try:
            await self.batches.keyed(account, key)
        except BatchUnknown:
            return False
        return True

    async def _twin(
        self,
        account: str,
        reference: str,
        call: RunCall,
        form: Format | None,
        body: RequestBody,
        key: str,
        digest: Any,
    ) -> Batch | None:
        """The batch of an earlier call with the same body, also where new work is refused.

        Raises `IdempotencyConflict` if that call was another.
        """
        spec: TaskSpec | None = None
        with contextlib.suppress(*REFUSALS):
            spec = (await self._runs.accept(account, reference, call, Kind.ASYNC, None)).spec
        async for chunk in body.chunks(IDS_BYTES if form is None else self._max_bytes):
            digest.update(chunk)
        return await self.batches.twin(account, idempotency_of(key, digest, reference, call, spec))

    async def _copy(self, account: str, body: RequestBody, holding: Holding, digest: Any) -> Body:
        """The archive of the results that the ids in the body name."""
        ids = b"".join([chunk async for chunk in body.chunks(IDS_BYTES)])
        digest.update(ids)
        writer = self._blobs.body(self._max_bytes)
        try:
            await self._earlier.copy(account, ids, writer, holding.grow)
            return await writer.finish()
        except BaseException:
            await writer.abort()
            raise

    async def _keep(
        self, length_bytes: int | None, body: RequestBody, holding: Holding, digest: Any | None
    ) -> Body:
        if length_bytes is not None:
            holding.grow(length_bytes)
        writer = self._blobs.body(self._max_bytes)
        try:
            async for chunk in body.chunks(self._max_bytes):
                if length_bytes is None:
                    holding.grow(len(chunk))
                if digest is not None:
                    digest.update(chunk)
                await writer.write(chunk)
            if length_bytes is not None and writer.size_bytes != length_bytes:
                raise BodyCutOff
            return await writer.finish()
        except BaseException:
            await writer.abort()
            raise
