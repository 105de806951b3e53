"""The set's connection to its registrar: made at the start, and made again whenever it breaks."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, Protocol

import structlog

from scheduler.backoff import Backoff
from scheduler.errors import EngineUnavailable
from scheduler.launchers.nomad.orders import (
    MESSAGE_BYTES,
    VERSION,
    Added,
    ClusterState,
    Found,
    Hello,
    Keep,
    Line,
    NodeState,
    Replaced,
    Report,
    ToLauncher,
    ToRegistrar,
)
from scheduler.launchers.nomad.settings import NomadSettings
from scheduler.trouble import Trouble

log = structlog.get_logger()

_AGAIN: Final = Backoff(0.1, 5.0)
_NOT_YET: Final = "not connected to the registrar"
_LISTING: Final = "the registrar is listing the cluster's slots"
_AWAY: Final = "the registrar is away"
_REPLACED: Final = "another process of this set has connected to the registrar"


class Listener(Protocol):
    """Receives the registrar's messages, in the event loop."""

    def received(self, message: Added | Report | NodeState) -> None: ...

    def lost(self) -> None:
        """The registrar is away. What it was asked last may have happened or not."""

    def found_again(self, found: Found) -> Keep:
        """The registrar is back, and has found these slots. Returns those that the set goes on using."""


class Connection:
    """One connection at a time. `reason` says why orders are not taken now; it is empty when they are."""

    def __init__(self, settings: NomadSettings, listener: Listener) -> None:
        self.reason = _NOT_YET
        self._settings = settings
        self._listener = listener
        self._line: Line | None = None
        self._reading: asyncio.Task[None] | None = None
        self._replaced = False
        self._unheard = Trouble("registrar lost", "registrar found again")

    async def open(self) -> Found:
        """Connect; returns what the registrar has found. `begin` must follow. Raises `EngineUnavailable`."""
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                self._line, found = await self._connect()
        except TimeoutError as error:
            raise EngineUnavailable(
                f"the registrar has not told within {self._settings.connect_timeout_s:g} s what slots there are: "
                f"{self.reason}"
            ) from error
        return found

    def begin(self, keep: Keep) -> None:
        """Answer what was found, and read from now on."""
        assert self._line is not None
        self._line.send(keep)
        self._reading = asyncio.create_task(self._keep_reading(self._line))

    async def close(self) -> None:
        """Never raises."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._line is not None:
            self._line.close()
            self._line = None
        self.reason = _NOT_YET

    @property
    def up(self) -> bool:
        return self._line is not None

    def send(self, message: ToRegistrar) -> None:
        """Send, if the registrar is there; it learns what it has missed when it is back."""
        if self._line is not None:
            self._line.send(message)

    async def _connect(self) -> tuple[Line, Found]:
        path = self._settings.registrar
        try:
            reader, writer = await asyncio.open_unix_connection(str(path), limit=MESSAGE_BYTES)
        except OSError as error:
            raise EngineUnavailable(
                f"no registrar at {path}: {error.strerror or error}; start it with `gcompute registrar FILE`"
            ) from error
        line = Line(reader, writer, ToLauncher)
        try:
            return line, await self._greet(line)
        except BaseException:
            line.close()
            raise

    async def _greet(self, line: Line) -> Found:
        line.send(Hello(VERSION, self._settings.set_name, self._settings.installation))
        said = ""
        while True:
            try:
                message = await line.read()
            except EngineUnavailable as error:
                raise EngineUnavailable(f"{error}; it said: {said}" if said else str(error)) from error
            match message:
                case Found() as found:
                    self.reason = ""
                    return found
                case ClusterState(reason):
                    said = self.reason = reason or _LISTING

    async def _keep_reading(self, line: Line) -> None:
        while True:
            try:
                while True:
                    self._take(await line.read())
            except EngineUnavailable as error:
                self._unheard.met(str(error))
            line.close()
            self._line = None
            self.reason = _REPLACED if self._replaced else _AWAY
            self._listener.lost()
            if self._replaced:
                log.warning(
                    "another process of this set took over", next="stop this process; it starts no more slots"
                )
                return
            line = await self._connect_again()
            self._unheard.over()

    async def _connect_again(self) -> Line:
        for pause_s in _AGAIN:
            with suppress(EngineUnavailable):
                line, found = await self._connect()
                line.send(self._listener.found_again(found))
                self._line = line
                return line
            await asyncio.sleep(pause_s)
        raise AssertionError("the pauses have no end")

    def _take(self, message: object) -> None:
        match message:
            case ClusterState(reason):
                self.reason = reason
            case Replaced():
                self._replaced = True
            case Added() | Report() | NodeState():
                self._listener.received(message)
