"""Prestart through a whole set: a process that has loaded its libraries waits for the next input."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import docker
import httpx
import pytest

from tests.conftest import SetProcess, StartSet

pytestmark = pytest.mark.docker
IMAGE = "gc-test/prestart:1"


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`cat:1` with the label, and the shell as entrypoint."""
    folder = tmp_path_factory.mktemp("prestart")
    (folder / "Dockerfile").write_text(
        'FROM cat:1\nLABEL org.general-compute.prestart=1\nENTRYPOINT ["/bin/sh", "-c"]\n'
    )
    engine.images.build(path=str(folder), tag=IMAGE, rm=True)
    yield IMAGE
    engine.images.remove(IMAGE, force=True)


@pytest.fixture(scope="module")
def own_set(start_set: StartSet) -> SetProcess:
    return start_set("tprestart")


def run(client: httpx.Client, image: str, script: str, body: bytes = b"in", **query: str) -> httpx.Response:
    return client.post(f"/v1/run/{image}", params={"arg": script, **query}, content=body)


def prestarted(client: httpx.Client, answer: httpx.Response, status: int = 200) -> bool:
    assert answer.status_code == status, answer.text
    found: bool = client.get(f"/v1/tasks/{answer.headers['X-Task-Id']}").json()["prestarted"]
    return found


def again_until_prestarted(
    client: httpx.Client, image: str, script: str, body: bytes, status: int = 200, **query: str
) -> httpx.Response:
    """Run a task that is answered with `status` until a process had been started ahead for one."""
    for _ in range(100):
        time.sleep(0.05)
        answer = run(client, image, script, body, **query)
        if prestarted(client, answer, status):
            return answer
    raise AssertionError("no process was ever started ahead")


def test_the_second_task_finds_its_process_started(own_set: SetProcess, image: str) -> None:
    with own_set.client() as client:
        assert not prestarted(client, run(client, image, "cat; echo $$"))
        answer = again_until_prestarted(client, image, "cat; echo $$", b"small")
        assert answer.content.startswith(b"small")
        large = bytes(range(256)) * 2000
        assert again_until_prestarted(client, image, "cat", large).content == large
        # Without a length known beforehand, too.
        streamed = client.post(f"/v1/run/{image}", params={"arg": "cat"}, content=iter([b"a" * 70_000, b"b"]))
        assert streamed.content == b"a" * 70_000 + b"b"


def test_a_model_is_loaded_before_its_input_comes(own_set: SetProcess) -> None:
    body = b" ".join(b"%.2f" % (number / 100) for number in range(512))
    with own_set.client() as client:
        first = client.post("/v1/run/model:1", content=body)
        assert first.status_code == 200, first.text
        assert first.text.count("class ") == 3
        for _ in range(200):
            time.sleep(0.1)
            again = client.post("/v1/run/model:1", content=body)
            if prestarted(client, again):
                break
        assert prestarted(client, again)
        assert again.text == first.text


def test_every_task_has_a_process_of_its_own(own_set: SetProcess, image: str) -> None:
    script = "cat > /dev/null; ls /tmp; echo x > /tmp/mark; echo done"
    with own_set.client() as client:
        assert run(client, image, script).content == b"done\n"
        for _ in range(3):
            assert again_until_prestarted(client, image, script, b"x").content == b"done\n"


def test_the_parameter_overrules_the_label(own_set: SetProcess, image: str) -> None:
    with own_set.client() as client:
        for _ in range(4):
            time.sleep(0.05)
            assert not prestarted(client, run(client, image, "cat; true", prestart="0"))


def weight_of(pid: int) -> int:
    """The CPU weight of the cgroup that holds the process, by the kernel's file of either version."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for file in (f"{controllers}/{path}/cpu.shares", f"{path}/cpu.weight"):
            found = Path("/sys/fs/cgroup", file.lstrip("/"))
            if found.exists():
                return int(found.read_text())
    raise AssertionError("the slot's cgroup has no weight here")


def slot_pid(engine: docker.DockerClient, own: SetProcess) -> int:
    """The first process of the set's only slot. Its guest may answer before the engine says that it runs."""
    for _ in range(600):
        for slot in engine.containers.list(filters={"label": f"org.general-compute.set={own.name}"}):
            if pid := engine.api.inspect_container(str(slot.id))["State"]["Pid"]:
                return int(pid)
        time.sleep(0.1)
    raise AssertionError("the set has no slot that runs")


