"""Calls to a Nomad cluster, made by python-nomad in a few threads and bounded in time; translates its errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec
import nomad  # type: ignore[import-untyped]
import nomad.api.exceptions  # type: ignore[import-untyped]
import requests

from scheduler.errors import EngineRefused, EngineUnavailable
from scheduler.launchers.nomad.records import TASK, Allocation, Evaluation, Job, Node
from scheduler.launchers.nomad.settings import RegistrarSettings

T = TypeVar("T")

_THREADS: Final = 4
_PAGE: Final = 500
_SAID_CHARS: Final = 500
"""How much of an answer's text an error quotes."""
_EXISTS: Final = "job already exists"


class ClusterAway(EngineUnavailable):
    """The cluster does not answer."""


class ClusterDenied(EngineUnavailable):
    """The cluster refuses the registrar's token."""


class ClusterRefused(EngineRefused):
    """The cluster refused a call."""


class ApiAnswer(Exception):
    """An answer that is no success, before it is translated. `status` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Cluster:
    """One cluster, seen through one namespace with one token."""

    def __init__(self, settings: RegistrarSettings, token: str) -> None:
        self._settings = settings
        self._token = token
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="nomad")
        self._local = threading.local()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- writing

    async def parse(self, template: str, variables: str) -> dict[str, Any]:
        """Have Nomad turn the template into a job. Raises `ClusterRefused` with the parser's words."""
        body = {"JobHCL": template, "Variables": variables, "Canonicalize": True}
        job = await self._call("parse the slots' template", "post", ("jobs", "parse"), json=body)
        if not isinstance(job, dict):
            raise ClusterRefused(
                "the cluster answered with no job to the slots' template; check that `address` is that of Nomad's API"
            )
        return job

    async def register(self, job: Mapping[str, Any]) -> None:
        """Register a job that has never existed. Fine if an earlier try, whose answer was lost, has done it."""
        body = {"Job": job, "EnforceIndex": True, "JobModifyIndex": 0}
        try:
            await self._call("register a job", "post", ("jobs",), json=body)
        except ClusterRefused as error:
            if _EXISTS not in str(error):
                raise

    async def deregister(self, job_id: str, *, purge: bool) -> None:
        """End a job's slots; `purge`: remove the job as well. Fine if there is no such job."""
        params = {"purge": "true" if purge else "false"}
        await self._call("deregister a job", "delete", ("job", job_id), params=params, absent=None)

    async def kill(self, allocation_id: str) -> None:
        """Kill the container of an allocation. Fine if it has ended."""
        body = {"Signal": "SIGKILL", "Task": TASK}
        try:
            await self._call(
                "kill an allocation",
                "post",
                ("client", "allocation", allocation_id, "signal"),
                json=body,
                absent=None,
            )
        except ClusterRefused as error:
            if "not running" not in str(error):
                raise

    # -- reading; each also returns the index of the cluster's state

    async def jobs(self, prefix: str) -> tuple[list[Job], int]:
        return await self._list(("jobs",), list[Job], {"prefix": prefix, "meta": "true"})

    async def allocations(self, prefix: str) -> tuple[list[Allocation], int]:
        query = {"task_states": "true", "filter": f'JobID matches "^{prefix}"'}
        return await self._list(("allocations",), list[Allocation], query)

    async def evaluations(self, prefix: str) -> tuple[list[Evaluation], int]:
        return await self._list(("evaluations",), list[Evaluation], {"filter": f'JobID matches "^{prefix}"'})

    async def nodes(self) -> list[Node]:
        nodes, _ = await self._list(
            ("nodes",), list[Node], {"filter": f'NodePool == "{self._settings.node_pool}"'}
        )
        return nodes

    async def _list(
        self, path: tuple[str, ...], kind: type[list[T]], query: dict[str, str]
    ) -> tuple[list[T], int]:
        found: list[T] = []
        index, page = 0, ""
        while True:
            params = {**query, "per_page": str(_PAGE), **({"next_token": page} if page else {})}
            answer = await self._answer("list " + path[0], "get", path, params=params)
            # The first page's index: what changes while the rest is read comes again as events.
            index = index or int(answer.headers.get("X-Nomad-Index") or 0)
            found += _decoded(answer, kind)
            following = answer.headers.get("X-Nomad-NextToken") or ""
            if not following or following == page:
                return found, index
            page = following

    # --

    async def _call(self, what: str, method: str, path: tuple[str, ...], **options: Any) -> Any:
        absent = options.pop("absent", ...)
        try:
            answer = await self._answer(what, method, path, **options)
        except ClusterRefused as error:
            if absent is not ... and isinstance(error.__cause__, ApiAnswer) and error.__cause__.status == 404:
                return absent
            raise
        return _decoded(answer, Any)

    async def _answer(
        self, what: str, method: str, path: tuple[str, ...], **options: Any
    ) -> requests.Response:
        loop = asyncio.get_running_loop()
        call: Callable[[], requests.Response] = lambda: self._in_thread(method, path, options)  # noqa: E731
        try:
            # A call that drips its answer would otherwise hold its caller for ever.
            async with asyncio.timeout(2 * self._settings.call_timeout_s):
                return await loop.run_in_executor(self._threads, call)
        except TimeoutError as error:
            raise ClusterAway(f"could not {what}: {self._settings.address} did not answer in time") from error
        except ApiAnswer as error:
            said = str(error)[:_SAID_CHARS]
            if error.status in (401, 403):
                raise ClusterDenied(
                    f"could not {what}: the cluster denied it ({said}); check the registrar's token and its policy"
                ) from error
            if error.status == 0 or error.status in (429, 502, 503, 504) or "No cluster leader" in said:
                raise ClusterAway(f"could not {what}: {self._settings.address}: {said}") from error
            raise ClusterRefused(f"could not {what}: the cluster answered {error.status}: {said}") from error

    def _in_thread(self, method: str, path: tuple[str, ...], options: dict[str, Any]) -> requests.Response:
        try:
            answer: requests.Response = self._client().jobs._request(
                method=method,
                endpoint="v1/" + "/".join(path),
                params={"namespace": self._settings.namespace, **options.get("params", {})},
                json=options.get("json"),
                timeout=self._settings.call_timeout_s,
            )
            return answer
        except nomad.api.exceptions.BaseNomadException as error:
            reply = error.nomad_resp
            if isinstance(reply, requests.Response):
                raise ApiAnswer(reply.status_code, reply.text.strip()) from error
            raise ApiAnswer(0, _plain(reply)) from error

    def _client(self) -> nomad.Nomad:
        """The thread's own client: a session of requests is not for several threads."""
        client = getattr(self._local, "client", None)
        if client is None:
            settings = self._settings
            client = self._local.client = nomad.Nomad(
                # Given always, as NOMAD_ADDR would count otherwise.
                address=settings.address,
                namespace=settings.namespace,
                region=settings.region,
                token=self._token or None,
                timeout=settings.call_timeout_s,
                verify=settings.verify(),
                cert=settings.certificate() or (),
            )
        return client


def _decoded(answer: requests.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.content or b"null", type=kind)
    except msgspec.DecodeError as error:
        raise ClusterAway(f"the cluster answered with what is not its API: {error}") from error


def _plain(reply: object) -> str:
    """A connection's error without the names of Python classes."""
    text = str(reply)
    return text.rpartition(": ")[2].strip("'\")> ") or text or "no reason was given"
