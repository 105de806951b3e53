"""Task ids sort by time and never repeat; tasks move only as the table says."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import IllegalMove
from scheduler.task import FINAL_STATES, LEGAL_MOVES, FailedAttempt, Reason, State, Task, TaskIds, TaskSpec

ID = re.compile(r"a-[0-9a-hjkmnp-tv-z]{26}")


def a_task(state: State = State.QUEUED) -> Task:
    spec = TaskSpec(account="acme", image="cat:1", image_digest="sha256:00")
    return Task("a-1", spec, created_us=1, state=state)


class TestIds:
    def test_rise_strictly_and_never_repeat(self) -> None:
        ids = TaskIds("a")
        made = [ids.new() for _ in range(10_000)]
        assert made == sorted(made)
        assert len(set(made)) == len(made)
        assert all(ID.fullmatch(id) for id in made)

    def test_sort_by_time_across_processes(self) -> None:
        """Two makers stand for two processes: after a millisecond the later id is the greater."""
        earlier, later = TaskIds("a"), TaskIds("a")
        for _ in range(20):
            first = earlier.new()
            time.sleep(0.002)
            assert first < later.new()

    def test_of_two_processes_differ(self) -> None:
        makers = [TaskIds("a") for _ in range(500)]
        assert len({maker.new() for maker in makers}) == 500

    def test_begin_with_the_set_s_name(self) -> None:
        assert TaskIds("set-b").new().rpartition("-")[0] == "set-b"

    def test_keep_rising_when_the_clock_steps_back(self) -> None:
        hour_us = 3_600_000_000
        times_us = iter([10 * hour_us, *[9 * hour_us] * 3])
        ids = TaskIds("a", lambda: next(times_us))
        before = ids.new()
        after = [ids.new() for _ in range(3)]
        assert [before, *after] == sorted({before, *after})

    @given(st.integers(min_value=1, max_value=2**47), st.integers(min_value=1, max_value=2**20))
    def test_sort_as_their_milliseconds(self, first_ms: int, later_by_ms: int) -> None:
        first = TaskIds("a", lambda: first_ms * 1000).new()
        assert first < TaskIds("a", lambda: (first_ms + later_by_ms) * 1000).new()


class TestMoves:
    @pytest.mark.parametrize("source", State)
    @pytest.mark.parametrize("target", State)
    def test_only_those_of_the_table(self, source: State, target: State) -> None:
        task = a_task(source)
        if target in LEGAL_MOVES[source]:
            task.move(target)
            assert task.state is target
        else:
            with pytest.raises(IllegalMove, match=f"{source} → {target}"):
                task.move(target)
            assert task.state is source

    def test_the_table_is_the_design_s(self) -> None:
        assert {state.value for state in FINAL_STATES} == {"succeeded", "failed", "timed_out", "cancelled"}
        assert State.QUEUED in LEGAL_MOVES[State.RUNNING]
        assert State.SUCCEEDED not in LEGAL_MOVES[State.QUEUED]
        assert set(LEGAL_MOVES) == set(State)

    @given(st.lists(st.sampled_from(State), max_size=20))
    def test_nothing_follows_an_end(self, wished: list[State]) -> None:
        task = a_task()
        for state in wished:
            had_ended, before = task.ended, task.state
            try:
                task.move(state)
            except IllegalMove:
                assert task.state is before
            else:
                assert not had_ended
        assert task.ended == (task.state in FINAL_STATES)


class TestAttempts:
    def test_each_begins_under_a_new_lease(self) -> None:
        task = a_task()
        task.begin_attempt(7, cold_start=True)
        assert (task.state, task.attempts, task.lease.number) == (State.RUNNING, 1, 1)
        assert (task.started_us, task.queue_us, task.cold_start) == (7, 6, True)
        task.requeue(8, "lost", attempt_counts=True)
        assert (task.state, task.attempts, task.started_us) == (State.QUEUED, 1, None)
        task.begin_attempt(9, cold_start=False)
        assert (task.attempts, task.lease.number, task.queue_us, task.cold_start) == (2, 2, 8, False)

    def test_one_that_does_not_count_keeps_its_lease_number(self) -> None:
        task = a_task()
        task.begin_attempt(7, cold_start=False)
        task.requeue(8, "lost", attempt_counts=False)
        assert (task.attempts, task.lease.number) == (0, 1)
        task.begin_attempt(8, cold_start=False)
        assert (task.attempts, task.lease.number) == (1, 2)

    def test_one_that_failed_is_kept_with_what_it_used(self) -> None:
        task = a_task()
        for code in (3, 4):
            task.begin_attempt(7, cold_start=False)
            task.run_again(FailedAttempt(Reason.EXIT, code, None, 7, 1000, 500))
        task.begin_attempt(9, cold_start=False)
        task.requeue(8, "lost", attempt_counts=True)
        assert (task.state, task.started_us, task.attempts, task.lost_attempts) == (State.QUEUED, None, 3, 1)
        assert (task.cpu_us, task.duration_us) == (1000, 2000)
        assert [failed.exit_code for failed in task.failed_attempts] == [3, 4]

    def test_a_task_that_ended_is_not_run_again(self) -> None:
        task = a_task(State.FAILED)
        with pytest.raises(IllegalMove):
            task.run_again(FailedAttempt(Reason.EXIT, 3, None, 7, 1000, 500))
        assert task.failed_attempts == ()

    def test_a_wall_clock_that_was_set_back_gives_no_negative_wait(self) -> None:
        task = a_task()
        task.begin_attempt(0, cold_start=False)
        assert task.queue_us == 0
