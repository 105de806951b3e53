"""Two installations with sets of one name on one engine: neither touches what is the other's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from docker import APIClient
from structlog.testing import capture_logs

from scheduler.launchers.docker import DockerLauncher
from scheduler.launchers.docker_config import DockerSettings
from tests.scheduler.launchers.rig import ImageMaker, Probe, Rig, container_of, containers, folder_of, until

pytestmark = pytest.mark.docker


async def open_rig(settings: DockerSettings) -> Rig:
    gone: list[tuple[str, str]] = []
    launcher = DockerLauncher(settings, folder_of, lambda slot_id, reason: gone.append((slot_id, reason)))
    await launcher.open()
    return Rig(launcher, gone)


@pytest.fixture
async def other(docker_settings: DockerSettings) -> AsyncIterator[Rig]:
    """The neighbour."""
    rig = await open_rig(msgspec.structs.replace(docker_settings, installation="0" * 12))
    yield rig
    await rig.launcher.close()
    rig.close()


async def lives(rig: Rig, probe: Probe) -> bool:
    return await probe.ask("host") == "slot" and rig.gone == []


async def test_each_opens_lists_and_closes_beside_the_others_slots(
    other: Rig, docker_settings: DockerSettings, images: ImageMaker, client: APIClient, set_name: str
) -> None:
    # It has what is left for a slot to take: a container that holds the content of a VOLUME.
    reference = images.make('CMD ["/x"]', "VOLUME /data")
    theirs, their_probe = await other.run(reference, slot_id="s1")
    their_containers = containers(client, set_name)
    assert len(their_containers) == 2

    settings = msgspec.structs.replace(docker_settings, relist_s=0.2)
    with capture_logs() as lines:
        ours = await open_rig(settings)
    found = [line for line in lines if line["event"] == "containers of another installation found"]
    assert [(line["installation"], line["containers"]) for line in found] == [("0" * 12, 2)]
    # Slots of one id, too.
    order, probe = await ours.run(reference, slot_id="s1")
    assert "/" + container_of(set_name, "s1") in containers(client, set_name)
    await asyncio.sleep(1)  # several lists
    assert await lives(other, their_probe)
    assert await lives(ours, probe)

    # The end of one's slot is not the end of the other's.
    await other.launcher.stop(theirs.slot_id)
    await until(lambda: len(containers(client, set_name)) == 2, "the other's containers are gone")
    assert await lives(ours, probe)
    _, their_probe = await other.run(reference, slot_id="s2")
    await probe.end("exit 3")
    await until(
        lambda: ours.gone == [(order.slot_id, "its container ended with exit code 3")], "it is reported"
    )

    await ours.launcher.close()
    ours.close()
    assert await lives(other, their_probe)
    assert len(containers(client, set_name)) == 2


async def test_a_killed_sets_slots_are_removed_by_its_next_run_alone(
    other: Rig, docker_settings: DockerSettings, images: ImageMaker, client: APIClient, set_name: str
) -> None:
    reference = images.make('CMD ["/x"]')
    _, their_probe = await other.run(reference)
    killed = await open_rig(docker_settings)
    await killed.run(reference)
    assert len(containers(client, set_name)) == 2
    # A killed one neither closes nor hears anything.
    killed.launcher._events.close()
    again = await open_rig(docker_settings)
    assert len(containers(client, set_name)) == 1
    assert await lives(other, their_probe)
    for rig in (again, killed):
        await rig.launcher.close()
        rig.close()
