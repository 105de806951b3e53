"""The world around a cell: carries its decisions out in memory, and checks each one."""

from __future__ import annotations

from collections import Counter, deque

from scheduler.errors import ImageUnknown, SchedulerError
from scheduler.policy.cell import Cell
from scheduler.policy.decisions import Assign, Decision, DropSlot, FailTask, QueueExpired, StartSlot, StopSlot
from scheduler.policy.limits import Limits, number_slots
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources

GONE = ImageUnknown("the image is gone")


def pool(
    account: str = "acme",
    image: str = "cat",
    cpu_percent: int = 100,
    memory_mib: int = 512,
    isolation: Isolation = Isolation.SHARED,
) -> PoolKey:
    return PoolKey(account, image, Resources(cpu_percent, memory_mib), isolation)


class House:
    """Slots and tasks by state, kept apart from the policy's own books. `now` is the policy's clock, in seconds."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.policy = Cell(self.limits, number_slots("s"))
        self.now = 1000.0
        self.tasks = 0
        self.waiting: dict[str, PoolKey] = {}
        self.running: dict[str, str] = {}
        self.pool_of_task: dict[str, PoolKey] = {}
        self.slots: dict[str, PoolKey] = {}
        self.starting: deque[str] = deque()
        self.idle: set[str] = set()
        self.used: set[str] = set()
        self.ready_at: dict[str, float] = {}
        self.arrived_at: dict[str, float] = {}
        self.failed: list[str] = []
        # What each task that gave up waiting had waited for.
        self.waited_for: dict[str, str] = {}
        self.order: list[str] = []

    # -- events

    def arrive(self, key: PoolKey, task_id: str | None = None, timeout_s: float | None = None) -> list[str]:
        self.tasks += 1
        task_id = task_id or f"t{self.tasks}"
        self.waiting[task_id] = self.pool_of_task[task_id] = key
        self.arrived_at[task_id] = self.now
        return self._do(self.policy.task_arrived(task_id, key, self.now, timeout_s=timeout_s))

    def leave(self, task_id: str) -> list[str]:
        self.waiting.pop(task_id, None)
        return self._do(self.policy.task_left(task_id, self.now))

    def hello(self, slot_id: str | None = None) -> list[str]:
        slot_id = slot_id or self.starting[0]
        self.starting.remove(slot_id)
        self.idle.add(slot_id)
        self.ready_at[slot_id] = self.now
        return self._do(self.policy.slot_ready(slot_id, self.now))

    def end(self, task_id: str) -> list[str]:
        slot_id = self.running.pop(task_id)
        self.idle.add(slot_id)
        return self._do(self.policy.slot_freed(slot_id, 0, self.now))

    def lose(
        self, slot_id: str, fatal: SchedulerError | None = None, reason: str = "it was lost"
    ) -> list[str]:
        del self.slots[slot_id]
        self.idle.discard(slot_id)
        if slot_id in self.starting:
            self.starting.remove(slot_id)
        for task_id in [task_id for task_id, slot in self.running.items() if slot == slot_id]:
            del self.running[task_id]
        return self._do(self.policy.slot_gone(slot_id, reason, self.now, fatal))

    def tick(self, seconds: float = 0.0) -> list[str]:
        self.now += seconds
        return self._do(self.policy.wake(self.now))

    # -- decisions

    def _do(self, decisions: list[Decision]) -> list[str]:
        """Carry decisions out and check them; returns them in words."""
        return [self._carry_out(decision) for decision in decisions]

    def _carry_out(self, decision: Decision) -> str:
        if isinstance(decision, Assign):
            key = self.waiting.pop(decision.task_id)
            assert self.slots[decision.slot_id] == key, "a slot of another pool"
            self.idle.remove(decision.slot_id)
            self.running[decision.task_id] = decision.slot_id
            new = decision.slot_id not in self.used
            waited = self.ready_at[decision.slot_id] >= self.arrived_at[decision.task_id]
            assert decision.cold == (new and waited)
            if key.isolation is Isolation.FRESH:
                assert decision.slot_id not in self.used, "a fresh slot used twice"
            self.used.add(decision.slot_id)
            self.order.append(decision.task_id)
            self._check_room()
            return f"{decision.task_id} in {decision.slot_id}"
        if isinstance(decision, StartSlot):
            assert decision.slot_id not in self.slots
            self.slots[decision.slot_id] = decision.pool
            self.starting.append(decision.slot_id)
            assert len(self.slots) <= self.limits.max_slots
            return f"start {decision.slot_id} for {decision.pool.account}/{decision.pool.image_digest}"
        if isinstance(decision, FailTask):
            del self.waiting[decision.task_id]
            self.failed.append(decision.task_id)
            return f"fail {decision.task_id}"
        if isinstance(decision, DropSlot):
            del self.slots[decision.slot_id]
            self.starting.remove(decision.slot_id)
            return f"drop {decision.slot_id}"
        if isinstance(decision, QueueExpired):
            del self.waiting[decision.task_id]
            self.waited_for[decision.task_id] = decision.waited_for
            return f"expired {decision.task_id}"
        assert isinstance(decision, StopSlot)
        # Only what is idle, or has just become so, may be stopped.
        self.idle.remove(decision.slot_id)
        del self.slots[decision.slot_id]
        return f"stop {decision.slot_id}"

    # -- what must hold

    def free(self) -> tuple[int, int]:
        used = [self.slots[slot_id].resources for slot_id in self.running.values()]
        return (
            self.limits.cpu_percent - sum(resources.cpu_percent for resources in used),
            self.limits.memory_mib - sum(resources.memory_mib for resources in used),
        )

    def policy_free(self) -> tuple[int, int]:
        (node,) = self.policy.books.nodes
        return node.free_cpu, node.free_memory

    def _check_room(self) -> None:
        cpu_percent, memory_mib = self.free()
        assert cpu_percent >= 0, "more cores in use than there are"
        assert memory_mib >= 0, "more memory in use than there is"
        assert len(set(self.running.values())) == len(self.running), "two tasks in one slot"

    def assert_books_are_empty(self) -> None:
        assert_books_are_empty(self.policy)

    def fitting(self) -> list[str]:
        """Tasks that wait although a slot of theirs is idle and there is room for them."""
        cpu_percent, memory_mib = self.free()
        idle = {self.slots[slot_id] for slot_id in self.idle}
        return [
            task_id
            for task_id, key in self.waiting.items()
            if key in idle
            and key.resources.cpu_percent <= cpu_percent
            and key.resources.memory_mib <= memory_mib
        ]

    def _charge_percent(self, resources: Resources) -> int:
        """What a running task is charged: the larger of its share of the cores and of the memory, in cores."""
        worth = resources.memory_mib * self.limits.cpu_percent // self.limits.memory_mib
        return max(resources.cpu_percent, worth)

    def check(self) -> None:
        """The policy's books agree with what happened."""
        self._check_room()
        assert self.policy_free() == self.free()
        assert self.policy.waiting == len(self.waiting)
        accounts = self.policy.books.turns.shares.accounts.values()
        held: Counter[str] = Counter()
        for slot_id in self.running.values():
            held[self.slots[slot_id].account] += self._charge_percent(self.slots[slot_id].resources)
        assert {account.name: account.held for account in accounts if account.held} == held
        waiting = Counter(key.account for key in self.waiting.values())
        assert {account.name: account.waiting for account in accounts if account.waiting} == waiting
        assert self.policy.books.slots_by_state() == {
            "idle": len(self.idle),
            "starting": len(self.starting),
            "running": len(self.running),
        }


def assert_books_are_empty(cell: Cell) -> None:
    """Nothing is left in any of the cell's books."""
    books = cell.books
    parts = {
        "cell": cell,
        "books": books,
        "queue": books.queue,
        "turns": books.turns,
        "spare turns": books.spare_turns,
        "shares": books.turns.shares,
        "spare shares": books.spare_turns.shares,
        "demand": books.demand,
    }
    left = {
        f"{part}.{name}": book
        for part, it in parts.items()
        for name, book in vars(it).items()
        if isinstance(book, (dict, set)) and book and name != "_weights"
    }
    assert left == {}
    for node in books.nodes:
        facts = node.facts
        assert (node.free_cpu, node.free_memory, node.starting_cpu) == (
            facts.cpu_percent,
            facts.memory_mib,
            0,
        )
        assert node.slots == 0
