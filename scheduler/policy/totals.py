"""Sums over a cell, for metrics and for operators. Pure."""

from __future__ import annotations

from scheduler.policy.books import Books


def totals(books: Books, now: float) -> dict[str, float]:
    """Return the cell's cores, MiB and slots, their use by running tasks, and the queue. Cores of spare tasks count
    apart, as normal tasks can have them; nor do spare tasks count in the oldest wait."""
    waiting = [pool for pool in books.pools.values() if pool.waiting and not pool.is_spare]
    first = [next(iter(pool.waiting.values())) for pool in waiting]
    nodes = books.nodes
    busy = sum(node.facts.cpu_percent - node.free_cpu for node in nodes)
    spare = sum(slot.pool.cpu_percent for slots in books.spare_on.values() for slot in slots)
    return {
        "tasks_waiting": books.queue.waiting,
        "oldest_wait_seconds": round(now - min(first, default=now), 3),
        "cores": nodes.cpu_percent / 100,
        "cores_busy": (busy - spare) / 100,
        "cores_spare": spare / 100,
        "spare_gave_way": books.gave_way,
        "memory_mib": nodes.memory_mib,
        "memory_busy_mib": sum(node.facts.memory_mib - node.free_memory for node in nodes),
        "slots_max": nodes.max_slots,
        **{f"slots_{state}": count for state, count in books.slots_by_state().items()},
    }
