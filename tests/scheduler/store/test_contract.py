"""The contract of every store."""

from __future__ import annotations

import asyncio
from copy import copy

import pytest

from scheduler.errors import IdempotencyConflict, StaleLease, StoreError
from scheduler.store.contract import (
    EMPTY,
    INLINE_BYTES,
    Body,
    Durability,
    Idempotency,
    Results,
    Store,
    TaskFilter,
)
from scheduler.task import Kind, Reason, State, Task
from tests.scheduler.store.conftest import OpenStore
from tests.scheduler.store.samples import HOUR_US, T0_US, a_sync_task, a_task

DAY_US = 24 * HOUR_US
BODY = Body(3, b"abc")
BLOB = "0123456789abcdef0123456789abcdef"
OTHER_BLOB = "ff23456789abcdef0123456789abcdef"


async def ids(store: Store, **wanted: object) -> list[str]:
    return [task.id for task in await store.page(TaskFilter("acme", **wanted))]  # type: ignore[arg-type]


async def unfinished(store: Store) -> list[str]:
    return [task.id async for task in store.unfinished()]


class TestAdd:
    async def test_keeps_task_and_input(self, store: Store) -> None:
        task = a_task(name="mine", stdin_bytes=3)
        assert await store.add(task, BODY, None) is task
        assert await store.get(task.id) == task
        assert await store.stdin(task.id) == BODY
        assert await store.results(task.id) is None

    @pytest.mark.parametrize(
        "body", [EMPTY, Body(INLINE_BYTES, bytes(INLINE_BYTES)), Body(10**10, blob=BLOB)]
    )
    async def test_keeps_inputs_of_any_size(self, store: Store, body: Body) -> None:
        task = a_task()
        await store.add(task, body, None)
        assert await store.stdin(task.id) == body

    async def test_an_id_twice_is_an_error_and_changes_nothing(self, store: Store) -> None:
        task = a_task()
        await store.add(task, BODY, None)
        with pytest.raises(StoreError):
            await store.add(a_task(id=task.id, image="other:1"), Body(1, b"x"), None)
        assert await store.get(task.id) == task
        assert await store.stdin(task.id) == BODY

    async def test_a_bad_write_does_not_fail_its_neighbours(self, store: Store) -> None:
        known = a_task()
        await store.add(known, BODY, None)
        good = [a_task() for _ in range(10)]
        writes = [store.add(task, BODY, None) for task in good]
        writes.insert(5, store.add(a_task(id=known.id), BODY, None))
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert isinstance(outcomes.pop(5), StoreError)
        assert outcomes == good
        for task in good:
            assert await store.get(task.id) == task

    async def test_unknown_tasks_are_none(self, store: Store) -> None:
        assert await store.get("a-none") is None
        assert await store.stdin("a-none") is None
        assert await store.results("a-none") is None

    async def test_text_that_is_no_unicode_is_refused(self, store: Store) -> None:
        with pytest.raises(StoreError, match="not Unicode"):
            await store.add(a_task(name="\udcff"), BODY, None)


