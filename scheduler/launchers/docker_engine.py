"""Calls to the Docker engine: made in a few threads of their own and bounded in time.

Errors of the Docker client are translated here and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final, TypeVar

import docker.errors
import docker.utils
import requests
import requests.exceptions
import urllib3.exceptions
from docker import APIClient

from scheduler.errors import EngineRefused, EngineUnavailable, ImageUnknown, ImageUnusable
from scheduler.launchers.docker_client import Client
from scheduler.launchers.docker_config import DockerSettings, EngineFacts
from scheduler.launchers.labels import LABEL_INSTALLATION, LABEL_SET, LABEL_SLOT

T = TypeVar("T")

MAX_WAITING_CALLS: Final = 1024

_CALL_THREADS: Final = 4
REMOVALS_AT_ONCE: Final = 4
_QUEUE_WAIT_FACTOR: Final = 2
_CONNECTION_ERRORS: Final = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    docker.errors.DockerException,
    docker.errors.StreamParseError,
    OSError,
)

# Only the operator may know where the engine keeps a container's files.
_HOST_PATH: Final = re.compile(r"/[^\s\"':]*/(?:merged|rootfs)(?=[/\s\"':]|$)")

# Words of the engine that mean that the image cannot run, and not that the engine failed. A test provokes each.
_NO_DIRECTORY: Final = (
    "a path that must be a directory (WORKDIR, a writable place, /gc) is something else in it"
)
_IMAGE_FAULTS: Final = {
    "unable to find user": "its USER does not exist in the image",
    "unable to find group": "the group of its USER does not exist in the image",
    "uids and gids must be in range": "its USER is out of range",
    "environment variable name can't be empty": "an ENV of it has no name",
    "cwd must be an absolute path": "its WORKDIR must be an absolute path",
    "not a directory": _NO_DIRECTORY,
    "too many levels of symbolic links": "symbolic links lead in a circle",
    "too many links": "symbolic links lead in a circle",
    "change mount propagation": "a writable place is a symbolic link that leads nowhere good",
    "open /proc/sys/": "a writable place is a symbolic link into /proc",
    # Where AppArmor is on, its profile cannot be applied any more.
    "open /proc/self/attr/": "a writable place is a symbolic link into /proc",
}


class ContentsGone(EngineRefused):
    """The container that holds an image's VOLUMEs for its slots is gone."""


