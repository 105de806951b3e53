"""Questions between the workers of one router, over unix sockets in the router's state folder.

Each connection carries one question: a line there, a message back, the end. Both sides are bounded in time and size, so
a worker that hangs costs the others a fraction of a second. It is then missing by its index, and never taken for
absent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import structlog

ANSWER_WITHIN_S: Final = 0.5
MAX_QUESTION_BYTES: Final = 1024
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
QUESTIONS_AT_ONCE: Final = 64

Answerer = Callable[[str], Awaitable[bytes]]

log = structlog.get_logger()


class Peers:
    """Worker `index` of `count`. `answer` gets a question and returns the message; what it raises ends the
    connection without one."""

    def __init__(self, folder: Path, index: int, count: int, answer: Answerer) -> None:
        self._folder = folder
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._busy = 0
        self.index = index
        self.others = tuple(other for other in range(count) if other != index)

    async def start(self) -> None:
        """Listen. Raises `OSError`."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        name = _name(self.index)
        with _short(self._folder) as folder:
            with contextlib.suppress(FileNotFoundError):  # Of the worker before.
                os.unlink(self._folder / name)
            sock.bind(f"{folder}/{name}")
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=MAX_QUESTION_BYTES)

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def ask(self, question: str) -> dict[int, bytes | None]:
        """Ask every other worker; returns the answers by index, None where one gave none in time."""
        answers = await asyncio.gather(*(self.ask_one(other, question) for other in self.others))
        return dict(zip(self.others, answers, strict=True))

    async def ask_one(self, other: int, question: str, within_s: float = ANSWER_WITHIN_S) -> bytes | None:
        """Ask one worker; returns its answer, or None."""
        try:
            async with asyncio.timeout(within_s):
                return await self._exchange(other, question)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return None

    async def _exchange(self, other: int, question: str) -> bytes:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)  # Else a worker that accepts nobody could hold us.
            with _short(self._folder) as folder:
                sock.connect(f"{folder}/{_name(other)}")
            reader, writer = await asyncio.open_unix_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
        try:
            writer.write(question.encode() + b"\n")
            size = int.from_bytes(await reader.readexactly(8), "big")
            if size > MAX_ANSWER_BYTES:
                raise OSError(f"worker {other} answers {size} bytes")
            return await reader.readexactly(size)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._busy >= QUESTIONS_AT_ONCE:
            writer.close()
            return
        self._busy += 1
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S * 4):
                question = await reader.readline()
                answer = await self._answer(question.decode().rstrip("\n"))
                writer.write(len(answer).to_bytes(8, "big") + answer)
                await writer.drain()
        except (OSError, ValueError, TimeoutError):
            pass  # The connection's end tells the worker that asked.
        except Exception:
            log.exception("question of another worker was not answered")
        finally:
            self._busy -= 1
            writer.close()


def _name(index: int) -> str:
    return f"{index}.sock"


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """Another path of the folder: a socket's may have 107 bytes, and state folders may lie deep."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
