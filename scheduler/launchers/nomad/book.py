"""The registrar's book of one set's jobs: records of Nomad come in, and what to tell and to do comes out. Pure.

A slot is wanted from its order until the set drops it. Everything else that runs in the jobs is surplus and is killed:
a second allocation that a button of Nomad's UI made, or a slot that was placed after the set gave it up. Killing is a
signal to the container, because Nomad replaces an allocation that is stopped by its API.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from scheduler.launchers.nomad.orders import Report
from scheduler.launchers.nomad.records import Allocation, Evaluation, Job
from scheduler.launchers.nomad.words import BLOCKED, OVER, Kind, Verdict, explain

GRACE_S: Final = 2.0
"""How long a guest has to end by itself after its slot was dropped, in seconds."""
AGAIN_S: Final = 5.0
"""Pause before the same thing is done again, in seconds: the call failed, or had no effect."""
LOST_S: Final = 600.0
"""How long a dropped slot of a lost node counts as left there, in seconds, if its node does not come back and say more.
A guest ends a minute after it lost its executor; the rest is for a machine that stood still meanwhile."""

_STARTED: Final = frozenset({Kind.RUNNING, Kind.NODE_UNKNOWN})
_NOT_STARTING: Final = BLOCKED | _STARTED | {Kind.NODE_LOST}
_REMOVED: Final = "its job was removed from the cluster, and has ended"


class Kill(msgspec.Struct, frozen=True):
    """Kill the container of an allocation."""

    allocation_id: str


class Deregister(msgspec.Struct, frozen=True):
    """End all slots of a job."""

    job_id: str


class Purge(msgspec.Struct, frozen=True):
    """Remove a job of which nothing runs."""

    job_id: str


Action = Kill | Deregister | Purge


class SlotRecord:
    """One slot: whether it is wanted, and what was last reported of it to the set."""

    __slots__ = ("claimed", "dropped_at", "id", "last_report", "over")

    def __init__(self, slot_id: str, *, claimed: bool) -> None:
        self.id = slot_id
        self.claimed = claimed
        self.dropped_at: float | None = None
        self.last_report: Verdict | None = None
        self.over = False


class JobRecord:
    """One job, with its slots by id and its allocations by id.

    `waiting`: its turn to be registered has not come. `registered` is False until the call has succeeded.
    """

    __slots__ = (
        "allocations",
        "evaluation",
        "id",
        "over_since",
        "registered",
        "slots",
        "stopped",
        "waiting",
    )

    def __init__(self, job_id: str, slot_ids: Iterable[str], *, claimed: bool) -> None:
        self.id = job_id
        self.slots = {slot_id: SlotRecord(slot_id, claimed=claimed) for slot_id in slot_ids}
        self.allocations: dict[str, Allocation] = {}
        self.evaluation: Evaluation | None = None
        self.waiting = claimed
        self.registered = not claimed
        self.stopped = False
        self.over_since: float | None = None

    def of(self, slot_id: str) -> Allocation | None:
        """The slot's allocation: the first that was made for it."""
        made = [each for each in self.allocations.values() if each.group == slot_id]
        return min(made, key=lambda each: each.create_index, default=None)

    @property
    def alive(self) -> bool:
        """True if anything of it may still run."""
        return any(not each.ended for each in self.allocations.values())

    @property
    def lost(self) -> bool:
        """True if something of it was on a node of which the cluster lost sight."""
        return any(each.lost for each in self.allocations.values())

    @property
    def wanted(self) -> bool:
        return any(slot.dropped_at is None and not slot.over for slot in self.slots.values())


