"""The cell over random histories: what must hold after each event, and at the end."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scheduler.policy.limits import Limits
from scheduler.task import Isolation
from tests.scheduler.policy.house import GONE, House, pool

POOLS = [
    pool("a"),
    pool("a", "ocr", memory_mib=1500),
    pool("a", isolation=Isolation.FRESH),
    pool("b"),
    pool("b", cpu_percent=200),
    pool("c", cpu_percent=50),
    pool("d", "ocr", cpu_percent=300, memory_mib=100),
]


class AnyHistory(RuleBasedStateMachine):
    """Tasks come, leave and end, slots start, fail and die, time passes: in any order."""

    patience_s = 1e9
    """Never used up: so nobody may wait beside a slot and room. `Patient` says what changes when it is."""

    def __init__(self) -> None:
        super().__init__()
        self.house = House()
        self.sizes(cores=3, max_slots=4)

    @initialize(cores=st.sampled_from([3, 4, 40]), max_slots=st.sampled_from([1, 2, 4, 9]))
    def sizes(self, cores: int, max_slots: int) -> None:
        self.house = House(
            Limits(
                cpu_percent=100 * cores,
                memory_mib=2048,
                max_slots=max_slots,
                keep_idle_s=5.0,
                start_backoff_s=1.0,
                patience_s=self.patience_s,
            )
        )

    @rule(key=st.sampled_from(POOLS), count=st.sampled_from([1, 1, 1, 7]))
    def arrive(self, key, count) -> None:  # type: ignore[no-untyped-def]
        for _ in range(count):
            self.house.arrive(key)

    @precondition(lambda self: self.house.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.house.leave(data.draw(st.sampled_from(sorted(self.house.waiting))))

    @precondition(lambda self: self.house.starting)
    @rule(data=st.data())
    def hello(self, data: st.DataObject) -> None:
        self.house.hello(data.draw(st.sampled_from(sorted(self.house.starting))))

    @precondition(lambda self: self.house.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.house.end(data.draw(st.sampled_from(sorted(self.house.running))))

    @precondition(lambda self: self.house.slots)
    @rule(data=st.data(), fatal=st.booleans())
    def lose(self, data: st.DataObject, fatal: bool) -> None:
        self.house.lose(data.draw(st.sampled_from(sorted(self.house.slots))), GONE if fatal else None)

    @rule(seconds=st.sampled_from([0.0, 0.3, 2.0, 10.0]))
    def tick(self, seconds: float) -> None:
        self.house.tick(seconds)

    @invariant()
    def books_agree(self) -> None:
        self.house.check()

    @invariant()
    def nobody_waits_beside_a_slot_and_room(self) -> None:
        assert self.house.fitting() == []

    @invariant()
    def somebody_moves_while_anybody_waits(self) -> None:
        """Where tasks wait something runs, starts, or backs off until the next try."""
        house = self.house
        if house.waiting and not house.running and not house.starting:
            assert house.policy.wake_at < float("inf"), "tasks wait for nothing"

    def teardown(self) -> None:
        """Let everybody finish: all are served, and nothing is left in the books."""
        house = self.house
        for _ in range(10_000):
            if not house.waiting and not house.running:
                break
            if house.starting:
                house.hello()
            elif house.running:
                house.end(next(iter(house.running)))
            else:
                house.tick(31.0)
        assert not house.waiting, "tasks wait for ever"
        while house.starting:
            house.hello()
        house.tick(100.0)
        house.tick(100.0)
        house.check()
        assert not house.slots
        house.assert_books_are_empty()


class AnyHistoryWithPatience(AnyHistory):
    """With patience room is kept for who was too large for it, and for nobody else."""

    patience_s = 1.0

    @invariant()
    def nobody_waits_beside_a_slot_and_room(self) -> None:
        house = self.house
        if not house.fitting():
            return
        cpu_percent, memory_mib = house.free()
        idle = {house.slots[slot_id] for slot_id in house.idle}
        assert any(
            key in idle and (key.resources.cpu_percent > cpu_percent or key.resources.memory_mib > memory_mib)
            for key in house.waiting.values()
        )


HISTORIES = settings(
    max_examples=1000, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)

TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = HISTORIES
TestAnyHistoryWithPatience = AnyHistoryWithPatience.TestCase
TestAnyHistoryWithPatience.settings = HISTORIES
