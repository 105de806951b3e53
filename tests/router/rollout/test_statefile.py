"""The state on disk: whole or not at all, one change at a time; one leader, and no harm from two."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from router.counting.tally import Tally
from router.rollout import statefile
from router.rollout.leader import Leader
from router.rollout.orders import Order, give
from router.rollout.record import Progress
from router.rollout.statefile import Lease, LeaseLost, StateFile, StateUnreadable
from router.rollout.states import NotAllowed, Phase, RolloutError
from router.rollout.status import describe
from router.rollout.tallies import MAX_FILES, Seen, Tallies, cohorts, loads
from router.routing.plan import Plan, Step
from router.routing.table import SetEntry, SetState, Table, Weights

SETS = {name: SetEntry(name, "h", port) for port, name in enumerate("ab", 1)}
PLAN = Plan("b", (Step(500, 60.0), Step(5_000, 60.0)))
FILE = Table(version=1, sets=SETS, default=Weights(SETS, {"a": 10_000, "b": 0}), rollout=PLAN)


def bump(progress: Progress) -> Progress:
    return msgspec.structs.replace(progress, stint=progress.stint + 1)


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "r.rollout")


# The file.


def test_what_was_changed_is_there_for_the_next_process(state: StateFile) -> None:
    assert state.read() == Progress()
    give(state, Order.START, FILE, by="ops", why="new release", now=1000.0)
    again = StateFile(state.folder).read()
    assert (again.phase, again.weight, again.plan, again.revision) == (Phase.HOLDING, 500, PLAN, 1)
    assert again.events[0].by == "ops"


def test_an_order_that_does_not_fit_writes_nothing(state: StateFile) -> None:
    give(state, Order.START, FILE, now=1000.0)
    before = state.path.read_bytes()
    with pytest.raises(NotAllowed, match="cannot be resumed"):
        give(state, Order.RESUME, FILE, now=1001.0)
    assert state.path.read_bytes() == before


def test_a_start_without_a_plan_or_a_ready_set_is_refused(state: StateFile) -> None:
    no_plan = Table(version=1, sets=SETS, default=FILE.default)
    with pytest.raises(NotAllowed, match="no `rollout` section"):
        give(state, Order.START, no_plan)
    sets = {**SETS, "b": SetEntry("b", "h", 2, SetState.DRAIN)}
    with pytest.raises(NotAllowed, match="takes no new work"):
        give(state, Order.START, Table(version=1, sets=sets, default=FILE.default, rollout=PLAN))
    assert not state.path.exists()


@pytest.mark.parametrize("damage", [b"", b"{", b"garbage", b'{"phase": "flying"}', b'{"weight": "x"}'])
def test_a_damaged_file_is_told_and_never_overwritten(state: StateFile, damage: bytes) -> None:
    give(state, Order.START, FILE, now=1000.0)
    state.path.write_bytes(damage)
    with pytest.raises(StateUnreadable, match="remove it to start over"):
        state.read()
    with pytest.raises(StateUnreadable):
        give(state, Order.ABORT, FILE)
    assert state.path.read_bytes() == damage


def test_a_change_that_changes_nothing_writes_nothing(state: StateFile) -> None:
    state.change(bump)
    stamp = state.stamp()
    state.change(lambda progress: progress)
    assert state.stamp() == stamp


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RolloutError, match="cannot be used for the rollout"):
        StateFile(tmp_path / "file" / "r.rollout").change(bump)


def test_a_full_disk_leaves_the_old_state(state: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    give(state, Order.START, FILE, now=1000.0)
    before = state.path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(statefile, "write_whole", full)
    with pytest.raises(RolloutError, match="No space left"):
        give(state, Order.ABORT, FILE)
    assert state.path.read_bytes() == before


def test_changes_of_many_processes_are_none_of_them_lost(state: StateFile) -> None:
    code = (
        "import sys, msgspec; from pathlib import Path; from router.rollout.statefile import StateFile\n"
        "s = StateFile(Path(sys.argv[1]))\n"
        "for _ in range(25): s.change(lambda p: msgspec.structs.replace(p, stint=p.stint + 1))\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(state.folder)]) for _ in range(4)]
    assert [process.wait(timeout=50) for process in processes] == [0] * 4
    assert (state.read().stint, state.read().revision) == (100, 100)


def _write_for_ever(folder: str) -> None:
    writer = StateFile(Path(folder))
    while True:
        writer.change(bump)


def test_a_writer_that_is_killed_leaves_a_whole_state(state: StateFile) -> None:
    for _ in range(5):
        process = multiprocessing.get_context("spawn").Process(
            target=_write_for_ever, args=(str(state.folder),)
        )
        process.start()
        before = state.read().stint
        while state.read().stint <= before + 3:
            pass
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        state.change(bump)


# The lease.


def test_one_leads_and_the_next_follows_when_it_is_gone(state: StateFile) -> None:
    first, second = Lease(state), Lease(state)
    assert first.take()
    assert first.take(), "it leads already"
    assert not second.take()
    assert (first.epoch, second.epoch) == (1, None)
    first.drop()
    assert second.take()
    assert second.epoch == 2


def test_a_leader_that_is_killed_leads_no_more(state: StateFile) -> None:
    code = (
        "import sys, time; from pathlib import Path; from router.rollout.statefile import Lease, StateFile\n"
        "print(Lease(StateFile(Path(sys.argv[1]))).take(), flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(state.folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    lease = Lease(state)
    assert not lease.take()
    process.kill()
    process.wait()
    process.stdout.close()
    assert lease.take()


def test_who_leads_is_told(state: StateFile) -> None:
    first = Lease(state, "here, pid 1")
    assert first.take()
    assert describe(state.read(), FILE, FILE)["led_by"] == "here, pid 1"
    first.drop()
    assert Lease(state, "there, pid 2").take()
    assert describe(state.read(), FILE, FILE)["led_by"] == "there, pid 2"


def test_two_leaders_do_no_harm(state: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system whose locks fail, two processes believe that they lead: only the younger one's writes are
    taken."""
    monkeypatch.setattr(fcntl, "flock", lambda fd, how: None)
    old, young = Lease(state), Lease(state)
    assert old.take()
    assert young.take()
    assert (old.epoch, young.epoch) == (1, 2)
    state.change(bump, epoch=young.epoch)
    with pytest.raises(LeaseLost):
        state.change(bump, epoch=old.epoch)
    assert state.read().stint == 1


