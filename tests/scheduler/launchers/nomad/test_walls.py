"""A slot of a cluster beside one of the Docker launcher, seen from the engine and from inside."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from typing import Any

import docker
import httpx
import pytest

from tests.conftest import SetProcess
from tests.scheduler.launchers.nomad.conftest import StartClusterSet
from tests.scheduler.launchers.rig import writable_mounts

INSIDE = """
grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status
grep -E 'core|locked|open files|pending|msgqueue|processes' /proc/self/limits
cat /proc/self/oom_score_adj /proc/1/oom_score_adj
hostname; cat /etc/hosts; id; pwd; ls /sys/class/net; env | sort
cat /proc/sys/net/ipv4/tcp_max_tw_buckets /proc/sys/net/ipv4/tcp_no_metrics_save
cat /sys/fs/cgroup/cpu/cpu.cfs_*_us /sys/fs/cgroup/cpu.max 2>/dev/null
find /dev -type c | grep -v /dev/pts | sort; stat -c '%A %U %n' /dev/null /dev/shm /tmp /var/room
touch /x /gc/x /gc/run/x /dev/x /etc/hosts 2>&1 | sed 's/.*: //'
"""
SAME = (
    "CapDrop",
    "CapAdd",
    "Memory",
    "MemorySwap",
    "MemorySwappiness",
    "PidsLimit",
    "OomScoreAdj",
    "ReadonlyRootfs",
)
SAME_TOO = (
    "Privileged",
    "CgroupnsMode",
    "MaskedPaths",
    "ReadonlyPaths",
    "Devices",
    "PortBindings",
    "Init",
)


@pytest.fixture(scope="session")
def shell(engine: docker.DockerClient) -> Iterator[str]:
    """cat:1 with a shell as its program."""
    reference = f"gc-test-{uuid.uuid4().hex[:10]}:1"
    text = b'FROM cat:1\nVOLUME /var/room\nENTRYPOINT ["/bin/sh", "-c"]\n'
    engine.images.build(fileobj=io.BytesIO(text), tag=reference, network_mode="none")
    yield reference
    engine.images.remove(reference, force=True)


def ask(client: httpx.Client, image: str, script: str) -> str:
    """What a task of the image prints."""
    answer = client.post(f"/v1/run/{image}", params={"arg": script, "queue_timeout_s": 60}, timeout=90)
    assert answer.status_code == 200, answer.text
    return answer.text


def inspected(engine: docker.DockerClient, set_name: str) -> dict[str, Any]:
    """The engine's account of the set's only slot."""
    (found,) = engine.containers.list(filters={"label": f"org.general-compute.set={set_name}"})
    described: dict[str, Any] = found.attrs
    return described


def test_a_slot_of_a_cluster_has_the_walls_of_docker(
    cluster_set: StartClusterSet, shared_set: SetProcess, engine: docker.DockerClient, shell: str
) -> None:
    made = cluster_set()
    with made.set.client() as there, shared_set.client(**{"X-Account": "walls"}) as here:
        assert ask(there, shell, INSIDE) == ask(here, shell, INSIDE)
        of_cluster = inspected(engine, made.set.name)
        label = "org.general-compute.account=walls"
        (local,) = engine.containers.list(filters={"label": label})
        of_docker = local.attrs
    theirs, ours = of_cluster["HostConfig"], of_docker["HostConfig"]
    for name in (*SAME, *SAME_TOO):
        assert lower(theirs.get(name)) == lower(ours.get(name)), name
    assert set(map(normal, theirs["SecurityOpt"])) == set(map(normal, ours["SecurityOpt"]))
    assert {(each["Name"], each["Soft"], each["Hard"]) for each in theirs["Ulimits"]} == {
        (each["Name"], each["Soft"], each["Hard"]) for each in ours["Ulimits"]
    }
    assert theirs["Sysctls"] == ours["Sysctls"]
    assert theirs["NetworkMode"] == ours["NetworkMode"] == "none"
    assert of_cluster["Config"]["User"] == of_docker["Config"]["User"]
    # The guest has the same arguments, but for the place of its socket.
    assert of_cluster["Args"][1:] == of_docker["Args"][1:]
    assert all(bind.split(":")[1].startswith("/gc/nomad/") for bind in theirs["Binds"])
    writable = [mount for mount in of_cluster["Mounts"] if mount["RW"] and mount["Type"] != "tmpfs"]
    assert [
        mount["Destination"] for mount in writable if not mount["Destination"].startswith("/gc/nomad")
    ] == []


def lower(value: Any) -> Any:
    return sorted(str(each).lower() for each in value) if value and isinstance(value, list) else value or None


def normal(option: str) -> str:
    """A security option without the spelling of one client or another."""
    return "no-new-privileges" if option.startswith("no-new-privileges") else "".join(option.split())


def test_nothing_of_nomad_can_be_seen_or_reached(cluster_set: StartClusterSet, shell: str) -> None:
    made = cluster_set()
    with made.set.client() as client:
        assert ask(client, shell, "env | grep -c NOMAD; true") == "0\n"
        found = ask(
            client,
            shell,
            "ls -la /gc/nomad /gc/run 2>&1; ls -d /alloc /local /secrets /gc/nomad/secrets 2>&1; true",
        )
        assert found.count("Permission denied") == 3, found
        assert found.count("No such file") == 3, found
        # No socket but its own, and no way to list the sockets of others.
        reached = ask(
            client,
            shell,
            "find / -name '*.sock' -not -path '/proc/*' 2>/dev/null; tail -n +2 /proc/net/unix | awk 'NF > 7'",
        )
        # The connection of its own guest, by a name that says nothing.
        assert [line.split()[-1].rpartition("/")[2] for line in reached.splitlines()] == ["executor.sock"]


def test_a_slot_can_write_where_one_of_docker_can(
    cluster_set: StartClusterSet, shared_set: SetProcess, shell: str
) -> None:
    made = cluster_set()
    with made.set.client() as there, shared_set.client(**{"X-Account": "walls"}) as here:
        of_cluster, of_docker = (
            writable_mounts(ask(client, shell, "cat /proc/self/mounts")) for client in (there, here)
        )
    # Below a folder that nobody can enter.
    covered = [place for place in of_cluster if place.startswith("/gc/nomad/")]
    for place in covered:
        del of_cluster[place]
    assert of_cluster == of_docker
    assert {"/tmp", "/dev/shm", "/var/room"} <= of_cluster.keys()
