"""The hostile programs as images: one static binary, run as root and as a USER of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import docker
import pytest

from ops.setup import userns
from ops.setup.engine import PrivateEngine
from ops.setup.runtimes import OWN
from tests.conftest import SetProcess, StartSet
from tests.scheduler.launchers.nomad.agents import CPU_SHARES, needs_nomad, start_agent
from tests.scheduler.launchers.nomad.conftest import ClusterSet

PROGRAMS = Path(__file__).with_name("programs")
FLAGS = ("-std=gnu11", "-O1", "-static", "-Wall", "-Wextra", "-Werror", "-Wno-unused-result")
ROOT_IMAGE = "gc-test/hostile:root"
USER_IMAGE = "gc-test/hostile:user"
MAX_FILE_MIB = 8
MAX_FILES_MIB = 16
SETTINGS = f"max_slots: 8\nmax_stdout_mib: 64\nmax_file_mib: {MAX_FILE_MIB}\nmax_files_mib: {MAX_FILES_MIB}\n"


def why_not(runtime: str) -> str:
    """Return why nothing can be shown of a runtime on this machine; empty if it can."""
    if shutil.which(runtime) is None:
        return f"{runtime} is not on PATH"
    if runtime == "crun" and not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return "sets refuse crun on a machine with cgroup version 1"
    return ""


RUNTIMES = [
    OWN,
    *(
        pytest.param(name, marks=pytest.mark.skipif(bool(why_not(name)), reason=why_not(name)))
        for name in ("crun",)
    ),
]
"""The runtimes under which the programs run besides the engine's own."""


IN_THE_SANDBOX: Final = {
    "sys_writes": "nothing of its own /sys is read-only for root",
    "proc_writes": "nothing of its own /proc is read-only for root",
    "capabilities": "priorities, which its kernel only remembers, may be raised",
    "priorities": "priorities, which its kernel only remembers, may be raised",
    "kill_init": "process 1 can be killed, which ends the slot",
    "stop_init": "process 1 can be stopped, until the task's limit ends the slot",
    "signal_init_by_pipe": "process 1 can be killed, which ends the slot",
    "trace_own_children": "it takes no seccomp profile that answers with ENOSYS",
    "reboot_host": "it takes no seccomp profile that answers with ENOSYS",
    "posix_queues": "it takes no seccomp profile that answers with ENOSYS",
    "sysv_ipc": "it takes no seccomp profile that answers with ENOSYS",
    "user_namespace": "it takes no seccomp profile that answers with ENOSYS",
    "keyrings": "it takes no seccomp profile that answers with ENOSYS",
    "terminals": "its /dev has terminals",
    "fill_netlink_again": "it tells no filter of ours of netlink sockets, so there are none",
    "fill_netlink_sockets": "it tells no filter of ours of netlink sockets, so there are none",
    "fill_udp_sockets": "its /proc has no sockstat",
    "fill_tcp_sockets": "its /proc has no sockstat",
    "leave_ports_in_use": "its network takes minutes to use up all ports",
    "use_up_timers": "the slot's memory holds its kernel's objects, too",
    "fill_tmp_with_files": "the slot's memory holds its kernel's objects, too",
    "zombies": "the slot's memory holds its kernel's objects, too",
    "threads_to_the_limit": "the slot's memory holds its kernel's objects, too",
    "fork_to_the_limit": "the slot's memory holds its kernel's objects, too",
}
"""Cases that get what they try under gVisor, and why: within a sandbox that serves one task alone, and ends with it."""


def build_program(folder: Path) -> Path:
    """Compile the programs into one binary."""
    binary = folder / "hostile"
    sources = sorted(str(source) for source in PROGRAMS.glob("*.c"))
    subprocess.run(["cc", *FLAGS, "-o", str(binary), *sources], check=True)
    return binary


def cases(binary: Path) -> list[dict[str, str]]:
    """What the binary can try."""
    listed = subprocess.run([binary, "list"], stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in listed.stdout.splitlines()]


