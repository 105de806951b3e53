"""The connection of a set to its registrar: while it takes no orders, it always says why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scheduler.errors import EngineUnavailable
from scheduler.launchers.nomad.connection import Connection
from scheduler.launchers.nomad.orders import (
    VERSION,
    Added,
    ClusterState,
    Found,
    Hello,
    Keep,
    Line,
    NodeState,
    Report,
    ToLauncher,
    ToRegistrar,
)
from scheduler.launchers.nomad.settings import NomadSettings
from tests.scheduler.launchers.nomad.stand import STRANGER, NomadDoubleStand
from tests.scheduler.launchers.rig import installation_of


class Deaf:
    """A listener that is told nothing in these tests."""

    def received(self, message: Added | Report | NodeState) -> None:
        raise AssertionError(message)

    def lost(self) -> None:
        raise AssertionError("lost")

    def found_again(self, found: Found) -> Keep:
        raise AssertionError(found)


@pytest.fixture
async def silent(tmp_path: Path) -> AsyncIterator[Path]:
    """A registrar that says that the cluster answers, and no more."""
    path = tmp_path / "registrar.sock"

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(reader, writer, ToRegistrar)
        await line.read()
        line.send(ClusterState(""))
        await reader.read()
        line.close()

    server = await asyncio.start_unix_server(greet, str(path))
    yield path
    server.close()


async def test_a_registrar_that_still_lists_slots_is_named_as_the_reason(silent: Path) -> None:
    settings = NomadSettings(
        set_name="a", installation="0" * 12, registrar=silent, run_folder=silent.parent, connect_timeout_s=0.5
    )
    connection = Connection(settings, Deaf())
    with pytest.raises(EngineUnavailable, match=r"the registrar is listing the cluster's slots$"):
        await connection.open()
    assert connection.reason == "the registrar is listing the cluster's slots"
    await connection.close()


async def test_a_set_that_was_installed_again_hears_that_its_slots_are_not_listed_yet(set_name: str) -> None:
    stand = NomadDoubleStand(set_name)
    await stand.prepare()
    await stand.launcher.open()
    stand.double.broken = True
    reader, writer = await asyncio.open_unix_connection(str(stand._socket_of(installation_of(set_name))))
    line = Line(reader, writer, ToLauncher)
    line.send(Hello(VERSION, set_name, STRANGER))
    said = await line.read()
    assert isinstance(said, ClusterState)
    assert said.reason == "the registrar has not reached the cluster yet"
    line.close()
    stand.double.broken = False
    await stand.close()
