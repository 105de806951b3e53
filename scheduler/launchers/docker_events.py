"""The Docker engine's event stream, read in a thread of its own and opened again whenever it ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec

from scheduler.backoff import Backoff
from scheduler.errors import EngineUnavailable
from scheduler.launchers.docker_engine import Engine, translated
from scheduler.launchers.labels import LABEL_INSTALLATION, LABEL_SLOT

_CONTAINER_EVENTS: Final = ("die", "oom")
_IMAGE_EVENTS: Final = ("tag", "untag", "delete", "pull", "load", "import")
_REPLAY_S: Final = 2
"""Events of the last seconds are asked for again at each connection: the engine answers slightly before it listens."""

_AGAIN: Final = Backoff(0.05, 5.0)


class SlotEvent(msgspec.Struct, frozen=True):
    """A slot's container ended (`die`), or the kernel killed something in it for memory (`oom`)."""

    slot_id: str
    action: str
    exit_code: int | None
    time_ns: int


class Listener(Protocol):
    """Receives the engine's events. All methods but `images_changed` run in the event loop."""

    def images_changed(self) -> None:
        """An image or tag came, went or moved. Called in the stream's thread, so that it counts at once."""

    def stream_opened(self) -> None:
        """Events flow from now on; what happened before may have been missed."""

    def stream_lost(self, reason: str) -> None:
        """The stream broke. No event arrives until `stream_opened` is called again."""

    def slot_event(self, event: SlotEvent) -> None: ...


class EventStream:
    def __init__(self, engine: Engine, listener: Listener) -> None:
        self._engine = engine
        self._listener = listener
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = threading.Event()
        self._stream: Any = None
        self._thread = threading.Thread(target=self._run, name="docker-events", daemon=True)

    def open(self) -> None:
        """Begin to listen; called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        """Stop listening; nothing is reported any more."""
        self._closed.set()
        stream = self._stream
        if stream is not None:
            # It may end by itself at this very moment, and its socket be gone in any of several ways.
            with suppress(Exception):
                stream.close()

    def _run(self) -> None:
        pauses_s = iter(_AGAIN)
        while not self._closed.is_set():
            opened_at = time.monotonic()
            try:
                self._listen()
                reason = "the engine closed its event stream"
            except EngineUnavailable as error:
                reason = str(error)
            self._stream = None
            self._engine.renew()
            self._tell(self._listener.stream_lost, reason)
            if time.monotonic() - opened_at > _AGAIN.max_s:
                pauses_s = iter(_AGAIN)
            self._closed.wait(next(pauses_s))

    def _listen(self) -> None:
        filters = {"type": ["container", "image"], "event": [*_CONTAINER_EVENTS, *_IMAGE_EVENTS]}
        client = self._engine.new_client(self._engine.settings.call_timeout_s)
        try:
            with translated(self._engine.settings):
                stream = client.events(since=int(time.time()) - _REPLAY_S, filters=filters, decode=True)
                self._stream = stream
                if self._closed.is_set():
                    return
                self._listener.images_changed()
                self._tell(self._listener.stream_opened)
                for event in stream:
                    self._sort(event)
        finally:
            client.close()

    def _sort(self, event: dict[str, Any]) -> None:
        if event.get("Type") == "image":
            self._listener.images_changed()
            return
        attributes = (event.get("Actor") or {}).get("Attributes") or {}
        if attributes.get(LABEL_INSTALLATION) != self._engine.settings.installation:
            return
        exit_code = str(attributes.get("exitCode", ""))
        told = SlotEvent(
            slot_id=str(attributes.get(LABEL_SLOT, "")),
            action=str(event.get("Action")),
            exit_code=int(exit_code) if exit_code.lstrip("-").isdigit() else None,
            time_ns=int(event.get("timeNano") or 0),
        )
        self._tell(self._listener.slot_event, told)

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        if self._closed.is_set() or self._loop is None:
            return
        # The loop may have been closed without the launcher. Then nobody waits for the event.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)
