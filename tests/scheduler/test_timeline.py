"""The moments of tasks, one way through the set after another: which come, in which order, and which never do."""

from __future__ import annotations

import asyncio
from typing import Any

from scheduler.moments import LOST_KEPT, WHY_CHARS, Moments
from scheduler.policy.limits import Limits
from scheduler.task import FailedAttempt, Kind, Priority, Reason, State, Task, TaskSpec
from scheduler.timeline import MOMENTS, Phase, moments_of, phases_of
from tests.scheduler.conftest import NewWorld, World, until, until_state
from tests.scheduler.fakes import FakeRun, cat

ONE_CORE = Limits(cpu_percent=100, start_backoff_s=0.01, patience_s=0.05)
ALL = set(MOMENTS)


class Ticking:
    """A wall clock that goes on by ten microseconds whenever it is read, so that no two moments are equal."""

    def __init__(self) -> None:
        self.now_us = 1_700_000_000_000_000

    def __call__(self) -> int:
        self.now_us += 10
        return self.now_us


async def timed(new_world: NewWorld, **settings: Any) -> World:
    return await new_world(now_us=Ticking(), **settings)


def reached(task: Task) -> set[str]:
    return {name for name, us in moments_of(task).items() if us is not None}


def assert_in_order(task: Task, *names: str) -> None:
    """The moments come one after another, or at the same time."""
    moments = moments_of(task)
    times = [moments[name] for name in names]
    assert None not in times, moments
    assert times == sorted(times, key=lambda us: us or 0), moments


def phases(task: Task) -> list[str]:
    return [phase.name for phase in phases_of(task)]


USUAL = ("queued", "slot_wanted", "slot_ready", "started", "first_byte", "ended", "recorded")


async def test_a_sync_task_cold_and_warm(new_world: NewWorld) -> None:
    world = await timed(new_world)
    world.executor.program = cat
    for cold in (True, False):
        task, _ = await world.run(b"hello")
        assert task.cold_start is cold
        assert reached(task) == ALL
        assert_in_order(task, *USUAL)
        moments = moments_of(task)
        # The whole input was there before the task; the output came together with the end.
        assert moments["input_ready"] == moments["queued"] == task.created_us
        assert moments["first_byte"] == moments["ended"]
        assert phases(task) == ["accept", "slot_wait", "begin", "run", "record"]
    # The row has them, too.
    kept = await world.store.get(task.id)
    assert kept is not None
    assert moments_of(kept) == moments


async def test_a_task_without_output_has_no_first_byte(new_world: NewWorld) -> None:
    world = await timed(new_world)
    world.executor.program = FakeRun.exit
    task, _ = await world.run()
    assert reached(task) == ALL - {"first_byte"}


async def test_output_that_is_streamed_has_its_first_byte_before_the_end(new_world: NewWorld) -> None:
    world = await timed(new_world)
    running = world.begin()
    run = await world.started()
    run.outgrow(b"first")
    run.exit(0, b"last")
    task, output = await running
    assert output == b"firstlast"
    moments = moments_of(task)
    assert moments["first_byte"] is not None
    assert moments["ended"] is not None
    assert moments["first_byte"] < moments["ended"]


async def test_a_streamed_input_is_there_once_its_last_byte_was_handed_on(new_world: NewWorld) -> None:
    world = await timed(new_world)
    live = await world.start()
    assert reached(live.task) == {"queued", "slot_wanted", "slot_ready", "started"}
    assert "input_wait" in phases(live.task)
    live.input_ended()
    run = await world.started()
    run.exit(0, b"out")
    await live.head(100)
    task = await world.manager.finish(live)
    assert reached(task) == ALL
    assert_in_order(task, "slot_ready", "started", "input_ready", "ended")
    (wait,) = [phase for phase in phases_of(task) if phase.name == "input_wait"]
    assert wait.to_us is not None
    assert wait.to_us > wait.from_us


async def test_an_async_task_shows_how_far_it_is_while_it_runs(new_world: NewWorld) -> None:
    world = await timed(new_world)
    world.launcher.prompt = False
    task = await world.submit()
    await until(lambda: world.launcher.orders)
    seen = await world.manager.get("acme", task.id)
    assert reached(seen) == {"queued", "input_ready", "slot_wanted"}
    assert [(phase.name, phase.to_us) for phase in phases_of(seen)][-1] == ("slot_wait", None)
    world.executor.hello(world.launcher.orders[0].slot_id)
    run = await world.started()
    seen = await until_state(world, task, State.RUNNING)
    await until(lambda: "started" in reached(seen))
    assert phases_of(seen)[-1].name == "run"
    assert phases_of(seen)[-1].to_us is None
    run.exit(0, b"out")
    ended = await world.wait(task)
    assert reached(ended) == ALL
    assert_in_order(ended, *USUAL)
    assert ended == await world.store.get(task.id)


async def test_a_task_that_fails_reaches_its_end_and_its_record(new_world: NewWorld) -> None:
    world = await timed(new_world)
    task = await world.submit()
    (await world.started()).exit(3, stderr=b"no")
    ended = await world.wait(task)
    assert (ended.state, reached(ended)) == (State.FAILED, ALL - {"first_byte"})


