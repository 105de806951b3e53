"""The images of a Docker engine: asked of it, remembered until something changes there, pulled where allowed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Any, Final

import structlog
from docker import APIClient

from scheduler.errors import (
    BadRequest,
    EngineUnavailable,
    ImagePulling,
    ImageUnknown,
    ImageUnusable,
    SchedulerError,
    Unavailable,
)
from scheduler.image import Image
from scheduler.images.reference import Reference, parse_reference
from scheduler.launchers.docker_config import image_from
from scheduler.launchers.docker_engine import Engine, EngineError, translated
from scheduler.registry.allowed import AllowList, not_allowed

log = structlog.get_logger()

MAX_REMEMBERED: Final = 1024
MAX_LOOKUPS: Final = 128
MAX_PULLS_WAITING: Final = 64

_FRESH_S: Final = 0.5
_STALE_S: Final = 2.0
"""Not every change makes an event (BuildKit tags silently on older engines). A remembered answer older than `_FRESH_S`
is used and looked up again in the background; one older than `_STALE_S` is looked up before it is used."""

_REFUSAL_KEPT_S: Final = 10.0
"""Pause before a pull that failed is tried again, in seconds."""

_REGISTRY_FAULTS: Final = (
    "connection refused",
    "context deadline exceeded",
    "i/o timeout",
    "timeout",
    "no such host",
    "no route to host",
    "network is unreachable",
    "connection reset",
    "eof",
    "server misbehaving",
    "toomanyrequests",
    "500 internal server error",
    "502 bad gateway",
    "503 service unavailable",
    "no space left on device",
    "received unexpected http status: 5",
)


class _Entry:
    __slots__ = ("asked_at", "generation", "image")

    def __init__(self, image: Image, asked_at: float, generation: int) -> None:
        self.image = image
        self.asked_at = asked_at
        self.generation = generation


class Images:
    """Resolves references (`scheduler.images.contract.ImageSource`).

    `changed` may be called from any thread; all else belongs to the event loop.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._settings = engine.settings
        self._allowed = AllowList(self._settings.registries)
        self._known: OrderedDict[str, _Entry] = OrderedDict()
        self._lookups: dict[tuple[str, int], asyncio.Task[Image]] = {}
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._refusals: OrderedDict[str, tuple[float, SchedulerError]] = OrderedDict()
        self._pull_turns = asyncio.Semaphore(self._settings.max_concurrent_pulls)
        self._closing = threading.Event()
        self._generation = 0
        self.heard = False
        """True while the engine's events arrive; without them the cache is not trusted."""

    def changed(self) -> None:
        """Forget everything: an image or tag came, went or moved."""
        self._generation += 1

    async def close(self) -> None:
        self._closing.set()
        tasks = [*self._lookups.values(), *self._pulls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def resolve(self, text: str) -> Image:
        """Raises `BadRequest`, `ImageUnknown`, `RegistryNotAllowed`, `ImageUnusable`, `ImagePulling`,
        `EngineUnavailable`.

        While the engine does not answer, a reference still means the image that it meant before: nobody can move a tag
        there, and a slot that runs may take the task.
        """
        entry = self._known.get(text)
        if entry is not None and entry.generation == self._generation and self.heard:
            age_s = time.monotonic() - entry.asked_at
            if age_s < _STALE_S:
                if age_s > _FRESH_S:
                    with suppress(Unavailable):
                        self._look_up(text)
                return entry.image
        reference = parse_reference(text)
        if text in self._pulls:
            raise ImagePulling(f"{text} is being pulled", retry_after_s=2)
        try:
            return await asyncio.shield(self._look_up(text, reference))
        except EngineUnavailable:
            if entry is None:
                raise
            return entry.image
        except ImageUnknown as error:
            if not reference.domain:
                raise
            if not self._settings.registries:
                raise ImageUnknown(
                    f"{error}, and images are not pulled from {reference.domain} (setting `registries`)"
                ) from error
            if not self._allowed.has(reference):
                raise not_allowed(reference) from error
        return self._pull(reference)

    def _look_up(self, text: str, reference: Reference | None = None) -> asyncio.Task[Image]:
        # A caller that asks after a change must not get the answer to a question from before it.
        key = (text, self._generation)
        task = self._lookups.get(key)
        if task is None:
            if len(self._lookups) >= MAX_LOOKUPS:
                raise Unavailable(f"{len(self._lookups)} images are being looked up already; try again")
            task = asyncio.create_task(self._ask(reference or parse_reference(text), self._generation))
            self._lookups[key] = task
            task.add_done_callback(lambda done: self._looked_up(key, done))
        return task

    def _looked_up(self, key: tuple[str, int], task: asyncio.Task[Image]) -> None:
        del self._lookups[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, (ImageUnknown, ImageUnusable)):
                self._known.pop(key[0], None)
            elif not isinstance(error, SchedulerError):
                log.error("image lookup failed", image=key[0], exc_info=error)

    async def _ask(self, reference: Reference, generation: int) -> Image:
        asked_at = time.monotonic()
        inspected = await self._engine.inspect_image(_name_for_engine(reference))
        if not _is_named(reference, inspected):
            # Engines also take the beginning of an image's id; a reference is never meant so.
            raise ImageUnknown(f"no such image here: {reference.text}")
        image = image_from(reference, inspected, self._engine.facts)
        self._known[reference.text] = _Entry(image, asked_at, generation)
        self._known.move_to_end(reference.text)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return image

    # Pulls

    def _pull(self, reference: Reference) -> Image:
        text = reference.text
        refused_at, refusal = self._refusals.get(text, (0.0, None))
        if refusal is not None and time.monotonic() - refused_at < _REFUSAL_KEPT_S:
            raise refusal
        if text not in self._pulls:
            if len(self._pulls) >= MAX_PULLS_WAITING:
                raise Unavailable(
                    f"{len(self._pulls)} images are being pulled already; try again", retry_after_s=10
                )
            task = asyncio.create_task(self._pull_in_turn(reference))
            self._pulls[text] = task
            task.add_done_callback(lambda done: self._pulled(reference, done))
        raise ImagePulling(f"{text} is being pulled", retry_after_s=2)

    async def _pull_in_turn(self, reference: Reference) -> None:
        async with self._pull_turns:
            log.info("pull started", image=reference.text)
            loop = asyncio.get_running_loop()
            done: asyncio.Future[None] = loop.create_future()
            abandoned = threading.Event()
            # A thread of its own, not a pool's: a registry may stall, and the process must be able to end meanwhile.
            threading.Thread(
                target=self._pull_in_thread,
                args=(reference, loop, done, abandoned),
                name="docker-pull",
                daemon=True,
            ).start()
            try:
                async with asyncio.timeout(self._settings.pull_timeout_s + self._settings.pull_stall_s):
                    await done
            except TimeoutError as error:
                raise Unavailable(
                    f"{reference.text} was not pulled within {self._settings.pull_timeout_s:g} s; try again"
                ) from error
            finally:
                abandoned.set()

    def _pull_in_thread(
        self,
        reference: Reference,
        loop: asyncio.AbstractEventLoop,
        done: asyncio.Future[None],
        abandoned: threading.Event,
    ) -> None:
        outcome: Exception | None = None
        try:
            stall_s = self._settings.pull_stall_s
            client = self._engine.new_client(self._settings.call_timeout_s, stall_s)
            try:
                with translated(self._settings):
                    self._follow_pull(client, reference, abandoned)
            finally:
                client.close()
        except Exception as error:
            outcome = error

        def tell() -> None:
            if not done.done():
                if outcome is None:
                    done.set_result(None)
                else:
                    done.set_exception(outcome)

        try:
            loop.call_soon_threadsafe(tell)
        except RuntimeError:
            log.info("pull outlived the event loop", image=reference.text)

    def _follow_pull(self, client: APIClient, reference: Reference, abandoned: threading.Event) -> None:
        deadline = time.monotonic() + self._settings.pull_timeout_s
        repository = f"{reference.domain}/{reference.path}"
        progress: Any = client.pull(
            repository,
            tag=reference.digest or reference.tag,
            stream=True,
            decode=True,
            auth_config=self._login(reference),
        )
        for step in progress:
            if "error" in step:
                raise EngineError(str(step["error"]), status=500)
            if abandoned.is_set() or self._closing.is_set():
                return
            if time.monotonic() > deadline:
                raise EngineError(
                    f"timeout: not complete after {self._settings.pull_timeout_s:g} s", status=500
                )

    def _login(self, reference: Reference) -> dict[str, str] | None:
        config = self._allowed.registry(reference).config
        if not config.username:
            return None
        try:
            return {"username": config.username, "password": config.password()}
        except ValueError as error:
            raise Unavailable(str(error)) from error

    def _pulled(self, reference: Reference, task: asyncio.Task[None]) -> None:
        del self._pulls[reference.text]
        self.changed()
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            log.info("pull ended", image=reference.text)
            self._refusals.pop(reference.text, None)
            return
        refusal = why_not_pulled(reference, error)
        log.warning("pull failed", image=reference.text, reason=str(error))
        self._refusals[reference.text] = (time.monotonic(), refusal)
        while len(self._refusals) > MAX_REMEMBERED:
            self._refusals.popitem(last=False)


def why_not_pulled(reference: Reference, error: BaseException) -> SchedulerError:
    """Return the error for callers whose pull failed.

    `ImageUnknown` when the registry answered that it has no such image for us, `Unavailable` when it or the
    engine failed.
    """
    said = str(error)
    where = reference.domain
    refusal: SchedulerError
    if isinstance(error, (BadRequest, ImageUnusable)):
        refusal = error
    elif not isinstance(error, EngineError):
        refusal = (
            error
            if isinstance(error, EngineUnavailable)
            else Unavailable(said, retry_after_s=_REFUSAL_KEPT_S)
        )
    elif any(sign in said.lower() for sign in _REGISTRY_FAULTS):
        refusal = Unavailable(
            f"registry {where} did not deliver {reference.text}: {said}", retry_after_s=_REFUSAL_KEPT_S
        )
    else:
        refusal = ImageUnknown(f"no such image here, and registry {where} refused {reference.text}: {said}")
    refusal.__cause__ = error
    return refusal


def _name_for_engine(reference: Reference) -> str:
    if reference.image_id:
        return reference.image_id
    if reference.digest:
        return f"{reference.repository}@{reference.digest}"
    return reference.tagged


def _is_named(reference: Reference, inspected: dict[str, Any]) -> bool:
    if reference.image_id or reference.digest:
        return True
    return reference.tagged in (inspected.get("RepoTags") or [])
