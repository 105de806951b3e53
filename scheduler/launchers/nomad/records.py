"""Nomad's own records, as far as slots need them: allocations, evaluations, jobs, nodes. Fields that are
not named here are ignored."""

from __future__ import annotations

from typing import Final

import msgspec

TASK: Final = "guest"
"""Name of the one task in each group of jobspecs/slot.nomad.hcl."""

TERMINAL: Final = frozenset({"complete", "failed", "lost"})
"""Client states in which servers count on nothing of an allocation. One that is `lost` is `complete` or `failed` once
its node is back and has ended it."""


class TaskEvent(msgspec.Struct, frozen=True):
    """One line of a task's history on its node."""

    type: str = msgspec.field(name="Type", default="")
    display: str = msgspec.field(name="DisplayMessage", default="")
    details: dict[str, str] | None = msgspec.field(name="Details", default=None)

    def detail(self, name: str) -> str:
        return (self.details or {}).get(name, "")


class TaskState(msgspec.Struct, frozen=True):
    state: str = msgspec.field(name="State", default="")
    restarts: int = msgspec.field(name="Restarts", default=0)
    events: tuple[TaskEvent, ...] | None = msgspec.field(name="Events", default=None)


class Allocation(msgspec.Struct, frozen=True):
    """One placement of a group on a node. `group` is the slot's id."""

    id: str = msgspec.field(name="ID")
    job_id: str = msgspec.field(name="JobID")
    group: str = msgspec.field(name="TaskGroup")
    node_id: str = msgspec.field(name="NodeID", default="")
    node_name: str = msgspec.field(name="NodeName", default="")
    client_status: str = msgspec.field(name="ClientStatus", default="pending")
    desired_status: str = msgspec.field(name="DesiredStatus", default="run")
    description: str = msgspec.field(name="ClientDescription", default="")
    create_index: int = msgspec.field(name="CreateIndex", default=0)
    modify_index: int = msgspec.field(name="ModifyIndex", default=0)
    task_states: dict[str, TaskState] | None = msgspec.field(name="TaskStates", default=None)

    @property
    def events(self) -> tuple[TaskEvent, ...]:
        """The history of the guest's task, oldest first."""
        state = (self.task_states or {}).get(TASK)
        return (state.events if state is not None else None) or ()

    @property
    def ended(self) -> bool:
        return self.client_status in TERMINAL

    @property
    def lost(self) -> bool:
        """True if the servers gave it up with its node; it may run there until the node is back."""
        return self.client_status == "lost"


class Metric(msgspec.Struct, frozen=True):
    """The scheduler's account of why a group was not placed."""

    nodes_evaluated: int = msgspec.field(name="NodesEvaluated", default=0)
    nodes_filtered: int = msgspec.field(name="NodesFiltered", default=0)
    nodes_exhausted: int = msgspec.field(name="NodesExhausted", default=0)
    constraint_filtered: dict[str, int] | None = msgspec.field(name="ConstraintFiltered", default=None)
    dimension_exhausted: dict[str, int] | None = msgspec.field(name="DimensionExhausted", default=None)
    quota_exhausted: tuple[str, ...] | None = msgspec.field(name="QuotaExhausted", default=None)


class Evaluation(msgspec.Struct, frozen=True):
    """One look of a server's scheduler at a job."""

    id: str = msgspec.field(name="ID")
    job_id: str = msgspec.field(name="JobID")
    status: str = msgspec.field(name="Status", default="")
    description: str = msgspec.field(name="StatusDescription", default="")
    modify_index: int = msgspec.field(name="ModifyIndex", default=0)
    unplaced: dict[str, Metric] | None = msgspec.field(name="FailedTGAllocs", default=None)


class Summary(msgspec.Struct, frozen=True):
    """Counts of a job's allocations by group. Only the groups' names are read."""

    groups: dict[str, dict[str, int]] | None = msgspec.field(name="Summary", default=None)


class Job(msgspec.Struct, frozen=True):
    """A job in a list. `stopped`: it was deregistered, and is there only until it is purged."""

    id: str = msgspec.field(name="ID")
    status: str = msgspec.field(name="Status", default="")
    stopped: bool = msgspec.field(name="Stop", default=False)
    summary: Summary | None = msgspec.field(name="JobSummary", default=None)

    @property
    def groups(self) -> tuple[str, ...]:
        """The ids of its slots."""
        return tuple((self.summary.groups if self.summary is not None else None) or ())


class Node(msgspec.Struct, frozen=True):
    """A client, in a list or in an event."""

    id: str = msgspec.field(name="ID")
    name: str = msgspec.field(name="Name", default="")
    status: str = msgspec.field(name="Status", default="")
    eligibility: str = msgspec.field(name="SchedulingEligibility", default="eligible")
    drain: bool = msgspec.field(name="Drain", default=False)
    pool: str = msgspec.field(name="NodePool", default="")

    @property
    def takes_slots(self) -> bool:
        return self.status == "ready" and self.eligibility == "eligible" and not self.drain