@contextmanager
def hostile_images(engine: docker.DockerClient, folder: Path) -> Iterator[None]:
    """The images on an engine, made from nothing, and removed again."""
    build_program(folder)
    (folder / "content").write_bytes(b"of the image\n")
    (folder / "content").chmod(0o666)
    for tag, user in ((ROOT_IMAGE, "0"), (USER_IMAGE, "12345:12345")):
        (folder / "Dockerfile").write_text(
            "FROM scratch\nCOPY hostile /hostile\nCOPY content /held/content\nVOLUME /held\n"
            f'USER {user}\nENTRYPOINT ["/hostile"]\n'
        )
        engine.images.build(path=str(folder), tag=tag, rm=True)
    yield
    for tag in (ROOT_IMAGE, USER_IMAGE):
        engine.images.remove(tag, force=True)


@pytest.fixture(scope="session")
def images(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The images on the engine of these tests."""
    with hostile_images(engine, tmp_path_factory.mktemp("hostile")):
        yield


@pytest.fixture(scope="session")
def hostile_set(images: None, start_set: StartSet) -> SetProcess:
    return start_set("thostile", SETTINGS)


@pytest.fixture(scope="session")
def cluster_set(
    images: None, start_set: StartSet, docker_host: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SetProcess]:
    """A set whose slots are started by Nomad, where `nomad` is on PATH."""
    needs_nomad()
    with start_agent(tmp_path_factory.mktemp("agent"), docker_host, cpu_shares=CPU_SHARES) as agent:
        name = f"thn{uuid.uuid4().hex[:10]}"
        made = ClusterSet(agent, tmp_path_factory.mktemp("cluster"), name, start_set, SETTINGS, {})
        yield made.set
        made.close()


@contextmanager
def private_engine(folder: Path, *, userns: bool = False) -> Iterator[tuple[str, docker.DockerClient]]:
    """An engine of its own, by its address, and a client of it."""
    if os.geteuid() != 0:
        pytest.skip("a private engine needs root, as make test in CI has")
    private = PrivateEngine(folder, userns=userns)
    private.start()
    client = docker.DockerClient(base_url=private.layout.host, timeout=60)
    try:
        yield private.layout.host, client
    finally:
        client.close()
        private.stop()


@pytest.fixture(scope="session")
def userns_set(start_set: StartSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SetProcess]:
    """A set on a private engine of its own, whose containers run in a user namespace."""
    with (
        private_engine(tmp_path_factory.mktemp("userns"), userns=True) as (host, client),
        hostile_images(client, tmp_path_factory.mktemp("hostile")),
    ):
        running = start_set("tuserns", f"{SETTINGS}docker_host: {host}\n")
        yield running
        running.stop()


@pytest.fixture(scope="session")
def runtimes_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an engine that offers our runtime and those on PATH, and has the hostile images."""
    userns.prepare(userns.RUNTIME)
    with (
        private_engine(tmp_path_factory.mktemp("runtimes")) as (host, client),
        hostile_images(client, tmp_path_factory.mktemp("hostile")),
    ):
        yield host


@pytest.fixture(scope="session", params=RUNTIMES)
def runtime_set(
    request: pytest.FixtureRequest, start_set: StartSet, runtimes_engine: str
) -> Iterator[SetProcess]:
    """A set whose slots have another runtime than runc."""
    running = start_set("truntime", f"{SETTINGS}docker_host: {runtimes_engine}\nruntime: {request.param}\n")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def gvisor_set(start_set: StartSet, request: pytest.FixtureRequest) -> Iterator[SetProcess]:
    """A set whose slots are gVisor's sandboxes, where `runsc` is on PATH."""
    if missing := why_not("runsc"):
        pytest.skip(missing)
    host = request.getfixturevalue("runtimes_engine")
    running = start_set("tgvisor", f"{SETTINGS}docker_host: {host}\nruntime: runsc\n")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def own_ids_set(start_set: StartSet, runtimes_engine: str) -> Iterator[SetProcess]:
    """A set whose slots have host ids of their own, by our runtime."""
    running = start_set("townids", f"{SETTINGS}docker_host: {runtimes_engine}\nruntime: {OWN}\n")
    yield running
    running.stop()
