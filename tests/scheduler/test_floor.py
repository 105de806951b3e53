"""The shell around the cell: its timer, and what becomes of it when the cell fails."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from scheduler.policy.limits import Limits
from tests.scheduler.conftest import NewWorld, until


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
