"""Layouts of images' slots by a look at their layers (`scheduler.images.contract.LayoutSource`).

A look reads an image's layers whole, once an image, and keeps only what a layout depends on. It takes about as long as
pulling the image; one look runs at a time, in a thread. The event loop only receives the layers, in small pieces.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final

from scheduler.errors import ImageUnknown, ImageUnusable, Unavailable
from scheduler.image import Image
from scheduler.images.layouts import Layouts, layout_or_fault
from scheduler.images.places import Layout, question, said_home
from scheduler.images.user import GROUP, PASSWD
from scheduler.registry.archive import read_layer
from scheduler.registry.client import RegistryClient
from scheduler.registry.documents import Layer
from scheduler.registry.images import RegistryImages, Source
from scheduler.registry.tree import NotGathered, Tree

LOOK_S: Final = 600.0
"""Limit of one look, in seconds."""
MAX_LOOKS: Final = 64
"""Images that are being looked into or wait for it."""
MAX_PASSES: Final = 4
"""Times that the layers are read: more than once if a link, or HOME in /etc/passwd, leads elsewhere than is usual."""


class RegistryLayouts(Layouts):
    """Looks into images that `images` resolved. `volume_bytes` and `home_bytes` are those of `look.layout_by`.

    `layout` raises `ImageUnknown`, `ImageUnusable`, and `Unavailable` where the registry does not deliver in time.
    """

    def __init__(self, images: RegistryImages, *, volume_bytes: int, home_bytes: int) -> None:
        super().__init__(self._look_by_layers)
        self._images = images
        self._volume_bytes = volume_bytes
        self._home_bytes = home_bytes
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="registry-look")
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def close(self) -> None:
        await super().close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _look_by_layers(self, image: Image) -> Layout | str:
        source = self._images.source(image)
        if source is None:
            raise ImageUnknown(f"{image.reference} is no longer remembered; send the task again")
        if self._waiting >= MAX_LOOKS:
            raise Unavailable(
                f"{self._waiting} images are being looked into already; try again", retry_after_s=10
            )
        self._waiting += 1
        try:
            async with self._turn, asyncio.timeout(LOOK_S):
                return await self._look_in_turn(image, source)
        except TimeoutError as error:
            raise Unavailable(
                f"the layers of {image.reference} did not come within {LOOK_S:g} s; try again later",
                retry_after_s=60,
            ) from error
        finally:
            self._waiting -= 1

    async def _look_in_turn(self, image: Image, source: Source) -> Layout | str:
        wanted = usual_paths(image)
        for _ in range(MAX_PASSES):
            tree = Tree(wanted, self._home_bytes)
            try:
                for layer in source.layers:
                    await self._read(tree, source.client, source.repository, layer)
                # The tree of an image with many files takes longer to search than a link's lease lasts.
                return await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._layout_of, tree, image
                )
            except NotGathered as missing:
                wanted.add(missing.path)
            except ImageUnusable as error:
                return str(error)
        return "its USER and HOME lie behind too many links"

    def _layout_of(self, tree: Tree, image: Image) -> Layout | str:
        return layout_or_fault(tree, image, volume_bytes=self._volume_bytes, home_bytes=self._home_bytes)

    async def _read(self, tree: Tree, client: RegistryClient, repository: str, layer: Layer) -> None:
        """Reads a layer in the thread, which takes its bytes from this event loop."""
        chunks = _Chunks(asyncio.get_running_loop(), client.blob_chunks(repository, layer.digest))
        reading = asyncio.get_running_loop().run_in_executor(self._thread, read_layer, tree, chunks.next)
        try:
            await asyncio.shield(reading)
        finally:
            chunks.stop()
            with suppress(Exception):
                await reading
            await chunks.close()


def usual_paths(image: Image) -> set[str]:
    """The paths that an image's layout usually depends on."""
    home = said_home(image)
    name = image.user.partition(":")[0]
    if home is None:
        home = "/root" if name in ("", "0", "root") else f"/home/{name}"
    asked = question(image, home)
    paths = {PASSWD, GROUP, *asked.volumes, *asked.folders, *asked.existence}
    return {path for path in (*paths, asked.home) if path not in ("", "/")}


class _Chunks:
    """An asynchronous stream, for a thread to read. `stop` ends the thread's waiting."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stream: AsyncGenerator[bytes, None]) -> None:
        self._loop = loop
        self._stream = stream
        self._next: concurrent.futures.Future[bytes] | None = None
        self._stopped = False
        self._ends_at = time.monotonic() + LOOK_S
        # A read that was cancelled still has to unwind before the stream can be closed.
        self._reading = asyncio.Lock()

    def next(self) -> bytes:
        """The next bytes; b"" at the end. Blocks; called from the thread."""
        if self._stopped or time.monotonic() > self._ends_at:
            raise TimeoutError
        self._next = asyncio.run_coroutine_threadsafe(self._advance(), self._loop)
        try:
            return self._next.result()
        except concurrent.futures.CancelledError:
            # The waiting was cancelled, not the task that waits for this thread.
            raise TimeoutError from None

    def stop(self) -> None:
        self._stopped = True
        if self._next is not None:
            self._next.cancel()

    async def close(self) -> None:
        async with self._reading:
            await self._stream.aclose()

    async def _advance(self) -> bytes:
        async with self._reading:
            async for chunk in self._stream:
                if chunk:
                    return chunk
            return b""
