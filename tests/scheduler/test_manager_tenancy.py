"""Accounts that need nodes of their own, on a whole task manager: when a node is clean, and after a restart."""

from __future__ import annotations

from scheduler.errors import EngineUnavailable
from scheduler.policy.limits import Limits
from scheduler.policy.tenancy import Tenancy
from scheduler.task import State
from tests.scheduler.conftest import PATIENCE_S, NewWorld, World, until
from tests.scheduler.fakes import cat

ALONE = Limits(account_tenancy={"bank": Tenancy.DEDICATED}, patience_s=0.01, start_backoff_s=0.01)


async def run_as(world: World, account: str, **facts: object) -> bytes:
    task, stdout = await world.run(b"in", account=account, **facts)  # type: ignore[arg-type]
    assert task.spec.account == account
    return stdout


async def test_a_node_serves_another_once_nothing_of_the_former_is_left(new_world: NewWorld) -> None:
    world = await new_world(limits=ALONE)
    world.executor.program = cat
    assert await run_as(world, "bank") == b"in"
    (first,) = world.launcher.orders
    # The launcher was told to stop it; its container hangs.
    world.launcher.remains.add(first.slot_id)
    task = await world.submit(b"in", account="shop")
    words = "one is being cleaned of another account's slots"
    await until(lambda: words in (world.manager.waiting_for(task) or ""))
    await until(lambda: first.slot_id in world.launcher.stopped)
    assert len(world.launcher.orders) == 1
    world.launcher.remains.clear()
    assert (await world.manager.wait("shop", task.id, PATIENCE_S)).state is State.SUCCEEDED
    assert [order.pool.account for order in world.launcher.orders] == ["bank", "shop"]


async def test_a_launcher_that_does_not_answer_keeps_a_node_from_changing_hands(new_world: NewWorld) -> None:
    world = await new_world(limits=ALONE)
    world.executor.program = cat
    await run_as(world, "bank")
    world.launcher.away = EngineUnavailable("the engine is away")
    task = await world.submit(b"in", account="shop")
    await until(lambda: world.launcher.stopped)
    assert len(world.launcher.orders) == 1
    world.launcher.away = None
    assert (await world.manager.wait("shop", task.id, PATIENCE_S)).state is State.SUCCEEDED


async def test_a_restarted_set_starts_no_slot_beside_those_that_it_left(new_world: NewWorld) -> None:
    world = await new_world(limits=ALONE)
    await world.close()
    world.make()
    world.executor.program = cat
    world.launcher.remains.add("left-by-an-earlier-run")
    await world.open()
    task = await world.submit(b"in", account="shop")
    await until(lambda: world.manager.waiting_for(task))
    words = "it waits until the slots of an earlier run of the set are removed from the nodes"
    assert words in (world.manager.waiting_for(task) or "")
    assert world.launcher.orders == []
    world.launcher.remains.clear()
    ended = await world.manager.wait("shop", task.id, PATIENCE_S)
    assert ended.state is State.SUCCEEDED
    assert len(world.launcher.orders) == 1


async def test_a_set_in_which_all_accounts_share_asks_no_launcher_what_is_there(world: World) -> None:
    world.executor.program = cat
    world.launcher.remains.add("left-by-an-earlier-run")
    assert await run_as(world, "bank") == await run_as(world, "shop") == b"in"
    assert world.launcher.stopped == [], "both have their slots"
