"""The register of host ids: each container has a block that no other living one has."""

from __future__ import annotations

import json
from pathlib import Path

from tests.sets.runtime.rig import BLOCK, FIRST, Rig


def claims(rig: Rig) -> Path:
    return rig.folder / "run/gcompute-runc/claims"


def test_containers_at_the_same_time_share_no_ids(rig: Rig) -> None:
    calls = [rig.create(rig.config(), f"c{number}") for number in range(rig.blocks)]
    assert sorted(call.first_uid for call in calls) == [FIRST + block * BLOCK for block in range(rig.blocks)]


def test_when_all_are_taken_that_is_told_and_the_next_to_end_makes_room(rig: Rig) -> None:
    calls = [rig.create(rig.config(), f"c{number}") for number in range(rig.blocks)]
    problem = rig.refusal(rig.config())
    assert f"all {rig.blocks} blocks of host ids are taken: give the user gcompute-runc more" in problem
    assert calls[2].end() == 0
    assert rig.create(rig.config(), "next").first_uid == calls[2].first_uid


def test_a_container_keeps_its_ids_for_as_long_as_runc_has_its_state(rig: Rig) -> None:
    (rig.state / "c1").mkdir(parents=True)
    first = rig.create(rig.config(), "c1")
    first.end()
    others = [rig.create(rig.config(), f"o{number}") for number in range(rig.blocks - 1)]
    assert first.first_uid not in [call.first_uid for call in others]
    assert "are taken" in rig.refusal(rig.config())
    (rig.state / "c1").rmdir()
    assert rig.create(rig.config(), "c2").first_uid == first.first_uid


def test_a_relative_folder_of_states_is_claimed_by_its_whole_path(rig: Rig) -> None:
    """The claim is read by runtimes that were started elsewhere."""
    (rig.folder / "bundle/config.json").write_text(json.dumps(rig.config()))
    call = rig.call("--root=states", "create", "--bundle", str(rig.folder / "bundle"), "--", "c1")
    (claim,) = claims(rig).iterdir()
    assert claim.readlink().as_posix().partition(":")[2].partition(":")[2] == f"{Path.cwd()}/states/c1"
    assert call.end() == 0


def test_the_claim_of_a_killed_runtime_is_free_again(rig: Rig) -> None:
    call = rig.create(rig.config(), "c1")
    call.process.kill()
    call.process.wait()
    calls = [rig.create(rig.config(), f"n{number}") for number in range(rig.blocks)]
    assert call.first_uid in [each.first_uid for each in calls]


def test_a_claim_whose_pid_is_another_process_now_is_free_again(rig: Rig) -> None:
    claims(rig).mkdir(parents=True)
    for block in range(rig.blocks):
        (claims(rig) / str(block)).symlink_to("1:1:/nowhere")
    assert rig.create(rig.config()).told


def test_a_claim_that_is_not_understood_stays(rig: Rig) -> None:
    claims(rig).mkdir(parents=True)
    for block in range(rig.blocks):
        (claims(rig) / str(block)).symlink_to("1:1" if block else "reserved-by-the-operator")
    assert "are taken" in rig.refusal(rig.config())


def test_without_ids_in_the_tables_it_says_which_line_to_add(rig: Rig) -> None:
    (rig.folder / "subgid").write_text("other:1000000:65536\n")
    problem = rig.refusal(rig.config())
    assert "/etc/subgid gives the user gcompute-runc no ids: add a line such as gcompute-runc:" in problem


def test_ids_that_no_user_may_have_are_refused(rig: Rig) -> None:
    for line in (
        "gcompute-runc:0:131072",
        "gcompute-runc:4294900000:131072",
        f"gcompute-runc:100000:{1 << 32}",
    ):
        (rig.folder / "subuid").write_text(f"{line}\n")
        assert "/etc/subuid: the range of gcompute-runc is out of bounds" in rig.refusal(rig.config())
