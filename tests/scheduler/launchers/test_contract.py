"""The contract of every launcher. Nothing here knows an engine: `stands` has a stand for each launcher."""

from __future__ import annotations

import asyncio

import pytest

from scheduler.errors import EngineRefused, EngineUnavailable, ImageUnknown
from scheduler.policy.supply import LIFE_MARGIN_S
from sets.api.call import ASYNC_TIMEOUT_MAX_S
from tests.scheduler.conftest import PATIENCE_S, until
from tests.scheduler.launchers.stands import Stand


async def test_a_slot_runs_once_its_start_returns(stand: Stand) -> None:
    order = await stand.start()
    assert await stand.left() == [order.slot_id]
    await stand.launcher.check()
    assert stand.gone == []


async def test_a_slot_that_is_stopped_leaves_nothing(stand: Stand) -> None:
    order = await stand.start()
    await stand.launcher.stop(order.slot_id)
    await stand.until_left()
    await stand.launcher.stop(order.slot_id)
    await stand.launcher.stop("never-heard-of")
    assert stand.gone == []


async def test_a_slot_is_there_for_longer_than_the_longest_task_may_run(stand: Stand) -> None:
    life_s = stand.launcher.slot_life_s
    assert life_s is None or life_s >= ASYNC_TIMEOUT_MAX_S + LIFE_MARGIN_S


async def test_a_launcher_says_which_slots_are_there_until_nothing_of_them_is_left(stand: Stand) -> None:
    one, other = await stand.start(), await stand.start()
    assert await stand.launcher.there() == {one.slot_id, other.slot_id}
    await stand.launcher.stop(one.slot_id)
    async with asyncio.timeout(PATIENCE_S):
        while one.slot_id in await stand.launcher.there():  # noqa: ASYNC110 (whatever the engine still does)
            await asyncio.sleep(0.01)
    assert await stand.left() == [other.slot_id]


async def test_a_slot_that_ends_is_reported_once(stand: Stand) -> None:
    order = await stand.start()
    await stand.end(order.slot_id)
    await until(lambda: bool(stand.gone))
    await stand.until_left()
    await stand.launcher.stop(order.slot_id)
    ((slot_id, reason),) = stand.gone
    assert slot_id == order.slot_id
    assert "ended" in reason
    assert await stand.launcher.was_out_of_memory(order.slot_id) is False


async def test_a_slot_whose_guest_has_said_hello_is_reported_when_it_ends(stand: Stand) -> None:
    order = await stand.start()
    stand.launcher.ready(order.slot_id)
    stand.launcher.ready("never-heard-of")
    assert await stand.launcher.there() == {order.slot_id}
    await stand.end(order.slot_id)
    await until(lambda: bool(stand.gone))
    assert [slot_id for slot_id, _ in stand.gone] == [order.slot_id]
    await stand.until_left()


async def test_a_slot_that_somebody_else_removes_is_reported(stand: Stand) -> None:
    order = await stand.start()
    await stand.remove(order.slot_id)
    await until(lambda: bool(stand.gone))
    assert [slot_id for slot_id, _ in stand.gone] == [order.slot_id]
    assert await stand.launcher.was_out_of_memory(order.slot_id) is False


async def test_a_slot_whose_init_the_kernel_killed_for_memory_is_told_apart(stand: Stand) -> None:
    order = await stand.start(memory_mib=16)
    await stand.use_up_memory(order.slot_id)
    await until(lambda: bool(stand.gone))
    assert await stand.launcher.was_out_of_memory(order.slot_id) is True


async def test_an_end_is_never_reported_before_its_start_returned(stand: Stand) -> None:
    for number in range(1, 6):
        order = await stand.order()
        await stand.start_one_that_ends_at_once(order)
        reported = number - 1
        assert len(stand.gone) == reported
        await until(lambda reported=reported: len(stand.gone) > reported)  # type: ignore[misc]
        assert stand.gone[-1][0] == order.slot_id


async def test_a_slot_is_started_once(stand: Stand) -> None:
    order = await stand.start()
    with pytest.raises(EngineRefused, match=f"{order.slot_id} was started already"):
        await stand.launcher.start(order)
    assert await stand.left() == [order.slot_id]


async def test_a_start_that_is_cancelled_leaves_nothing(stand: Stand) -> None:
    for delay_s in (0.0, 0.004, 0.03, 0.06):
        starting = asyncio.create_task(stand.launcher.start(await stand.order()))
        await asyncio.sleep(delay_s)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    order = await stand.start()
    await stand.until_left(order.slot_id)


async def test_a_slot_stopped_while_it_starts_does_not_stay(stand: Stand) -> None:
    order = await stand.order()
    starting = asyncio.create_task(stand.launcher.start(order))
    await asyncio.sleep(0.01)
    await stand.launcher.stop(order.slot_id)
    with pytest.raises(EngineRefused, match="stopped while it started"):
        await starting
    await stand.until_left()


async def test_an_image_deleted_meanwhile_is_unknown(stand: Stand) -> None:
    order = await stand.order()
    await stand.delete_image()
    with pytest.raises(ImageUnknown, match=order.image.reference):
        await stand.launcher.start(order)
    assert await stand.left() == []


async def test_close_leaves_nothing(stand: Stand) -> None:
    for _ in range(2):
        await stand.start()
    under_way = [asyncio.create_task(stand.launcher.start(await stand.order())) for _ in range(6)]
    await asyncio.sleep(0.05)
    await stand.launcher.close()
    await stand.launcher.close()
    outcomes = await asyncio.gather(*under_way, return_exceptions=True)
    assert await stand.left() == []
    assert {type(outcome) for outcome in outcomes} <= {EngineRefused, EngineUnavailable, type(None)}
    with pytest.raises(EngineUnavailable):
        await stand.launcher.start(await stand.order())


# -- what an earlier run left


async def test_a_launcher_that_is_not_open_is_not_there(stand: Stand) -> None:
    with pytest.raises(EngineUnavailable):
        await stand.next_run().check()


async def test_slots_of_an_earlier_run_are_removed_at_open(stand: Stand) -> None:
    for _ in range(3):
        await stand.start()
    later = stand.next_run()
    await later.open()
    assert await stand.left() == []
    await later.check()


async def test_a_slot_that_was_left_behind_is_as_one_that_was_never_started(stand: Stand) -> None:
    order = await stand.start()
    later = stand.next_run()
    await later.open()
    await later.stop(order.slot_id)
    await stand.until_left()
    assert stand.gone_of_next_run == []


async def test_slots_of_another_installation_are_left_alone(stand: Stand) -> None:
    order = await stand.start()
    stranger = stand.next_run(installation="0" * 12)
    await stranger.open()
    await stranger.close()
    assert await stand.left() == [order.slot_id]
    assert stand.gone == []
