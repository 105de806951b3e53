"""The registrar's book as a conversation: Nomad says, the set wants, and the book tells what is to be done."""

from __future__ import annotations

from typing import Any

import msgspec

from scheduler.launchers.nomad.book import AGAIN_S, GRACE_S, LOST_S, Action, Book, Deregister, Kill, Purge
from scheduler.launchers.nomad.records import Allocation, Evaluation, Job
from scheduler.launchers.nomad.words import Kind

KEPT_S = 60.0


class Cluster:
    """A book, and short words for what a cluster says to it."""

    def __init__(self, *slots: str) -> None:
        self.book = Book(KEPT_S)
        self.now = 1000.0
        self._index = 0
        self._made: dict[str, int] = {}
        if slots:
            self.book.add("job", slots)
            self.book.registered("job")

    def allocation(self, name: str, slot: str, status: str, **fields: Any) -> list[tuple[str, Kind]]:
        self._index += 1
        created = self._made.setdefault(name, self._index)
        indexes: dict[str, Any] = {"create_index": created, "modify_index": self._index}
        told = self.book.allocation(Allocation(name, "job", slot, "", "", status, **indexes, **fields))
        return [(each.slot_id, each.kind) for each in told]

    def due(self, after_s: float = 0.0) -> list[Action]:
        self.now += after_s
        actions = self.book.due(self.now)
        for action in actions:
            self.book.done(action)
        return actions

    def drop(self, slot: str) -> None:
        self.book.drop(slot, self.now)


def test_a_slot_is_told_of_each_step_once() -> None:
    cluster = Cluster("s1")
    assert cluster.allocation("a1", "s1", "pending") == [("s1", Kind.STARTING)]
    assert cluster.allocation("a1", "s1", "pending") == []
    assert cluster.allocation("a1", "s1", "running") == [("s1", Kind.RUNNING)]
    assert cluster.due() == []
    assert cluster.allocation("a1", "s1", "complete") == [("s1", Kind.ENDED)]
    assert cluster.allocation("a1", "s1", "complete") == []


def test_an_event_that_comes_late_changes_nothing() -> None:
    book = Cluster("s1").book
    new = Allocation("a1", "job", "s1", client_status="running", modify_index=9)
    assert [told.kind for told in book.allocation(new)] == [Kind.RUNNING]
    assert book.allocation(msgspec.structs.replace(new, client_status="pending", modify_index=5)) == []


def test_a_job_of_which_no_slot_is_wanted_is_ended_and_purged_after_its_last_event() -> None:
    cluster = Cluster("s1", "s2")
    for number in (1, 2):
        cluster.allocation(f"a{number}", f"s{number}", "running")
    cluster.drop("s1")
    assert cluster.due() == []
    cluster.drop("s2")
    assert cluster.due() == [Deregister("job")]
    assert cluster.due(AGAIN_S) == []
    cluster.allocation("a1", "s1", "complete")
    assert cluster.due() == []
    cluster.allocation("a2", "s2", "complete")
    assert cluster.due() == [Purge("job")]
    assert cluster.book.jobs == {}


def test_the_job_of_a_slot_that_failed_is_kept_for_operators_for_a_while() -> None:
    cluster = Cluster("s1")
    cluster.allocation("a1", "s1", "failed")
    assert cluster.due() == []
    assert cluster.due(KEPT_S - 1) == []
    assert cluster.due(1) == [Purge("job")]


def test_a_dropped_slot_whose_guest_does_not_end_is_killed_and_its_neighbour_stays() -> None:
    cluster = Cluster("s1", "s2")
    for number in (1, 2):
        cluster.allocation(f"a{number}", f"s{number}", "running")
    cluster.drop("s1")
    assert cluster.due() == []
    assert cluster.due(GRACE_S) == [Kill("a1")]
    assert cluster.due() == []
    # It had no effect, or was lost.
    assert cluster.due(AGAIN_S) == [Kill("a1")]
    cluster.allocation("a1", "s1", "failed")
    assert cluster.due(AGAIN_S) == []


def test_an_allocation_that_a_button_made_is_killed() -> None:
    cluster = Cluster("s1", "s2")
    cluster.allocation("a1", "s1", "running")
    cluster.allocation("a2", "s2", "running")
    # Stop Alloc: Nomad ends it and starts another.
    assert cluster.allocation("a1", "s1", "complete", desired_status="stop") == [("s1", Kind.STOPPED)]
    assert cluster.allocation("b1", "s1", "pending") == []
    assert cluster.due() == []
    assert cluster.allocation("b1", "s1", "running") == []
    assert cluster.due() == [Kill("b1")]


def test_a_slot_placed_after_it_was_given_up_is_killed_as_soon_as_it_runs() -> None:
    cluster = Cluster("s1", "s2")
    cluster.allocation("a2", "s2", "running")
    cluster.drop("s1")
    assert cluster.due(GRACE_S) == []
    cluster.allocation("a1", "s1", "pending")
    assert cluster.due() == []
    cluster.allocation("a1", "s1", "running")
    assert cluster.due() == [Kill("a1")]