async def test_a_task_that_is_cancelled_while_queued_has_no_slot(new_world: NewWorld) -> None:
    world = await timed(new_world)
    world.launcher.prompt = False
    task = await world.submit()
    await until(lambda: world.launcher.orders)
    cancelled = await world.manager.cancel("acme", task.id)
    assert cancelled.state is State.CANCELLED
    assert reached(cancelled) == {"queued", "input_ready", "slot_wanted", "ended", "recorded"}
    assert phases(cancelled) == ["accept", "slot_wait", "record"]
    waiting = world.begin()
    await until(lambda: world.facts()["tasks_known"] == 1)
    (known,) = world.manager._roster.entries.values()
    cancelled = await world.manager.cancel("acme", known.task.id)
    await until(lambda: not world.facts()["tasks_known"])
    assert reached(cancelled) == {"queued", "input_ready", "slot_wanted", "ended", "recorded"}
    (refused,) = await asyncio.gather(waiting, return_exceptions=True)
    assert isinstance(refused, Exception)


async def test_after_a_lost_attempt_the_moments_are_those_of_the_next(new_world: NewWorld) -> None:
    world = await timed(new_world)
    task = await world.submit()
    lost = await world.started()
    lost.outgrow(b"half")
    lost.lose("its guest is gone")
    (await world.started(2)).exit(0, b"whole")
    ended = await world.wait(task)
    assert reached(ended) == ALL
    assert_in_order(ended, *USUAL)
    (attempt,) = ended.lost
    assert "its guest is gone" in attempt.why
    moments = moments_of(ended)
    assert moments["slot_wanted"] is not None
    assert attempt.started_us < attempt.ended_us <= moments["slot_wanted"]
    assert phases(ended) == ["earlier_attempt", "slot_wait", "begin", "run", "record"]
    assert phases_of(ended)[0].why == attempt.why


async def test_a_sync_task_keeps_its_lost_attempt_too(new_world: NewWorld) -> None:
    world = await timed(new_world)
    running = world.begin()
    (await world.started()).lose()
    (await world.started(2)).exit(0, b"out")
    task, _ = await running
    assert len(task.lost) == 1
    assert_in_order(task, *USUAL)


async def test_an_attempt_that_gave_way_is_among_the_earlier_ones(new_world: NewWorld) -> None:
    world = await timed(new_world, limits=ONE_CORE)
    spare = await world.submit(priority=Priority.SPARE)
    await world.started()
    normal = world.begin(account="other")
    (await world.started(2)).exit()
    await normal
    (await world.started(3)).exit()
    ended = await world.wait(spare)
    assert [attempt.why for attempt in ended.lost] == ["it gave way to another task"]


async def test_an_attempt_that_failed_by_itself_is_among_the_earlier_ones(new_world: NewWorld) -> None:
    world = await timed(new_world, own_backoff_s=0.01)
    task = await world.submit(retries=1)
    (await world.started()).exit(7)
    (await world.started(2)).exit(0)
    ended = await world.wait(task)
    assert phases(ended) == ["earlier_attempt", "slot_wait", "begin", "run", "record"]
    assert phases_of(ended)[0].why == "it failed by itself: exit 7"


async def test_a_restart_of_the_set_is_a_lost_attempt(new_world: NewWorld) -> None:
    world = await timed(new_world)
    task = await world.submit()
    await world.started()
    await world.restart()
    (await world.started()).exit(0, b"out")
    ended = await world.wait(task)
    assert [attempt.why for attempt in ended.lost] == ["the set stopped"]
    assert_in_order(ended, *USUAL)


def a_task(**facts: Any) -> Task:
    return Task("a-1", TaskSpec("acme", "cat:1", "sha256:00", kind=Kind.ASYNC), created_us=1000, **facts)


def test_a_task_of_an_earlier_release_has_the_moments_that_its_row_knows() -> None:
    task = a_task(state=State.SUCCEEDED, started_us=1500, ended_us=2500)
    assert reached(task) == {"queued", "slot_ready", "ended"}
    assert phases_of(task) == [Phase("begin", 500, 1500), Phase("record", 1500, None)]


def test_a_clock_that_was_set_back_gives_no_phase_a_negative_length() -> None:
    task = a_task(started_us=900, ended_us=800, moments=Moments(0, 10, 0, None, 0))
    assert all(phase.to_us is None or phase.to_us >= phase.from_us for phase in phases_of(task))


def test_what_is_kept_of_lost_attempts_is_bounded() -> None:
    task = a_task()
    for number in range(3 * LOST_KEPT):
        task.begin_attempt(2000 + number, cold_start=False)
        task.requeue(3000 + number, f"{number} " + 1000 * "x", attempt_counts=False)
    assert [attempt.started_us for attempt in task.lost] == [
        2000 + 2 * LOST_KEPT + n for n in range(LOST_KEPT)
    ]
    assert {len(attempt.why) for attempt in task.lost} == {WHY_CHARS}


def test_a_failed_attempt_without_an_exit_code_says_its_signal_or_its_reason() -> None:
    task = a_task(
        failed_attempts=(
            FailedAttempt(Reason.SIGNAL, None, 11, 1500, 100, 50),
            FailedAttempt(Reason.OUT_OF_MEMORY, None, None, 2500, 100, 50),
        )
    )
    said = [phase.why for phase in phases_of(task)]
    assert said == ["it failed by itself: signal 11", "it failed by itself: out of memory"]
