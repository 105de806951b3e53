"""A slot on Docker from the inside: what it can reach, where it can write, and how much."""

from __future__ import annotations

import os
import re
import resource

import pytest
from docker import APIClient

from scheduler.task import Resources
from tests.scheduler.launchers.rig import (
    ImageMaker,
    Rig,
    container_of,
    containers,
    installation_of,
    left_no_volume,
    mounted_volumes,
    volumes,
    writable_mounts,
)

pytestmark = pytest.mark.docker


async def test_there_is_no_network_but_its_own_loopback(rig: Rig, plain_image: str) -> None:
    _, probe = await rig.run(plain_image)
    interfaces = re.findall(r"^\s*(\S+):", await probe.ask("read /proc/net/dev"), re.MULTILINE)
    assert interfaces == ["lo"]
    assert await probe.ask("connect 192.0.2.1") == "errno ENETUNREACH"
    assert await probe.ask("loopback") == "ok"
    assert "127.0.0.1\tlocalhost slot" in await probe.ask("read /etc/hosts")


@pytest.mark.parametrize("kind", ["net", "ipc", "pid", "uts", "mnt", "cgroup"])
async def test_slots_share_no_namespace_with_each_other_or_the_host(
    rig: Rig, plain_image: str, kind: str
) -> None:
    path = f"/proc/self/ns/{kind}"
    probes = [(await rig.run(plain_image))[1] for _ in range(2)]
    seen = [await probe.ask(f"link {path}") for probe in probes]
    assert all(link.startswith(kind + ":[") for link in seen)
    assert len({*seen, os.readlink(path)}) == 3


async def test_root_in_a_slot_has_no_capabilities_and_gains_none(rig: Rig, plain_image: str) -> None:
    _, probe = await rig.run(plain_image)
    status = dict(
        line.split(":\t", 1)
        for line in (await probe.ask("read /proc/self/status")).splitlines()
        if ":\t" in line
    )
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert await probe.ask("id") == "1 0 0"


async def test_root_can_write_nowhere_but_its_places(rig: Rig, images: ImageMaker) -> None:
    reference = images.make(
        'CMD ["/x"]', "VOLUME /var/lib/x", "LABEL org.general-compute.writable=/scratch,/a/b/"
    )
    _, probe = await rig.run(reference)
    for place in ("/tmp", "/dev/shm", "/var/lib/x", "/scratch", "/a/b", "/root"):
        assert await probe.ask(f"mode {place}") == "1777"
        assert await probe.ask(f"write {place}/new") == "ok"
    for place in ("/", "/data", "/etc", "/dev", "/gc", "/gc/run", "/var/lib", "/a"):
        assert await probe.ask(f"write {place}/new") == "errno EROFS", place
    # Devices are mounts where the engine has user namespaces.
    assert await probe.ask("unlink /dev/null") in ("errno EROFS", "errno EBUSY")
    assert await probe.ask("unlink /gc/guest") in ("errno EROFS", "errno EBUSY")
    assert await probe.ask("unlink /gc/run/executor.sock") == "errno EROFS"
    # These belong to root of the machine, who is nobody in a user namespace.
    for file in ("/etc/hosts", "/proc/sys/kernel/hostname"):
        assert await probe.ask(f"write {file}") in ("errno EROFS", "errno EACCES"), file
    for cgroup in ("memory/", "pids/", ""):
        for name in ("new", "cgroup.procs"):
            assert (await probe.ask(f"write /sys/fs/cgroup/{cgroup}{name}")).startswith("errno "), (
                cgroup,
                name,
            )
    writable = set(writable_mounts(await probe.ask("read /proc/mounts")))
    assert writable - {"/proc", "/sys/fs/cgroup"} == {
        "/tmp",
        "/dev/shm",
        "/var/lib/x",
        "/scratch",
        "/a/b",
        "/root",
    }


