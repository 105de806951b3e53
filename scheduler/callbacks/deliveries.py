"""Delivers callbacks: the shell around the schedule, the verdict, the signature, and the sender.

A callback is in the store from the transaction that ended its task. It is written again after each try, so it is made
at least once: a set that is killed between an answer and its record sends it again after its restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from ipaddress import ip_address
from typing import Any, Final, Protocol

import structlog

from scheduler.background import Background
from scheduler.backoff import Backoff
from scheduler.callback import Callback, CallbackFilter, CallbackState, callback_of
from scheduler.callbacks import verdict
from scheduler.callbacks.networks import Networks
from scheduler.callbacks.payload import body_of
from scheduler.callbacks.schedule import Bounds, Entry, Schedule
from scheduler.callbacks.sending import Sender
from scheduler.callbacks.signing import signed
from scheduler.callbacks.target import Target, parse
from scheduler.callbacks.verdict import Answer
from scheduler.clock import wall_us
from scheduler.errors import AccountLimit, BadRequest, CallbackUnreadable, QueueFull, SchedulerError
from scheduler.task import Task
from scheduler.trouble import Trouble

log = structlog.get_logger()

HEADER: Final = "X-Callback-Url"
WAITING_MAX: Final = 100_000
"""Callbacks of all accounts that may wait when another task is submitted with one: each takes some 300 bytes of memory
and, on disk, the facts of its task."""
WAITING_ACCOUNT_MAX: Final = 10_000
"""Callbacks of one account that may wait when it submits another task with one."""
STORE_AGAIN: Final = Backoff(0.1, 10.0)
"""Pauses, in seconds, between tries to write what became of a callback."""
LOAD_AGAIN: Final = Backoff(1.0, 15.0)
"""Pauses, in seconds, between tries to read the callbacks that an earlier run left."""
LOOK_S: Final = 30.0
"""Longest time between two looks at the schedule: the wall clock may be set forward."""
EXPIRE_EVERY_S: Final = 60.0
EXPIRED: Final = 1_000
"""Most callbacks that one write removes: it holds up other writes for some milliseconds."""
EXPIRE_ROUNDS: Final = 20
CLOSE_GRACE_S: Final = 2.0
"""How long `close` waits for tries under way; one that it breaks off is made again after the next start."""
_PAUSE_US: Final = 5_000_000
"""Pause before a callback is looked at again that the store could not give."""


class CallbackStore(Protocol):
    """The callbacks on disk. Raises `StoreError`."""

    def waiting(self) -> AsyncIterator[list[Callback | str]]:
        """Yield all callbacks that wait, in portions; the id of its task for one that cannot be read."""

    async def due(self, task_id: str) -> tuple[Callback, Task] | None:
        """Return a callback that waits, and its task as it ended. Raises `CallbackUnreadable`."""

    async def fail_unreadable(self, task_id: str, now_us: int, expires_us: int) -> None:
        """End a callback that cannot be read; it is listed as failed from now on."""

    async def save(self, callback: Callback) -> None:
        """Write what became of a callback."""

    async def revive(
        self, account: str, task_id: str, revived: Callable[[Callback], Callback]
    ) -> tuple[Callback, bool]:
        """Let a failed callback wait again. Raises `CallbackUnknown`, `CallbackNotFailed`."""

    async def page(self, callback_filter: CallbackFilter) -> list[Callback]:
        """Callbacks of one account, those of the newest tasks first."""

    async def expire(self, now_us: int, limit: int) -> int:
        """Delete up to `limit` callbacks that are no longer kept; return how many."""


class Deliveries:
    """The callbacks of one set. `ended` is told of each task that has ended, once its end is on disk.

    `secrets_of` returns an account's secrets, the newest first; `describe` a task's JSON object; `base_url` is the
    address at which clients reach the set's tasks, without `/v1`. `now_us` is the wall clock.
    """

    def __init__(
        self,
        store: CallbackStore,
        sender: Sender,
        networks: Networks,
        secrets_of: Callable[[str], Sequence[str]],
        describe: Callable[[Task], dict[str, Any]],
        *,
        base_url: str = "",
        bounds: Bounds | None = None,
        now_us: Callable[[], int] = wall_us,
    ) -> None:
        self._store = store
        self._sender = sender
        self._networks = networks
        self._secrets_of = secrets_of
        self._describe = describe
        self._base_url = base_url.rstrip("/")
        self._schedule = Schedule(bounds)
        self._now_us = now_us
        self._changed = asyncio.Event()
        self._work = Background()
        self._tries = Background()
        self._ended = dict.fromkeys((CallbackState.MADE, CallbackState.FAILED), 0)
        self._answered = self._unanswered = 0

    # -- life

    async def open(self) -> None:
        """Begin to deliver; callbacks that an earlier run left are taken up meanwhile. The store must be open."""
        self._work.spawn(self._load())
        self._work.spawn(self._run())
        self._work.spawn(self._expire())

    async def close(self) -> None:
        """Stop. What was not made by then is made after the next start."""
        await self._work.stop(0)
        await self._tries.stop(CLOSE_GRACE_S)

    # -- for callers

    def check(self, account: str, url: str | None) -> None:
        """Check that the account may submit a task with this address; None: without a callback.

        Raises `BadRequest`, `AccountLimit`, `QueueFull`.
        """
        if url is None:
            return
        try:
            target = parse(url)
        except ValueError as error:
            raise BadRequest(f"{HEADER}: {error}", field=HEADER) from None
        if not self._reachable(target):
            raise BadRequest(
                f"{HEADER}: callbacks may not reach the address {target.host}; name a public host, or ask the set's "
                "operator to allow its network",
                field=HEADER,
            )
        if not self._secrets_of(account):
            raise BadRequest(
                f"{HEADER}: account {account} has no secret to sign callbacks with; ask the set's operator for one, or "
                "leave the header out",
                field=HEADER,
            )
        if self._schedule.count_of(account) >= WAITING_ACCOUNT_MAX:
            raise AccountLimit(
                f"{WAITING_ACCOUNT_MAX} callbacks of this account wait for their receivers; see GET /v1/callbacks, or "
                f"submit without {HEADER}",
                retry_after_s=60,
            )
        if len(self._schedule) >= WAITING_MAX:
            raise QueueFull(f"{WAITING_MAX} callbacks wait in this set", retry_after_s=60)

    def ended(self, task: Task) -> None:
        """Deliver the callback of a task whose end is on disk, if it has one."""
        callback = callback_of(task)
        if callback is not None:
            self._add(callback)

    async def page(self, callback_filter: CallbackFilter) -> list[Callback]:
        """Callbacks of one account, those of the newest tasks first. Raises `StoreError`."""
        return await self._store.page(callback_filter)

    async def retry(self, account: str, task_id: str) -> Callback:
        """Try a failed callback again, for as long as a new one; one that waits stays as it is.

        Raises `CallbackUnknown`, `CallbackNotFailed`, `AccountLimit`, `StoreError`.
        """
        if self._schedule.count_of(account) >= WAITING_ACCOUNT_MAX:
            raise AccountLimit(
                f"{WAITING_ACCOUNT_MAX} callbacks of this account wait for their receivers", retry_after_s=60
            )
        callback, revived = await self._store.revive(
            account, task_id, lambda failed: verdict.again(failed, self._now_us())
        )
        if revived:
            self._add(callback)
        return callback

    # -- numbers

    def waiting(self) -> int:
        """How many callbacks wait or are being tried."""
        return len(self._schedule)

    def ends(self) -> dict[CallbackState, int]:
        """How many callbacks were made and have failed since the start of this process."""
        return dict(self._ended)

    def tries(self) -> dict[str, int]:
        """How many tries got an answer, of any status, and how many got none."""
        return {"answered": self._answered, "unanswered": self._unanswered}

    # -- in the background

    def _add(self, callback: Callback) -> None:
        self._schedule.add(_entry(callback), self._now_us())
        self._changed.set()

    async def _load(self) -> None:
        trouble = Trouble("callbacks cannot be read; trying again", "callbacks are read again")
        for pause_s in LOAD_AGAIN:
            try:
                async for portion in self._store.waiting():
                    for callback in portion:
                        if isinstance(callback, str):
                            await self._fail_unreadable(callback)
                        else:
                            self._add(callback)
                break
            except SchedulerError as error:
                trouble.met(str(error))
            await asyncio.sleep(pause_s)
        trouble.over()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            now_us = self._now_us()
            while (entry := self._schedule.take(now_us)) is not None:
                self._tries.spawn(self._try(entry))
            next_us = self._schedule.next_us()
            wait_s = LOOK_S if next_us is None else min(LOOK_S, max(0.0, (next_us - now_us) / 1_000_000))
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _try(self, entry: Entry) -> None:
        """Try a callback once, write what became of it, and let it wait again if it has to."""
        again: Entry | None = None
        reached = True
        overdue: list[Entry] = []
        try:
            found = await self._store.due(entry.task_id)
            if found is not None:
                answer = await self._send(*found)
                reached = answer.status is not None
                again = await self._settle(verdict.after_try(found[0], answer, self._now_us()))
        except CallbackUnreadable as error:
            log.error("callback cannot be read", task=entry.task_id, error=str(error))
            await self._fail_unreadable(entry.task_id)
        except Exception as error:
            # Whatever it is, the callback must not be forgotten.
            log.error("callback could not be tried; trying again", task=entry.task_id, error=str(error))
            again = Entry(
                self._now_us() + _PAUSE_US, entry.task_id, entry.ends_us, entry.account, entry.receiver
            )
        finally:
            overdue = self._schedule.ended(entry, self._now_us(), reached=reached, again=again)
            self._changed.set()
        for each in overdue:
            await self._give_up(each)

    async def _send(self, callback: Callback, task: Task) -> Answer:
        secrets = self._secrets_of(callback.account)
        if not secrets:
            return Answer(error="the account has no secret to sign it with; ask the set's operator for one")
        try:
            target = parse(callback.url)
        except ValueError as error:
            # An earlier release accepted it; a further try would find the same.
            return Answer(error=f"the address is not allowed: {error}", hopeless=True)
        try:
            body = body_of(self._describe(task), self._base_url)
            headers = signed(secrets, callback.task_id, self._now_us(), body)
            answer = await self._sender.send(target, headers, body)
        except Exception as error:
            # It counts as a try, so that it ends at its time.
            log.error("a callback could not be sent, which is a bug", task=task.id, exc_info=error)
            answer = Answer(error="the set could not send it; ask the set's operator")
        if answer.status is None:
            self._unanswered += 1
        else:
            self._answered += 1
        return answer

    async def _settle(self, callback: Callback) -> Entry | None:
        """Write what became of a callback, again and again for as long as the set runs; return its next try."""
        pauses_s = iter(STORE_AGAIN)
        while True:
            try:
                await self._store.save(callback)
                break
            except SchedulerError as error:
                log.error(
                    "a callback could not be stored; trying again", task=callback.task_id, error=str(error)
                )
            await asyncio.sleep(next(pauses_s))
        if callback.state is CallbackState.WAITING:
            return _entry(callback)
        self._ended[callback.state] += 1
        if callback.state is CallbackState.FAILED:
            log.warning(
                "callback failed",
                task=callback.task_id,
                account=callback.account,
                receiver=_receiver(callback),
                tries=callback.tries,
                error=callback.error,
            )
        return None

    async def _give_up(self, entry: Entry) -> None:
        """End a callback whose time is over, while its receiver cannot be reached."""
        try:
            found = await self._store.due(entry.task_id)
        except CallbackUnreadable:
            await self._fail_unreadable(entry.task_id)
            return
        except SchedulerError as error:
            # It is still waiting on disk, and is taken up by the next start.
            log.warning("callback could not be read", task=entry.task_id, error=str(error))
            return
        if found is not None:
            await self._settle(verdict.give_up(found[0], self._now_us()))

    async def _fail_unreadable(self, task_id: str) -> None:
        """End a callback whose row cannot be read: no try can be made of it, ever."""
        now_us = self._now_us()
        try:
            await self._store.fail_unreadable(task_id, now_us, now_us + verdict.FAILED_KEEP_US)
        except SchedulerError as error:
            # It is still there, and ends after the next start.
            log.warning("a callback that cannot be read could not be ended", task=task_id, error=str(error))
            return
        self._ended[CallbackState.FAILED] += 1
        log.warning("callback failed", task=task_id, error="its row cannot be read")

    async def _expire(self) -> None:
        trouble = Trouble("old callbacks could not be removed", "old callbacks are removed again")
        while True:
            try:
                for _ in range(EXPIRE_ROUNDS):
                    if await self._store.expire(self._now_us(), EXPIRED) < EXPIRED:
                        break
                trouble.over()
            except SchedulerError as error:
                trouble.met(str(error))
            await asyncio.sleep(EXPIRE_EVERY_S)

    def _reachable(self, target: Target) -> bool:
        """Return False if the host is an address that callbacks may not reach. Names are looked up for each try."""
        try:
            return self._networks.may_reach(str(ip_address(target.host)))
        except ValueError:
            return True


def _entry(callback: Callback) -> Entry:
    """The place of a callback in the schedule."""
    due_us = callback.since_us if callback.due_us is None else callback.due_us
    ends_us = verdict.ends_us(callback)
    return Entry(due_us, callback.task_id, ends_us, callback.account, _receiver(callback))


def _receiver(callback: Callback) -> str:
    try:
        return parse(callback.url).origin
    except ValueError:
        return ""
