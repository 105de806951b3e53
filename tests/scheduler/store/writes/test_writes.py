"""A store after a loss of power, at sampled moments of a recorded log. `make crash ARGS="--writes"` tries more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.scheduler.store.writes.checker import Claim, Stage, check, claims
from tests.scheduler.store.writes.disk import Disk, Fate
from tests.scheduler.store.writes.log import Call, What
from tests.scheduler.store.writes.sweep import record, sweep, worth_trying

MOMENTS = 40
TASKS = 24


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    return record(tmp_path_factory.mktemp("record"), "1", TASKS)


def test_each_acknowledged_write_is_there_and_none_twice(calls: list[Call]) -> None:
    seed = f"{random.randrange(2**32)}"
    print(f"seed {seed}")
    # The first calls are those that create the store.
    counts = {*range(1, 40, 4), *random.Random(seed).sample(range(40, len(calls)), MOMENTS), len(calls)}
    assert [str(fault) for fault in sweep(calls, {count: [Fate.CHANCE] for count in counts}, seed)] == []


def test_each_write_acknowledged_after_a_failed_sync_is_there(calls: list[Call]) -> None:
    first = next(count for count, call in enumerate(calls) if call.what is What.SYNC_FAILED)
    counts = {
        count
        for count, call in enumerate(calls, 1)
        if count > first and call.what is What.SAY and b'"did"' in call.data
    }
    assert counts
    assert [str(fault) for fault in sweep(calls, {count: [Fate.LOST] for count in counts}, "1")] == []


def test_what_a_sweep_leaves_out_is_the_same_as_after_the_call_before(
    calls: list[Call], tmp_path: Path
) -> None:
    """Compare whole folders after the first calls, which have each kind."""
    tries = worth_trying(calls, "1")
    disk = Disk()
    compared: set[tuple[What, Fate]] = set()
    found: dict[Fate, dict[str, bytes]] = {}
    for count, call in enumerate(calls[:400], 1):
        disk.take(call)
        last, found = found, {}
        for fate in (Fate.LOST, Fate.KEPT):
            found[fate] = left(disk, tmp_path / f"{count}{fate.name}", fate)
            if count in tries and fate not in tries[count]:
                assert found[fate] == last.get(fate, {})
                compared.add((call.what, fate))
    assert compared >= {(What.SYNC, Fate.KEPT), (What.WRITE, Fate.LOST), (What.CREATE, Fate.LOST)}


def test_a_sweep_tries_each_sync_and_each_word_of_the_program(calls: list[Call]) -> None:
    tries = worth_trying(calls, "1")
    assert len(tries) < len(calls) / 2
    for count, call in enumerate(calls, 1):
        if call.what is What.SAY:
            assert set(tries[count]) == set(Fate)
        elif call.what is not What.WRITE:
            assert {Fate.SOME, Fate.CHANCE} <= set(tries[count])


def test_a_log_has_each_kind_of_call_and_of_task(calls: list[Call]) -> None:
    assert {call.what for call in calls} >= set(What) - {What.RMDIR}
    said = claims(calls)
    assert {claim.did for claim in said.values()} >= {Stage.ENDED, Stage.DEAD, Stage.REPLAYED}


def test_a_row_that_was_not_synced_is_missed(calls: list[Call], tmp_path: Path) -> None:
    """The checks would see it: without the syncs after the store's creation, what was acknowledged is gone."""
    first = next(count for count, call in enumerate(calls) if call.what is What.SAY)
    disk = Disk()
    for call in calls[:first] + [call for call in calls[first:] if call.what is not What.SYNC]:
        disk.take(call)
    disk.left(tmp_path, Fate.LOST, random.Random(1))
    found = check(tmp_path, claims(calls))
    assert any("it is NONE" in fault for fault in found), found


