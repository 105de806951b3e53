"""What `gcompute router rollout status` prints of a rollout, from the JSON that a router gives."""

from __future__ import annotations

from typing import Any

import pytest

from ops.cli.router_progress import progress
from router.counting.tally import Tally, bucket_of
from router.counting.witnesses import Kind, Witness
from router.rollout.analysis import Analysis
from router.rollout.bars import Bar
from router.rollout.checks import Check, Verdict
from router.rollout.progress import advance
from router.rollout.record import Progress, Start
from router.rollout.sight import sight_of
from router.rollout.states import Phase
from router.rollout.status import describe
from router.routing.plan import CheckName, Plan, Step
from router.routing.table import SetEntry, Table, Weights

SETS = {name: SetEntry(name, "h", 80) for name in ("a", "b")}
TABLE = Table(version=1, sets=SETS, default=Weights(SETS, {"a": 10_000, "b": 0}))


def document(**seen: Any) -> dict[str, Any]:
    plan = Plan("b", (Step(1_000, 600.0), Step(5_000, 600.0)))
    begun, _ = advance(Progress(), Start(plan, TABLE.default.shares, TABLE.default.shares, {}), 1.0)
    for name, value in seen.items():
        setattr(begun, name, value)
    return {**describe(begun, TABLE, TABLE), "leader": True, "error": None}


def told(capsys: pytest.CaptureFixture[str], shown: dict[str, Any]) -> str:
    progress(shown)
    return capsys.readouterr().out


def test_it_says_what_is_waited_for_and_how_long_at_most(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, document())
    assert "waits for the hold of step 1, 10 min at most; then: step 2, if the checks pass" in text
    assert "requests without an answer" not in text


def test_after_an_abort_it_says_how_many_requests_were_open_then(capsys: pytest.CaptureFixture[str]) -> None:
    sight = sight_of(1, None, Tally(open={bucket_of(6e6): 19}), Tally())
    text = told(capsys, document(sight=sight, phase=Phase.ABORTED))
    assert "requests without an answer at the last check: canary 19" in text
    assert "without an answer yet" not in text


def test_it_says_how_many_requests_are_open_and_which_tell_most(capsys: pytest.CaptureFixture[str]) -> None:
    hangs = Witness(Kind.OPEN, "4bf92f", "b", "no answer yet", 42.5, "POST /v1/run/…", "ocr:1")
    canary = Tally(open={bucket_of(42.5e6): 1, bucket_of(1e6): 2}, witnesses=(hangs,))
    text = told(capsys, document(sight=sight_of(1, None, canary, Tally())))
    assert "requests without an answer yet: canary 3, the oldest for 42 s; control 0" in text
    assert "not judged" not in text
    canary.left_out = 9
    left = told(capsys, document(sight=sight_of(1, None, canary, Tally())))
    assert "not judged: 9 requests, as one key or address had its share" in left
    assert "  open: POST /v1/run/… (ocr:1) at b: no answer yet after 42.50 s; id 4bf92f" in text


def test_a_sight_of_the_rollout_before_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert "requests without" not in told(capsys, document(sight=sight_of(7, None, Tally(), Tally())))


def test_a_bound_that_is_not_there_yet_has_words(capsys: pytest.CaptureFixture[str]) -> None:
    check = Check(
        CheckName.LATENCY, Verdict.INCONCLUSIVE, "cannot be told yet", 0.1, -0.5, None, 0.25, 9.0, 8.0
    )
    text = told(capsys, document(analysis=Analysis(Verdict.INCONCLUSIVE, "…", (check,))))
    assert "-50 … no bound" in text


def test_a_check_that_is_off_has_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    off = Check(CheckName.TASKS, Verdict.PASS, "not judged, as its limit is off")
    text = told(capsys, document(analysis=Analysis(Verdict.PASS, "…", (off,))))
    assert "tasks\toff\t" in text


def test_a_set_that_the_file_gives_no_weight_needs_no_other_one_after_an_abort(
    capsys: pytest.CaptureFixture[str],
) -> None:
    aborted = {
        **document(phase=Phase.ABORTED, barred={"b": Bar(1.0, "errors")}, weight=0),
        "weights": {"a": 100.0},
    }
    assert aborted["in_force"]["weight"] == 0.0
    assert "the file says" not in told(capsys, aborted)
    assert "the file says 5 %: `gcompute router set-weight b=0`" in told(
        capsys, {**aborted, "weights": {"a": 95.0, "b": 5.0}}
    )


def test_promote_is_offered_with_skip_by_a_router_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert "you can: pause, abort, skip, promote" in told(capsys, document())
    offline = told(capsys, {**document(), "leader": None, "led_by": None})
    assert "skip" in offline
    assert "promote" not in offline
