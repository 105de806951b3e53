"""Every hostile program, in shared and fresh slots, as root and as a USER: nothing that it tries may work.

All cases run in shared slots as root; of the other variants an eighth each, or all with GC_TEST_ALL=1 (make test-all).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import select
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.conftest import SetProcess
from tests.hostile.conftest import (
    IN_THE_SANDBOX,
    MAX_FILE_MIB,
    MAX_FILES_MIB,
    ROOT_IMAGE,
    USER_IMAGE,
    build_program,
    cases,
)

pytestmark = pytest.mark.docker

APART = {"residue", "neighbour", "holder", "parker", "carrier", "watcher", "counters"}
"""Cases that have tests of their own below."""
TIMEOUT_S = "1.5"
PATIENT_TIMEOUT_S = "60"
"""Of programs that must end by themselves, also on an emulated processor."""
HOLDER_TIMEOUT_S = "300"
"""Of programs that stay until a test ends them; to take five million epoll watches takes a minute on a busy machine."""
QUEUE_TIMEOUT_S = "60"
"""Likewise of tasks that wait for the start of a slot."""
READY_TIMEOUT_S = 60.0
"""Likewise of an engine that was asked for more than such a processor can do."""
INPUT = b"input that may stay unread\n" * 4000
MEMORY_MIB = "96"
WHOLE = {"signals": 1000, "in_flight": 4000, "pipes": 900, "watches": 8000}
"""At least so much of each counter is one slot's, when it shares with nobody."""
WATCH_BYTES = 256
"""Of the kernel's memory for one epoll watch, at most."""


