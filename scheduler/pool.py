"""The key of a pool: tasks with the same key may share slots."""

from __future__ import annotations

import msgspec

from scheduler.task import Isolation, Priority, Resources, TaskSpec


class PoolKey(msgspec.Struct, frozen=True):
    """Slots of one pool are alike: any of them can run any task of the pool.

    `cpu_features` are what the slot's node must have, sorted. `priority` is in the key so that the slots of `spare`
    tasks can be told to give way without a look at their tasks.
    """

    account: str
    image_digest: str
    resources: Resources
    isolation: Isolation
    cpu_features: tuple[str, ...] = ()
    priority: Priority = Priority.NORMAL


def pool_of(spec: TaskSpec) -> PoolKey:
    """The pool whose slots can run such a task."""
    features = spec.cpu_features
    if len(features) > 1:
        features = tuple(sorted(set(features)))
    return PoolKey(spec.account, spec.image_digest, spec.resources, spec.isolation, features, spec.priority)