def test_a_leader_that_woke_up_too_late_steps_back(state: StateFile, tmp_path: Path) -> None:
    clock = [1000.0]
    frozen = Leader(state, Tallies(tmp_path / "seen", "x"), lambda: clock[0])
    give(state, Order.START, FILE, now=clock[0])
    assert frozen.turn(FILE) is not None
    # Meanwhile, on another machine whose lock did not see this one …
    state.change(lambda old: msgspec.structs.replace(old, epoch=old.epoch + 1))
    clock[0] += 3_600.0
    before = state.path.read_bytes()
    assert frozen.turn(FILE) is None
    assert not frozen.leading
    assert state.path.read_bytes() == before


def test_an_order_counts_though_the_leader_is_ahead_of_the_disk(state: StateFile, tmp_path: Path) -> None:
    clock = [1000.0]
    leader = Leader(state, Tallies(tmp_path / "seen", "x"), lambda: clock[0])
    give(state, Order.START, FILE, now=clock[0])
    for _ in range(5):
        clock[0] += 1.0
        leader.turn(FILE)
    give(state, Order.ABORT, FILE, by="ops", now=clock[0])
    clock[0] += 1.0
    turned = leader.turn(FILE)
    assert turned is not None
    assert turned[0].phase is Phase.ABORTED
    assert state.read().in_force == ("b", 0)


def test_a_leader_writes_seldom_while_nothing_happens(state: StateFile, tmp_path: Path) -> None:
    clock = [1000.0]
    leader = Leader(state, Tallies(tmp_path / "seen", "x"), lambda: clock[0])
    give(state, Order.START, FILE, now=clock[0])
    leader.turn(FILE)
    first = state.read().revision
    for _ in range(40):
        clock[0] += 1.0
        leader.turn(FILE)
    assert state.read().revision - first <= 21
    assert state.read().held_s >= 38.0, "and a crash would cost two seconds of a hold"


def test_waiting_for_the_lock_is_bounded(state: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    state.change(bump)
    monkeypatch.setattr(statefile, "LOCK_TIMEOUT_S", 0.05)
    entered, leave = threading.Event(), threading.Event()

    def slow(progress: Progress) -> Progress:
        entered.set()
        leave.wait(20)
        return progress

    thread = threading.Thread(target=state.change, args=(slow,))
    thread.start()
    entered.wait(20)
    with pytest.raises(RolloutError, match="being changed by another process"):
        StateFile(state.folder).change(bump)
    leave.set()
    thread.join()


# What workers saw.


def seen(stint: int, ok: int, *, at: float = 100.0, inflight: int = 0) -> Seen:
    return Seen(stint, at, Tally(ok=ok, latencies={5: ok}), Tally(ok=2 * ok), {"a": inflight}, {"a": 10})


def test_what_workers_saw_adds_up_also_after_one_is_gone(tmp_path: Path) -> None:
    for number in range(3):
        Tallies(tmp_path, f"worker-{number}").write(seen(4, 10, inflight=2))
    views = Tallies(tmp_path, "leader").read(4)
    canary, control = cohorts(views, views[0].at)
    assert (canary.ok, control.ok, canary.latencies) == (30, 60, {5: 30})
    assert loads(views, 101.0)["a"].inflight == 6
    assert loads(views, 101.0)["a"].max_inflight == 30
    assert loads(views, 200.0) == {}, "what is in flight at a worker that is gone is not known"


def test_requests_that_were_open_at_a_worker_that_is_gone_are_over(tmp_path: Path) -> None:
    gone, alive = seen(4, 10, at=100.0), seen(4, 10, at=130.0)
    gone.canary.open = alive.canary.open = {500: 3}
    canary, _ = cohorts([gone, alive], 131.0)
    assert (canary.ok, canary.open) == (20, {500: 3})


def test_other_stints_and_damaged_files_do_not_count(tmp_path: Path) -> None:
    Tallies(tmp_path, "old").write(seen(3, 10))
    Tallies(tmp_path, "new").write(seen(5, 10))
    (tmp_path / "bad.tally").write_bytes(b"{")
    assert Tallies(tmp_path, "leader").read(4) == []
    assert {path.name for path in tmp_path.iterdir()} == {"new.tally"}


def test_files_are_bounded(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 20):
        Tallies(tmp_path, f"worker-{number}").write(seen(1, 1))
    assert len(Tallies(tmp_path, "leader").read(1)) == MAX_FILES
    assert len(list(tmp_path.iterdir())) == MAX_FILES


def test_the_state_is_plain_json_that_operators_can_read(state: StateFile) -> None:
    give(state, Order.START, FILE, now=1000.0)
    document = json.loads(state.path.read_bytes())
    assert (document["phase"], document["weight"], document["plan"]["set"]) == ("holding", 500, "b")
