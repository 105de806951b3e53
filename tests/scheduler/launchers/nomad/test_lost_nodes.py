"""A node of which the servers lose sight, on the double: its slots serve on, and count as there until they are known to
be gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from scheduler.errors import EngineRefused
from scheduler.launchers.contract import SlotOrder
from scheduler.launchers.nomad.book import LOST_S
from scheduler.policy.node import Standing
from tests.scheduler.conftest import until
from tests.scheduler.launchers.nomad.stand import NomadDoubleStand

NEVER_S = 3600.0


@pytest.fixture
async def stand(set_name: str) -> AsyncIterator[NomadDoubleStand]:
    stand = NomadDoubleStand(set_name)
    await stand.prepare()
    await stand.launcher.open()
    yield stand
    await stand.close()


async def connected(stand: NomadDoubleStand) -> SlotOrder:
    """A slot whose guest has said hello, and of which the cluster says that it starts."""
    stand.double.start_takes_s = NEVER_S
    order = await stand.order()
    starting = asyncio.create_task(stand.launcher.start(order))
    await until(lambda: bool(stand.double.live("")))
    stand.launcher.ready(order.slot_id)
    await starting
    return order


async def there(stand: NomadDoubleStand, *slots: SlotOrder) -> None:
    """Wait until of these slots, and of no others, anything may be left."""
    wanted = {each.slot_id for each in slots}
    async with asyncio.timeout(60):
        while await stand.launcher.there() != wanted:  # noqa: ASYNC110 (the cluster acts)
            await asyncio.sleep(0.01)


async def test_a_slot_runs_once_its_guest_says_so(stand: NomadDoubleStand) -> None:
    order = await connected(stand)
    assert await stand.left() == [order.slot_id]
    assert stand.gone == []


async def test_a_connected_slot_serves_on_while_the_cluster_has_lost_its_node(
    stand: NomadDoubleStand,
) -> None:
    """Nomad had not heard that it runs, and so calls it lost at once."""
    order = await connected(stand)
    stand.double.lose_node()
    await stand.found_lost(order.slot_id)
    # The registrar comes back meanwhile, and finds nothing else.
    await stand.stop_registrars()
    await until(lambda: stand.launcher_reason != "")
    await stand.prepare()
    await until(lambda: stand.launcher_reason == "")
    assert stand.gone == []
    await there(stand, order)
    # Its connection ends: so does the slot, but who knows what is left of it.
    await stand.launcher.stop(order.slot_id)
    await there(stand, order)
    stand.double.find_node()
    await there(stand)
    assert stand.gone == []


async def test_a_connected_slot_that_its_node_ends_when_it_is_back_is_reported(
    stand: NomadDoubleStand,
) -> None:
    order = await connected(stand)
    stand.double.lose_node()
    await stand.found_lost(order.slot_id)
    stand.double.start_takes_s = 0.1
    stand.double.find_node()
    await until(lambda: bool(stand.gone))
    assert [slot_id for slot_id, _ in stand.gone] == [order.slot_id]
    await there(stand)
    # Nor does the one stay that Nomad started in its place.
    await stand.until_left()


async def test_a_start_fails_whose_node_is_lost_and_counts_as_left_there_for_a_while(
    stand: NomadDoubleStand,
) -> None:
    stand.double.start_takes_s = NEVER_S
    order = await stand.order()
    starting = asyncio.create_task(stand.launcher.start(order))
    await until(lambda: bool(stand.double.live("")))
    stand.double.lose_node()
    with pytest.raises(EngineRefused, match="node double stopped reporting, and the cluster gave it up"):
        await starting
    await until(lambda: all(job["Stop"] for job in stand.double.jobs.values()))
    await there(stand, order)
    stand.ahead_s += LOST_S
    await there(stand)
    await until(lambda: not stand.double.jobs)


async def test_a_slot_that_was_given_up_on_a_lost_node_is_there_for_a_registrar_that_starts_again(
    stand: NomadDoubleStand,
) -> None:
    order = await stand.start()
    stand.double.lose_node()
    await until(lambda: stand.nodes.get("double", (Standing.OPEN, ""))[0] is Standing.CLOSED)
    await stand.launcher.stop(order.slot_id)
    await until(lambda: all(job["Stop"] for job in stand.double.jobs.values()))
    for _ in range(2):
        await stand.stop_registrars()
        await until(lambda: stand.launcher_reason != "")
        await stand.prepare()
        await until(lambda: stand.launcher_reason == "")
        await there(stand, order)
    stand.double.find_node()
    await there(stand)
