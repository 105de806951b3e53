"""Follows a cluster's event stream: lists everything, reads what changes, and begins again when the stream breaks."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import httpx
import msgspec
import structlog

from scheduler.backoff import Backoff
from scheduler.errors import SchedulerError
from scheduler.launchers.nomad.network_error import plain
from scheduler.launchers.nomad.records import Allocation, Evaluation, Node
from scheduler.launchers.nomad.settings import RegistrarSettings, SettingsError

log = structlog.get_logger()

SILENCE_S: Final = 70.0
"""Longest silence of a stream that lives, in seconds: servers send a heart-beat every 30 s. Where everything is listed
more often (`relist_s`), that begins a new stream before."""
_LINE_BYTES: Final = 32 << 20
"""Longest batch of events that is read."""
_AGAIN: Final = Backoff(0.2, 5.0)
TOPICS: Final = ("Allocation", "Evaluation", "Job", "Node")


class _Payload(msgspec.Struct, frozen=True):
    allocation: Allocation | None = msgspec.field(name="Allocation", default=None)
    evaluation: Evaluation | None = msgspec.field(name="Evaluation", default=None)
    node: Node | None = msgspec.field(name="Node", default=None)


class Event(msgspec.Struct, frozen=True):
    topic: str = msgspec.field(name="Topic", default="")
    type: str = msgspec.field(name="Type", default="")
    key: str = msgspec.field(name="Key", default="")
    payload: _Payload = msgspec.field(name="Payload", default=_Payload())


class _Batch(msgspec.Struct, frozen=True):
    index: int = msgspec.field(name="Index", default=0)
    events: tuple[Event, ...] | None = msgspec.field(name="Events", default=None)


class StreamBroken(SchedulerError):
    """The event stream broke."""


class Events:
    """The events of the registrar's namespace. `seen` gets each, in order; `lost` is told why the stream broke."""

    def __init__(
        self,
        settings: RegistrarSettings,
        relist: Callable[[], Awaitable[int]],
        seen: Callable[[Event], None],
        lost: Callable[[str], None],
        silence_s: float = SILENCE_S,
    ) -> None:
        self._settings = settings
        self._silence_s = silence_s
        self._relist = relist
        self._seen = seen
        self._lost = lost

    async def follow(self) -> None:
        """Follow for ever: list, then read from the list's index on."""
        pauses_s = iter(_AGAIN)
        while True:
            try:
                index = await self._relist()
                await self._read(index)
            except (SchedulerError, SettingsError, httpx.HTTPError, OSError) as error:
                self._lost(self._words(error))
                await asyncio.sleep(next(pauses_s))
            except Exception as error:
                # The slots need the watch after every error, also one that nobody expected.
                log.error("the cluster could not be followed, which is a bug", exc_info=error)
                self._lost(f"the registrar failed: {error}")
                await asyncio.sleep(next(pauses_s))
            else:
                pauses_s = iter(_AGAIN)

    async def _read(self, index: int) -> None:
        """Read one stream until `relist_s` has passed or it breaks."""
        settings = self._settings
        query: list[tuple[str, str | int | float | bool | None]] = [
            *(("topic", topic) for topic in TOPICS),
            ("namespace", settings.namespace),
            ("region", settings.region),
            ("index", index),
        ]
        timeout = httpx.Timeout(settings.call_timeout_s, read=self._silence_s)
        token = settings.token()
        async with (
            httpx.AsyncClient(
                base_url=settings.address,
                headers={"X-Nomad-Token": token} if token else {},
                timeout=timeout,
                verify=_context(settings),
                trust_env=False,
            ) as client,
            client.stream("GET", "/v1/event/stream", params=query) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                said = (await answer.aread())[:500].decode("utf-8", "replace")
                raise StreamBroken(f"the event stream was answered with {answer.status_code}: {said}")
            lines = 0
            try:
                async with asyncio.timeout(settings.relist_s):
                    async for line in _lines(answer):
                        lines += 1
                        self._take(line)
            except TimeoutError:
                return
            if not lines:
                # A token without the right to read jobs and nodes is answered with 200 and nothing.
                raise StreamBroken(
                    "the event stream is empty; check that the registrar's policy can read jobs"
                )
            raise StreamBroken("the cluster ended the event stream")

    def _take(self, line: bytes) -> None:
        try:
            batch = msgspec.json.decode(line, type=_Batch)
        except msgspec.DecodeError as error:
            raise StreamBroken(f"the event stream holds what is no event: {error}") from error
        for event in batch.events or ():
            self._seen(event)

    def _words(self, error: Exception) -> str:
        match error:
            case SchedulerError() | SettingsError():
                return str(error)
            case httpx.ReadTimeout():
                return f"the event stream has been silent for {self._silence_s:g} s"
        return f"could not read the event stream: {self._settings.address}: {plain(error)}"


async def _lines(answer: httpx.Response) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in answer.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
        if len(rest) > _LINE_BYTES:
            raise StreamBroken(f"one batch of events has more than {_LINE_BYTES >> 20} MiB")


def _context(settings: RegistrarSettings) -> ssl.SSLContext | bool:
    """Raises `StreamBroken` if a file cannot be used."""
    if not settings.address.startswith("https"):
        return False
    used = f"ca_file {settings.ca_file}"
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if certificate := settings.certificate():
            used = "cert_file {} with key_file {}".format(*certificate)
            context.load_cert_chain(*certificate)
    except OSError as error:
        raise StreamBroken(f"{used} cannot be used: {plain(error)}") from error
    return context