async def test_devices_work_though_dev_is_read_only(rig: Rig, plain_image: str) -> None:
    _, probe = await rig.run(plain_image)
    assert await probe.ask("write /dev/null") == "ok"
    assert await probe.ask("read /dev/null") == ""
    assert {"null", "zero", "full", "random", "urandom", "tty", "shm", "fd"} <= set(
        (await probe.ask("list /dev")).split()
    )


async def test_every_place_is_bounded_in_bytes_and_files(rig: Rig, images: ImageMaker) -> None:
    _, probe = await rig.run(images.make('CMD ["/x"]', "VOLUME /v"))
    for place, mib in (("/tmp", 8), ("/dev/shm", 4), ("/v", 4)):
        assert await probe.ask(f"fill {place}/f {mib - 1}") == "ok"
        assert await probe.ask(f"fill {place}/f {mib + 1}") == "errno ENOSPC"
        assert await probe.ask(f"inodes {place} 90") == "ok"
        assert await probe.ask(f"inodes {place} 101") == "errno ENOSPC"


async def test_a_volume_that_can_be_written_to_never_becomes_one_on_the_host(
    rig: Rig, images: ImageMaker, client: APIClient, set_name: str
) -> None:
    before = volumes(client, unused=True)
    _, probe = await rig.run(images.make('CMD ["/x"]', "VOLUME /new /b// /tmp /tmp/deeper"))
    assert len(containers(client, set_name)) == 1
    assert mounted_volumes(client, set_name) == set()
    await left_no_volume(client, before)
    places = await probe.places()
    assert places == ["/b", "/new", "/root", "/tmp", "/dev/shm", "/tmp/deeper"]
    for place in places:
        assert await probe.ask(f"write {place}/new") == "ok"


async def test_processes_queues_and_descriptors_are_bounded(rig: Rig, plain_image: str) -> None:
    _, probe = await rig.run(plain_image)
    # The guest gives each program 4096, and has what the engine may give for itself.
    soft, hard = map(int, (await probe.ask(f"limit {resource.RLIMIT_NOFILE}")).split())
    assert hard >= 4096
    assert soft <= hard
    assert await probe.ask(f"limit {resource.RLIMIT_CORE}") == "0 0"
    assert await probe.ask("queue") == "errno ENOSYS"
    assert await probe.ask("children 40") == "15"


async def test_memory_without_swap_and_cpu_are_as_ordered(
    rig: Rig, plain_image: str, client: APIClient, set_name: str
) -> None:
    order, _ = await rig.run(plain_image, resources=Resources(cpu_percent=50, memory_mib=48))
    config = client.inspect_container(container_of(set_name, order.slot_id))["HostConfig"]
    assert config["Memory"] == config["MemorySwap"] == 48 * 1024 * 1024
    assert config["NanoCpus"] == 500_000_000


async def test_labels_say_whose_slot_it_is(
    rig: Rig, plain_image: str, client: APIClient, set_name: str
) -> None:
    order, _ = await rig.run(plain_image)
    labels = client.inspect_container(container_of(set_name, order.slot_id))["Config"]["Labels"]
    ours = {k.rpartition(".")[2]: v for k, v in labels.items() if k.startswith("org.general-compute.")}
    assert ours.pop("pool").startswith("acme/")
    assert ours == {
        "set": set_name,
        "installation": installation_of(set_name),
        "account": "acme",
        "image": plain_image,
        "digest": order.image.digest,
        "slot": order.slot_id,
    }


async def test_an_image_with_a_healthcheck_has_none(
    rig: Rig, images: ImageMaker, client: APIClient, set_name: str
) -> None:
    reference = images.load(
        {"Cmd": ["/x"], "Healthcheck": {"Test": ["CMD", "/nothing"], "Interval": 10_000_000}}
    )
    order, probe = await rig.run(reference)
    assert await probe.ask("id") == "1 0 0"
    assert "Health" not in client.inspect_container(container_of(set_name, order.slot_id))["State"]