def test_a_job_that_waits_for_the_cluster_goes_when_nobody_waits_for_it() -> None:
    cluster = Cluster("s1")
    cluster.drop("s1")
    assert cluster.due() == [Deregister("job")]
    assert cluster.due() == [Purge("job")]


def test_nothing_is_done_to_a_job_while_it_is_being_registered() -> None:
    cluster = Cluster()
    cluster.book.add("job", ["s1"])
    assert cluster.book.begin("job") == {"s1"}
    cluster.drop("s1")
    assert cluster.due() == []
    cluster.book.registered("job")
    assert cluster.due() == [Deregister("job")]


def test_a_slot_that_is_dropped_while_its_job_waits_is_never_registered() -> None:
    cluster = Cluster()
    cluster.book.add("job", ["s1", "s2"])
    assert cluster.book.starting() == 0
    cluster.drop("s1")
    assert cluster.book.begin("job") == {"s2"}
    assert cluster.book.starting() == 1
    assert not cluster.book.knows("s1")
    cluster.book.add("other", ["s3"])
    cluster.drop("s3")
    assert cluster.book.begin("other") == frozenset()
    assert "other" not in cluster.book.jobs


def test_a_slot_that_was_never_placed_is_told_to_be_gone_with_its_job() -> None:
    cluster = Cluster("s1")
    cluster.drop("s1")
    assert cluster.due() == [Deregister("job")]
    (purge,) = cluster.book.due(cluster.now)
    assert [(told.slot_id, told.kind) for told in cluster.book.done(purge)] == [("s1", Kind.STOPPED)]


def test_when_the_set_is_gone_only_slots_that_have_not_started_are_given_up() -> None:
    cluster = Cluster("s1", "s2", "s3")
    cluster.allocation("a1", "s1", "running")
    cluster.allocation("a2", "s2", "pending")
    cluster.book.drop_unstarted(cluster.now)
    assert [cluster.book.wants(slot) for slot in ("s1", "s2", "s3")] == [True, False, False]
    assert cluster.due() == []


def test_a_node_that_is_away_is_told_and_nothing_is_done() -> None:
    cluster = Cluster("s1")
    cluster.allocation("a1", "s1", "running")
    assert cluster.allocation("a1", "s1", "unknown") == [("s1", Kind.NODE_UNKNOWN)]
    assert cluster.due(3600) == []
    assert cluster.allocation("a1", "s1", "running") == [("s1", Kind.RUNNING)]


def test_a_slot_of_a_lost_node_is_the_sets_to_give_up() -> None:
    """It may run: Nomad calls one lost at once whose start it had not heard of."""
    cluster = Cluster("s1")
    cluster.allocation("a1", "s1", "pending")
    assert cluster.allocation("a1", "s1", "lost", desired_status="stop") == [("s1", Kind.NODE_LOST)]
    assert cluster.book.starting() == 0
    assert cluster.due(3600) == []
    assert cluster.book.found() == ["s1"]


def test_a_dropped_slot_of_a_lost_node_is_left_there_until_its_node_says_how_it_ended() -> None:
    cluster = Cluster("s1")
    cluster.allocation("a1", "s1", "pending")
    cluster.allocation("a1", "s1", "lost", desired_status="stop")
    cluster.drop("s1")
    assert cluster.due() == [Deregister("job")]
    assert cluster.due(LOST_S - 1) == []
    assert cluster.book.found() == ["s1"]
    assert cluster.allocation("a1", "s1", "complete", desired_status="stop") == [("s1", Kind.STOPPED)]
    assert cluster.due() == [Purge("job")]


def test_a_dropped_slot_of_a_node_that_never_comes_back_is_given_up_in_time() -> None:
    cluster = Cluster("s1")
    cluster.allocation("a1", "s1", "running")
    cluster.drop("s1")
    assert cluster.due() == [Deregister("job")]
    cluster.allocation("a1", "s1", "unknown")
    assert cluster.due(24 * 3600) == []
    cluster.allocation("a1", "s1", "lost", desired_status="stop")
    assert cluster.book.found() == ["s1"]
    (purge,) = cluster.book.due(cluster.now)
    assert [(told.slot_id, told.kind) for told in cluster.book.done(purge)] == [("s1", Kind.STOPPED)]


def test_slots_on_their_way_are_counted_without_those_that_wait_for_the_cluster() -> None:
    cluster = Cluster("s1", "s2", "s3")
    assert cluster.book.starting() == 3
    cluster.allocation("a1", "s1", "running")
    assert cluster.book.starting() == 2
    blocked: dict[str, Any] = {"s2": {"NodesExhausted": 1, "DimensionExhausted": {"memory": 1}}}
    evaluation = msgspec.convert(
        {"ID": "e1", "JobID": "job", "Status": "complete", "FailedTGAllocs": blocked}, Evaluation
    )
    assert ("s2", Kind.NO_CAPACITY) in [
        (told.slot_id, told.kind) for told in cluster.book.evaluation(evaluation)
    ]
    assert cluster.book.starting() == 1


