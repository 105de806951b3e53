"""A registrar between a set and the double of a cluster: many orders, and parts that go away and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from scheduler.errors import EngineRefused, EngineUnavailable, NoRoom
from scheduler.image import Image
from scheduler.launchers.contract import SlotOrder
from scheduler.launchers.doorway import read_cpu
from scheduler.policy.node import Standing
from tests.scheduler.conftest import until
from tests.scheduler.launchers.nomad.stand import STARTS_AT_ONCE, NomadDoubleStand


@pytest.fixture
async def stand(set_name: str) -> AsyncIterator[NomadDoubleStand]:
    stand = NomadDoubleStand(set_name)
    await stand.prepare()
    await stand.launcher.open()
    yield stand
    await stand.close()


async def orders(stand: NomadDoubleStand, count: int, **changes: object) -> list[SlotOrder]:
    return [msgspec.structs.replace(await stand.order(), **changes) for _ in range(count)]


async def test_orders_of_one_moment_and_pool_share_a_job(stand: NomadDoubleStand) -> None:
    made = await orders(stand, 5)
    await asyncio.gather(*map(stand.launcher.start, made))
    (job,) = stand.double.jobs.values()
    assert [group["Name"] for group in job["TaskGroups"]] == [order.slot_id for order in made]


async def test_every_slot_s_executor_is_left_its_limit_and_the_job_reserves_a_part(
    stand: NomadDoubleStand,
) -> None:
    """On the set's own machine as on others."""
    (own,) = await orders(stand, 1)
    (far,) = await orders(stand, 1, node="far")
    for order in (own, far):
        await stand.launcher.start(order)
    reserved = {
        group["Name"]: task["Resources"]["CPU"]
        for job in stand.double.jobs.values()
        for group in job["TaskGroups"]
        for task in group["Tasks"]
    }
    # A tenth (`cpu_reservation_percent`), where a hundredth of a core is 10 in Nomad's count.
    percent = own.pool.resources.cpu_percent
    assert reserved == {own.slot_id: percent, far.slot_id: percent}
    for order in (own, far):
        assert read_cpu(stand.folder_of(order.slot_id)) == percent