@functools.cache
def listed() -> list[dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        return [case for case in cases(build_program(Path(folder))) if case["name"] not in APART]


def run(client: httpx.Client, image: str, case: dict[str, str], isolation: str) -> tuple[dict[str, Any], str]:
    """Try a case; returns its task, and the problem that answered it."""
    query: dict[str, str | list[str]] = {
        "arg": case["name"],
        "timeout_s": timeout_s(case),
        "isolation": isolation,
        "memory_mib": MEMORY_MIB,
        "queue_timeout_s": QUEUE_TIMEOUT_S,
        "output": case["outputs"].split(),
    }
    task_id, said, succeeded = "", b"", False
    try:
        with client.stream("POST", f"/v1/run/{image}", params=query, content=INPUT) as answer:
            task_id = answer.headers.get("X-Task-Id", "")
            succeeded = answer.status_code == 200
            for chunk in answer.iter_bytes():
                said = (said + chunk)[-2000:]
    except httpx.RemoteProtocolError:
        # Broken off, as an answer must be whose task did not succeed.
        pass
    if not task_id:
        task_id = json.loads(said)["task"]
    task: dict[str, Any] = client.get(f"/v1/tasks/{task_id}", params={"wait": 10}).json()
    return task, "" if succeeded else said.decode(errors="replace")


def timeout_s(case: dict[str, str]) -> str:
    return PATIENT_TIMEOUT_S if case["must"] in ("contained", "memory") else TIMEOUT_S


def look_at_files(client: httpx.Client, case: dict[str, str], task: dict[str, Any]) -> None:
    """Every kept file can be fetched completely, and is one that may be kept."""
    assert set(task["files"]) <= set(case["outputs"].split())
    assert case["kept"] != "none" or not task["files"], f"BREACH: {case['name']} has {task['files']} kept"
    assert len(task["files"]) == len(case["outputs"].split()) or "output not kept: " in task["detail"]
    for path, size_bytes in task["files"].items():
        assert size_bytes <= MAX_FILE_MIB << 20
        answer = client.get(f"/v1/tasks/{task['id']}/files{quote(path)}")
        assert (answer.status_code, len(answer.content)) == (200, size_bytes), answer.text[:1000]
        assert case["kept"] == "any" or answer.content.startswith(b"mine\n"), (
            f"BREACH: {case['name']}, {path}"
        )
    assert sum(task["files"].values()) <= MAX_FILES_MIB << 20


def residue(client: httpx.Client, image: str, isolation: str) -> None:
    query = {
        "arg": "residue",
        "isolation": isolation,
        "memory_mib": MEMORY_MIB,
        "queue_timeout_s": QUEUE_TIMEOUT_S,
    }
    answer = client.post(f"/v1/run/{image}", params=query)
    assert answer.status_code == 200, answer.text


def test_there_are_as_many_cases_as_promised() -> None:
    assert len(listed()) >= 60
    for case in listed():
        assert case["tries"], case
        assert case["why"], case
        assert case["must"] in ("contained", "timed_out", "memory", "ended", "any"), case
        assert case["kept"] in ("none", "mine", "any"), case


def sample(which: int) -> list[Any]:
    """Return an eighth of the cases, another for each `which`; all of them if all are wanted."""
    chosen = listed() if os.environ.get("GC_TEST_ALL") else listed()[which::8]
    return [pytest.param(case, id=case["name"]) for case in chosen]


@pytest.mark.parametrize("case", listed(), ids=lambda case: case["name"])
def test_shared_as_root(hostile_set: SetProcess, case: dict[str, str]) -> None:
    _try(hostile_set, ROOT_IMAGE, case, "shared")


@pytest.mark.parametrize("case", sample(0))
def test_shared_as_user(hostile_set: SetProcess, case: dict[str, str]) -> None:
    _try(hostile_set, USER_IMAGE, case, "shared")


@pytest.mark.parametrize("case", sample(1))
def test_fresh(hostile_set: SetProcess, case: dict[str, str]) -> None:
    _try(hostile_set, USER_IMAGE, case, "fresh")


@pytest.mark.parametrize("case", sample(2))
def test_in_a_user_namespace_as_root(userns_set: SetProcess, case: dict[str, str]) -> None:
    _try(userns_set, ROOT_IMAGE, case, "shared")


@pytest.mark.parametrize("case", sample(3))
def test_in_a_user_namespace_as_user(userns_set: SetProcess, case: dict[str, str]) -> None:
    _try(userns_set, USER_IMAGE, case, "shared")


@pytest.mark.parametrize("case", sample(4))
def test_under_another_runtime_as_root(runtime_set: SetProcess, case: dict[str, str]) -> None:
    _try(runtime_set, ROOT_IMAGE, case, "shared")


@pytest.mark.parametrize("case", sample(5))
def test_under_another_runtime_as_user(runtime_set: SetProcess, case: dict[str, str]) -> None:
    _try(runtime_set, USER_IMAGE, case, "shared")


@pytest.mark.parametrize("case", sample(6))
def test_in_slots_of_a_cluster_as_root(cluster_set: SetProcess, case: dict[str, str]) -> None:
    _try(cluster_set, ROOT_IMAGE, case, "shared")


@pytest.mark.parametrize("case", sample(7))
def test_in_slots_of_a_cluster_as_user(cluster_set: SetProcess, case: dict[str, str]) -> None:
    _try(cluster_set, USER_IMAGE, case, "shared")


@pytest.mark.parametrize("case", sample(0))
def test_in_fresh_slots_of_a_cluster(cluster_set: SetProcess, case: dict[str, str]) -> None:
    _try(cluster_set, USER_IMAGE, case, "fresh")


@pytest.mark.parametrize("case", sample(1))
def test_with_host_ids_of_its_own_in_a_fresh_slot(own_ids_set: SetProcess, case: dict[str, str]) -> None:
    _try(own_ids_set, USER_IMAGE, case, "fresh")


@pytest.mark.parametrize("case", sample(2))
def test_in_a_sandbox_of_gvisor_as_root(gvisor_set: SetProcess, case: dict[str, str]) -> None:
    _try_in_a_sandbox(gvisor_set, ROOT_IMAGE, case)


@pytest.mark.parametrize("case", sample(3))
def test_in_a_sandbox_of_gvisor_as_user(gvisor_set: SetProcess, case: dict[str, str]) -> None:
    _try_in_a_sandbox(gvisor_set, USER_IMAGE, case)


def _try_in_a_sandbox(gvisor_set: SetProcess, image: str, case: dict[str, str]) -> None:
    if case["name"] not in IN_THE_SANDBOX:
        _try(gvisor_set, image, case, "fresh")
        return
    query: dict[str, str | int] = {
        "arg": case["name"],
        "timeout_s": TIMEOUT_S,
        "memory_mib": MEMORY_MIB,
        "queue_timeout_s": QUEUE_TIMEOUT_S,
    }
    with gvisor_set.client() as client:
        # It may succeed, fail, or end its slot: all of that is its own.
        answer = client.post(f"/v1/run/{image}", params=query, content=INPUT)
        assert answer.status_code in (200, 422, 503, 504), answer.text
        residue(client, image, "fresh")


@pytest.mark.parametrize("image", [ROOT_IMAGE, USER_IMAGE], ids=["root", "user"])
def test_slots_of_gvisor_share_no_counter_of_the_kernel(gvisor_set: SetProcess, image: str) -> None:
    """A program of one account holds all it can get, and another's has what it needs."""
    _beside_a_holder(gvisor_set, image, "neighbour")


@pytest.mark.parametrize(
    "case", [case for case in listed() if case["outputs"]], ids=lambda case: case["name"]
)
def test_files_of_an_async_task(hostile_set: SetProcess, case: dict[str, str]) -> None:
    query = {"arg": case["name"], "timeout_s": timeout_s(case), "memory_mib": MEMORY_MIB}
    headers = {"Prefer": "respond-async"}
    with hostile_set.client() as client:
        outputs: dict[str, str | list[str]] = {**query, "output": case["outputs"].split()}
        answer = client.post(f"/v1/run/{USER_IMAGE}", params=outputs, headers=headers, content=INPUT)
        assert answer.status_code == 202, answer.text
        task = client.get(f"/v1/tasks/{answer.json()['id']}", params={"wait": 30}).json()
        assert task["state"] == ("succeeded" if case["must"] == "contained" else case["must"]), task
        look_at_files(client, case, task)
        residue(client, USER_IMAGE, "shared")


def _try(hostile_set: SetProcess, image: str, case: dict[str, str], isolation: str) -> None:
    with hostile_set.client() as client:
        task, said = run(client, image, case, isolation)
        state = task["state"]
        if case["must"] == "contained":
            assert state == "succeeded", f"{case['name']} tries: {case['tries']}; {state} {said}"
        elif case["must"] == "timed_out":
            assert state == "timed_out", f"{case['name']} must be ended: {state} {said}"
        elif case["must"] == "memory":
            assert state == "failed", f"{case['name']}: {state} {said}"
            assert "out_of_memory" in said, said
        elif case["must"] == "ended":
            assert state == "timed_out" or "out_of_memory" in said, f"{case['name']}: {state} {said}"
        assert "BREACH" not in said, said
        assert "BROKEN TEST" not in said, said
        look_at_files(client, case, task)
        residue(client, image, isolation)
        becomes_ready(client)


def becomes_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while (answer := client.get("/readyz")).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.2)


