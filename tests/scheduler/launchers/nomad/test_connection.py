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
from tests.scheduler.conftest import until
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


@pytest.fixture
async def stand(set_name: str) -> AsyncIterator[NomadDoubleStand]:
    """Registrars, and a launcher that is not open."""
    stand = NomadDoubleStand(set_name)
    await stand.prepare()
    yield stand
    stand.double.broken = False
    await stand.close()


async def connected(stand: NomadDoubleStand, installation: str) -> Line:
    """A set that has said hello to the registrar of the stand's own installation."""
    own = str(stand.socket_of(installation_of(stand.set_name)))
    line = Line(*await asyncio.open_unix_connection(own), ToLauncher)
    line.send(Hello(VERSION, stand.set_name, installation))
    return line


async def test_a_set_that_was_installed_again_is_told_to_restart_its_registrar(
    stand: NomadDoubleStand,
) -> None:
    """One that could change its name at will would have as many slots as it likes."""
    await stand.launcher.open()
    line = await connected(stand, STRANGER)
    said = await line.read()
    assert isinstance(said, ClusterState)
    assert "refuses this set: installation: the set has another state_dir than before" in said.reason
    with pytest.raises(EngineUnavailable, match="closed the connection"):
        await line.read()
    line.close()
    await stand.launcher.check()


async def test_a_registrar_that_refuses_a_set_is_quoted(silent: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(reader, writer, ToRegistrar)
        await line.read()
        line.send(ClusterState("the registrar refuses this set: version: the set speaks version 9, not 3"))
        line.close()

    path = silent.with_name("refusing.sock")
    server = await asyncio.start_unix_server(refuse, str(path))
    settings = NomadSettings(set_name="a", installation="0" * 12, registrar=path, run_folder=path.parent)
    connection = Connection(settings, Deaf())
    with pytest.raises(EngineUnavailable, match="it said: the registrar refuses this set: version:"):
        await connection.open()
    await connection.close()
    server.close()


async def test_a_registrar_that_waits_for_the_cluster_does_not_wait_for_sets_that_have_left(
    stand: NomadDoubleStand,
) -> None:
    stand.double.broken = True
    own = installation_of(stand.set_name)
    for _ in range(3):
        line = await connected(stand, own)
        assert isinstance(await line.read(), ClusterState)
        line.close()
    last = await connected(stand, own)
    await until(lambda: stand.serving == 1)
    last.close()
    await until(lambda: stand.serving == 0)


async def test_a_set_that_speaks_before_it_was_answered_is_refused(stand: NomadDoubleStand) -> None:
    stand.double.broken = True
    line = await connected(stand, installation_of(stand.set_name))
    line.send(Keep(()))
    while "refuses" not in (said := await line.read()).reason:  # type: ignore[union-attr]
        assert isinstance(said, ClusterState)
    assert said == ClusterState(
        "the registrar refuses this set: hello: a message Keep came before the answer"
    )
    line.close()