class TestIdempotency:
    async def test_the_same_key_answers_the_same_task(self, store: Store) -> None:
        first, second = a_task(), a_task(created_us=T0_US + DAY_US - 1)
        key = Idempotency("k", b"one")
        assert await store.add(first, BODY, key) is first
        assert await store.add(second, BODY, key) == first
        assert await store.get(second.id) is None
        assert await store.stdin(second.id) is None

    async def test_shows_the_task_as_it_is_now(self, store: Store) -> None:
        task = a_task()
        await store.add(task, BODY, Idempotency("k", b"one"))
        task.state, task.exit_code = State.SUCCEEDED, 0
        await store.finish(task, Results())
        assert await store.add(a_task(), BODY, Idempotency("k", b"one")) == task

    async def test_another_request_under_a_key_is_refused(self, store: Store) -> None:
        await store.add(a_task(), BODY, Idempotency("k", b"one"))
        refused = a_task()
        with pytest.raises(IdempotencyConflict):
            await store.add(refused, BODY, Idempotency("k", b"two"))
        assert await store.get(refused.id) is None

    async def test_keys_are_the_account_s_own(self, store: Store) -> None:
        mine, theirs = a_task(), a_task(account="other")
        await store.add(mine, BODY, Idempotency("k", b"one"))
        assert await store.add(theirs, BODY, Idempotency("k", b"two")) is theirs

    async def test_a_key_s_task_can_be_looked_up(self, store: Store) -> None:
        task = a_task()
        await store.add(task, BODY, Idempotency("k", b"one"))
        assert await store.keyed("acme", "k", T0_US + DAY_US - 1) == task
        assert await store.keyed("acme", "k", T0_US + DAY_US) is None
        assert await store.keyed("acme", "l", T0_US) is None
        assert await store.keyed("other", "k", T0_US) is None

    async def test_a_twin_s_input_is_given_up(self, store: Store) -> None:
        await store.add(a_task(), Body(70_000, blob=BLOB), Idempotency("k", b"one"))
        await store.add(a_task(), Body(70_000, blob=OTHER_BLOB), Idempotency("k", b"one"))
        assert await store.blobs_in_use() == {BLOB}
        assert await store.expire(T0_US, 100) == [OTHER_BLOB]

    async def test_a_key_is_free_after_a_day(self, store: Store) -> None:
        await store.add(a_task(), BODY, Idempotency("k", b"one"))
        later = a_task(created_us=T0_US + DAY_US)
        assert await store.add(later, BODY, Idempotency("k", b"two")) is later
        assert await store.add(a_task(created_us=T0_US + DAY_US + 1), BODY, Idempotency("k", b"two")) == later

    async def test_a_hundred_twins_make_one_task(self, store: Store) -> None:
        twins = [a_task() for _ in range(100)]
        key = Idempotency("k", b"one")
        answers = await asyncio.gather(*(store.add(twin, BODY, key) for twin in twins))
        assert len({answer.id for answer in answers}) == 1
        assert len(await ids(store, limit=200)) == 1

    async def test_survives_a_restart(self, new_store: OpenStore) -> None:
        first = a_task()
        for attempt in range(2):
            store = new_store()
            await store.open()
            assert (
                await store.add(first if attempt == 0 else a_task(), BODY, Idempotency("k", b"one"))
            ) == first
            await store.close()


class TestUpdate:
    @pytest.mark.parametrize("durability", Durability)
    async def test_writes_a_task_that_was_not_there(self, store: Store, durability: Durability) -> None:
        task = a_sync_task(stdout_head=b"\x00\xff", files={"/tmp/ä": 3})
        await store.update(task, durability)
        assert await store.get(task.id) == task

    async def test_keeps_the_input(self, store: Store) -> None:
        task = a_task()
        await store.add(task, BODY, None)
        task.move(State.RUNNING)
        await store.update(task, Durability.POWER)
        assert await store.stdin(task.id) == BODY

    async def test_writes_the_facts_of_the_call(self, store: Store) -> None:
        """The object may change while its write waits."""
        task = a_sync_task()
        write = asyncio.ensure_future(store.update(task, Durability.PROCESS))
        await asyncio.sleep(0)
        task.cpu_us = 1
        await write
        written = await store.get(task.id)
        assert written is not None
        assert written.cpu_us == 700

    async def test_the_last_of_many_stands(self, store: Store) -> None:
        """Also if they take different ways: with a later commit, without a sync, with one."""
        task = a_task()
        await store.add(task, BODY, None)
        for attempt in range(30):
            task.attempts = attempt
            store.update_later(task)
            writes = []
            for durability in (Durability.PROCESS, Durability.POWER, Durability.PROCESS)[: attempt % 3 + 1]:
                task.cpu_us += 1
                writes.append(asyncio.ensure_future(store.update(task, durability)))
                await asyncio.sleep(0)
            await asyncio.gather(*writes)
            assert await store.get(task.id) == task

    async def test_later_is_in_the_next_page(self, store: Store) -> None:
        task = a_task()
        await store.add(task, BODY, None)
        task.move(State.RUNNING)
        store.update_later(task)
        assert await store.page(TaskFilter(task.spec.account)) == [task]

    async def test_later_never_undoes_an_end(self, store: Store) -> None:
        task = a_task()
        await store.add(task, BODY, None)
        task.begin_attempt(task.created_us, cold_start=False)
        store.update_later(task)
        task.move(State.SUCCEEDED)
        await store.finish(task, Results(stdout=BODY))
        await asyncio.gather(*(store.update(a_sync_task(), Durability.POWER) for _ in range(5)))
        assert await store.get(task.id) == task

    async def test_many_at_once(self, store: Store) -> None:
        tasks = [a_sync_task() for _ in range(3_000)]
        await asyncio.gather(*(store.update(task, Durability.PROCESS) for task in tasks))
        for task in tasks[::100]:
            assert await store.get(task.id) == task


