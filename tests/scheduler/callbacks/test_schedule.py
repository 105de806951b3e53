"""The schedule of callbacks, as a conversation: this waits, this is tried, this ended."""

from __future__ import annotations

from random import Random

import pytest

from scheduler.callbacks.schedule import REST, Bounds, Entry, Schedule

S = 1_000_000
DAY = 86_400 * S


def entry(
    task_id: str, receiver: str = "r", account: str = "acme", *, due: int = 0, ends: int = 3 * DAY
) -> Entry:
    return Entry(due, task_id, ends, account, receiver)


def taken(schedule: Schedule, now: int = 0) -> list[Entry]:
    found = []
    while (each := schedule.take(now)) is not None:
        found.append(each)
    return found


def ids(entries: list[Entry]) -> list[str]:
    return [each.task_id for each in entries]


class TestTimes:
    def test_nothing_is_tried_before_its_time(self) -> None:
        schedule = Schedule()
        schedule.add(entry("later", due=10), 0)
        schedule.add(entry("sooner", due=5), 0)
        assert schedule.next_us() == 5
        assert taken(schedule, 4) == []
        assert ids(taken(schedule, 5)) == ["sooner"]
        assert schedule.next_us() == 10
        assert ids(taken(schedule, 11)) == ["later"]

    def test_the_same_callback_waits_once(self) -> None:
        schedule = Schedule()
        schedule.add(entry("a"), 0)
        schedule.add(entry("a"), 0)
        (first,) = taken(schedule)
        schedule.add(entry("a"), 0)
        assert taken(schedule) == []
        schedule.ended(first, 0, reached=True)
        assert (len(schedule), schedule.count_of("acme"), schedule.running) == (0, 0, 0)
        schedule.add(entry("a"), 0)
        assert ids(taken(schedule)) == ["a"]

    def test_one_that_failed_is_tried_at_its_next_time(self) -> None:
        schedule = Schedule()
        schedule.add(entry("a"), 0)
        (first,) = taken(schedule)
        assert schedule.ended(first, 0, reached=True, again=entry("a", due=7)) == []
        assert schedule.next_us() == 7
        assert (len(schedule), schedule.count_of("acme")) == (1, 1)
        assert ids(taken(schedule, 7)) == ["a"]


class TestBounds:
    def test_of_a_lane_an_account_a_receiver_and_all(self) -> None:
        schedule = Schedule(Bounds(in_all=10, account=4, receiver=3, lane=2))
        for account in "abcd":
            for receiver in "xyz":
                for number in range(5):
                    schedule.add(entry(f"{account}{receiver}{number}", receiver, account), 0)
        running = taken(schedule)
        assert len(running) == schedule.running == 9, "three receivers with three each"
        for receiver in "xyz":
            assert sum(each.receiver == receiver for each in running) == 3
        for account in "abcd":
            assert sum(each.account == account for each in running) <= 4
        for lane in {(each.account, each.receiver) for each in running}:
            assert sum((each.account, each.receiver) == lane for each in running) <= 2

    def test_in_all(self) -> None:
        schedule = Schedule(Bounds(in_all=3))
        for number in range(10):
            schedule.add(entry(str(number), f"r{number}", f"account{number}"), 0)
        first = taken(schedule)
        assert len(first) == 3
        schedule.ended(first[0], 0, reached=True)
        assert len(taken(schedule)) == 1

    def test_a_receiver_that_is_full_goes_on_when_a_try_ends(self) -> None:
        schedule = Schedule(Bounds(receiver=1, lane=1))
        schedule.add(entry("a", "r", "one"), 0)
        schedule.add(entry("b", "r", "two"), 0)
        schedule.add(entry("c", "s", "two"), 0)
        running = taken(schedule)
        assert ids(running) == ["a", "c"]
        schedule.ended(running[0], 0, reached=True)
        assert ids(taken(schedule)) == ["b"]


class TestTurns:
    def test_accounts_have_turns(self) -> None:
        schedule = Schedule(Bounds(in_all=1))
        for number in range(3):
            schedule.add(entry(f"flood{number}", f"r{number}", "flood"), 0)
        schedule.add(entry("single", "r", "victim"), 0)
        order = []
        while found := taken(schedule):
            order += ids(found)
            schedule.ended(found[0], 0, reached=True)
        assert order.index("single") <= 1

    def test_receivers_of_an_account_have_turns(self) -> None:
        schedule = Schedule(Bounds(in_all=1))
        for number in range(100):
            schedule.add(entry(f"flood{number:02d}", "busy"), 0)
        schedule.add(entry("single", "quiet"), 0)
        order = []
        while found := taken(schedule):
            order += ids(found)
            schedule.ended(found[0], 0, reached=True)
        assert order.index("single") <= 2
        assert len(order) == 101


