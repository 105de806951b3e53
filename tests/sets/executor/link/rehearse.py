"""A node, or a set, as a process: it is told by lines on standard input, and says what happens, and when.

    python -m tests.sets.executor.link.rehearse node NAME CERTIFICATES HOST
    python -m tests.sets.executor.link.rehearse set NAME CERTIFICATES NODE=HOST…

Programs and slots are played; the link is real. The lease is longer than that of every day, for slow machines.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
import uvloop

from scheduler.errors import SchedulerError
from scheduler.execution import Output, Work
from scheduler.policy.node import NodeFacts
from scheduler.task import Lease
from sets.executor.link.names import Certificates
from sets.executor.link.remote import Address, RemoteExecutor
from sets.executor.link.server import Server
from tests.scheduler.conftest import until
from tests.scheduler.fakes import FakeExecutor, FakeRun
from tests.sets.executor.link.rig import Owner

PORT = 8201
LEASE_S = 10.0
"""Longer than any pause that a busy machine makes in a process."""
TOKEN = "ab" * 32


def say(words: str) -> None:
    print(f"{time.monotonic():.6f} {words}", flush=True)


async def lines() -> AsyncIterator[str]:
    """What is told on standard input, until its end."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        yield line.strip()


async def node(name: str, certificates: str, host: str) -> None:
    executors: list[FakeExecutor] = []

    def executor_for(_: str) -> FakeExecutor:
        executor = FakeExecutor()
        executors.append(executor)

        def begin(run: FakeRun) -> None:
            if run.stdin is not None:
                asyncio.get_running_loop().create_task(echo(run))
                return
            say("running")
            lost = run.lost

            def told(reason: str) -> None:
                say("killed")
                lost(reason)

            run.lost = told  # type: ignore[method-assign]

        executor.program = begin
        expect = executor.expect

        async def expect_and_greet(slot_id: str, token: str, node: str = "") -> None:
            await expect(slot_id, token, node)
            executor.loop.call_soon(executor.hello, slot_id)

        executor.expect = expect_and_greet  # type: ignore[method-assign]
        return executor

    server = Server(
        "b1", {"a": NodeFacts(name, 200, 1024, 8)}, executor_for, Certificates(Path(certificates))
    )
    await server.open(host, PORT)
    say("listening")
    async for line in lines():
        if line == "end":
            for run in [run for executor in executors for run in executor.running]:
                run.exit(0, b"done")
    await server.close("the rehearsal is over")


async def echo(run: FakeRun) -> None:
    """`cat`, for a streamed input."""
    assert run.stdin is not None
    run.outgrow()
    while data := await run.stdin.read():
        run.stdout.feed(data)
    run.exit()


async def a_set(name: str, certificates: str, *places: str) -> None:
    owner = Said()
    nodes = {}
    for place in places:
        node_name, _, host = place.partition("=")
        nodes[node_name] = Address(host, PORT)
    remote = RemoteExecutor(name, "b1", nodes, Certificates(Path(certificates)), LEASE_S)
    await remote.open(owner)
    await until(lambda: len(owner.nodes) == len(nodes))
    say(f"{len(nodes)} nodes are ready")
    number = 0
    works = []
    async for line in lines():
        number += 1
        what, node_name, *sizes = line.split()
        slot_id = f"s{number}"
        if what == "run":
            go = run(remote, owner, slot_id, node_name)
        else:
            go = stream(remote, owner, slot_id, node_name, int(sizes[0]))
        works.append(asyncio.create_task(go))
    for work in works:
        work.cancel()
    await remote.close()


class Said(Owner):
    """Says what becomes of nodes."""

    def node_ready(self, facts: NodeFacts) -> None:
        super().node_ready(facts)
        say(f"ready {facts.id}")

    def node_lost(self, node_id: str, reason: str) -> None:
        super().node_lost(node_id, reason)
        say(f"lost {node_id}")


async def slot(remote: RemoteExecutor, owner: Owner, slot_id: str, node_name: str) -> None:
    await remote.expect(slot_id, TOKEN, node_name)
    await until(lambda: ("ready", slot_id) in owner.heard)


async def run(remote: RemoteExecutor, owner: Owner, slot_id: str, node_name: str) -> None:
    await slot(remote, owner, slot_id, node_name)
    try:
        ending = await remote.run(slot_id, Work((b"/x",), stdin=b""), Lease("a-1", 1)).ending()
        assert ending.stdout == b"done"
        say(f"ended {node_name}")
    except SchedulerError as error:
        say(f"broke {node_name}: {error}")


async def stream(remote: RemoteExecutor, owner: Owner, slot_id: str, node_name: str, size: int) -> None:
    await slot(remote, owner, slot_id, node_name)
    program = remote.run(slot_id, Work((b"/cat",), stdin=None), Lease("a-1", 1))
    body = bytes(range(256)) * (size // 256)

    async def feed() -> None:
        assert program.stdin is not None
        await program.stdin.write(body + bytes(size % 256))
        program.stdin.close()

    feeding = asyncio.create_task(feed())
    first = await program.first()
    assert isinstance(first, Output)
    got = bytearray(first.stdout_head)
    while piece := await first.stdout.read():
        got += piece
    await feeding
    assert got == body + bytes(size % 256)
    say(f"streamed {node_name} {len(got)}")


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    role, *words = sys.argv[1:]
    uvloop.run(node(*words) if role == "node" else a_set(*words))


if __name__ == "__main__":
    main()