class TestDisk:
    def test_what_was_synced_stays_and_the_rest_may_go(self, tmp_path: Path) -> None:
        disk = of(
            Call(What.CREATE, 2, name="a"),
            Call(What.WRITE, 2, 0, data=b"sure"),
            Call(What.SYNC, 2),
            Call(What.SYNC, 1),
            Call(What.WRITE, 2, 4, data=b" not"),
            Call(What.CREATE, 3, name="b"),
        )
        assert left(disk, tmp_path / "lost", Fate.LOST) == {"a": b"sure"}
        assert left(disk, tmp_path / "kept", Fate.KEPT) == {"a": b"sure not", "b": b""}

    def test_a_file_whose_name_was_not_synced_is_gone(self, tmp_path: Path) -> None:
        disk = of(Call(What.CREATE, 2, name="a"), Call(What.WRITE, 2, 0, data=b"data"), Call(What.SYNC, 2))
        assert left(disk, tmp_path / "lost", Fate.LOST) == {}

    def test_what_a_failed_sync_lost_stays_lost_until_it_is_written_again(self, tmp_path: Path) -> None:
        write = Call(What.WRITE, 2, 4, data=b" more")
        disk = of(
            Call(What.CREATE, 2, name="a"),
            Call(What.SYNC, 1),
            Call(What.WRITE, 2, 0, data=b"sure"),
            Call(What.SYNC, 2),
            *(write, Call(What.SYNC_FAILED, 2), Call(What.SYNC, 2)),
        )
        assert left(disk, tmp_path / "lost", Fate.KEPT) == {"a": b"sure" + bytes(5)}
        disk.take(write)
        disk.take(Call(What.SYNC, 2))
        assert left(disk, tmp_path / "again", Fate.LOST) == {"a": b"sure more"}

    def test_a_move_between_folders_is_sure_with_each_of_them(self, tmp_path: Path) -> None:
        disk = of(
            Call(What.MKDIR, 2, name="new"),
            Call(What.CREATE, 3, name="a"),
            Call(What.SYNC, 1),
            Call(What.RENAME, 3, name="a", to="new/b"),
        )
        assert left(disk, tmp_path / "before", Fate.LOST) == {"a": b""}
        disk.take(Call(What.SYNC, 2))
        assert left(disk, tmp_path / "both", Fate.LOST) == {"a": b"", "new/b": b""}
        disk.take(Call(What.SYNC, 1))
        assert left(disk, tmp_path / "after", Fate.LOST) == {"new/b": b""}

    def test_a_write_is_torn_between_sectors(self, tmp_path: Path) -> None:
        disk = of(
            Call(What.CREATE, 2, name="a"), Call(What.SYNC, 1), Call(What.WRITE, 2, 0, data=b"x" * 512 * 64)
        )
        content = next(
            found["a"]
            for seed in range(100)
            if 0 < (found := left(disk, tmp_path / f"{seed}", Fate.SOME, seed))["a"].count(b"x") < 512 * 64
        )
        sectors = {content[at : at + 512] for at in range(0, len(content), 512)}
        assert sectors == {b"x" * 512, bytes(512)}


def of(*calls: Call) -> Disk:
    disk = Disk()
    for call in (Call(What.MKDIR, 1), *calls):
        disk.take(call)
    return disk


def left(disk: Disk, target: Path, fate: Fate, seed: int = 1) -> dict[str, bytes]:
    """The files that a loss of power leaves."""
    target.mkdir()
    disk.left(target, fate, random.Random(seed))
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def test_a_claim_is_what_was_acknowledged_last_and_what_was_begun() -> None:
    lines = [
        b'["will", "t", "added", 5, "t", true]',
        b'["did", "t", "added"]',
        b'["will", "t", "ended", 7, false]',
    ]
    assert claims([Call(What.SAY, 0, data=line) for line in lines]) == {
        "t": Claim(Stage.ADDED, Stage.ENDED, "t", True, stdin_bytes=5, stdout_bytes=7)
    }
