"""Deliveries: a real store, real receivers on the loopback, callbacks that arrive at least once."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from scheduler.backoff import Backoff
from scheduler.callback import Callback, CallbackFilter, CallbackState
from scheduler.callbacks import deliveries as module
from scheduler.callbacks import schedule, verdict
from scheduler.callbacks.deliveries import Deliveries
from scheduler.callbacks.networks import Networks
from scheduler.callbacks.schedule import Bounds
from scheduler.callbacks.sending import Sender
from scheduler.clock import wall_us
from scheduler.errors import AccountLimit, BadRequest, QueueFull, StoreError
from scheduler.store.callbacks import SqliteCallbacks
from scheduler.store.contract import Durability, Results
from scheduler.store.sqlite import SqliteStore
from scheduler.task import State, Task
from sets.api.native.view import task_json
from tests.scheduler.callbacks.receivers import Received, answers, never, receiving
from tests.scheduler.conftest import until
from tests.scheduler.store.samples import a_task

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
PATIENCE_S = 60.0
LOOPBACK = Networks(("127.0.0.0/8",))


class TroubledCallbacks(SqliteCallbacks):
    """The real store, which refuses to save a number of times."""

    refusals = 0

    async def save(self, callback: Callback) -> None:
        if self.refusals:
            self.refusals -= 1
            raise StoreError("the disk is away")
        await super().save(callback)


class World:
    """The deliveries of one set over a real store in a folder."""

    def __init__(self, folder: Path) -> None:
        self.store = SqliteStore(folder / "tasks.db", min_free_mib=0)
        self.secrets: dict[str, tuple[str, ...]] = {"acme": (SECRET,), "other": (SECRET,)}
        self.describe: Callable[[Task], dict[str, Any]] = lambda task: task_json(task, "a", None)
        self.make()

    def make(self, bounds: Bounds | None = None) -> None:
        self.callbacks = TroubledCallbacks(self.store)
        self.deliveries = Deliveries(
            self.callbacks,
            # No try ends by time, however slow the machine is.
            Sender(LOOPBACK, try_s=600),
            LOOPBACK,
            lambda account: self.secrets.get(account, ()),
            lambda task: self.describe(task),
            base_url="https://compute.example/",
            bounds=bounds,
        )

    async def ended(self, url: str, account: str = "acme", *, ago_us: int = 0, told: bool = True) -> Task:
        """A task ends; `told` False: the set is killed before the deliveries hear of it."""
        task = a_task(
            State.SUCCEEDED, account=account, callback_url=url, ended_us=wall_us() - ago_us, exit_code=0
        )
        await self.store.finish(task, Results())
        if told:
            self.deliveries.ended(task)
        return task

    async def callback(self, task: Task) -> Callback:
        page = await self.callbacks.page(CallbackFilter(task.spec.account, limit=1000))
        (found,) = [callback for callback in page if callback.task_id == task.id]
        return found

    async def until(self, state: CallbackState, *tasks: Task) -> list[Callback]:
        """The tasks' callbacks, once all of them are in this state."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = [await self.callback(task) for task in tasks]
                if all(callback.state is state for callback in found):
                    return found
                await asyncio.sleep(0.005)

    async def until_state(self, task: Task, state: CallbackState) -> None:
        """As `until`, for a callback whose row cannot be read before."""
        async with asyncio.timeout(PATIENCE_S):
            while task.id not in [  # noqa: ASYNC110 (the store tells nobody)
                callback.task_id for callback in await self.readable(state)
            ]:
                await asyncio.sleep(0.005)

    async def readable(self, state: CallbackState) -> list[Callback]:
        """The callbacks in a state; none while a row cannot be read."""
        try:
            return await self.callbacks.page(CallbackFilter("acme", state=state, limit=1000))
        except StoreError:
            return []

    async def until_error(self, task: Task, words: str) -> None:
        """The last try of the task's callback has failed with these words."""
        async with asyncio.timeout(PATIENCE_S):
            while words not in ((await self.callback(task)).error or ""):  # noqa: ASYNC110 (the store tells nobody)
                await asyncio.sleep(0.005)

    async def restart(self) -> None:
        await self.deliveries.close()
        self.make()
        await self.deliveries.open()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds."""
    monkeypatch.setattr(verdict, "PAUSES", Backoff(0.01, 0.02))
    monkeypatch.setattr(schedule, "REST", Backoff(0.01, 0.02))
    monkeypatch.setattr(module, "STORE_AGAIN", Backoff(0.01, 0.02))
    monkeypatch.setattr(module, "_PAUSE_US", 10_000)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.store.open()
    await world.deliveries.open()
    yield world
    await world.deliveries.close()
    await world.store.close()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def in_turn(*statuses: int) -> Callable[[Received, Any, Any], Any]:
    """A receiver that answers with one status after another, and stays with the last."""
    left = list(statuses)

    async def act(received: Received, reader: Any, writer: Any) -> None:
        status = left.pop(0) if len(left) > 1 else left[0]
        await answers(status)(received, reader, writer)

    return act


async def test_a_receiver_gets_the_task_and_can_verify_it(world: World) -> None:
    async with receiving(answers(204)) as receiver:
        task = await world.ended(receiver.url("/hook?x=1"))
        (callback,) = await world.until(CallbackState.MADE, task)
    (got,) = receiver.received
    document = Webhook(SECRET).verify(got.body, got.headers)
    assert document == world.describe(task) | {
        "args": ["-n", "ä"],
        "env": [],
        "failed_attempts": [],
        "retry_exit_codes": [],
        "type": "task.ended",
        "timestamp": document["ended_at"],
        "url": f"https://compute.example/v1/tasks/{task.id}",
        "left_out": [],
    }
    assert got.headers["webhook-id"] == task.id
    assert (callback.tries, callback.status, callback.error) == (1, 204, None)
    assert world.deliveries.ends() == {CallbackState.MADE: 1, CallbackState.FAILED: 0}
    assert world.deliveries.waiting() == 0


async def test_one_that_fails_is_tried_until_it_is_made(world: World) -> None:
    async with receiving(in_turn(500, 503, 302, 404, 200)) as receiver:
        task = await world.ended(receiver.url())
        (callback,) = await world.until(CallbackState.MADE, task)
    assert callback.tries == len(receiver.received) == 5
    assert {received.headers["webhook-id"] for received in receiver.received} == {task.id}
    for received in receiver.received:
        Webhook(SECRET).verify(received.body, received.headers)


async def test_410_stops_it(world: World) -> None:
    async with receiving(answers(410)) as receiver:
        task = await world.ended(receiver.url("/hook?token=hidden"))
        with capture_logs() as logs:
            (callback,) = await world.until(CallbackState.FAILED, task)
    assert (callback.tries, callback.status) == (1, 410)
    assert len(receiver.received) == 1
    (line,) = [line for line in logs if line["event"] == "callback failed"]
    assert "hidden" not in str(line), "what path and query tell stays out of the log"


async def test_one_that_nobody_answers_is_given_up_in_the_end(world: World) -> None:
    async with receiving(answers(200)) as receiver:
        pass
    almost_over_us = verdict.TRY_FOR_US - 100_000
    tasks = [await world.ended(receiver.url(), ago_us=almost_over_us) for _ in range(5)]
    for callback in await world.until(CallbackState.FAILED, *tasks):
        assert callback.expires_us is not None
    assert world.deliveries.waiting() == 0
    assert world.deliveries.tries()["unanswered"] >= 1


async def test_one_that_cannot_be_sent_is_given_up_in_the_end(world: World) -> None:
    def broken(task: Task) -> dict[str, Any]:
        raise ZeroDivisionError("a bug")

    world.describe = broken
    async with receiving(answers(200)) as receiver:
        task = await world.ended(receiver.url(), ago_us=verdict.TRY_FOR_US - 100_000)
        (callback,) = await world.until(CallbackState.FAILED, task)
    assert callback.error == "the set could not send it; ask the set's operator"
    assert receiver.received == []


async def test_a_receiver_that_never_answers_holds_up_neither_others_nor_other_accounts(
    world: World, stack: AsyncExitStack
) -> None:
    dead = await stack.enter_async_context(receiving(never))
    live = await stack.enter_async_context(receiving(answers(200)))
    for _ in range(50):
        await world.ended(dead.url())
    mine = [await world.ended(live.url()) for _ in range(10)]
    theirs = [await world.ended(live.url(), "other") for _ in range(10)]
    await world.until(CallbackState.MADE, *mine, *theirs)
    assert dead.connections <= 2 * Bounds().lane


async def test_tries_at_the_same_time_are_bounded(world: World, stack: AsyncExitStack) -> None:
    await world.deliveries.close()
    world.make(Bounds(in_all=3, account=2, receiver=2, lane=1))
    await world.deliveries.open()
    now = most = 0
    free = asyncio.Event()

    async def act(received: Received, reader: Any, writer: Any) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await free.wait()
        now -= 1
        await answers(200)(received, reader, writer)

    receivers = [await stack.enter_async_context(receiving(act)) for _ in range(4)]
    tasks = [
        await world.ended(receiver.url(), account) for receiver in receivers for account in ("acme", "other")
    ]
    await until(lambda: now == 3)
    free.set()
    await world.until(CallbackState.MADE, *tasks)
    assert most == 3


class TestRestarts:
    async def test_one_that_nobody_heard_of_is_made_after_the_next_start(self, world: World) -> None:
        async with receiving(answers(200)) as receiver:
            tasks = [await world.ended(receiver.url(), told=False) for _ in range(5)]
            assert receiver.connections == 0
            await world.restart()
            await world.until(CallbackState.MADE, *tasks)
        assert sorted(received.headers["webhook-id"] for received in receiver.received) == sorted(
            task.id for task in tasks
        )

    async def test_one_under_way_is_made_again(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "CLOSE_GRACE_S", 0)
        async with receiving(never) as receiver:
            task = await world.ended(receiver.url())
            await until(lambda: len(receiver.received) == 1)
            await world.deliveries.close()
            receiver.act = answers(200)
            await world.restart()
            await world.until(CallbackState.MADE, task)
            assert len(receiver.received) == 2

    async def test_one_that_was_made_is_not_made_again(self, world: World) -> None:
        async with receiving(answers(200)) as receiver:
            first = await world.ended(receiver.url())
            await world.until(CallbackState.MADE, first)
            await world.restart()
            second = await world.ended(receiver.url())
            await world.until(CallbackState.MADE, second)
        assert [received.headers["webhook-id"] for received in receiver.received] == [first.id, second.id]

    async def test_a_task_that_ends_after_the_close_waits_for_the_next_start(self, world: World) -> None:
        async with receiving(answers(200)) as receiver:
            await world.deliveries.close()
            task = await world.ended(receiver.url())
            await world.restart()
            await world.until(CallbackState.MADE, task)
        assert len(receiver.received) == 1


class TestTrouble:
    async def test_of_the_store_delays_the_record_and_sends_nothing_twice(self, world: World) -> None:
        world.callbacks.refusals = 3
        async with receiving(answers(200)) as receiver:
            task = await world.ended(receiver.url())
            await world.until(CallbackState.MADE, task)
        assert len(receiver.received) == 1
        assert world.callbacks.refusals == 0

    async def test_with_one_callback_does_not_forget_it(self, world: World) -> None:
        calls = 0
        good = world.describe

        def broken(task: Task) -> dict[str, Any]:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise RuntimeError("a bug")
            return good(task)

        world.describe = broken
        async with receiving(answers(200)) as receiver:
            task = await world.ended(receiver.url())
            await world.until(CallbackState.MADE, task)
        assert calls == 2

    async def test_without_a_secret_waits_for_one(self, world: World) -> None:
        secrets, world.secrets = world.secrets, {}
        async with receiving(answers(200)) as receiver:
            task = await world.ended(receiver.url())
            await world.until_error(task, "no secret")
            assert receiver.connections == 0
            world.secrets = secrets
            await world.until(CallbackState.MADE, task)

    async def test_with_an_address_that_is_no_longer_accepted_is_told(self, world: World) -> None:
        task = await world.ended("http://example.com:25/")
        (failed,) = await world.until(CallbackState.FAILED, task)
        assert "port 25 is not allowed" in (failed.error or "")
        assert failed.tries == 1


@pytest.mark.parametrize("column", ["record", "facts"])
@pytest.mark.parametrize("told", [True, False], ids=["at its try", "at the start"])
async def test_one_that_cannot_be_read_ends_and_holds_up_no_other(
    world: World, column: str, told: bool
) -> None:
    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute(f"UPDATE callbacks SET {column} = x'00' WHERE task_id = ?", (spoilt.id,))

    async with receiving(answers(200)) as receiver:
        spoilt, other = [await world.ended(receiver.url(), told=False) for _ in range(2)]
        await world.store.write(spoil, Durability.POWER)
        if told:
            for task in (spoilt, other):
                world.deliveries.ended(task)
        else:
            await world.restart()
        await world.until_state(spoilt, CallbackState.FAILED)
        await world.until(CallbackState.MADE, other)
    assert "can no longer read it" in ((await world.callback(spoilt)).error or "")
    assert [received.headers["webhook-id"] for received in receiver.received] == [other.id]
    # Its account may ask for it again: it fails again.
    await world.deliveries.retry("acme", spoilt.id)
    await world.until(CallbackState.FAILED, spoilt)


async def test_a_failed_one_is_tried_again_when_its_account_asks(world: World) -> None:
    async with receiving(in_turn(410, 200)) as receiver:
        task = await world.ended(receiver.url())
        await world.until(CallbackState.FAILED, task)
        again = await world.deliveries.retry("acme", task.id)
        assert again.state is CallbackState.WAITING
        await world.until(CallbackState.MADE, task)
    assert len(receiver.received) == 2


async def test_callbacks_that_are_no_longer_kept_are_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXPIRE_EVERY_S", 0.01)
    monkeypatch.setattr(verdict, "MADE_KEEP_US", 1)
    await world.restart()
    async with receiving(answers(200)) as receiver:
        await world.ended(receiver.url())
        await until(lambda: world.deliveries.ends()[CallbackState.MADE] == 1)
    async with asyncio.timeout(PATIENCE_S):
        while await world.callbacks.page(CallbackFilter("acme")):  # noqa: ASYNC110 (the store tells nobody)
            await asyncio.sleep(0.005)


class TestAcceptance:
    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("ftp://example.com/", "X-Callback-Url: it must begin with https:// or http://"),
            ("https://example.com:22/", "X-Callback-Url: port 22 is not allowed"),
            ("http://10.0.0.1/", "X-Callback-Url: callbacks may not reach the address 10.0.0.1"),
            ("http://[::1]:8080/", "X-Callback-Url: callbacks may not reach the address ::1"),
        ],
    )
    def test_of_a_bad_address_is_refused_with_the_header(self, world: World, url: str, said: str) -> None:
        with pytest.raises(BadRequest) as caught:
            world.deliveries.check("acme", url)
        assert str(caught.value).startswith(said)
        assert caught.value.field == "X-Callback-Url"

    def test_of_an_address_of_an_allowed_network_and_of_a_name_passes(self, world: World) -> None:
        world.deliveries.check("acme", "http://127.0.0.1:8080/hook")
        world.deliveries.check("acme", "https://hooks.example/")

    def test_for_an_account_without_a_secret_is_refused(self, world: World) -> None:
        with pytest.raises(BadRequest, match="account none has no secret"):
            world.deliveries.check("none", "https://example.com/")

    async def test_is_bounded_by_those_that_wait(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "WAITING_ACCOUNT_MAX", 3)
        monkeypatch.setattr(module, "WAITING_MAX", 4)
        async with receiving(never) as receiver:
            for _ in range(3):
                await world.ended(receiver.url())
            with pytest.raises(AccountLimit, match="3 callbacks of this account wait"):
                world.deliveries.check("acme", "https://example.com/")
            world.deliveries.check("other", "https://example.com/")
            await world.ended(receiver.url(), "other")
            with pytest.raises(QueueFull, match="4 callbacks wait"):
                world.deliveries.check("other", "https://example.com/")
