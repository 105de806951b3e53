"""The calls of the native API, one method each."""

import collections
import os
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Self, Unpack, cast
from urllib.parse import quote

from ops.client.batches import Batches
from ops.client.body import Body, source_of
from ops.client.errors import (
    PROBLEM_BASE,
    AnswerBroken,
    ApiProblem,
    ClientError,
    NotGeneralCompute,
    Unreachable,
    problem,
)
from ops.client.live import SILENCE_S, LiveOutput
from ops.client.model import (
    ENDED_STATES,
    AsyncOptions,
    Facts,
    Page,
    SyncOptions,
    Task,
    parameters,
    submit_headers,
)
from ops.client.transport import IDLE_TIMEOUT_S, Transport
from ops.client.wire import Answer, Connection

DEFAULT_URL: Final = "http://127.0.0.1:8080"
DEFAULT_RUN_S: Final = 60.0
DEFAULT_QUEUE_S: Final = 10.0
POLL_S: Final = 30.0
PATIENCE_S: Final = 60.0
"""Seconds for which `watch` tries again while the service does not answer: longer than a set's restart."""

RESUMES_MAX: Final = 5


class Output:
    """The answer of a sync run: iterate over it to get the algorithm's standard output as it comes.

    `task_id` and `set_name` are known from the start; `facts` only for a task that ended within its first 64 KiB
    of output. Iterating raises TaskFailed or TaskTimedOut if the task failed midway, and AnswerBroken if the
    answer was cut for another reason. Closing it early cancels the task.
    """

    def __init__(
        self, client: "Client", transport: Transport, connection: Connection, answer: Answer
    ) -> None:
        self._client = client
        self._transport = transport
        self._connection = connection
        self._answer = answer
        self._closed = False
        self.task_id = answer.headers.get("x-task-id")
        self.set_name = answer.headers.get("x-set")
        self.content_type = answer.headers.get("content-type")
        self.facts = Facts.of_headers(answer.headers)

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._answer
        except (AnswerBroken, Unreachable) as error:
            self.close()
            broken = AnswerBroken(str(error), task_id=self.task_id)
            raise self._client.why_broken(broken) from error
        self.close()

    def read(self) -> bytes:
        """Return the whole output in memory; use it for small outputs only."""
        return b"".join(self)

    def close(self) -> None:
        """Give the connection back, or close it if the answer was not read to its end."""
        if not self._closed:
            self._closed = True
            self._transport.release(self._connection, self._answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client:
    """A client for one General Compute address. Not thread-safe: make one for each thread.

    Every method raises ClientError: Unreachable without a connection or answer, ApiProblem if the API refused,
    AnswerBroken if an answer was cut.
    """

    def __init__(
        self, url: str = DEFAULT_URL, *, token: str | None = None, account: str | None = None
    ) -> None:
        self._transport = Transport(url, token=token, account=account)
        self.batches = Batches(self._transport)

    @property
    def url(self) -> str:
        return self._transport.url

    def run(
        self, image: str, args: Iterable[str] = (), *, body: Body = b"", **options: Unpack[SyncOptions]
    ) -> Output:
        """Run an image and return its output as a stream; the input is sent while the output is read.

        Raises TaskFailed and TaskTimedOut for a task that failed before its output began.
        """
        run_s = options.get("timeout_s") or DEFAULT_RUN_S
        queue_s = options.get("queue_timeout_s") or DEFAULT_QUEUE_S
        connection, answer = self._transport.call(
            "POST",
            _path("run", image),
            query=parameters(args, options),
            body=source_of(body),
            idle_timeout_s=IDLE_TIMEOUT_S + run_s + queue_s,
        )
        return Output(self, self._transport, connection, answer)

    def submit(
        self, image: str, args: Iterable[str] = (), *, body: Body = b"", **options: Unpack[AsyncOptions]
    ) -> Task:
        """Submit a task; when this returns, the service has the task and its input on disk."""
        return self._task(
            "POST",
            _path("run", image),
            query=parameters(args, options),
            headers=[("Prefer", "respond-async"), *submit_headers(options)],
            body=source_of(body),
        )

    def task(self, task_id: str, *, wait_s: float = 0) -> Task:
        """Return the task as it is now, or, with `wait_s`, once it has ended or that many seconds have passed."""
        query = [("wait", format(wait_s, "g"))] if wait_s else []
        return self._task("GET", _path("tasks", task_id), query=query, idle_timeout_s=IDLE_TIMEOUT_S + wait_s)

    def timeline(self, task_id: str) -> dict[str, Any]:
        """Return a task's `moments`, and the `phases` between them in microseconds after its creation."""
        found = self._transport.document("GET", f"{_path('tasks', task_id)}/timeline")
        if not isinstance(found.get("phases"), list) or not isinstance(found.get("moments"), dict):
            raise NotGeneralCompute(f"{self.url} answered a timeline without `phases` or `moments`")
        return found

    def watch(
        self, task_id: str, *, timeout_s: float | None = None, poll_s: float = POLL_S
    ) -> Iterator[Task]:
        """Yield the task about every `poll_s` seconds, for the last time when it has ended or `timeout_s` has passed.

        Tries again for PATIENCE_S seconds while the service is down or overloaded.
        """
        began = heard = time.monotonic()
        pause_s = 0.25
        while True:
            left_s = poll_s if timeout_s is None else min(poll_s, began + timeout_s - time.monotonic())
            try:
                found = self.task(task_id, wait_s=max(0.0, round(left_s, 3)))
            except (Unreachable, AnswerBroken, ApiProblem) as error:
                if isinstance(error, ApiProblem) and error.status not in (429, 502, 503, 504):
                    raise
                patience_s = PATIENCE_S if timeout_s is None else min(PATIENCE_S, timeout_s)
                if time.monotonic() - heard > patience_s:
                    raise
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 5.0)
                continue
            heard, pause_s = time.monotonic(), 0.25
            yield found
            if found.get("state") in ENDED_STATES:
                return
            if timeout_s is not None and heard - began >= timeout_s:
                return

    def wait(self, task_id: str, *, timeout_s: float | None = None) -> Task:
        """Return the task once it has ended, or as it is after `timeout_s`."""
        return collections.deque(self.watch(task_id, timeout_s=timeout_s), maxlen=1)[0]

    def result(self, task_id: str, what: str = "stdout") -> Iterator[bytes]:
        """Yield the bytes of an ended task's `stdout`, `stderr`, or of an output file named by its absolute path.

        Resumes a download that breaks off, a few times.
        """
        tail = f"files/{quote(what.lstrip('/'))}" if what.startswith("/") else what
        path = f"{_path('tasks', task_id)}/{tail}"
        received = failures = 0
        while True:
            try:
                for piece in self._download(path, received):
                    received += len(piece)
                    yield piece
                return
            except (AnswerBroken, Unreachable):
                failures += 1
                if failures > RESUMES_MAX or not received:
                    raise
            time.sleep(
                0.1 * (failures - 1) ** 2
            )  # Immediately after the first break; later with a wait, as a router's restart takes longer.

    def follow(self, task_id: str, what: str = "stdout", *, so_far: bool = False) -> LiveOutput:
        """Follow a task's `stdout` or `stderr` until the task ends; with `so_far`, only what it has written by now.

        Of a task that has ended it is what is kept.
        """
        connection, answer = self._transport.call(
            "GET",
            f"{_path('tasks', task_id)}/{what}",
            query=[("follow", "0" if so_far else "1")],
            idle_timeout_s=IDLE_TIMEOUT_S if so_far else SILENCE_S,
        )
        return LiveOutput(self._transport, connection, answer)

    def _download(self, path: str, offset: int) -> Iterator[bytes]:
        ranges = [("Range", f"bytes={offset}-")] if offset else []
        connection, answer = self._transport.call("GET", path, headers=ranges)
        try:
            if offset and answer.status != 206:
                raise NotGeneralCompute(
                    f"{self.url} cannot resume the download that broke off at byte {offset}"
                )
            yield from answer
        finally:
            self._transport.release(connection, answer)

    def cancel(self, task_id: str) -> Task:
        """Cancel a task; a task that has ended is left unchanged."""
        return self._task("POST", f"{_path('tasks', task_id)}/cancel")

    def replay(self, task_id: str) -> Task:
        """Run a dead letter again, and return the new task. A second call returns the same one."""
        return self._task("POST", f"{_path('tasks', task_id)}/replay")

    def tasks(
        self,
        *,
        state: str | None = None,
        image: str | None = None,
        name: str | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> Page:
        """Return one page of this account's tasks, newest first; its `next` is the `before` of the next call."""
        asked = {"state": state, "image": image, "name": name, "before": before, "limit": limit}
        query = [(key, str(value)) for key, value in asked.items() if value is not None]
        page = self._transport.document("GET", "/v1/tasks", query=query)
        if not isinstance(page.get("tasks"), list):
            raise NotGeneralCompute(f"{self.url} answered a task list without `tasks`")
        return cast(Page, page)

    def callbacks(
        self, *, state: str | None = None, before: str | None = None, limit: int | None = None
    ) -> dict[str, Any]:
        """Return one page of this account's callbacks, those of the newest tasks first; `next` as in `tasks`."""
        asked = {"state": state, "before": before, "limit": limit}
        query = [(key, str(value)) for key, value in asked.items() if value is not None]
        page = self._transport.document("GET", "/v1/callbacks", query=query)
        if not isinstance(page.get("callbacks"), list):
            raise NotGeneralCompute(f"{self.url} answered a list of callbacks without `callbacks`")
        return page

    def retry_callback(self, task_id: str) -> dict[str, Any]:
        """Have the failed callback of a task tried again; one that waits is left unchanged."""
        return self._transport.document("POST", f"{_path('callbacks', task_id)}/retry")

    def nodes(self, *, after: str = "", limit: int | None = None) -> dict[str, Any]:
        """Return one page of a set's machines; the address is the set's own, and the token an operator's."""
        return self._admin_page("nodes", "nodes", after=after or None, limit=limit)

    def pools(
        self, *, account: str | None = None, after: str = "", limit: int | None = None
    ) -> dict[str, Any]:
        """Return one page of a set's pools; as `nodes`."""
        return self._admin_page("pools", "pools", account=account, after=after or None, limit=limit)

    def queue(self, *, after: str = "", limit: int | None = None) -> dict[str, Any]:
        """Return one page of the accounts with tasks in a set's queue or its slots; as `nodes`."""
        return self._admin_page("queue", "accounts", after=after or None, limit=limit)

    def _admin_page(self, name: str, items: str, **asked: Any) -> dict[str, Any]:
        query = [(key, str(value)) for key, value in asked.items() if value is not None]
        page = self._transport.document("GET", f"/v1/admin/{name}", query=query)
        if not isinstance(page.get(items), list):
            raise NotGeneralCompute(f"{self.url} answered /v1/admin/{name} without `{items}`")
        return page

    def drain(self) -> dict[str, Any]:
        """Let a set finish what runs and begin nothing new; the address is the set's own, and the token an operator's.

        Returns `set`, `draining`, and how many tasks are `running` and `waiting`.
        """
        return self._drain("PUT")

    def resume(self) -> dict[str, Any]:
        """Let a set take and begin tasks again; as `drain`."""
        return self._drain("DELETE")

    def draining(self) -> dict[str, Any]:
        """Say whether a set drains, and what still runs; as `drain`."""
        return self._drain("GET")

    def _drain(self, method: str) -> dict[str, Any]:
        state = self._transport.document(method, "/v1/admin/drain")
        if not isinstance(state.get("running"), int) or not isinstance(state.get("draining"), bool):
            raise NotGeneralCompute(f"{self.url} answered {method} /v1/admin/drain without `running`")
        return state

    def why_broken(self, broken: AnswerBroken) -> ClientError:
        """Return the reason for a cut answer: the task's own failure if its row has one, else the cut itself."""
        if broken.task_id is None:
            return broken
        try:
            task = self.task(broken.task_id, wait_s=5)
        except ClientError:
            return broken
        kind = {"failed": "task-failed", "timed_out": "task-timed-out"}.get(task.get("state", ""))
        if kind is None:
            return broken
        told = (
            "reason",
            "exit_code",
            "signal",
            "stderr_head",
            "stderr_tail",
            "stderr_bytes",
            "stderr_cut_bytes",
        )
        facts = {key: value for key, value in task.items() if key in told}
        title = "The task failed" if kind == "task-failed" else "The task timed out"
        document = {"type": PROBLEM_BASE + kind, "title": title, "status": 200, "executed": True}
        detail = f"{_ending(task)}, after part of its output had been sent"
        return problem(document | facts | {"detail": detail, "task": broken.task_id}, status=200)

    def close(self) -> None:
        """Close the connection that is kept for the next call."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _task(self, method: str, path: str, **call: Any) -> Task:
        task = self._transport.document(method, path, **call)
        if not isinstance(task.get("id"), str) or not isinstance(task.get("state"), str):
            raise NotGeneralCompute(f"{self.url} answered a task without `id` or `state`")
        return cast(Task, task)


def _path(collection: str, name: str) -> str:
    return f"/v1/{collection}/{quote(os.fsencode(name), safe='/:@')}"


def _ending(task: Task) -> str:
    if task.get("exit_code") is not None:
        return f"exit code {task['exit_code']}"
    if task.get("signal") is not None:
        return f"signal {task['signal']}"
    return str(task.get("reason") or task.get("state"))
