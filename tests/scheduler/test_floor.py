"""The shell around the cell: its timer, and what becomes of it when the cell fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from scheduler.floor import Floor
from scheduler.policy.expiry import SWEEP_DUE
from scheduler.policy.limits import Limits
from scheduler.policy.node import NodeFacts
from scheduler.task import State
from tests.scheduler.conftest import Clock, NewWorld, until


async def test_a_cell_that_fails_when_it_is_woken_is_woken_again(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.floor._AGAIN_S", 0.001)
    world = await new_world(limits=Limits(keep_idle_s=0.05))
    cell = world.manager._floor._cell
    wake = cell.wake
    calls: list[float] = []

    def broken(now: float) -> object:
        calls.append(now)
        if len(calls) <= 3:
            raise ValueError("a bug")
        return wake(now)

    monkeypatch.setattr(cell, "wake", broken)
    running = world.begin()
    (await world.started()).exit(0, b"fine")
    with capture_logs() as logs:
        # Its slot retires when it has been idle for long enough, in spite of all.
        await until(lambda: world.facts()["slots_idle"] == 0)
    assert (await running)[1] == b"fine"
    assert [entry["log_level"] for entry in logs].count("error") == 3


async def test_the_timer_follows_what_the_cell_wants(new_world: NewWorld) -> None:
    """One timer: an earlier wish moves it, and a set with nothing to do has only the expiry of rows to wait for."""
    world = await new_world(limits=Limits(cpu_percent=100, keep_idle_s=3600.0), expire_every_s=1800.0)
    floor = world.manager._floor
    at = floor._timer_at
    assert at == floor._cell.wake_at
    running = world.begin(queue_timeout_s=5)
    run = await world.started()
    waiting = world.begin(queue_timeout_s=7)
    await until(lambda: world.facts()["tasks_waiting"] == 1)
    assert floor._timer_at == floor._cell.wake_at < at
    run.exit()
    await running
    (await world.started(2)).exit()
    await waiting


FLOOR_EVENTS: dict[str, Callable[[Floor], object]] = {
    "a task's outcome is stored": lambda floor: floor.task_ended(),
    "a slot is ready": lambda floor: floor.slot_ready("unknown"),
    "a slot is free": lambda floor: floor.slot_freed("unknown", 0),
    "a slot is given back": lambda floor: floor.give_back("unknown"),
    "a slot is gone": lambda floor: floor._slot_gone("unknown", "it died"),
    "a node is ready": lambda floor: floor.node_ready(NodeFacts("n1", 100, 512, 1)),
    "a node drains": lambda floor: floor.node_draining("unknown"),
    "a node is lost": lambda floor: floor.node_lost("unknown", "it is silent"),
}


@pytest.mark.parametrize("event", FLOOR_EVENTS)
async def test_the_timer_is_looked_at_after_every_event(new_world: NewWorld, event: str) -> None:
    world = await new_world(clock=Clock(), expire_every_s=1800.0)
    floor = world.manager._floor
    floor._cell.books.timers.set(5.0, floor._clock(), (SWEEP_DUE, ""))
    assert floor._timer_at > floor._cell.wake_at
    FLOOR_EVENTS[event](floor)
    assert floor._timer_at == floor._cell.wake_at == floor._clock() + 5.0


async def test_the_timer_is_looked_at_when_the_last_attempt_is_lost(new_world: NewWorld) -> None:
    world = await new_world(clock=Clock(), expire_every_s=1800.0, max_attempts=1)
    floor = world.manager._floor
    running = world.begin()
    run = await world.started()
    (entry,) = world.manager._roster.entries.values()
    floor._cell.books.timers.set(5.0, floor._clock(), (SWEEP_DUE, ""))
    assert not floor.attempt_lost(entry, "lost")
    assert floor._timer_at == floor._clock() + 5.0
    run.exit()
    await running


async def test_all_times_of_a_task_are_the_wall_clock_s(new_world: NewWorld) -> None:
    """The set reads the wall clock in one way, which a simulation replaces."""
    world = await new_world(now_us=lambda: 1_000_000_000_000_000)
    running = world.begin()
    (await world.started()).exit()
    task, _ = await running
    submitted = await world.submit()
    (await world.started(2)).exit()
    for each in (task, await world.wait(submitted)):
        assert each.created_us == each.started_us == each.ended_us == 1_000_000_000_000_000
        assert each.queue_us == 0


async def test_a_decision_that_fails_keeps_no_other_from_being_carried_out(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks whose time is up in the same moment: killing the first fails, the second is killed all the same."""
    world = await new_world(limits=Limits(cpu_percent=200))
    floor = world.manager._floor
    running = [world.begin(timeout_s=1000), world.begin(timeout_s=1000)]
    first, second = [await world.started(number) for number in (1, 2)]

    def broken() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(first, "kill", broken)
    with capture_logs() as logs:
        floor._apply(floor._cell.wake(floor._clock() + 1000))
    assert second.killed
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == [
        "a decision could not be carried out, which is a bug"
    ]
    first.exit(0, b"by itself")
    tasks = [await run for run in running]
    assert sorted(task.state for task, _ in tasks) == [State.SUCCEEDED, State.TIMED_OUT]