class EngineError(EngineUnavailable):
    """The container engine answered with an error. `status` is HTTP's."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Lane(StrEnum):
    """Threads are kept apart by kind of call, so that slow starts hold up neither a look at an image nor a removal."""

    START = "start"
    REMOVE = "remove"
    CALL = "call"
    PING = "ping"


class Removal(StrEnum):
    """The result of a call to remove a container."""

    GONE = "gone"
    """Removed, or not there: the engine may list what it no longer finds."""
    UNDER_WAY = "under way"
    """The engine is removing it already."""


class Listed:
    """A container of this set as the engine lists it."""

    __slots__ = ("alive", "name", "slot_id", "state")

    def __init__(self, entry: dict[str, Any]) -> None:
        # A dead container may have no name any more.
        names = entry.get("Names") or [entry["Id"]]
        self.name: str = names[0].lstrip("/")
        self.slot_id: str = (entry.get("Labels") or {}).get(LABEL_SLOT, "")
        self.state: str = entry.get("State") or ""
        self.alive = self.state in ("running", "paused", "restarting")


class Engine:
    """The engine as coroutines. All raise `EngineUnavailable`; `EngineError` where the engine itself answered so."""

    def __init__(self, settings: DockerSettings) -> None:
        self.settings = settings
        self.facts = EngineFacts()
        self._lanes = {
            Lane.START: ThreadPoolExecutor(settings.max_concurrent_starts, "docker-start"),
            Lane.REMOVE: ThreadPoolExecutor(REMOVALS_AT_ONCE, "docker-remove"),
            Lane.CALL: ThreadPoolExecutor(_CALL_THREADS, "docker-call"),
            Lane.PING: ThreadPoolExecutor(1, "docker-ping"),
        }
        self._timeouts_s = {
            Lane.START: settings.start_timeout_s,
            Lane.REMOVE: settings.call_timeout_s,
            Lane.CALL: settings.call_timeout_s,
            Lane.PING: settings.ping_timeout_s,
        }
        self._local = threading.local()
        self._generation = 0
        self._waiting = 0

    def close(self) -> None:
        """Take no more calls. Calls under way end by themselves, at the latest by their time-out."""
        for lane in self._lanes.values():
            lane.shutdown(wait=False, cancel_futures=True)

    def refuse_starts(self) -> None:
        """Start nothing any more; starts that wait for a thread raise `EngineUnavailable`."""
        self._lanes[Lane.START].shutdown(wait=False, cancel_futures=True)

    def renew(self) -> None:
        """Connect again for later calls: another version of the engine may answer now."""
        self._generation += 1

    def new_client(self, timeout_s: float, stall_s: float | None = None) -> APIClient:
        """A client of the calling thread's own, whose streams may be silent for `stall_s` (None: for ever). Blocks."""
        environment = dict(os.environ)
        if self.settings.docker_host:
            environment["DOCKER_HOST"] = self.settings.docker_host
        with translated(self.settings):
            return Client(
                stall_s,
                **docker.utils.kwargs_from_env(environment=environment),
                version="auto",
                timeout=timeout_s,
            )

    async def ping(self) -> None:
        await self._call(Lane.PING, lambda client: client.ping())

    async def learn(self) -> EngineFacts:
        """Ask the engine what it is; kept in `facts`."""

        def ask(client: APIClient) -> EngineFacts:
            version, info = client.version(), client.info()
            return EngineFacts(
                version=str(version.get("Version") or ""),
                architecture=str(version.get("Arch") or ""),
                cgroup_version=1 if str(info.get("CgroupVersion") or "1") == "1" else 2,
                runtimes=tuple(sorted(info.get("Runtimes") or {})),
                user_namespaces="name=userns" in (info.get("SecurityOptions") or []),
            )

        self.facts = await self._call(Lane.CALL, ask)
        return self.facts

    async def inspect_image(self, name: str) -> dict[str, Any]:
        """Raises `ImageUnknown` when the engine holds no such image."""
        try:
            answer: dict[str, Any] = await self._call(Lane.CALL, lambda client: client.inspect_image(name))  # type: ignore[no-untyped-call]
        except EngineError as error:
            # Not every reference is one to an older engine: 20.10 refuses addresses of IPv6.
            if error.status == 404 or "invalid reference format" in str(error):
                raise ImageUnknown(f"no such image here: {name}") from error
            raise
        return answer

    async def inspect_container(self, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = await self._call(Lane.CALL, lambda client: client.inspect_container(name))
        return answer

    async def list_slots(self) -> list[Listed]:
        """All containers of this installation's set, running or not, under whatever name the set had then."""
        return [Listed(entry) for entry in await self._list(LABEL_INSTALLATION, self.settings.installation)]

    async def count_others(self) -> dict[str, int]:
        """How many containers other installations have under this set's name, by their ids ("": without one)."""
        entries = await self._list(LABEL_SET, self.settings.set_name)
        owners = Counter((entry.get("Labels") or {}).get(LABEL_INSTALLATION, "") for entry in entries)
        del owners[self.settings.installation]
        return dict(owners)

    async def _list(self, label: str, value: str) -> list[dict[str, Any]]:
        wanted = {"label": [f"{label}={value}"]}
        entries: list[dict[str, Any]] = await self._call(
            Lane.CALL, lambda client: client.containers(all=True, filters=wanted)
        )
        return entries

    async def start(self, name: str, body: dict[str, Any]) -> None:
        """Create and start a container. It is removed again if it does not start.

        Raises `EngineRefused`, `ImageUnknown`, `ImageUnusable`.
        """

        def create_and_start(client: APIClient) -> None:
            container = client.create_container_from_config(body, name)["Id"]  # type: ignore[no-untyped-call]
            try:
                client.start(container)
            except BaseException:
                _remove_quietly(client, container)
                raise

        try:
            await self._call(Lane.START, create_and_start)
        except EngineError as error:
            raise why_not_started(error, body) from error

    async def look(self, name: str, body: dict[str, Any], look: Callable[[APIClient, str], T]) -> T:
        """Return the result of `look` for a container that is created for it, never started, and removed again.

        Raises `EngineRefused`, `ImageUnknown`, `ImageUnusable`, and what `look` raises.
        """

        def create_and_look(client: APIClient) -> T:
            container = client.create_container_from_config(body, name)["Id"]  # type: ignore[no-untyped-call]
            try:
                return look(client, container)
            finally:
                _remove_quietly(client, container)

        try:
            # The lane of starts: it is part of one, as slow as one, and refused when they are.
            return await self._call(Lane.START, create_and_look)
        except EngineError as error:
            raise why_not_started(error, body) from error

    async def create(self, name: str, body: dict[str, Any]) -> None:
        """Create a container without starting it. Raises `EngineRefused`, `ImageUnknown`, `ImageUnusable`."""
        try:
            await self._call(Lane.START, lambda client: client.create_container_from_config(body, name))  # type: ignore[no-untyped-call]
        except EngineError as error:
            raise why_not_started(error, body) from error

    async def remove(self, name: str) -> Removal:
        """Kill and remove a container. Raises `EngineError` where the engine cannot do so now."""
        try:
            await self._call(Lane.REMOVE, lambda client: client.remove_container(name, force=True, v=True))
        except EngineError as error:
            if outcome := _harmless(error.status, str(error)):
                return outcome
            raise
        return Removal.GONE

    async def _call(self, lane: Lane, function: Callable[[APIClient], T]) -> T:
        if self._waiting >= MAX_WAITING_CALLS:
            raise EngineUnavailable(f"{self._waiting} calls wait for the container engine already")
        timeout_s = self._timeouts_s[lane]

        def run() -> T:
            with translated(self.settings):
                return function(self._client(lane, timeout_s))

        try:
            future = asyncio.get_running_loop().run_in_executor(self._lanes[lane], run)
        except RuntimeError as error:
            raise EngineUnavailable("the launcher is closed") from error
        self._waiting += 1
        try:
            # The bound on a call is its socket's; this one is for waiting behind others for a thread.
            async with asyncio.timeout(timeout_s * (_QUEUE_WAIT_FACTOR + 1)):
                return await future
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            # Its turn was taken from it by `refuse_starts` or `close`; the caller itself was not cancelled.
            if task is not None and not task.cancelling():
                raise EngineUnavailable("the launcher is closed") from error
            raise
        except TimeoutError as error:
            raise EngineUnavailable(
                f"the container engine is too slow: no answer within {timeout_s:g} s"
            ) from error
        finally:
            self._waiting -= 1

    def _client(self, lane: Lane, timeout_s: float) -> APIClient:
        # A client of requests' is not made for several threads at once, so each thread has its own.
        kept: tuple[int, APIClient] | None = getattr(self._local, "client", None)
        if kept is not None:
            if kept[0] == self._generation:
                return kept[1]
            kept[1].close()
            self._local.client = None
        generation = self._generation
        client = self.new_client(timeout_s)
        self._local.client = (generation, client)
        return client


@contextmanager
def translated(settings: DockerSettings) -> Iterator[None]:
    """Turn what the Docker client raises into `EngineError` or `EngineUnavailable`, the cause kept."""
    try:
        yield
    except docker.errors.APIError as error:
        status = error.response.status_code if error.response is not None else 500
        raise EngineError(str(error.explanation or error), status=status) from error
    except _CONNECTION_ERRORS as error:
        where = settings.docker_host or "DOCKER_HOST or the usual socket"
        raise EngineUnavailable(
            f"the container engine at {where} does not answer: {_shortest(error)}"
        ) from error


def why_not_started(error: EngineError, body: dict[str, Any]) -> Exception:
    """Return the error for a caller whose slot the engine refused to create or start."""
    reference = body["Labels"]["org.general-compute.image"]
    said = _HOST_PATH.sub("", str(error).partition(": Are you trying")[0])
    for mount in body["HostConfig"]["Mounts"]:
        said = said.replace(mount["Source"], "…")
    lowered = said.lower()
    if error.status == 404 and "no such image" in lowered:
        return ImageUnknown(f"no such image here any more: {reference}")
    if "no such container" in lowered and "VolumesFrom" in body["HostConfig"]:
        return ContentsGone(f"the container engine has lost what {reference} holds in its VOLUMEs: {said}")
    for sign, meaning in _IMAGE_FAULTS.items():
        if sign in lowered:
            return ImageUnusable(f"{reference} cannot be started: {meaning} ({said})")
    return EngineRefused(f"the container engine refused to start a slot of {reference}: {said}")


def _remove_quietly(client: APIClient, container: str) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            client.remove_container(container, force=True, v=True)
            return
        except docker.errors.APIError as error:
            status = error.response.status_code if error.response is not None else 500
            # The engine removes it itself (AutoRemove): wait until it has.
            under_way = _harmless(status, str(error.explanation or error)) is Removal.UNDER_WAY
            if not under_way or time.monotonic() > deadline:
                return
            time.sleep(0.02)
        except _CONNECTION_ERRORS:
            return


def _harmless(status: int, said: str) -> Removal | None:
    """Return the result of a removal that failed; None if the container must still be removed."""
    # By its words too: a dead container that has lost its files or its task is 409 or 500.
    lowered = said.lower()
    if status == 404 or "no such container" in lowered:
        return Removal.GONE
    if "already in progress" in lowered:
        return Removal.UNDER_WAY
    return None


def _shortest(error: BaseException) -> str:
    """The innermost cause says it; the layers above only wrap it."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__
