"""Runs and results as any dialect uses them: no HTTP, no Falcon, slots in memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scheduler.errors import ImageUnknown, QueueFull
from scheduler.policy.limits import Limits
from scheduler.task import Kind, State, Task, TaskSpec
from sets.api.accounts import Accounts
from sets.api.body import RequestBody
from sets.api.call import RunCall
from sets.api.errors import AnswerBrokenOff, BodyCutOff, BodyTooLarge, FileUnknown, NotFinished, ResultGone
from sets.api.idempotency import fingerprinted
from sets.api.results import TaskResults
from sets.api.runs import HEAD_BYTES, SMALL_INPUT_BYTES, Runs, SyncRun
from sets.config import SetConfig
from tests.conftest import ROOT
from tests.scheduler.conftest import World, until
from tests.scheduler.fakes import CAT, FakeRun, cat

CUT_OFF = {"type": "http.disconnect"}


def body(*pieces: bytes | dict[str, Any]) -> RequestBody:
    """A request's body that comes in these pieces; an event stands for itself."""
    last = len(pieces) - 1
    events = [
        piece
        if isinstance(piece, dict)
        else {"type": "http.request", "body": piece, "more_body": number < last}
        for number, piece in enumerate(pieces or (b"",))
    ]

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    return RequestBody(receive)


class Caller:
    """One account's calls."""

    def __init__(self, world: World) -> None:
        accounts = Accounts(SetConfig(name="t", state_dir="x", max_input_mib=1))
        self.world = world
        self.runs = Runs(world.manager, accounts, world.blobs)
        self.results = TaskResults(world.manager)

    async def run(self, given: RequestBody, length: int | None, **asked: Any) -> SyncRun:
        accepted = await self.runs.accept("acme", CAT.reference, RunCall(**asked), Kind.SYNC, length)
        return await self.runs.run(accepted, given)

    async def submit(self, given: RequestBody, length: int | None, key: str | None = None) -> Task:
        return await self.runs.submit("acme", CAT.reference, RunCall(), length, given, key)


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    world = await World(tmp_path).open()
    yield Caller(world)
    await world.close()


def outgrow(run: FakeRun, data: bytes, code: int = 0) -> None:
    run.outgrow(data)
    run.exit(code)


async def test_a_small_run_is_whole(caller: Caller) -> None:
    caller.world.executor.program = cat
    run = await caller.run(body(b"hel", b"lo"), 5)
    assert (run.whole, run.head) == (True, b"hello")
    task = await run.finish()
    assert (task.id, task.state) == (run.task_id, State.SUCCEEDED)


async def test_a_larger_output_follows_in_pieces(caller: Caller) -> None:
    output = b"x" * (HEAD_BYTES + 1)
    caller.world.executor.program = lambda run: outgrow(run, output)
    run = await caller.run(body(), 0)
    assert not run.whole
    assert b"".join([piece async for piece in run.output()]) == output
    caller.world.assert_nothing_left()


async def test_an_answer_that_has_begun_is_broken_off_when_its_task_fails(caller: Caller) -> None:
    caller.world.executor.program = lambda run: outgrow(run, b"x" * (HEAD_BYTES + 1), code=3)
    run = await caller.run(body(), 0)
    with pytest.raises(AnswerBrokenOff, match="exit code 3"):
        async for _ in run.output():
            pass


async def test_input_of_unknown_length_is_streamed_into_the_program(caller: Caller) -> None:
    starting = asyncio.create_task(caller.run(body(b"a" * SMALL_INPUT_BYTES, b"b"), None))
    program = await caller.world.started()
    assert program.stdin is not None
    stdin = program.stdin
    await until(lambda: stdin.closed)
    program.exit(0, bytes(stdin.data))
    run = await starting
    assert run.head == b"a" * SMALL_INPUT_BYTES + b"b"
    assert (await run.finish()).stdin_bytes == SMALL_INPUT_BYTES + 1


async def test_a_body_that_is_cut_off_ends_the_task_and_was_executed(caller: Caller) -> None:
    with pytest.raises(BodyCutOff) as caught:
        await caller.run(body(b"half", CUT_OFF), None)
    assert caught.value.executed
    program = await caller.world.started()
    assert program.killed
    # One that was to arrive whole has run nothing.
    with pytest.raises(BodyCutOff) as caught:
        await caller.run(body(b"half", CUT_OFF), 5)
    assert not caught.value.executed


