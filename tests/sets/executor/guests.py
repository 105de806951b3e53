"""Scripted guests that are real processes, PID 1 of a namespace of their own, and who hears of their slots."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from scheduler.execution import Work
from sets.executor.executor import LocalExecutor
from tests.sets.executor import wire

WAIT_S = 60.0
PEER = Path(__file__).with_name("peer.py")
CAT = Work(argv=(b"/bin/cat",), stdin=b"in")


class Owner:
    """Hears what the executor tells."""

    def __init__(self) -> None:
        self.ready: list[str] = []
        self.freed: list[str] = []
        self.lost: list[tuple[str, str]] = []
        self.left: list[tuple[str, int]] = []

    def slot_ready(self, slot_id: str) -> None:
        self.ready.append(slot_id)

    def slot_freed(self, slot_id: str, cpu_us: int) -> None:
        self.freed.append(slot_id)

    def left_over(self, slot_id: str, cpu_us: int) -> None:
        self.left.append((slot_id, cpu_us))

    def prestart_unfit(self, slot_id: str, reason: str) -> None:
        raise AssertionError(f"{slot_id}: {reason}")

    def slot_lost(self, slot_id: str, reason: str) -> None:
        self.lost.append((slot_id, reason))


class Peer:
    """A process that connects to a slot's socket. Only as `init` can it be the guest."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, directory: Path, *, init: bool) -> Peer:
        namespace = ["unshare", "--pid", "--fork", "--kill-child"] if init else []
        process = await asyncio.create_subprocess_exec(
            *namespace,
            sys.executable,
            "-IS",
            PEER,
            directory,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        peer = cls(process)
        assert (await peer._answer() == "pid 1") == init
        return peer

    async def ask(self, *words: object) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        return await self._answer()

    async def greet(self, token: str, version: int = 3) -> str:
        """Connect and say hello; the connection's number."""
        connection = await self.ask("connect")
        assert connection.isdecimal(), connection
        await self.ask("send", connection, wire.hello(token.encode(), version).hex())
        return connection

    async def receive(self, connection: str) -> bytes:
        """Empty at the end."""
        answer = await self.ask("receive", connection)
        return b"" if answer in ("end", "ConnectionResetError") else bytes.fromhex(answer)

    async def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def _answer(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            return (await self._process.stdout.readline()).decode().strip()


StartPeer = Callable[..., Awaitable[Peer]]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 (another process acts)
            await asyncio.sleep(0.005)


class Address(NamedTuple):
    """The socket of a slot's guest, and the token that it must say."""

    directory: Path
    token: str


async def expect(executor: LocalExecutor, slot_id: str) -> Address:
    """The executor waits for this slot."""
    token = secrets.token_hex(32)
    await executor.expect(slot_id, token)
    return Address(executor.folder_of(slot_id), token)


async def let_in(peer: Peer, address: Address, owner: Owner) -> str:
    """The genuine guest gets in, whatever was before; its connection's number."""
    already = len(owner.ready)
    connection = await peer.greet(address.token)
    await until(lambda: len(owner.ready) > already)
    return connection


def knock(directory: Path) -> socket.socket:
    """Connect from this process, which is no container's init."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(WAIT_S)
    folder = os.open(directory, os.O_PATH)
    try:
        connection.connect(f"/proc/self/fd/{folder}/executor.sock")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(folder)
    return connection