class TestFinish:
    async def test_keeps_results_and_drops_the_input(self, store: Store) -> None:
        task = a_task()
        await store.add(task, Body(99_999, blob=BLOB), None)
        task.state, task.reason, task.exit_code = State.FAILED, Reason.EXIT, 3
        results = Results(Body(4, b"\x00out"), Body(70_000, blob=OTHER_BLOB), {"/tmp/a": Body(1, b"a")})
        await store.finish(task, results)
        assert await store.get(task.id) == task
        assert await store.results(task.id) == results
        assert await store.stdin(task.id) is None
        assert await store.blobs_in_use() == {OTHER_BLOB}
        assert await unfinished(store) == []
        assert await store.expire(T0_US, 100) == [BLOB]
        assert await store.expire(T0_US, 100) == []

    @pytest.mark.parametrize("kind", list(Kind))
    async def test_is_refused_to_an_attempt_that_a_later_one_followed(self, store: Store, kind: Kind) -> None:
        task = a_task(State.RUNNING, kind=kind, lease_number=1)
        await store.update(task, Durability.PROCESS)
        earlier = copy(task)
        task.lease_number = 2
        await store.update(task, Durability.PROCESS)
        neighbour = a_task(State.SUCCEEDED, lease_number=1)
        earlier.state = State.FAILED
        stale, good = await asyncio.gather(
            store.finish(earlier, Results(stdout=Body(3, b"old"))),
            store.finish(neighbour, Results()),
            return_exceptions=True,
        )
        assert isinstance(stale, StaleLease)
        assert good is None
        assert await store.get(task.id) == task
        assert await store.results(task.id) is None
        task.state = State.SUCCEEDED
        await store.finish(task, Results(stdout=Body(3, b"new")))
        # Results may be written again by who wrote them, and by nobody before.
        await store.finish(task, Results(stdout=Body(3, b"new")))
        with pytest.raises(StaleLease, match=task.id):
            await store.finish(earlier, Results())
        results = await store.results(task.id)
        assert results is not None
        assert results.stdout == Body(3, b"new")

    async def test_is_not_overtaken_by_an_earlier_update(self, store: Store) -> None:
        for _ in range(20):
            task = a_task()
            await store.add(task, BODY, None)
            task.move(State.RUNNING)
            store.update_later(task)
            task.move(State.SUCCEEDED)
            await store.finish(task, Results())
            assert await store.get(task.id) == task


class TestPages:
    async def test_newest_first_over_all_states(self, store: Store) -> None:
        tasks = [a_task(state) for state in list(State) * 3]
        for task in tasks:
            await store.update(task, Durability.PROCESS)
        await store.update(a_task(account="other"), Durability.PROCESS)
        expected = [task.id for task in reversed(tasks)]
        assert await ids(store) == expected
        assert await ids(store, limit=5) == expected[:5]
        assert await ids(store, before=expected[4], limit=5) == expected[5:10]
        assert await ids(store, before=expected[-1]) == []
        assert await ids(store, limit=0) == []

    async def test_filters(self, store: Store) -> None:
        tasks = [
            a_task(state, image=image, name=name)
            for state in (State.QUEUED, State.SUCCEEDED, State.FAILED)
            for image in ("cat:1", "ocr:1")
            for name in (None, "x", "y")
        ]
        await asyncio.gather(*(store.update(task, Durability.PROCESS) for task in tasks))
        for state in (None, State.QUEUED, State.FAILED, State.CANCELLED):
            for image in (None, "cat:1", "none:1"):
                for name in (None, "x", "z"):
                    expected = [
                        task.id
                        for task in reversed(tasks)
                        if state in (None, task.state)
                        and image in (None, task.spec.image)
                        and name in (None, task.spec.name)
                    ]
                    assert await ids(store, state=state, image=image, name=name) == expected

    async def test_a_task_is_listed_once_however_often_it_moved(self, store: Store) -> None:
        task = a_task()
        await store.add(task, BODY, None)
        task.move(State.RUNNING)
        await store.update(task, Durability.PROCESS)
        task.move(State.SUCCEEDED)
        await store.finish(task, Results())
        assert await ids(store) == [task.id]
        assert await ids(store, state=State.QUEUED) == []


