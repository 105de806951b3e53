"""UGC's calls about tasks: token, submission, result, details, stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple

from scheduler.manager import Manager
from scheduler.store.contract import Blobs, BodyWriter
from scheduler.task import Kind, State
from sets.api.body import RequestBody
from sets.api.runs import AcceptedCall, Runs
from sets.api.ugc.callers import UgcCallers
from sets.api.ugc.codes import RetCode, UgcError
from sets.api.ugc.facts import detail, failure, state_of
from sets.api.ugc.query import UgcQuery
from sets.api.ugc.results import UgcResults
from sets.api.ugc.submitting import submission_of

TOKEN_LIFETIME_S: Final = 7200
TOKEN_LIFETIME_MAX_S: Final = 30 * 86_400
_GRANTS: Final = {"task": "Task"}


class Tar(NamedTuple):
    """An answer that is an archive."""

    task_id: str
    size_bytes: int
    pieces: AsyncIterator[bytes]


class UgcTasks:
    """Each method is an action: it takes the parameters, the body and the body's length in bytes, if known."""

    def __init__(self, manager: Manager, runs: Runs, blobs: Blobs, callers: UgcCallers) -> None:
        self._manager = manager
        self._runs = runs
        self._blobs = blobs
        self._callers = callers
        self._results = UgcResults(manager)
        self._max_stdout_bytes = manager.settings.stdout_max_bytes

    async def get_access_token(
        self, query: UgcQuery, body: RequestBody, length_bytes: int | None
    ) -> dict[str, Any]:
        self._callers.signed(query)
        query.need("Region")
        lifetime_s = query.whole_number("ExpireIn", TOKEN_LIFETIME_S, 1, TOKEN_LIFETIME_MAX_S)
        query.choice("GrantType", _GRANTS, "Task")
        return {"AccessToken": self._callers.new_token(query, lifetime_s), "ExpireIn": lifetime_s}

    async def submit(
        self, query: UgcQuery, body: RequestBody, length_bytes: int | None
    ) -> dict[str, Any] | Tar:
        account = self._callers.starter(query)
        query.need("Region")
        image, kind, call = submission_of(query)
        if kind is Kind.ASYNC:
            return {"TaskId": (await self._runs.submit(account, image, call, length_bytes, body, None)).id}
        return await self._run(await self._runs.accept(account, image, call, kind, length_bytes), body)

    async def get_result(
        self, query: UgcQuery, body: RequestBody, length_bytes: int | None
    ) -> dict[str, Any] | Tar:
        account = self._callers.with_token(query)
        query.need("Region")
        task = await self._manager.get(account, query.need("TaskId"))
        if not task.ended:
            raise UgcError(RetCode.NOT_FINISHED, f"task {task.id} is {task.state}", State=state_of(task))
        if task.state is not State.SUCCEEDED:
            code, why = failure(task)
            raise UgcError(code, why, State=state_of(task))
        return Tar(task.id, *await self._results.of_kept(task))

    async def get_detail(
        self, query: UgcQuery, body: RequestBody, length_bytes: int | None
    ) -> dict[str, Any]:
        account = self._callers.signed(query)
        query.need("Region")
        return detail(await self._manager.get(account, query.need("TaskId")))

    async def stop(self, query: UgcQuery, body: RequestBody, length_bytes: int | None) -> dict[str, Any]:
        account = self._callers.with_token(query)
        query.need("Region")
        task = await self._manager.cancel(account, query.need("TaskId"))
        if task.ended and task.state is not State.CANCELLED:
            raise UgcError(RetCode.STOP_TASK_FAIL, f"task {task.id} had ended before: {task.state}")
        return {"TaskId": task.id}

    async def _run(self, accepted: AcceptedCall, body: RequestBody) -> Tar:
        """Run a sync task to its end: only then it is known whether its answer is a tar, and how large it is."""
        run = await self._runs.run(accepted, body)
        spool = self._blobs.body(self._max_stdout_bytes)
        try:
            await spool.write(run.head)
            if not run.whole:
                async for chunk in run.rest():
                    await spool.write(chunk)
            task = await run.finish()
            if task.state is not State.SUCCEEDED:
                raise UgcError(*failure(task), TaskId=task.id)
            size_bytes, pieces = await self._results.of_sync(task, spool)
        except BaseException:
            run.abandon()
            await spool.abort()
            raise
        return Tar(task.id, size_bytes, _then_dropped(pieces, spool))


async def _then_dropped(pieces: AsyncIterator[bytes], spool: BodyWriter) -> AsyncIterator[bytes]:
    try:
        async for piece in pieces:
            yield piece
    finally:
        await spool.abort()
