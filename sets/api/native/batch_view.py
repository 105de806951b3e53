"""A batch as clients see it."""

from __future__ import annotations

from typing import Any

from scheduler.batch import state_of
from scheduler.batches.batches import Progress
from scheduler.task import State
from sets.api.native.view import timestamp


def batch_json(progress: Progress, set_name: str) -> dict[str, Any]:
    """The batch as a JSON object."""
    batch, counts, waiting_for = progress
    return {
        "id": batch.id,
        "set": set_name,
        "image": batch.spec.image,
        "image_digest": batch.spec.image_digest,
        "name": batch.spec.name,
        "state": state_of(batch, counts),
        "detail": batch.detail,
        "waiting_for": waiting_for,
        "inputs": batch.inputs,
        "input_bytes": batch.spool.size_bytes,
        "counts": {
            "waiting": counts.waiting(batch),
            **{state.value: counts.states.get(state, 0) for state in State},
            "cancelled": counts.cancelled(batch),
        },
        "retried": batch.round,
        "created_at": timestamp(batch.created_us),
        "ended_at": timestamp(batch.ended_us),
        "expires_at": timestamp(batch.expires_us),
    }