class TestRestart:
    async def test_goes_on_with_what_is_unfinished(self, new_store: OpenStore) -> None:
        store = new_store()
        await store.open()
        tasks = [a_task(state) for state in State for _ in range(150)]
        await asyncio.gather(*(store.add(task, BODY, None) for task in tasks))
        await store.update(a_task(State.RUNNING, kind=Kind.SYNC), Durability.PROCESS)
        later = a_task()
        store.update_later(later)
        await store.close()

        store = new_store()
        await store.open()
        waiting = [task.id for task in [*tasks, later] if not task.ended]
        assert await unfinished(store) == waiting
        assert await store.stdin(waiting[0]) == BODY
        await store.close()

    async def test_the_same_object_may_be_opened_again(self, new_store: OpenStore) -> None:
        store = new_store()
        task = a_task()
        for _ in range(2):
            await store.open()
            await store.update(task, Durability.POWER)
            assert await store.get(task.id) == task
            await store.close()

    async def test_a_closed_store_says_so(self, new_store: OpenStore) -> None:
        store = new_store()
        await store.open()
        await store.close()
        with pytest.raises(StoreError, match="not open"):
            await store.update(a_task(), Durability.PROCESS)
        with pytest.raises(StoreError, match="not open"):
            await store.get("a-1")

    async def test_closing_writes_what_is_queued(self, new_store: OpenStore) -> None:
        store = new_store()
        await store.open()
        tasks = [a_task() for _ in range(50)]
        writes = [asyncio.ensure_future(store.add(task, BODY, None)) for task in tasks]
        await asyncio.sleep(0)
        await store.close()
        await asyncio.gather(*writes)
        await store.open()
        assert await unfinished(store) == [task.id for task in tasks]
        await store.close()


class TestExpiry:
    async def finished(self, store: Store, expires_us: int | None, blob: str | None = None) -> Task:
        task = a_task()
        await store.add(task, BODY, None)
        task.state, task.expires_us = State.SUCCEEDED, expires_us
        await store.finish(task, Results(Body(70_000, blob=blob) if blob else EMPTY))
        return task

    async def test_deletes_what_is_due_and_tells_its_blobs(self, store: Store) -> None:
        due = await self.finished(store, T0_US, BLOB)
        kept = await self.finished(store, T0_US + 1, OTHER_BLOB)
        for_ever = await self.finished(store, None)
        running = a_task(State.RUNNING, expires_us=T0_US)
        await store.add(running, BODY, None)
        assert await store.expire(T0_US, 100) == [BLOB]
        assert await ids(store) == [running.id, for_ever.id, kept.id]
        assert await store.get(due.id) is None
        assert await store.results(due.id) is None
        assert await store.blobs_in_use() == {OTHER_BLOB}
        assert await store.expire(T0_US, 100) == []

    async def test_takes_the_oldest_up_to_its_limit(self, store: Store) -> None:
        tasks = [a_sync_task(expires_us=T0_US + at) for at in range(10)]
        await asyncio.gather(*(store.update(task, Durability.PROCESS) for task in tasks))
        await store.expire(T0_US + DAY_US, 4)
        assert await ids(store) == [task.id for task in reversed(tasks[4:])]

    async def test_a_living_key_keeps_its_task(self, store: Store) -> None:
        task = a_task()
        key = Idempotency("k", b"one")
        await store.add(task, BODY, key)
        task.state, task.expires_us = State.SUCCEEDED, T0_US + HOUR_US
        await store.finish(task, Results())
        await store.expire(T0_US + 2 * HOUR_US, 100)
        assert await store.add(a_task(created_us=T0_US + 3 * HOUR_US), BODY, key) == task
        await store.expire(T0_US + DAY_US, 100)
        assert await store.get(task.id) is None

    async def test_a_new_task_never_gets_an_expired_one_s_bodies(self, store: Store) -> None:
        await self.finished(store, T0_US, BLOB)
        await store.expire(T0_US, 100)
        task = a_task()
        await store.update(task, Durability.PROCESS)
        assert await store.results(task.id) is None
        assert await store.stdin(task.id) is None


async def test_blobs_in_use_names_inputs_and_results(store: Store) -> None:
    names = {f"{number:032x}" for number in range(1_200)}
    results = Results(
        Body(99_999, blob=BLOB), files={name: Body(99_999, blob=name) for name in sorted(names)}
    )
    await store.finish(a_task(State.FAILED), results)
    await store.add(a_task(), Body(99_999, blob=OTHER_BLOB), None)
    assert await store.blobs_in_use() == names | {BLOB, OTHER_BLOB}


async def test_a_cancelled_caller_harms_nobody(store: Store) -> None:
    tasks = [a_task() for _ in range(20)]
    writes = [asyncio.ensure_future(store.add(task, BODY, None)) for task in tasks]
    await asyncio.sleep(0)
    writes[3].cancel()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert isinstance(outcomes[3], asyncio.CancelledError)
    assert [outcome for outcome in outcomes if isinstance(outcome, Task)] == tasks[:3] + tasks[4:]
