"""A set that an operator drains: what runs ends, what waits is not begun, and nothing new is taken until it resumes."""

from __future__ import annotations

from typing import cast

import pytest

from scheduler.errors import Draining, SlotLost, TaskUnknown
from scheduler.execution import ExecutorEvents
from scheduler.policy.limits import Limits
from scheduler.policy.node import NodeFacts
from scheduler.task import State
from tests.scheduler.conftest import NewWorld, World, until
from tests.scheduler.fakes import cat

ONE_CORE = Limits(cpu_percent=100, max_slots=1)


async def test_what_runs_ends_and_what_waits_is_begun_only_after_resume(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE)
    running = await world.submit(b"first")
    first = await world.started()
    waiting = await world.submit(b"second")
    world.manager.drain()
    assert (world.manager.draining, world.manager.running) == (True, 1)
    with pytest.raises(Draining):
        world.manager.check_room(world.spec())
    with pytest.raises(Draining):
        await world.manager.check()
    first.exit(0, b"out")
    assert (await world.wait(running)).state is State.SUCCEEDED
    await until(lambda: world.manager.running == 0)
    # Its slot is of no use to anybody now.
    await until(lambda: world.launcher.stopped)
    assert (await world.manager.get("acme", waiting.id)).state is State.QUEUED
    assert len(world.executor.runs) == 1
    world.executor.program = cat
    world.manager.resume()
    world.manager.check_room(world.spec())
    assert await world.stdout(await world.wait(waiting)) == b"second"
    world.assert_nothing_left()


async def test_callers_that_wait_are_refused_at_once(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE)
    await world.submit(b"first")
    first = await world.started()
    caller = world.begin(b"mine")
    await until(lambda: world.facts()["tasks_waiting"] == 1)
    world.manager.drain()
    with pytest.raises(Draining, match="is draining and takes no new tasks"):
        await caller
    first.exit(0)
    await until(lambda: world.manager.running == 0)


async def test_a_caller_whose_body_came_meanwhile_and_one_who_loses_its_slot_are_refused(
    world: World,
) -> None:
    caller = world.begin(b"mine")
    first = await world.started()
    world.manager.drain()
    with pytest.raises(Draining):
        await world.begin(b"late")
    world.executor.lose(first.slot_id, "its container is gone")
    with pytest.raises(SlotLost):
        await caller
    world.executor.program = cat
    world.manager.resume()
    await world.begin(b"again")


async def test_no_dead_letter_is_replayed_meanwhile(world: World) -> None:
    world.manager.drain()
    with pytest.raises(Draining):
        await world.manager.replay("acme", "a-dead")
    world.manager.resume()
    with pytest.raises(TaskUnknown):
        await world.manager.replay("acme", "a-dead")


async def test_a_task_that_runs_again_waits_for_resume(world: World) -> None:
    task = await world.submit(b"in")
    first = await world.started()
    world.manager.drain()
    world.executor.lose(first.slot_id, "its container is gone")
    await until(lambda: world.manager.running == 0)
    assert (await world.manager.get("acme", task.id)).state is State.QUEUED
    world.executor.program = cat
    world.manager.resume()
    assert (await world.wait(task)).attempts == 2


async def test_a_restarted_set_drains_no_longer_and_begins_what_waited(new_world: NewWorld) -> None:
    world = await new_world(limits=ONE_CORE)
    await world.submit(b"first")
    first = await world.started()
    waiting = await world.submit(b"second")
    world.manager.drain()
    first.exit(0)
    await until(lambda: world.manager.running == 0)
    await world.close()
    world.make()
    world.executor.program = cat
    await world.open()
    assert (await world.wait(waiting)).state is State.SUCCEEDED
    await world.manager.check()


async def test_a_task_says_that_it_waits_for_the_end_of_the_drain(world: World) -> None:
    world.manager.drain()
    task = await world.submit()
    said = "the set drains, and begins no task until an operator resumes it"
    assert world.manager.waiting_for(task) == said
    world.executor.program = cat
    world.manager.resume()
    ended = await world.wait(task)
    assert world.manager.waiting_for(ended) is None


async def test_a_set_that_stops_does_not_resume(world: World) -> None:
    world.manager.drain()
    world.manager.stopping = True
    world.manager.resume()
    assert world.manager.draining
    with pytest.raises(Draining):
        world.manager.check_room(world.spec())


async def test_nodes_that_come_and_go_meanwhile_begin_nothing_and_serve_afterwards(
    new_world: NewWorld,
) -> None:
    world = await new_world(own_node=False)
    events = cast(ExecutorEvents, world.executor.events)

    def node(name: str) -> NodeFacts:
        return NodeFacts(name, cpu_percent=200, memory_mib=4096, max_slots=4)

    events.node_ready(node("n1"))
    events.node_ready(node("n2"))
    task = await world.submit(b"in")
    await world.started()
    world.manager.drain()
    world.manager.drain()
    waiting = await world.submit(b"later")
    (first,) = world.executor.runs
    world.executor.lose(first.slot_id, "its node is lost")
    events.node_lost("n1", "its link broke")
    events.node_draining("n2")
    events.node_ready(node("n3"))
    events.node_ready(node("n1"))
    await until(lambda: world.manager.running == 0)
    assert [state.health.value for state in world.manager.overview.nodes(10) if state.facts.id == "n2"] == [
        "draining"
    ]
    assert len(world.executor.runs) == 1
    orders = len(world.launcher.orders)
    world.executor.program = cat
    world.manager.resume()
    for each in (task, waiting):
        assert (await world.wait(each)).state is State.SUCCEEDED
    assert {order.node for order in world.launcher.orders[orders:]} <= {"n1", "n3"}
