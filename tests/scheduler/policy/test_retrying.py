"""Which tasks run again after a failure of their own, and which become dead letters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler.backoff import Backoff
from scheduler.policy.limits import Retries
from scheduler.policy.retrying import OWN_FAILURES, is_dead_letter, runs_again
from scheduler.task import FailedAttempt, Kind, Reason, State, Task, TaskSpec
from tests.scheduler.policy.house import assert_books_are_empty
from tests.scheduler.policy.test_nodes import node, pool
from tests.scheduler.policy.world import SimTask, World

FAILED = FailedAttempt(Reason.EXIT, 1, None, 1, 1, 1)

tasks = st.builds(
    Task,
    id=st.just("a-1"),
    spec=st.builds(
        TaskSpec,
        account=st.just("acme"),
        image=st.just("cat:1"),
        image_digest=st.just("sha256:00"),
        args=st.just(()),
        kind=st.sampled_from(Kind),
        retries=st.integers(0, 3),
        retry_exit_codes=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    ),
    created_us=st.just(1),
    state=st.sampled_from(State),
    reason=st.none() | st.sampled_from(Reason),
    exit_code=st.none() | st.integers(0, 3),
    failed_attempts=st.integers(0, 3).map(lambda failures: (FAILED,) * failures),
)


@given(tasks)
def test_only_what_was_asked_for_runs_again(task: Task) -> None:
    if runs_again(task):
        assert task.state is State.FAILED
        assert task.reason in OWN_FAILURES
        assert len(task.failed_attempts) < task.spec.retries
        assert not task.spec.retry_exit_codes or task.exit_code in task.spec.retry_exit_codes
    elif task.state is State.FAILED and task.reason in OWN_FAILURES and not task.spec.retry_exit_codes:
        assert len(task.failed_attempts) >= task.spec.retries


@given(tasks)
def test_no_task_is_both_run_again_and_a_dead_letter(task: Task) -> None:
    assert not (runs_again(task) and is_dead_letter(task))
    assert is_dead_letter(task) == (
        task.spec.kind is Kind.ASYNC and task.state is State.FAILED and task.reason is Reason.PLATFORM
    )


def test_a_task_that_runs_again_pauses_and_comes_behind_those_that_wait() -> None:
    world = World([node("a", cores=1)], retries=Retries(own=Backoff(8.0, 8.0)))
    world.arrive(pool(), 20.0)
    world.run(1.0)
    again = world.tasks["again"] = SimTask("again", pool(), 1.0)
    world._do(world.cell.attempt_failed("again", pool(), 1, world.now))
    assert "its next attempt, in" in (world.cell.waiting_for("again", world.now) or "")
    assert world.cell.waiting == 0
    others = [world.arrive(pool(), 1.0) for _ in range(3)]
    world.run(15.0)
    assert world.cell.waiting == 4
    world.run()
    assert [task.ends for task in (*others, again)] == [["succeeded"]] * 4
    assert again.started_at > max(task.started_at for task in others)
    assert_books_are_empty(world.cell)


def test_a_task_in_its_pause_can_leave() -> None:
    world = World([node("a", cores=1)], retries=Retries(own=Backoff(8.0, 8.0)))
    again = world.tasks["again"] = SimTask("again", pool(), 1.0)
    world._do(world.cell.attempt_failed("again", pool(), 1, world.now))
    world.leave(again)
    world.run(100.0)
    assert again.started_at == []
    assert_books_are_empty(world.cell)
