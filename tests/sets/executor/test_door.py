"""The door of a slot: who is let in and who is not. It opens once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Any

import pytest

from sets.executor import door, protocol
from sets.executor.executor import LocalExecutor
from tests.sets.executor import wire
from tests.sets.executor.conftest import open_fds
from tests.sets.executor.guests import (
    Owner,
    StartPeer,
    expect,
    knock,
    let_in,
    until,
)

# -- who is not let in


async def test_the_right_token_from_beside_the_guest(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    address = await expect(executor, "s1")
    impostor = await start_peer(address.directory, init=False)
    connection = await impostor.greet(address.token)
    assert await impostor.receive(connection) == b""
    with contextlib.suppress(OSError), knock(address.directory) as mine:
        mine.send(wire.hello(address.token.encode()))
        await until(lambda: _ended(mine))
    assert (owner.ready, owner.lost) == ([], [])
    await let_in(await start_peer(address.directory), address, owner)


@pytest.mark.parametrize(
    "hello",
    [
        wire.hello(b"0" * 64),
        wire.hello(b"\xff" * 64),
        wire.hello(b"0" * 64, version=3),
        wire.hello(b"0" * 64)[:-1],
        wire.hello(b"0" * 64) + b"0",
        wire.hello(b"0" * 64) + bytes(5000),
        wire.head(wire.HELLO),
        wire.ended(1),
        wire.output(1),
        b"\0",
    ],
    ids=lambda hello: f"{len(hello)} bytes of type {hello[0]}",
)
async def test_a_wrong_hello(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer, hello: bytes
) -> None:
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    connection = await guest.ask("connect")
    await guest.ask("send", connection, hello.hex())
    assert await guest.receive(connection) == b""
    assert (owner.ready, owner.lost) == ([], [])
    await let_in(guest, address, owner)


async def test_a_token_that_is_another_slots(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    address, other = await expect(executor, "s1"), await expect(executor, "s2")
    guest = await start_peer(address.directory)
    assert await guest.receive(await guest.greet(other.token)) == b""
    assert owner.ready == []


async def test_another_version_is_told_at_once(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    other = protocol.VERSION + 1
    await guest.greet(address.token, version=other)
    await until(lambda: owner.lost)
    told = f"its guest speaks version {other} of the protocol, not {protocol.VERSION}"
    assert owner.lost == [("s1", told)]
    assert not address.directory.exists()


async def test_silence(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "HELLO_TIMEOUT_S", 0.05)
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    connection = await guest.ask("connect")
    assert await guest.receive(connection) == b""
    assert owner.lost == []
    # The guest itself has all the time that it needs.
    monkeypatch.undo()
    await let_in(guest, address, owner)


async def test_a_hello_that_comes_late(executor: LocalExecutor, owner: Owner, start_peer: StartPeer) -> None:
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    connection = await guest.ask("connect")
    await asyncio.sleep(0.05)
    assert owner.ready == []
    await guest.ask("send", connection, wire.hello(address.token.encode()).hex())
    await until(lambda: owner.ready)


async def test_silence_keeps_nobody_out(executor: LocalExecutor, owner: Owner, start_peer: StartPeer) -> None:
    """Far more silent ones than there is room for, and none has run out of time when the guest comes."""
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    before = len(open_fds())
    for _ in range(30):
        await guest.ask("connect")
    assert len(open_fds()) <= before + door.GREETINGS
    await let_in(guest, address, owner)
    assert await guest.receive("0") == b""
    assert await guest.receive("29") == b""
    assert len(open_fds()) <= before + 3, "the guest's connection and its two accounts"


async def test_a_flood_of_connections(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer, logged: list[Any]
) -> None:
    address, other = await expect(executor, "s1"), await expect(executor, "s2")
    impostor = await start_peer(address.directory, init=False)
    guest = await start_peer(address.directory)
    neighbour = await start_peer(other.directory)
    before = len(open_fds())
    flood = asyncio.create_task(impostor.ask("flood", 1000))
    await let_in(guest, address, owner)
    await let_in(neighbour, other, owner)
    assert len(open_fds()) <= before + 6
    await flood
    assert owner.ready == ["s1", "s2"]
    assert owner.lost == []
    assert len(logged) <= door.REFUSALS_LOGGED, "a flood of connections is no flood of log lines"


# -- the door opens once


async def test_nobody_is_heard_once_the_guest_is_in(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    await let_in(guest, address, owner)
    with pytest.raises(ConnectionRefusedError):
        knock(address.directory)
    assert await guest.ask("connect") == "ConnectionRefusedError", "not even the guest itself"
    assert (owner.ready, owner.lost) == (["s1"], [])


async def test_what_waited_at_the_door_is_let_go(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    """A descriptor in a connection that nobody accepted: a pipe's end must not depend on it."""
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    read_end, write_end = os.pipe()
    connection = await guest.ask("connect")
    await asyncio.sleep(0.02)
    with knock(address.directory) as waiting:
        socket.send_fds(waiting, [b"hold this"], [write_end])
        os.close(write_end)
        await guest.ask("send", connection, wire.hello(address.token.encode()).hex())
        await until(lambda: owner.ready)
    assert os.read(read_end, 1) == b""
    os.close(read_end)


async def test_descriptors_with_a_hello_are_dropped(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    address = await expect(executor, "s1")
    read_end, write_end = os.pipe()
    with knock(address.directory) as mine:
        socket.send_fds(mine, [wire.hello(address.token.encode())], [write_end])
        os.close(write_end)
        await until(lambda: owner.ready or _ended(mine))
    assert os.read(read_end, 1) == b""
    os.close(read_end)


def _ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(10) == b""
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False


async def test_a_guest_that_lost_its_connection_does_not_come_back(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    connection = await let_in(guest, address, owner)
    await guest.ask("send", connection, "ff")
    await until(lambda: owner.lost)
    assert await guest.receive(connection) == b""
    assert await guest.ask("connect") == "FileNotFoundError"
    assert (owner.ready, len(owner.lost)) == (["s1"], 1)