class Book:
    """The jobs of one installation of the set. `now` is in seconds and never goes back."""

    def __init__(self, purge_after_s: float) -> None:
        self.jobs: dict[str, JobRecord] = {}
        self._job_of: dict[str, str] = {}
        self._purge_after_s = purge_after_s
        self._done_at: dict[Action, float] = {}
        self._index = 0

    # -- what the set wants

    def add(self, job_id: str, slot_ids: Iterable[str]) -> None:
        """A job that waits for its turn to be registered."""
        self._enter(JobRecord(job_id, slot_ids, claimed=True))

    def begin(self, job_id: str) -> frozenset[str]:
        """Return the slots of the job that are still wanted; it is about to be registered with these alone."""
        job = self.jobs.get(job_id)
        if job is None:
            return frozenset()
        job.waiting = False
        for slot_id in [slot.id for slot in job.slots.values() if slot.dropped_at is not None]:
            del job.slots[slot_id]
            self._job_of.pop(slot_id, None)
        if not job.slots:
            self._forget(job_id)
        return frozenset(job.slots)

    def registered(self, job_id: str) -> None:
        if job := self.jobs.get(job_id):
            job.waiting, job.registered = False, True

    def refused(self, job_id: str) -> None:
        """The job was not registered, and is not there."""
        self._forget(job_id)

    def drop(self, slot_id: str, now: float) -> None:
        slot = self._slot(slot_id)
        if slot is not None and slot.dropped_at is None:
            slot.dropped_at = now

    def knows(self, slot_id: str) -> bool:
        return slot_id in self._job_of

    def wants(self, slot_id: str) -> bool:
        slot = self._slot(slot_id)
        return slot is not None and slot.dropped_at is None

    def keep(self, slot_ids: Iterable[str], now: float) -> None:
        """Drop all slots but these: the set that has connected knows of no others."""
        kept = set(slot_ids)
        for job in self.jobs.values():
            for slot in job.slots.values():
                slot.claimed = True
                if slot.id not in kept and slot.dropped_at is None:
                    slot.dropped_at = now - GRACE_S

    def drop_strangers(self, now: float) -> None:
        """Drop the slots of jobs that appeared in the cluster, and that nobody ordered here."""
        for job in self.jobs.values():
            for slot in job.slots.values():
                if not slot.claimed and slot.dropped_at is None:
                    slot.dropped_at = now - GRACE_S

    def drop_unstarted(self, now: float) -> None:
        """Drop the slots that have not started: the set is gone, and nobody waits for them."""
        for job in self.jobs.values():
            for slot in job.slots.values():
                if slot.dropped_at is None and (
                    slot.last_report is None or slot.last_report.kind not in _STARTED
                ):
                    slot.dropped_at = now

    def found(self) -> list[str]:
        """The ids of the slots of which anything may be left, wanted or not, of whatever run of the set.

        The end of each is reported later.
        """
        return [
            slot.id
            for job in self.jobs.values()
            if job.registered
            for slot in job.slots.values()
            if not slot.over
        ]

    # -- what Nomad says

    def allocation(self, allocation: Allocation) -> list[Report]:
        job = self.jobs.get(allocation.job_id)
        known = job.allocations.get(allocation.id) if job is not None else None
        if job is None or (known is not None and known.modify_index > allocation.modify_index):
            return []
        job.allocations[allocation.id] = allocation
        return self._reports(job)

    def evaluation(self, evaluation: Evaluation) -> list[Report]:
        job = self.jobs.get(evaluation.job_id)
        if job is None:
            return []
        known = job.evaluation
        if known is not None and known.modify_index > evaluation.modify_index:
            return []
        if evaluation.status == "pending" and not evaluation.unplaced:
            return []
        job.evaluation = evaluation
        return self._reports(job)

    def listed(
        self,
        jobs: Iterable[Job],
        allocations: Iterable[Allocation],
        evaluations: Iterable[Evaluation],
        begun: frozenset[str],
        index: int = 0,
    ) -> list[Report]:
        """Take in everything that the cluster has of this installation. `begun`: the jobs that were registered before
        it was asked. `index`: that of the cluster's state, which goes back when servers are restored from a backup."""
        if index < self._index:
            self._forget_indexes()
        self._index = index
        listed = {job.id: job for job in jobs}
        reports: list[Report] = []
        for job_id in begun - listed.keys():
            reports += self._vanished(job_id)
        for job_id, job in listed.items():
            if job_id not in self.jobs:
                self._enter(JobRecord(job_id, job.groups, claimed=False))
            record = self.jobs[job_id]
            record.registered = True
            record.stopped = record.stopped or job.stopped
        by_job: dict[str, list[Allocation]] = {}
        for allocation in allocations:
            by_job.setdefault(allocation.job_id, []).append(allocation)
        for job_id in begun & listed.keys():
            self._compare(self.jobs[job_id], by_job.get(job_id, []))
        for found in by_job.values():
            for allocation in found:
                reports += self.allocation(allocation)
        for evaluation in sorted(evaluations, key=lambda each: each.modify_index):
            reports += self.evaluation(evaluation)
        return reports

    def begun(self) -> frozenset[str]:
        """The jobs that are registered: a list of the cluster that is asked for from now on has them."""
        return frozenset(job.id for job in self.jobs.values() if job.registered)

    def _forget_indexes(self) -> None:
        """Believe what the cluster says next, as its own memory is older than ours."""
        for job in self.jobs.values():
            job.allocations = {
                each.id: msgspec.structs.replace(each, modify_index=0) for each in job.allocations.values()
            }
            if job.evaluation is not None:
                job.evaluation = msgspec.structs.replace(job.evaluation, modify_index=0)

    def _compare(self, job: JobRecord, listed: list[Allocation]) -> None:
        """Allocations that are gone from the cluster's list have ended; a server removes no others."""
        there = {each.id for each in listed}
        for allocation in list(job.allocations.values()):
            if allocation.id not in there and not allocation.ended:
                job.allocations[allocation.id] = msgspec.structs.replace(
                    allocation, client_status="complete", description="the cluster removed its record"
                )

    def _vanished(self, job_id: str) -> list[Report]:
        job = self.jobs.get(job_id)
        if job is None:
            return []
        reports = [Report(slot.id, Kind.STOPPED, _REMOVED) for slot in job.slots.values() if not slot.over]
        self._forget(job_id)
        return reports

    def _reports(self, job: JobRecord) -> list[Report]:
        found = []
        for slot in job.slots.values():
            if slot.over:
                continue
            verdict = explain(slot.id, job.of(slot.id), job.evaluation)
            if verdict != slot.last_report:
                slot.last_report = verdict
                slot.over = verdict.kind in OVER
                found.append(Report(slot.id, verdict.kind, verdict.words))
        return found

    def last_reports(self) -> list[Report]:
        """Return what is known of each slot: a set that connects again may have missed it."""
        return [
            Report(slot.id, slot.last_report.kind, slot.last_report.words)
            for job in self.jobs.values()
            for slot in job.slots.values()
            if slot.last_report is not None and slot.claimed and slot.dropped_at is None
        ]

    def ending(self, slot_id: str) -> Report | None:
        """How the slot ended; None where it has not."""
        slot = self._slot(slot_id)
        if slot is None or not slot.over or slot.last_report is None:
            return None
        return Report(slot.id, slot.last_report.kind, slot.last_report.words)

    def count(self) -> int:
        """How many slots there are or may be: those that wait for their turn and those that end are among them."""
        return sum(not slot.over for job in self.jobs.values() for slot in job.slots.values())

    # -- what is to be done

    def starting(self) -> int:
        """Slots that are wanted and on their way; those that wait for the cluster to change do not count."""
        return sum(
            1
            for job in self.jobs.values()
            if not job.waiting
            for slot in job.slots.values()
            if slot.dropped_at is None
            and not slot.over
            and (slot.last_report is None or slot.last_report.kind not in _NOT_STARTING)
        )

    def due(self, now: float) -> list[Action]:
        """Return what must be done now. An action that is still due later comes again after `AGAIN_S`."""
        actions = [action for job in self.jobs.values() for action in self._due(job, now)]
        found = [action for action in actions if now - self._done_at.get(action, -AGAIN_S) >= AGAIN_S]
        self._done_at = {action: at for action, at in self._done_at.items() if now - at < AGAIN_S}
        self._done_at.update(dict.fromkeys(found, now))
        return found

    def _due(self, job: JobRecord, now: float) -> list[Action]:
        if not job.registered:
            return []
        if job.wanted:
            job.over_since = None
            return [Kill(each.id) for each in job.allocations.values() if self._is_surplus(job, each, now)]
        if job.over_since is None:
            job.over_since = now
        if not job.alive and (job.stopped or all(slot.over for slot in job.slots.values())):
            kept_s = LOST_S if job.lost else 0.0 if job.stopped else self._purge_after_s
            return [Purge(job.id)] if now - job.over_since >= kept_s else []
        return [] if job.stopped else [Deregister(job.id)]

    def _is_surplus(self, job: JobRecord, allocation: Allocation, now: float) -> bool:
        if allocation.client_status != "running":
            return False
        slot = job.slots.get(allocation.group)
        first = job.of(allocation.group)
        if slot is None or first is None or first.id != allocation.id:
            return True
        return slot.dropped_at is not None and now - slot.dropped_at >= GRACE_S

    def done(self, action: Action) -> list[Report]:
        """The call succeeded."""
        match action:
            case Deregister(job_id):
                if job := self.jobs.get(job_id):
                    job.stopped = True
            case Purge(job_id):
                return self._vanished(job_id)
        return []

    # --

    def _slot(self, slot_id: str) -> SlotRecord | None:
        job = self.jobs.get(self._job_of.get(slot_id, ""))
        return job.slots.get(slot_id) if job is not None else None

    def _enter(self, job: JobRecord) -> None:
        self.jobs[job.id] = job
        self._job_of.update(dict.fromkeys(job.slots, job.id))

    def _forget(self, job_id: str) -> None:
        job = self.jobs.pop(job_id, None)
        for slot_id in job.slots if job is not None else ():
            self._job_of.pop(slot_id, None)