@contextlib.contextmanager
def holding(client: httpx.Client, image: str, *command: str, memory_mib: int = 512) -> Iterator[None]:
    """Run a case that takes all it can and stays, until the block ends."""
    query: dict[str, str | list[str]] = {"arg": list(command), "timeout_s": HOLDER_TIMEOUT_S, "stream": "1"}
    query |= {"queue_timeout_s": QUEUE_TIMEOUT_S, "memory_mib": str(memory_mib)}
    with client.stream("POST", f"/v1/run/{image}", params=query, timeout=float(HOLDER_TIMEOUT_S)) as answer:
        assert answer.status_code == 200, answer.read()
        # Kept: an iterator that is dropped closes its answer, and that ends the task.
        said = answer.iter_bytes()
        assert next(said).startswith(b"holding")
        yield
        assert client.get(f"/v1/tasks/{answer.headers['X-Task-Id']}").json()["state"] == "running"


def test_what_one_slot_uses_up_another_still_has(hostile_set: SetProcess) -> None:
    # The kernel counts pipes and watches for each user of the host, over all slots.
    _beside_a_holder(hostile_set, USER_IMAGE, "neighbour")


def test_what_one_slot_of_a_cluster_uses_up_another_still_has(cluster_set: SetProcess) -> None:
    _beside_a_holder(cluster_set, USER_IMAGE, "neighbour")


