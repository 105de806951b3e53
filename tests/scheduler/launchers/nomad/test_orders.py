"""The connection between a set and its registrar: what each side may ask of the other's memory."""

from __future__ import annotations

import asyncio
import socket

import pytest

from scheduler.errors import EngineUnavailable
from scheduler.launchers.nomad.orders import MESSAGE_BYTES, Drop, Line, Report, ToLauncher, ToRegistrar
from scheduler.launchers.nomad.words import Kind


async def lines() -> tuple[Line, Line]:
    """The registrar's side and the set's."""
    ours, theirs = socket.socketpair()
    registrar = await asyncio.open_unix_connection(sock=ours, limit=MESSAGE_BYTES)
    launcher = await asyncio.open_unix_connection(sock=theirs, limit=MESSAGE_BYTES)
    return Line(*registrar, ToRegistrar), Line(*launcher, ToLauncher)


async def test_a_side_that_reads_gets_every_message() -> None:
    registrar, launcher = await lines()
    long = Report("s-1", Kind.STOPPED, "x" * (MESSAGE_BYTES // 2))
    for _ in range(20):
        registrar.send(long)
        assert await launcher.read() == long
    launcher.send(Drop("s-1"))
    assert await registrar.read() == Drop("s-1")
    registrar.close()
    launcher.close()


async def test_a_side_that_leaves_too_much_unread_is_cut_off() -> None:
    """A set that an attacker has taken over must not fill the memory of its registrar."""
    registrar, launcher = await lines()
    long = Report("s-1", Kind.STOPPED, "x" * (MESSAGE_BYTES // 2))
    for _ in range(20):
        registrar.send(long)
    with pytest.raises(EngineUnavailable, match="closed the connection"):
        await registrar.read()
    launcher.close()
