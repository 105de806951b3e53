"""`python -m tests.cluster.load PLAN`: clients of the platform, who write down all they are told. PLAN: `Plan` as JSON.

Sync clients send one request each time. Async clients submit under an idempotency key until they are answered 202, as
a careful client does. The first line on standard input ends the load. After the second one each accepted task is
followed to its end, and a file gets the calls and outcomes (`books.Call`, `books.Outcome`) as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.cluster.books import FINAL, Call, Outcome, read_output
from tests.cluster.clock import boot_s
from tests.cluster.history import Look

SYNC_ACCOUNT = "sync"
"""Account of the sync clients, so that a queue of accepted tasks leaves them their share of the slots."""
ASYNC_ACCOUNT = "default"
ANSWER_S = 60.0
"""Longest wait for an answer: more than any task of the load may take, its queue included."""
FOLLOW_S = 240.0
"""Longest wait for an accepted task's end, once all faults are healed: its attempts pause in between."""
LARGE_INPUT_BYTES = 150_000


@dataclass(frozen=True)
class Plan:
    """Describes a load. The clients trust the certificate `ca`, if the URL is https. With `kept` each keeps its
    connection for the next request, as browsers do; otherwise each request has a new one, so that no client is left
    without an answer because its kept connection was closed meanwhile."""

    url: str
    image: str
    prefix: str
    seed: int
    file: str
    ca: str = ""
    kept: bool = False
    sync_clients: int = 4
    async_clients: int = 2
    onlookers: int = 0
    pause_s: float = 1.0
    burn_ms: int = 100
    rests_ms: tuple[int, ...] = (0, 100, 300, 2000)
    isolations: tuple[str, ...] = ("shared",)


