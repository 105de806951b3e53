"""Calls to a Nomad cluster, made by python-nomad in a few threads and bounded in time; translates its errors."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec
import nomad  # type: ignore[import-untyped]
import nomad.api.exceptions  # type: ignore[import-untyped]
import requests
import urllib3

from scheduler.errors import EngineRefused, EngineUnavailable
from scheduler.launchers.nomad.network_error import plain
from scheduler.launchers.nomad.records import TASK, Allocation, Evaluation, Job, Node
from scheduler.launchers.nomad.settings import RegistrarSettings, SettingsError

T = TypeVar("T")

THREADS: Final = 4
_PAGE: Final = 500
_PAGES: Final = 400
"""Most pages of one list; a set has far fewer slots, so what has more is not Nomad's API."""
_ANSWER_BYTES: Final = 64 << 20
"""Longest answer that is read. A page of 500 allocations with their events has some 2 MiB."""
_SAID_CHARS: Final = 500
"""How much of an answer's text an error quotes."""
_EXISTS: Final = "job already exists"
_REDIRECTED: Final = "it answers with a redirect; set `address` to that of Nomad's API itself"


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


class Answer:
    """A success: its whole body, and its headers."""

    __slots__ = ("body", "headers")

    def __init__(self, body: bytes, headers: Mapping[str, str]) -> None:
        self.body = body
        self.headers = headers


class Cluster:
    """One cluster, seen through one namespace. The token is read for each call, so that a new one counts at once."""

    def __init__(self, settings: RegistrarSettings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="nomad")
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
        return await self._list(("jobs",), list[Job], {"prefix": prefix})

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
        for _ in range(_PAGES):
            params = {**query, "per_page": str(_PAGE), **({"next_token": page} if page else {})}
            answer = await self._answer("list " + path[0], "get", path, params=params)
            # The first page's index: what changes while the rest is read comes again as events.
            index = index or _index(answer)
            found += _decoded(answer, kind)
            following = answer.headers.get("X-Nomad-NextToken") or ""
            if not following or following == page:
                return found, index
            page = following
        raise ClusterAway(f"the cluster's list of {path[0]} has more than {_PAGES} pages; check `address`")

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

    async def _answer(self, what: str, method: str, path: tuple[str, ...], **options: Any) -> Answer:
        loop = asyncio.get_running_loop()
        call: Callable[[], Answer] = lambda: self._in_thread(method, path, options)  # noqa: E731
        try:
            # The thread has a limit of its own; a call may also wait for a free thread.
            async with asyncio.timeout(2 * self._settings.call_timeout_s):
                return await loop.run_in_executor(self._threads, call)
        except TimeoutError as error:
            raise ClusterAway(f"could not {what}: {self._settings.address} did not answer in time") from error
        except SettingsError as error:
            raise ClusterDenied(f"could not {what}: {error}") from error
        except ApiAnswer as error:
            said = str(error)[:_SAID_CHARS]
            if error.status in (401, 403):
                raise ClusterDenied(
                    f"could not {what}: the cluster denied it ({said}); check the registrar's token and its policy"
                ) from error
            if error.status == 0 or error.status in (429, 502, 503, 504) or "No cluster leader" in said:
                raise ClusterAway(f"could not {what}: {self._settings.address}: {said}") from error
            raise ClusterRefused(f"could not {what}: the cluster answered {error.status}: {said}") from error

    def _in_thread(self, method: str, path: tuple[str, ...], options: dict[str, Any]) -> Answer:
        """Make the call, within `call_timeout_s` in all: a server that drips its answer must not keep the thread."""
        deadline = time.monotonic() + self._settings.call_timeout_s
        jobs = self._client().jobs
        jobs.token = self._settings.token() or None
        try:
            reply: requests.Response = jobs._request(
                method=method,
                endpoint="v1/" + "/".join(path),
                params={"namespace": self._settings.namespace, **options.get("params", {})},
                json=options.get("json"),
                timeout=self._settings.call_timeout_s,
                # python-nomad passes it on for GET alone, and always; for the others the session's counts.
                stream=True,
            )
        except nomad.api.exceptions.BaseNomadException as error:
            refusal = error.nomad_resp
            if isinstance(refusal, requests.Response):
                said = _whole(refusal, deadline).decode("utf-8", "replace").strip()
                raise ApiAnswer(refusal.status_code, said) from error
            raise ApiAnswer(0, _elsewhere(refusal) or plain(refusal)) from error
        except OSError as error:
            # Those of requests are among them, and those of files such as the authority's.
            raise ApiAnswer(0, plain(error)) from error
        if reply.status_code != requests.codes.ok:
            # Neither followed by python-nomad nor told as an error.
            reply.close()
            raise ApiAnswer(0, _REDIRECTED)
        return Answer(_whole(reply, deadline), reply.headers)

    def _client(self) -> nomad.Nomad:
        """The thread's own client: a session of requests is not for several threads."""
        client = getattr(self._local, "client", None)
        if client is None:
            settings = self._settings
            session = requests.Session()
            # Neither proxies nor passwords of the environment, and the token goes to `address` alone.
            session.trust_env = False
            session.max_redirects = 0
            session.stream = True
            client = self._local.client = nomad.Nomad(
                # Given always, as NOMAD_ADDR would count otherwise.
                address=settings.address,
                namespace=settings.namespace,
                region=settings.region,
                timeout=settings.call_timeout_s,
                verify=settings.verify(),
                cert=settings.certificate() or (),
                session=session,
            )
        return client


def _whole(reply: requests.Response, deadline: float) -> bytes:
    """Read an answer to its end. Raises `ApiAnswer` if it is too long, breaks off, or takes too long."""
    body = bytearray()
    try:
        with reply:
            # Take the bytes that are here: `iter_content` would wait for a whole piece.
            while piece := reply.raw.read1(1 << 16, decode_content=True):
                body += piece
                if len(body) > _ANSWER_BYTES:
                    raise ApiAnswer(0, f"its answer has more than {_ANSWER_BYTES >> 20} MiB")
                if time.monotonic() > deadline:
                    raise ApiAnswer(0, "it did not finish its answer in time")
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ApiAnswer(0, f"its answer broke off: {plain(error)}") from error
    return bytes(body)


def _elsewhere(error: object) -> str:
    return _REDIRECTED if isinstance(error, requests.TooManyRedirects) else ""


def _index(answer: Answer) -> int:
    try:
        return int(answer.headers.get("X-Nomad-Index") or 0)
    except ValueError as error:
        raise ClusterAway(
            "the cluster's X-Nomad-Index is no number; check that `address` is Nomad's"
        ) from error


def _decoded(answer: Answer, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.body or b"null", type=kind)
    except msgspec.DecodeError as error:
        raise ClusterAway(f"the cluster answered with what is not its API: {error}") from error