@pytest.mark.parametrize("image", [ROOT_IMAGE, USER_IMAGE], ids=["root", "user"])
def test_a_user_namespace_keeps_queued_signals_apart(userns_set: SetProcess, image: str) -> None:
    _beside_a_holder(userns_set, image, "neighbour", "signals")


@pytest.mark.parametrize("image", [ROOT_IMAGE, USER_IMAGE], ids=["root", "user"])
def test_what_one_slot_uses_up_another_still_has_in_a_user_namespace(
    userns_set: SetProcess, image: str
) -> None:
    _beside_a_holder(userns_set, image, "neighbour")


@pytest.mark.parametrize("image", [ROOT_IMAGE, USER_IMAGE], ids=["root", "user"])
def test_with_host_ids_of_their_own_slots_share_no_counter_of_the_kernel(
    own_ids_set: SetProcess, image: str
) -> None:
    with own_ids_set.client(**{"X-Account": "greedy"}) as greedy, holding(greedy, image, "counters", "hold"):
        gets_all(own_ids_set, image)


def test_without_them_one_slot_takes_all_from_the_others(hostile_set: SetProcess) -> None:
    """The counters that the test before looks at are there to be shared."""
    gets_all(hostile_set, USER_IMAGE)
    with (
        hostile_set.client(**{"X-Account": "greedy"}) as greedy,
        holding(greedy, USER_IMAGE, "counters", "hold"),
    ):
        beside = counters(hostile_set, USER_IMAGE)
    # It takes all epoll watches only in the next test, as that needs a gibibyte.
    assert all(beside[name] < WHOLE[name] for name in ("signals", "in_flight", "pipes")), beside


@pytest.mark.skipif(
    not os.environ.get("GC_TEST_ALL"), reason="takes a gibibyte of the kernel's memory: make test-all"
)
def test_with_host_ids_of_their_own_one_slot_takes_no_epoll_watches_from_the_others(
    own_ids_set: SetProcess,
) -> None:
    memory_mib = memory_of_all_watches_mib()
    with (
        own_ids_set.client(**{"X-Account": "greedy"}) as greedy,
        holding(greedy, USER_IMAGE, "watcher", memory_mib=memory_mib + 64),
    ):
        gets_all(own_ids_set, USER_IMAGE)


def memory_of_all_watches_mib() -> int:
    """Return the memory that all epoll watches of one user take; skip the test where that is too much."""
    memory_mib = int(Path("/proc/sys/fs/epoll/max_user_watches").read_text()) * WATCH_BYTES >> 20
    if memory_mib > 4096:
        pytest.skip(f"all watches of a user would take {memory_mib} MiB here")
    return memory_mib