async def test_what_is_refused_is_refused_before_its_body_is_read(caller: Caller) -> None:
    with pytest.raises(BodyTooLarge) as caught:
        await caller.run(body(), (1 << 20) + 1)
    assert (caught.value.limit_bytes, caught.value.executed) == (1 << 20, False)
    with pytest.raises(ImageUnknown):
        await caller.runs.accept("acme", "none:1", RunCall(), Kind.SYNC, 0)
    await caller.world.restart(limits=Limits(max_waiting=1))
    again = Caller(caller.world)
    caller.world.launcher.prompt = False
    waiting = asyncio.create_task(again.run(body(), 0))
    await until(lambda: caller.world.facts()["tasks_waiting"])
    with pytest.raises(QueueFull):
        await again.runs.accept("acme", CAT.reference, RunCall(), Kind.SYNC, 0)
    waiting.cancel()


async def test_an_async_task_leaves_results_that_any_dialect_reads(caller: Caller) -> None:
    task = await caller.submit(body(b"hello"), 5)
    with pytest.raises(NotFinished):
        await caller.results.stdout("acme", task.id)
    (await caller.world.started()).exit(0, b"0123456789", b"a word")
    await caller.world.wait(task)
    kept = await caller.results.stdout("acme", task.id)
    assert (kept.body.size_bytes, kept.missing_bytes) == (10, 0)
    assert caller.results.read(kept.body, 2, 3) == b"234"
    assert (await caller.results.stderr("acme", task.id)).body.size_bytes == 6
    with pytest.raises(FileUnknown, match="its files: none"):
        await caller.results.file("acme", task.id, "/tmp/x")


async def test_a_large_result_is_read_in_pieces(caller: Caller) -> None:
    task = await caller.submit(body(), 0)
    outgrow(await caller.world.started(), b"0123456789" * 10_000)
    await caller.world.wait(task)
    kept = await caller.results.stdout("acme", task.id)
    pieces = caller.results.read(kept.body, 5, 99_990)
    assert not isinstance(pieces, bytes)
    assert b"".join([piece async for piece in pieces]) == (b"0123456789" * 10_000)[5:-5]


async def test_a_sync_tasks_output_is_not_kept(caller: Caller) -> None:
    caller.world.executor.program = cat
    run = await caller.run(body(b"x"), 1)
    await run.finish()
    with pytest.raises(ResultGone, match="its answer"):
        await caller.results.stdout("acme", run.task_id)


async def test_one_key_makes_one_task(caller: Caller) -> None:
    first = await caller.submit(body(b"hello"), 5, "k")
    # The same input, however it arrives.
    assert (await caller.submit(body(b"hel", b"lo"), None, "k")).id == first.id


@pytest.mark.parametrize("module", sorted(path.stem for path in (ROOT / "sets/api").glob("[a-z]*.py")))
def test_what_dialects_share_needs_no_falcon(module: str) -> None:
    code = f"import sets.api.{module}, sys; sys.exit('falcon' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_request_has_the_same_fingerprint_as_in_earlier_releases() -> None:
    """A client that repeats a request after an upgrade must get its task, not a conflict."""
    spec = TaskSpec(
        "acme", "cat:1", "sha256:00", args=("-n", "ä"), env=("A=1",), name="mine", kind=Kind.ASYNC,
        outputs=("/tmp/a",), cpu_features=("avx2",), prestart=True,
    )  # fmt: skip
    # As the release with schema 1 of the store wrote it.
    earlier = (
        "8fa76163636f756e74a461636d65a5696d616765a56361743a31ac696d6167655f646967657374a97368613235363a3030a46172677392"
        "a22d6ea2c3a4a3656e7691a3413d31a46e616d65a46d696e65a46b696e64a56173796e63a974696d656f75745f73cb404e000000000000"
        "a97265736f757263657382ab6370755f70657263656e7464aa6d656d6f72795f6d6962cd0200a969736f6c6174696f6ea6736861726564"
        "ac6370755f666561747572657391a461767832a76f75747075747391a62f746d702f61a87072696f72697479a66e6f726d616cac63616c"
        "6c6261636b5f75726cc0a87072657374617274c3"
    )
    assert fingerprinted(spec).hex() == earlier
    retried = msgspec.structs.replace(spec, retries=1)
    assert fingerprinted(retried) != fingerprinted(spec)
    assert fingerprinted(msgspec.structs.replace(retried, retry_exit_codes=(1,))) != fingerprinted(retried)
