"""Task ids sort by time and never repeat; tasks move only as the table says."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import IllegalMove
from scheduler.task import FINAL_STATES, LEGAL_MOVES, State, Task, TaskIds, TaskSpec

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

    def test_keep_rising_when_the_clock_steps_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ids = TaskIds("a")
        before = ids.new()
        now_ns = time.time_ns()
        monkeypatch.setattr("scheduler.task.time.time_ns", lambda: now_ns - 3_600_000_000_000)
        after = [ids.new() for _ in range(3)]
        assert [before, *after] == sorted({before, *after})

    @given(st.integers(min_value=1, max_value=2**47), st.integers(min_value=1, max_value=2**20))
    def test_sort_as_their_milliseconds(self, first_ms: int, later_by_ms: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("scheduler.task.time.time_ns", lambda: first_ms * 1_000_000)
            first = TaskIds("a").new()
            patch.setattr("scheduler.task.time.time_ns", lambda: (first_ms + later_by_ms) * 1_000_000)
            assert first < TaskIds("a").new()


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