def listed(job_id: str, *slots: str, stopped: bool = False) -> Job:
    raw = {
        "ID": job_id,
        "Stop": stopped,
        "JobSummary": {"Summary": {slot: {} for slot in slots}},
    }
    return msgspec.convert(raw, Job)


def test_what_an_earlier_registrar_left_is_found_and_goes_unless_it_is_kept() -> None:
    cluster = Cluster()
    alive = [
        Allocation(f"a{number}", "old", f"s{number}", "", "node-1", client_status="running")
        for number in (1, 2)
    ]
    cluster.book.listed([listed("old", "s1", "s2")], alive, [], frozenset())
    assert cluster.book.found() == ["s1", "s2"]
    cluster.book.keep(["s1"], cluster.now)
    assert cluster.due() == [Kill("a2")]


def test_a_slot_is_found_until_the_cluster_says_that_it_ended() -> None:
    """Also one that nobody wants, and of a job that was deregistered: its node may be away."""
    cluster = Cluster("s1", "s2")
    for number in (1, 2):
        cluster.allocation(f"a{number}", f"s{number}", "running")
        cluster.drop(f"s{number}")
    assert cluster.due() == [Deregister("job")]
    cluster.allocation("a1", "s1", "complete")
    cluster.allocation("a2", "s2", "unknown")
    assert cluster.book.found() == ["s2"]


def test_slots_that_the_set_ordered_in_an_earlier_life_go_unless_they_are_kept() -> None:
    cluster = Cluster("s1", "s2")
    for number in (1, 2):
        cluster.allocation(f"a{number}", f"s{number}", "running")
    cluster.book.keep(["s2"], cluster.now)
    assert cluster.due() == [Kill("a1")]


def test_a_job_that_appears_beside_those_of_the_set_is_ended() -> None:
    cluster = Cluster("s1")
    cluster.allocation("a1", "s1", "running")
    stray = Allocation("b1", "stray", "t1", client_status="running")
    own = Allocation("a1", "job", "s1", client_status="running", modify_index=9)
    jobs = [listed("job", "s1"), listed("stray", "t1")]
    cluster.book.listed(jobs, [own, stray], [], cluster.book.begun())
    cluster.book.drop_strangers(cluster.now)
    assert cluster.due() == [Deregister("stray")]


def test_a_job_that_somebody_purged_is_told() -> None:
    cluster = Cluster("s1")
    cluster.allocation("a1", "s1", "running")
    told = cluster.book.listed([], [], [], cluster.book.begun())
    assert [(each.slot_id, each.kind) for each in told] == [("s1", Kind.STOPPED)]
    assert cluster.book.jobs == {}


def test_a_job_that_is_newer_than_the_list_is_not_missed_in_it() -> None:
    cluster = Cluster()
    begun = cluster.book.begun()
    cluster.book.add("job", ["s1"])
    cluster.book.registered("job")
    assert cluster.book.listed([], [], [], begun) == []
    assert cluster.book.wants("s1")


def test_an_allocation_that_is_gone_from_the_list_has_ended() -> None:
    cluster = Cluster("s1", "s2")
    cluster.allocation("a1", "s1", "running")
    cluster.allocation("a2", "s2", "running")
    left = Allocation("a2", "job", "s2", client_status="running", modify_index=100)
    told = cluster.book.listed([listed("job", "s1", "s2")], [left], [], cluster.book.begun())
    assert [(each.slot_id, each.kind) for each in told] == [("s1", Kind.ENDED)]


def test_a_cluster_that_was_restored_from_a_backup_is_believed() -> None:
    cluster = Cluster("s1")
    late = Allocation("a1", "job", "s1", client_status="running", modify_index=900)
    cluster.book.listed([listed("job", "s1")], [late], [], cluster.book.begun(), 900)
    earlier = msgspec.structs.replace(late, client_status="pending", modify_index=40)
    # A late answer with an old record changes nothing; a cluster whose index went back has no newer one.
    assert cluster.book.listed([listed("job", "s1")], [earlier], [], cluster.book.begun(), 901) == []
    told = cluster.book.listed([listed("job", "s1")], [earlier], [], cluster.book.begun(), 41)
    assert [(each.slot_id, each.kind) for each in told] == [("s1", Kind.STARTING)]


def test_a_job_that_no_set_ordered_is_ended() -> None:
    cluster = Cluster()
    running = Allocation("a1", "strange", "web", client_status="running")
    cluster.book.listed([listed("strange", "web")], [running], [], frozenset())
    cluster.book.keep([], cluster.now)
    assert cluster.due() == [Deregister("strange")]
