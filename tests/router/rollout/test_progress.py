"""The rollout's states, as conversations: this happens, that is done about it."""

from __future__ import annotations

import msgspec
import pytest

from router.config.reader import load
from router.rollout.record import (
    Abort,
    Edited,
    GateSaid,
    Gone,
    Pause,
    Progress,
    Resume,
    Skip,
)
from router.rollout.states import LEGAL_MOVES, Cause, IllegalMove, NotAllowed, Phase, check
from router.rollout.status import describe
from router.routing.plan import Step, Undecided
from router.routing.table import Table
from tests.router.rollout.release import FAIL, FEW, PASS, UNSURE, Release, plan


def a_table() -> Table:
    return load(
        b"version: 1\nsets:\n  a: {url: 'http://a'}\n  b: {url: 'http://b'}\ndefault: {weights: {a: 100, b: 0}}\n"
    ).table


def in_force(release: Release) -> tuple[str, int] | None:
    return release.progress.in_force


# The way that all goes well.


def test_a_healthy_canary_goes_through_its_steps() -> None:
    release = Release(plan()).start()
    assert (release.phase, release.weight) == (Phase.HOLDING, 100)
    release.run(599)
    assert release.weight == 100
    release.run(1)
    assert (release.phase, release.weight, release.progress.step) == (Phase.HOLDING, 1_000, 1)
    release.run(1_800)
    assert (release.phase, release.weight) == (Phase.PAUSED, 1_000)
    release.run(100_000 // 60)
    assert release.phase == Phase.PAUSED, "a pause lasts until somebody resumes"
    release.happen(Resume("ops"))
    assert (release.phase, release.weight) == (Phase.HOLDING, 5_000)
    release.run(3_600)
    assert (release.phase, release.weight) == (Phase.DONE, 5_000)
    assert release.progress.in_force == ("b", 5_000), "its weight stays until the file says so, too"
    assert release.kinds == [
        "started", "holding", "passed", "holding", "passed", "paused", "still paused", "still paused",
        "resumed", "holding", "passed", "done",
    ]  # fmt: skip
    assert [event.serial for event in release.progress.events] == list(range(1, 13))


def test_a_last_step_without_hold_ends_at_once() -> None:
    release = Release(plan(Step(1_000, 10.0), Step(10_000))).start()
    release.run(10)
    assert (release.phase, release.weight) == (Phase.DONE, 10_000)


def test_a_step_without_hold_waits_for_evidence_only() -> None:
    release = Release(plan(Step(1_000), Step(2_000, 10.0))).start()
    release.tick(UNSURE)
    assert (release.phase, release.weight) == (Phase.WAITING, 1_000)
    release.tick(PASS)
    assert (release.phase, release.weight) == (Phase.HOLDING, 2_000)


# Verdicts.


@pytest.mark.parametrize("before_s", [0, 5, 599])
def test_a_failed_check_takes_everything_back_at_once(before_s: int) -> None:
    release = Release(plan()).start()
    release.run(before_s)
    release.tick(FAIL)
    assert (release.phase, release.weight) == (Phase.ABORTED, 0)
    assert release.progress.in_force == ("b", 0)
    assert "surely more" in release.progress.reason


def test_an_inconclusive_step_waits_and_then_pauses() -> None:
    release = Release(plan(Step(100, 600.0), Step(1_000), max_wait_s=120.0)).start()
    release.run(600, UNSURE)
    assert (release.phase, release.weight) == (Phase.WAITING, 100)
    release.run(119, UNSURE)
    assert release.phase == Phase.WAITING
    release.run(1, UNSURE)
    assert (release.phase, release.weight) == (Phase.PAUSED, 100)
    assert "cannot be told yet" in release.progress.reason
    release.happen(Resume())
    assert release.phase == Phase.HOLDING
    release.tick(PASS)
    assert release.weight == 1_000, "its hold is over, and now the verdict is there"


def test_a_pass_after_the_hold_goes_on() -> None:
    release = Release(plan()).start()
    release.run(700, UNSURE)
    release.tick(PASS)
    assert release.weight == 1_000


@pytest.mark.parametrize(
    ("then", "phase"), [(Undecided.PAUSE, Phase.PAUSED), (Undecided.ABORT, Phase.ABORTED)]
)
def test_no_data_is_never_health(then: Undecided, phase: Phase) -> None:
    release = Release(plan(on_no_data=then), requests=0.0).start()
    release.run(600 + 1_200, FEW)
    assert release.phase == phase
    assert release.weight == (0 if phase is Phase.ABORTED else 100)


def test_an_unsure_verdict_pauses_also_where_no_data_would_abort() -> None:
    release = Release(plan(on_no_data=Undecided.ABORT)).start()
    release.run(600 + 1_200, UNSURE)
    assert release.phase == Phase.PAUSED


def test_a_sick_canary_is_taken_back_while_paused_too() -> None:
    release = Release(plan()).start()
    release.happen(Pause("ops", "lunch"))
    release.run(10)
    release.tick(FAIL)
    assert release.phase == Phase.ABORTED


def test_a_canary_that_takes_no_new_work_pauses_the_release() -> None:
    release = Release(plan()).start()
    release.takes_work = False
    release.tick()
    assert release.phase == Phase.PAUSED
    assert "takes no new work" in release.progress.reason


# People.


def test_pause_keeps_weight_and_hold() -> None:
    release = Release(plan()).start()
    release.run(300)
    release.happen(Pause("ops", "lunch"))
    release.run(5_000)
    assert (release.phase, release.weight, release.progress.held_s) == (Phase.PAUSED, 100, 300.0)
    release.happen(Resume("ops"))
    release.run(300)
    assert release.weight == 1_000


def test_skip_goes_on_whatever_the_evidence() -> None:
    release = Release(plan()).start()
    release.tick(UNSURE)
    release.happen(Skip("ops", "seen elsewhere"))
    assert (release.weight, release.progress.step) == (1_000, 1)
    release.happen(Skip())
    assert release.phase == Phase.PAUSED
    release.happen(Skip())
    assert release.weight == 5_000
    release.happen(Skip())
    assert release.phase == Phase.DONE


def test_abort_is_one_call_and_weight_0_from_then_on() -> None:
    release = Release(plan()).start()
    release.run(700)
    release.happen(Abort("ops", "customers complain"))
    assert (release.phase, release.weight) == (Phase.ABORTED, 0)
    assert release.progress.reason == "aborted by hand: customers complain"
    assert [event.kind for event in release.progress.events[-2:]] == ["aborting", "aborted"]
    release.run(10_000)
    assert release.progress.in_force == ("b", 0)


def test_what_an_abort_was_decided_on_can_still_be_looked_at() -> None:
    release = Release(plan()).start()
    release.run(300, FAIL)
    assert release.phase == Phase.ABORTED
    assert (release.progress.analysis, release.progress.last_analysis is None) == (None, False)
    table = a_table()
    shown = describe(release.progress, table, table)
    assert (shown["verdict"], shown["verdict_reason"]) == ("fail", FAIL.reason)
    assert shown["requests"]["canary"] > 0
    release.start()
    assert describe(release.progress, table, table)["verdict"] is None


def test_a_finished_release_can_still_be_aborted() -> None:
    release = Release(plan(Step(1_000, 10.0))).start()
    release.run(10)
    release.happen(Abort())
    assert release.progress.in_force == ("b", 0)


@pytest.mark.parametrize("order", [Pause(), Resume(), Skip(), Abort()])
def test_without_a_rollout_there_is_nothing_to_order(order: Pause | Resume | Skip | Abort) -> None:
    with pytest.raises(NotAllowed):
        Release(plan()).happen(order)


def test_what_does_not_fit_is_refused_in_words() -> None:
    release = Release(plan()).start()
    with pytest.raises(NotAllowed, match="under way"):
        release.start()
    with pytest.raises(NotAllowed, match="holding cannot be resumed"):
        release.happen(Resume())
    release.happen(Abort())
    with pytest.raises(NotAllowed, match="aborted"):
        release.happen(Abort())
    with pytest.raises(NotAllowed, match="no set but 'b'"):
        Release(plan(), shares={"a": 0, "b": 10_000}).start()


def test_a_new_release_does_not_undo_the_last_one_behind_its_back() -> None:
    """b was released to 100 %, the file still says 5 %: a release of c must not give the rest back to a."""
    release = Release(plan(Step(1_000, 10.0), Step(10_000)), shares={"a": 9_500, "b": 500, "c": 0}).start()
    release.run(20)
    assert release.phase == Phase.DONE
    release.plan = msgspec.structs.replace(release.plan, set="c")
    with pytest.raises(NotAllowed, match="write that into the file first"):
        release.start()


# The file.


def test_a_manual_edit_of_weights_pauses_and_counts() -> None:
    release = Release(plan()).start()
    release.run(100)
    release.happen(Edited({"a": 8_000, "b": 2_000}, version=43))
    assert release.phase == Phase.PAUSED
    assert release.progress.in_force is None, "the file's weights count"
    assert "version 43" in release.progress.reason
    release.tick(FAIL)
    assert release.phase == Phase.PAUSED, "the operators have taken over"
    release.happen(Resume())
    assert release.phase == Phase.HOLDING
    assert in_force(release) == ("b", 100)


def test_the_same_weights_in_a_new_version_change_nothing() -> None:
    release = Release(plan()).start()
    before = release.progress
    release.happen(Edited({"a": 10_000}, version=44))
    assert release.progress == before


def test_after_the_end_the_file_takes_over_with_its_next_edit() -> None:
    for finish in (Abort(), Skip()):
        release = Release(plan(Step(1_000, 10.0))).start()
        release.happen(finish)
        assert release.progress.in_force is not None
        release.happen(Edited({"a": 9_000, "b": 1_000}))
        assert release.phase == Phase.IDLE
        assert in_force(release) is None


def test_a_leader_that_has_not_seen_the_newest_file_yet_does_not_undo_it() -> None:
    """`set-weight` and `rollout start` in one breath: a leader with the old file must not take that for an edit."""
    release = Release(plan(), shares={"a": 9_000, "b": 1_000}).start()
    release.tick()
    release.happen(Edited({"a": 10_000}))
    release.happen(Gone(set_left=False))
    assert release.phase == Phase.HOLDING
    release.run(2)
    release.happen(Edited({"a": 10_000}))
    assert release.phase == Phase.PAUSED, "but one that stays is one"


def test_a_set_that_leaves_the_file_ends_its_release() -> None:
    release = Release(plan()).start()
    release.run(5)
    release.happen(Gone())
    assert (release.phase, release.weight) == (Phase.ABORTED, 0)


def test_a_section_that_leaves_the_file_pauses_it() -> None:
    release = Release(plan()).start()
    release.run(5)
    release.happen(Gone(set_left=False))
    assert (release.phase, release.progress.in_force) == (Phase.PAUSED, ("b", 100))
    release.happen(Gone(set_left=False))
    assert release.phase == Phase.PAUSED


# Gates.


def gated() -> Release:
    return Release(plan(Step(1_000, 10.0), Step(5_000, 10.0, gate="http://gate/"))).start()


def test_a_gate_is_asked_before_its_step() -> None:
    release = gated()
    release.run(10)
    assert (release.phase, release.weight) == (Phase.GATED, 1_000)
    release.tick()
    assert [(question.url, question.step) for question in release.asked] == [("http://gate/", 1)]
    release.happen(GateSaid(release.asked[-1].serial, True))
    assert (release.phase, release.weight) == (Phase.HOLDING, 5_000)


def test_a_gate_that_says_not_now_is_asked_again_and_holds_the_release() -> None:
    release = gated()
    release.run(11)
    release.happen(GateSaid(release.asked[-1].serial, False, "it answered 403"))
    assert (release.phase, release.weight) == (Phase.GATED, 1_000)
    assert "it answered 403" in release.progress.reason
    release.run(60)
    assert 4 <= len(release.asked) <= 6
    release.happen(GateSaid(1, True))
    assert release.phase == Phase.GATED, "an answer to an earlier question comes too late"
    release.happen(Skip("ops", "the gate is broken"))
    assert release.weight == 5_000


def test_a_gate_that_never_answers_pauses_after_max_wait() -> None:
    release = gated()
    release.plan = release.progress.plan = msgspec.structs.replace(release.plan, max_wait_s=60.0)
    release.run(10 + 62)
    assert release.phase == Phase.PAUSED
    release.happen(Resume())
    assert release.phase == Phase.GATED


def test_a_canary_that_sickens_at_a_gate_is_taken_back() -> None:
    release = gated()
    release.run(12)
    release.tick(FAIL)
    assert release.phase == Phase.ABORTED


# Time and restarts.


@pytest.mark.parametrize("jump_s", [86_400.0, -86_400.0, 1e9])
def test_a_clock_that_jumps_ends_no_hold(jump_s: float) -> None:
    release = Release(plan()).start()
    release.run(300)
    release.now += jump_s
    release.tick()
    assert release.phase == Phase.HOLDING
    assert 300.0 <= release.progress.held_s <= 306.0
    release.run(300)
    assert release.weight == 1_000


def test_a_restart_continues_where_it_was() -> None:
    release = Release(plan()).start()
    release.run(400)
    release.progress = msgspec.json.decode(msgspec.json.encode(release.progress), type=Progress)
    release.now += 3_600.0
    release.run(195)
    assert release.weight == 100, "the hour without a router is no hold"
    release.run(6)
    assert release.weight == 1_000


def test_the_progress_that_came_in_is_not_touched() -> None:
    release = Release(plan()).start()
    before = msgspec.json.encode(release.progress)
    kept = release.progress
    release.run(700)
    release.happen(Abort())
    assert msgspec.json.encode(kept) == before


def test_a_webhook_is_not_told_of_the_releases_before_it() -> None:
    release = Release(plan()).start()
    release.happen(Abort())
    assert release.progress.posted == 0
    release.plan = plan(events="http://hook/")
    before = release.progress.last_event
    release.start()
    assert release.progress.posted == before
    release.happen(Abort())
    release.start()
    assert release.progress.posted == before, "the same one is told of all that it was not told yet"


# The dry run.


def test_a_dry_run_decides_and_touches_nothing() -> None:
    release = Release(plan(Step(1_000, 10.0), Step(5_000, 10.0), dry_run=True)).start()
    assert release.progress.in_force is None
    release.run(10)
    assert (release.progress.step, release.progress.in_force) == (1, None)
    release.tick(FAIL)
    assert (release.phase, release.progress.in_force) == (Phase.ABORTED, None)
    assert all(event.dry_run for event in release.progress.events)


# The table of moves.


def test_every_other_move_raises() -> None:
    legal = {
        (old, cause, new)
        for old, causes in LEGAL_MOVES.items()
        for cause, news in causes.items()
        for new in news
    }
    for old in Phase:
        for cause in Cause:
            for new in Phase:
                if (old, cause, new) in legal:
                    assert check(old, cause, new) is new
                else:
                    with pytest.raises(IllegalMove):
                        check(old, cause, new)


def test_every_phase_has_a_way_in_and_a_way_out() -> None:
    reached = {new for causes in LEGAL_MOVES.values() for news in causes.values() for new in news}
    assert reached == set(Phase)
    assert all(LEGAL_MOVES[phase] for phase in Phase)