class Load:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._dice = random.Random(plan.seed)
        self._http = self._client()
        self._over = asyncio.Event()
        self._number = 0
        self.calls: list[Call] = []
        self.outcomes: list[Outcome] = []
        self.looks: list[Look] = []
        self._inputs: dict[str, bytes] = {}
        self._queries: dict[str, dict[str, Any]] = {}

    async def run(self, until: asyncio.Future[Any]) -> None:
        clients = [asyncio.create_task(self._keep_running()) for _ in range(self._plan.sync_clients)]
        clients += [asyncio.create_task(self._keep_submitting()) for _ in range(self._plan.async_clients)]
        clients += [asyncio.create_task(self._keep_looking()) for _ in range(self._plan.onlookers)]
        await until
        self._over.set()
        await asyncio.gather(*clients)

    async def settle(self) -> None:
        """Follow each accepted task to its end, then look at it a second time."""
        gate = asyncio.Semaphore(8)

        async def follow(outcome: Outcome) -> None:
            async with gate:
                await self._follow(outcome)

        await asyncio.gather(*map(follow, self.outcomes))
        await self._http.aclose()

    # -- clients

    def _client(self) -> httpx.AsyncClient:
        plan = self._plan
        return httpx.AsyncClient(
            base_url=plan.url,
            timeout=ANSWER_S,
            trust_env=False,
            verify=ssl.create_default_context(cafile=plan.ca) if plan.ca else True,
            limits=httpx.Limits(max_keepalive_connections=1 if plan.kept else 0),
        )

    async def _keep_running(self) -> None:
        async with self._client() as http:
            while not self._over.is_set():
                await self._run(http)
                await asyncio.sleep(self._dice.random() * self._plan.pause_s)

    async def _run(self, http: httpx.AsyncClient) -> None:
        call, query = self._call("sync")
        query |= {"timeout_s": "20", "queue_timeout_s": "8"}
        body = await self._send(http, call, query, {"X-Account": SYNC_ACCOUNT})
        if call.status == 200 and not call.broken:
            self._judge(call, body)

    async def _keep_submitting(self) -> None:
        async with self._client() as http:
            while not self._over.is_set():
                await self._submit(http)
                await asyncio.sleep(self._dice.random() * self._plan.pause_s)

    async def _submit(self, http: httpx.AsyncClient) -> None:
        first, query = self._call("async")
        headers = {"Prefer": "respond-async", "Idempotency-Key": first.mark}
        call = first
        while True:
            body = await self._send(http, call, query, headers)
            if call.status == 202 and not call.broken:
                call.task = json.loads(body)["id"]
                self.outcomes.append(Outcome(call.mark, call.task))
                return
            if self._over.is_set():
                # Not accepted as far as this client knows: nothing was promised.
                return
            await asyncio.sleep(0.3)
            call = Call("async", first.mark, boot_s())
            self.calls.append(call)

    async def _keep_looking(self) -> None:
        """Look at accepted tasks of any age, or submit them once more under their keys."""
        async with self._client() as http:
            while not self._over.is_set():
                await asyncio.sleep(0.05)
                if self.outcomes:
                    await self._look_at(
                        self._dice.choice(self.outcomes), http, again=self._dice.random() < 0.3
                    )

    async def _look_at(self, outcome: Outcome, http: httpx.AsyncClient, *, again: bool) -> None:
        mark = outcome.mark
        sent_at = boot_s()
        try:
            if again:
                answer = await http.post(
                    f"/v1/run/{self._plan.image}",
                    params=self._queries[mark],
                    headers={"Prefer": "respond-async", "Idempotency-Key": mark},
                    content=self._inputs[mark],
                )
            else:
                answer = await http.get(f"/v1/tasks/{outcome.task}")
        except httpx.HTTPError:
            return
        facts = answer.json() if answer.status_code in (200, 202) else {}
        found = Look(
            outcome.task, sent_at, boot_s(), answer.status_code, facts.get("state", ""), facts.get("id", "")
        )
        self.looks.append(found)

    def _call(self, kind: str) -> tuple[Call, dict[str, Any]]:
        """A new call, and its query."""
        dice = self._dice
        self._number += 1
        mark = f"{self._plan.prefix}-{self._number}"
        size = dice.choice([0, 100, 5_000, LARGE_INPUT_BYTES])
        self._inputs[mark] = dice.randbytes(size)
        call = Call(kind, mark, boot_s())
        self.calls.append(call)
        words = [mark, str(self._plan.burn_ms), str(dice.choice(self._plan.rests_ms))]
        query: dict[str, Any] = {"arg": words, "name": mark, "cpu": "0.25", "memory_mib": "64"}
        query["isolation"] = dice.choice(self._plan.isolations)
        self._queries[mark] = query
        return call, query

    async def _send(
        self, http: httpx.AsyncClient, call: Call, query: dict[str, Any], headers: dict[str, str]
    ) -> bytes:
        """Send a request and write down how it ended; returns the body of its answer."""
        body = b""
        try:
            async with http.stream(
                *("POST", f"/v1/run/{self._plan.image}"),
                params=query,
                headers=headers,
                content=self._inputs[call.mark],
            ) as answer:
                call.status = answer.status_code
                call.task = answer.headers.get("X-Task-Id", "")
                if (cpu_us := answer.headers.get("X-Cpu-Us")) is not None:
                    call.cpu_us = int(cpu_us)
                body = await answer.aread()
        except httpx.HTTPError as error:
            call.broken = call.status != 0
            call.error = repr(error)
        call.ended_at = boot_s()
        if call.status >= 400 and not call.broken:
            self._read_problem(call, body)
        return body

    def _read_problem(self, call: Call, body: bytes) -> None:
        try:
            problem = json.loads(body)
        except ValueError:
            call.problem = repr(body[:80])
            return
        call.problem = str(problem.get("type", "")).rpartition("/")[2]
        executed = problem.get("executed")
        call.executed = executed if isinstance(executed, bool) else None

    def _judge(self, each: Call | Outcome, body: bytes) -> None:
        output = read_output(body, each.mark, self._inputs[each.mark])
        if isinstance(output, str):
            each.flaw = output
        else:
            each.own_cpu_us = output.cpu_us

    # -- the end of accepted tasks

    async def _follow(self, outcome: Outcome) -> None:
        deadline = time.monotonic() + FOLLOW_S
        path = f"/v1/tasks/{outcome.task}"
        while time.monotonic() < deadline:
            facts = await self._get(path, {"wait": "10"})
            if facts is not None:
                outcome.facts = facts.json()
                if outcome.facts["state"] in FINAL:
                    break
            else:
                await asyncio.sleep(0.5)
        if outcome.facts.get("state") == "succeeded":
            stdout = await self._get(f"{path}/stdout")
            self._judge(outcome, stdout.content if stdout is not None else b"")
        again = await self._get(path)
        if again is not None:
            outcome.changed = ", ".join(
                f"{name} was {outcome.facts.get(name)!r} and is {value!r}"
                for name, value in again.json().items()
                if outcome.facts.get(name) != value
            )

    async def _get(self, path: str, query: dict[str, str] | None = None) -> httpx.Response | None:
        try:
            answer = await self._http.get(path, params=query)
        except httpx.HTTPError:
            return None
        return answer if answer.status_code == 200 else None


async def main(plan: Plan) -> None:
    load = Load(plan)
    loop = asyncio.get_running_loop()
    await load.run(loop.run_in_executor(None, sys.stdin.readline))
    await loop.run_in_executor(None, sys.stdin.readline)
    await load.settle()
    told = {name: list(map(asdict, getattr(load, name))) for name in ("calls", "outcomes", "looks")}
    Path(plan.file).write_text(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(Plan(**json.loads(sys.argv[1]))))
