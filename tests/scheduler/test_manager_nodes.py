"""A set whose slots are on other machines: nodes that come, drain and go, as its executor tells."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from scheduler.errors import NoNode, QueueTimeout, Unavailable
from scheduler.execution import ExecutorEvents
from scheduler.policy.node import NodeFacts, Standing
from scheduler.task import State
from tests.scheduler.conftest import NewWorld, World, until
from tests.scheduler.fakes import cat


def node(name: str, **changes: object) -> NodeFacts:
    facts: dict[str, object] = {"cpu_percent": 200, "memory_mib": 4096, "max_slots": 4}
    return NodeFacts(name, **{**facts, **changes})  # type: ignore[arg-type]


def events(world: World) -> ExecutorEvents:
    return cast(ExecutorEvents, world.executor.events)


async def test_a_set_without_a_node_is_not_ready_and_refuses_tasks(new_world: NewWorld) -> None:
    world = await new_world(own_node=False)
    with pytest.raises(NoNode, match="No machine of this set answers"):
        await world.manager.check()
    with pytest.raises(NoNode, match="No machine of this set answers"):
        await world.run()
    events(world).node_ready(node("n1"))
    await world.manager.check()
    world.executor.program = cat
    assert (await world.run(b"in"))[1] == b"in"
    assert [order.node for order in world.launcher.orders] == ["n1"]


async def test_the_set_s_own_machine_is_no_name_to_a_launcher(world: World) -> None:
    world.executor.program = cat
    await world.run()
    assert [order.node for order in world.launcher.orders] == [""]


async def test_a_lost_node_s_tasks_run_on_another(new_world: NewWorld) -> None:
    world = await new_world(own_node=False)
    events(world).node_ready(node("n1"))
    task = await world.submit(b"in")
    first = await world.started()
    events(world).node_draining("n1")
    events(world).node_ready(node("n2"))
    assert not first.killed, "draining alone ends no task"
    world.executor.lose(first.slot_id, "its node is lost")
    events(world).node_lost("n1", "its link broke")
    second = await world.started(2)
    assert [order.node for order in world.launcher.orders] == ["n1", "n2"]
    second.exit(0, b"out")
    ended = await world.wait(task)
    assert (ended.state, ended.attempts, await world.stdout(ended)) == (State.SUCCEEDED, 2, b"out")
    world.assert_nothing_left()


async def test_an_end_of_the_first_attempt_that_comes_late_does_not_count(new_world: NewWorld) -> None:
    """The node was cut off, and another attempt has begun."""
    world = await new_world(own_node=False)
    events(world).node_ready(node("n1"))
    task = await world.submit(b"in")
    first = await world.started()
    world.executor.lose(first.slot_id, "its node is lost")
    events(world).node_lost("n1", "its link broke")
    events(world).node_ready(node("n2"))
    second = await world.started(2)
    assert (first.lease.number, second.lease.number) == (1, 2)
    second.exit(0, b"stale", lease=first.lease)
    third = await world.started(3)
    third.exit(0, b"right")
    ended = await world.wait(task)
    assert await world.stdout(ended) == b"right"


async def test_a_slot_whose_executor_cannot_listen_is_started_again(new_world: NewWorld) -> None:
    world = await new_world(own_node=False)
    world.executor.program = cat
    world.executor.refuse_expect = [Unavailable("no link to node n1")]
    events(world).node_ready(node("n1"))
    assert (await world.run(b"in"))[1] == b"in"


async def test_a_sync_task_waits_for_a_node_that_drains_no_longer(new_world: NewWorld) -> None:
    world = await new_world(own_node=False)
    world.executor.program = cat
    events(world).node_ready(node("n1"))
    await world.run()
    events(world).node_draining("n1")
    with pytest.raises(QueueTimeout):
        await world.run(queue_timeout_s=0.05)
    waiting = world.begin(b"later")
    await asyncio.sleep(0)
    events(world).node_ready(node("n1"))
    assert (await waiting)[1] == b"later"
    await until(lambda: not world.facts()["tasks_waiting"])


async def test_a_set_whose_cluster_starts_no_slots_says_so_and_uses_those_it_has(world: World) -> None:
    world.executor.program = cat
    await world.run()
    world.manager.node_stands("", Standing.CLOSED, "node n1 is disconnected for the cluster")
    assert (await world.run(b"warm"))[1] == b"warm"
    with pytest.raises(QueueTimeout, match="no new slot starts: node n1 is disconnected for the cluster"):
        await world.run(account="other", queue_timeout_s=0.05)
    world.manager.node_stands("", Standing.DRAINED, "an operator drains node n1")
    with pytest.raises(NoNode):
        await world.manager.check()
    world.manager.node_stands("", Standing.OPEN, "")
    await world.manager.check()
    assert (await world.run(b"again"))[1] == b"again"