def gets_all(running: SetProcess, image: str) -> None:
    """Wait until a slot gets its whole share: the kernel lets go of an ended program's descriptors some time later."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while any((got := counters(running, image))[name] < whole for name, whole in WHOLE.items()):
        assert time.monotonic() < deadline, got
        time.sleep(0.2)


def counters(running: SetProcess, image: str) -> dict[str, int]:
    """Return how much a slot gets of what the kernel counts per user."""
    with running.client(**{"X-Account": "modest"}) as modest:
        answer = modest.post(
            f"/v1/run/{image}", params={"arg": "counters", "queue_timeout_s": QUEUE_TIMEOUT_S}
        )
        assert answer.status_code == 200, answer.text
    return {name: int(count) for name, count in (line.split() for line in answer.text.splitlines())}


def test_a_set_tells_how_many_slots_have_queued_signals_of_their_own(userns_set: SetProcess) -> None:
    with userns_set.client() as client:
        residue(client, ROOT_IMAGE, "shared")
    # The engine has its limit from these tests.
    limit, _ = resource.getrlimit(resource.RLIMIT_SIGPENDING)
    told = [
        line for line in userns_set.log.read_text().splitlines() if "queued signals are kept apart" in line
    ]
    apart = [json.loads(line)["slots_kept_apart"] for line in told]
    assert apart == ([] if limit == resource.RLIM_INFINITY else [limit // 1024])


@pytest.mark.skipif(
    not os.environ.get("GC_TEST_ALL"), reason="takes a gibibyte of the kernel's memory: make test-all"
)
def test_epoll_watches_in_a_user_namespace_are_not_those_of_the_hosts_root(userns_set: SetProcess) -> None:
    """Slots of one engine share the count for equal USERs; the platform's own processes, which are root, do not."""
    memory_mib = memory_of_all_watches_mib()
    with (
        userns_set.client() as client,
        holding(client, ROOT_IMAGE, "watcher", memory_mib=memory_mib + 64),
        select.epoll() as loop,
    ):
        for descriptor in os.pipe():
            loop.register(descriptor)
            os.close(descriptor)


def _beside_a_holder(running: SetProcess, image: str, *command: str) -> None:
    """A program of one account works while one of another account holds all it can get."""
    with (
        running.client(**{"X-Account": "greedy"}) as greedy,
        running.client(**{"X-Account": "modest"}) as modest,
        holding(greedy, image, "holder"),
    ):
        answer = modest.post(
            f"/v1/run/{image}", params={"arg": list(command), "queue_timeout_s": QUEUE_TIMEOUT_S}
        )
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("image", [ROOT_IMAGE, USER_IMAGE], ids=["root", "user"])
def test_descriptors_that_one_account_parks_keep_no_others_from_being_sent(
    hostile_set: SetProcess, image: str
) -> None:
    _beside_a_parker(hostile_set, image)


@pytest.mark.parametrize("image", [ROOT_IMAGE, USER_IMAGE], ids=["root", "user"])
def test_descriptors_parked_in_a_slot_of_a_cluster_keep_no_others_from_being_sent(
    cluster_set: SetProcess, image: str
) -> None:
    _beside_a_parker(cluster_set, image)


@pytest.mark.parametrize("image", [ROOT_IMAGE, USER_IMAGE], ids=["root", "user"])
def test_descriptors_parked_in_a_user_namespace_keep_no_others_from_being_sent(
    userns_set: SetProcess, image: str
) -> None:
    """In a user namespace the guest's own user may send no more than its limit says."""
    _beside_a_parker(userns_set, image)


def _beside_a_parker(running: SetProcess, image: str) -> None:
    """Large inputs and outputs and kept files are handed over as descriptors, counted per user of the host."""
    query: dict[str, str | list[str]] = {
        "arg": "carrier",
        "output": ["/tmp/kept", "/tmp/other"],
        "queue_timeout_s": QUEUE_TIMEOUT_S,
    }
    kept = {"/tmp/kept": 5, "/tmp/other": 5}
    body = bytes(1 << 20)
    with (
        running.client(**{"X-Account": "greedy"}) as greedy,
        running.client(**{"X-Account": "modest"}) as modest,
        holding(greedy, image, "parker"),
    ):
        for more in ({}, {"stream": "1"}, {"prestart": "1"}, {"prestart": "1"}, {"isolation": "fresh"}):
            answer = modest.post(f"/v1/run/{image}", params={**query, **more}, content=body)
            assert answer.status_code == 200, answer.text[:1000]
            assert answer.content.startswith(body)
            task = modest.get(f"/v1/tasks/{answer.headers['X-Task-Id']}", params={"wait": 10}).json()
            assert task["files"] == kept
        headers = {"Prefer": "respond-async"}
        submitted = modest.post(f"/v1/run/{image}", params=query, content=body, headers=headers).json()
        task = modest.get(f"/v1/tasks/{submitted['id']}", params={"wait": 30}).json()
        assert (task["state"], task["files"]) == ("succeeded", kept), task