async def test_no_more_slots_start_at_a_time_than_the_nodes_may(stand: NomadDoubleStand) -> None:
    made = await orders(stand, 3 * STARTS_AT_ONCE)
    # Each in a job of its own, as orders of different moments are.
    starts = []
    for order in made:
        starts.append(asyncio.create_task(stand.launcher.start(order)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.gather(*starts)
    assert len(stand.double.live("")) == len(made)
    assert stand.double.most_pending <= STARTS_AT_ONCE


async def test_a_slot_that_is_too_large_for_every_node_is_answered_with_what_is_missing(
    stand: NomadDoubleStand,
) -> None:
    with pytest.raises(NoRoom, match="cannot place a slot: no node has enough free memory: 1 node is full"):
        await stand.launcher.start(await stand.order(memory_mib=100_000))
    # Nobody waits for it any more.
    await until(lambda: not stand.double.jobs)


async def test_an_order_that_the_registrar_refuses_names_the_member_at_fault(stand: NomadDoubleStand) -> None:
    (order,) = await orders(stand, 1)
    bad = msgspec.structs.replace(order, pool=msgspec.structs.replace(order.pool, account="No Account"))
    with pytest.raises(EngineRefused, match="account: 'No Account' is not an account's name"):
        await stand.launcher.start(bad)


async def test_a_set_has_no_more_slots_than_its_registrar_allows(stand: NomadDoubleStand) -> None:
    """An attacker in the set orders without end; the bound is not the set's to change."""
    await stand.stop_registrars()
    await until(lambda: stand.launcher_reason != "")
    stand.max_slots = 3
    await stand.prepare()
    await until(lambda: stand.launcher_reason == "")
    made = await orders(stand, 3)
    await asyncio.gather(*map(stand.launcher.start, made))
    with pytest.raises(
        EngineRefused, match=r"slots: the set has all the slots that its registrar allows: `max_slots` is 3"
    ):
        await stand.launcher.start(await stand.order())
    # One that ends makes room, once it has ended.
    await stand.launcher.stop(made[0].slot_id)
    await until(lambda: stand.leaving == 0)
    await stand.start()


async def test_nodes_pull_no_image_from_a_registry_that_the_registrar_does_not_allow(
    stand: NomadDoubleStand,
) -> None:
    (order,) = await orders(stand, 1)
    image = msgspec.structs.replace(
        order.image, reference="cat:1", location=f"169.254.1.1/cat@{order.image.digest}"
    )
    with pytest.raises(EngineRefused, match=r"nodes pull no images from 169\.254\.1\.1"):
        await stand.launcher.start(msgspec.structs.replace(order, image=image))
    assert stand.double.jobs == {}


async def test_a_start_is_answered_at_once_while_the_cluster_is_away_and_running_slots_stay(
    stand: NomadDoubleStand,
) -> None:
    running = await stand.start()
    stand.double.broken = True
    await until(lambda: stand.launcher_reason != "")
    with pytest.raises(EngineUnavailable):
        await stand.launcher.check()
    with pytest.raises(EngineUnavailable, match="500"):
        await stand.launcher.start(await stand.order())
    assert stand.gone == []
    stand.double.broken = False
    await until(lambda: stand.launcher_reason == "")
    later = await stand.start()
    assert await stand.left() == sorted([running.slot_id, later.slot_id])


async def test_a_slot_that_ended_while_the_registrar_was_away_is_reported_when_it_is_back(
    stand: NomadDoubleStand,
) -> None:
    kept, ended = await stand.start(), await stand.start()
    await stand.stop_registrars()
    await until(lambda: stand.launcher_reason == "the registrar is away")
    with pytest.raises(EngineUnavailable, match="the registrar is away"):
        await stand.launcher.start(await stand.order())
    stand.double.end(ended.slot_id, 3)
    await stand.prepare()
    await until(lambda: bool(stand.gone))
    assert [slot_id for slot_id, _ in stand.gone] == [ended.slot_id]
    assert await stand.left() == [kept.slot_id]
    # Nothing of it is left to wait for.
    await until(lambda: stand.leaving == 0)


async def test_an_image_that_would_be_interpolated_is_the_users_to_mend(stand: NomadDoubleStand) -> None:
    (order,) = await orders(stand, 1)
    image = Image("cat:1", order.image.digest, order.image.image_id, env=("A${x}=1",))
    with pytest.raises(Exception, match="a cluster would replace"):
        await stand.launcher.start(msgspec.structs.replace(order, image=image))


async def test_an_hour_without_the_cluster_costs_starts_alone(stand: NomadDoubleStand) -> None:
    running = [await stand.start() for _ in range(3)]
    # These are under way when it goes.
    stand.double.start_takes_s = 3600
    under_way = [asyncio.create_task(stand.launcher.start(await stand.order())) for _ in range(20)]
    await until(lambda: stand.double.most_pending >= STARTS_AT_ONCE)
    stand.double.broken = True
    await until(lambda: stand.launcher_reason != "")
    given_up, *others = [order.slot_id for order in running]
    await stand.launcher.stop(given_up)
    for _ in range(6):
        stand.ahead_s += 600
        for _ in range(100):
            with pytest.raises(EngineUnavailable, match="a server of the double is broken"):
                await stand.launcher.start(await stand.order())
    for starting in under_way:
        starting.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)
    assert stand.gone == []
    assert set(others) <= set(await stand.left())
    stand.double.start_takes_s = 0.1
    stand.double.broken = False
    await until(lambda: stand.launcher_reason == "")
    # All that was given up meanwhile goes, nothing else does, and new slots start.
    later = await stand.start()
    await stand.until_left(*others, later.slot_id)
    assert stand.gone == []
    await until(lambda: len(stand.double.jobs) == len(others) + 1)


async def test_a_slot_that_is_given_up_makes_room_for_orders_that_wait(stand: NomadDoubleStand) -> None:
    stand.double.start_takes_s = 3600
    hanging = [asyncio.create_task(stand.launcher.start(await stand.order())) for _ in range(STARTS_AT_ONCE)]
    await until(lambda: stand.double.most_pending == STARTS_AT_ONCE)
    stand.double.start_takes_s = 0.1
    waiting = asyncio.create_task(stand.launcher.start(await stand.order()))
    for start in hanging:
        start.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
    await waiting
    assert stand.gone == []


async def test_the_set_is_told_where_new_slots_start(stand: NomadDoubleStand) -> None:
    running = await stand.start()
    both = ("double", "")

    async def stands(standing: Standing, reason: str) -> None:
        await until(lambda: [stand.nodes.get(node) for node in both] == [(standing, reason)] * 2)

    await stands(Standing.OPEN, "")
    stand.double.change_node("NodeDrain", Drain=True, SchedulingEligibility="ineligible")
    await stands(Standing.DRAINED, "an operator drains node double")
    stand.double.change_node("NodeDrain", Drain=False)
    await stands(Standing.CLOSED, "node double is marked ineligible in the cluster")
    # A registrar that comes back tells it again.
    await stand.stop_registrars()
    stand.nodes.clear()
    stand.double.node["SchedulingEligibility"] = "eligible"
    stand.double.node["Status"] = "disconnected"
    await stand.prepare()
    await stands(Standing.CLOSED, "node double is disconnected for the cluster")
    stand.double.change_node("NodeEvent", Status="ready")
    await stands(Standing.OPEN, "")
    assert await stand.left() == [running.slot_id]
    assert stand.gone == []


async def test_nodes_stand_as_they_did_while_the_cluster_does_not_list_them(stand: NomadDoubleStand) -> None:
    await until(lambda: stand.nodes.get("double") == (Standing.OPEN, ""))
    stand.double.refused["nodes"] = 0
    await until(lambda: stand.double.refused["nodes"] > 2)
    assert stand.nodes == {"double": (Standing.OPEN, ""), "": (Standing.OPEN, "")}
    await stand.start()