def test_a_program_that_loads_leaves_the_cpu_to_tasks_that_run(
    start_set: StartSet, engine: docker.DockerClient, image: str
) -> None:
    own = start_set("tyields", "max_slots: 1\n")
    with own.client() as client:
        assert run(client, image, "cat").status_code == 200
        pid = slot_pid(engine, own)
        for _ in range(600):
            if weight_of(pid) <= 2:
                break
            time.sleep(0.1)
        assert weight_of(pid) <= 2, "the next program loads"
        query = {"arg": "echo begun; sleep 1000", "stream": "1"}
        with client.stream("POST", f"/v1/run/{image}", params=query) as answer:
            assert next(answer.iter_raw()) == b"begun\n"
            assert weight_of(pid) >= 100, "it runs as others do"


def test_what_waited_in_vain_is_billed_with_the_task_before(start_set: StartSet, image: str) -> None:
    own = start_set("tvain", "keep_idle_s: 2\n")
    burn = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; cat"
    with own.client() as client:
        answer = run(client, image, burn)
        assert answer.status_code == 200
        task = f"/v1/tasks/{answer.headers['X-Task-Id']}"
        first_us = int(answer.headers["X-Cpu-Us"])
        assert first_us > 20_000
        for _ in range(300):
            billed_us = client.get(task).json()["cpu_us"]
            if billed_us != first_us:
                break
            time.sleep(0.1)
        assert 1.4 * first_us < billed_us < 3 * first_us


def test_an_image_that_does_not_wait_is_prestarted_no_more(start_set: StartSet, image: str) -> None:
    own = start_set("tunfit")
    with own.client() as client:
        assert run(client, image, "echo early; cat").content == b"early\nin"
        for _ in range(100):
            if client.get("/readyz").json()["prestart_unfit_images"] == 1:
                break
            time.sleep(0.05)
        assert b"gc_prestart_unfit_images 1.0" in client.get("/metrics").content
        for _ in range(4):
            time.sleep(0.05)
            assert not prestarted(client, run(client, image, "cat"))
    assert b"no longer prestarted" in own.log.read_bytes()


def test_a_prestarted_task_that_is_cancelled_or_fails_does_no_harm(own_set: SetProcess, image: str) -> None:
    with own_set.client() as client:
        script = "cat; exit 3"
        assert run(client, image, script).json()["exit_code"] == 3
        failed = again_until_prestarted(client, image, script, b"in", status=422)
        assert failed.json()["exit_code"] == 3
        # A process whose task ran out of time is killed with its slot, and waits for nobody.
        for _ in range(2):
            assert run(client, image, "cat; sleep 100", timeout_s="0.3").status_code == 504
        assert again_until_prestarted(client, image, "cat", b"fine").content == b"fine"


def test_a_process_killed_for_memory_before_its_input_came_is_the_tasks(
    own_set: SetProcess, image: str
) -> None:
    """Its child dies while it loads: that is told by the task that the process waited for, and by no other."""
    script = "(head -c 200000000 /dev/zero | tail -c 199999999) > /dev/null 2>&1; cat"
    with own_set.client() as client:
        for _ in range(100):
            time.sleep(0.2)
            answer = run(client, image, script, memory_mib="64")
            assert answer.status_code == 200, answer.text
            assert answer.headers["X-Detail"].startswith("the kernel killed 1 of the task's processes")
            if prestarted(client, answer):
                break
        assert prestarted(client, answer)
        time.sleep(0.5)
        other = run(client, image, "cat", memory_mib="64")
        assert (other.content, other.headers.get("X-Detail")) == (b"in", None)


def test_a_process_that_memory_kills_while_it_waits_is_not_the_next_tasks_doing(
    start_set: StartSet, image: str
) -> None:
    own = start_set("tunfitmemory")
    with own.client() as client:
        script = "x=$(tr '\\0' x < /dev/zero)"
        assert run(client, image, script, memory_mib="64").json()["reason"] == "out_of_memory"
        for _ in range(100):
            if client.get("/readyz").json()["prestart_unfit_images"] == 1:
                break
            time.sleep(0.05)
        assert b"the kernel killed it for memory before its input came" in own.log.read_bytes()
        other = run(client, image, "cat", memory_mib="64")
        assert (other.content, other.headers.get("X-Detail")) == (b"in", None)