class TestDeadReceivers:
    def test_a_lane_rests_for_longer_and_longer_and_then_tries_one(self) -> None:
        schedule = Schedule()
        for number in range(5):
            schedule.add(entry(str(number)), 0)
        now = 0
        first, second = taken(schedule, now)
        schedule.ended(first, now, reached=False, again=entry(first.task_id, due=now))
        schedule.ended(second, now, reached=False, again=entry(second.task_id, due=now))
        for failures in range(2, 15):
            rest = round(REST.after(failures) * S)
            assert taken(schedule, now + rest - 1) == []
            assert schedule.next_us() == now + rest
            now += rest
            (probe,) = taken(schedule, now)
            schedule.ended(probe, now, reached=False, again=entry(probe.task_id, due=now))
        assert rest == 300 * S

    def test_one_answer_ends_the_rest(self) -> None:
        schedule = Schedule()
        for number in range(5):
            schedule.add(entry(str(number)), 0)
        first, second = taken(schedule)
        schedule.ended(first, 0, reached=False)
        schedule.ended(second, 0, reached=True)
        assert len(taken(schedule)) == 2

    def test_it_holds_up_nobody_else(self) -> None:
        """Twelve receivers never answer, which takes 15 s each time; another one's callbacks are made meanwhile."""
        schedule = Schedule()
        for number in range(12):
            for each in range(100):
                schedule.add(entry(f"dead{number}-{each}", f"dead{number}"), 0)
        now, made, ends = 0, 0, list[tuple[int, Entry]]()
        for second in range(600):
            now = second * S
            for at, running in [each for each in ends if each[0] <= now]:
                ends.remove((at, running))
                schedule.ended(
                    running, now, reached=False, again=entry(running.task_id, running.receiver, due=now)
                )
            schedule.add(entry(f"live{second}", "live", due=now), now)
            while (found := schedule.take(now)) is not None:
                if found.receiver == "live":
                    schedule.ended(found, now, reached=True)
                    made += 1
                else:
                    ends.append((now + 15 * S, found))
        assert made >= 540

    def test_what_cannot_be_tried_within_its_days_is_given_up(self) -> None:
        schedule = Schedule()
        for number in range(10):
            schedule.add(entry(str(number), ends=DAY if number % 2 else 3 * DAY), 0)
        first = schedule.take(0)
        assert first is not None
        assert schedule.ended(first, DAY - 1, reached=False) == []
        probe = schedule.take(2 * DAY)
        assert probe is not None
        overdue = schedule.ended(probe, 2 * DAY, reached=False)
        assert sorted(ids(overdue)) == [str(n) for n in (1, 3, 5, 7, 9) if str(n) not in ids([first, probe])]
        assert len(schedule) == schedule.count_of("acme") == 10 - 2 - len(overdue)


@pytest.mark.parametrize("seed", range(20))
def test_in_a_random_game_all_are_tried_bounds_hold_and_nothing_is_left(seed: int) -> None:
    random = Random(seed)
    bounds = Bounds(
        in_all=random.randint(1, 6), account=random.randint(1, 3), receiver=random.randint(1, 3), lane=1
    )
    schedule = Schedule(bounds)
    now, left = 0, {}
    running: list[Entry] = []
    for number in range(200):
        each = entry(
            f"t{number:03d}",
            random.choice("xyz"),
            random.choice("abc"),
            due=random.randint(0, 50) * S,
            ends=10**18,
        )
        left[each.task_id] = random.randint(1, 4)
        schedule.add(each, now)
    steps = 0
    while left:
        steps += 1
        assert steps < 20_000, "something is never tried"
        while random.random() < 0.7 and (found := schedule.take(now)) is not None:
            assert found.due_us <= now
            running.append(found)
        assert len(running) == schedule.running <= bounds.in_all
        for name, most in (("account", bounds.account), ("receiver", bounds.receiver)):
            for value in {getattr(each, name) for each in running}:
                assert sum(getattr(each, name) == value for each in running) <= most
        if running and random.random() < 0.6:
            each = running.pop(random.randrange(len(running)))
            left[each.task_id] -= 1
            again = None
            if left[each.task_id]:
                due = now + random.randint(0, 9) * S
                again = entry(each.task_id, each.receiver, each.account, due=due, ends=10**18)
            else:
                del left[each.task_id]
            schedule.ended(each, now, reached=random.random() < 0.5, again=again)
        elif (next_us := schedule.next_us()) is not None:
            now = max(now, next_us)
    assert (len(schedule), schedule.running, schedule.take(10**18)) == (0, 0, None)
    assert not any(schedule.count_of(account) for account in "abc")
