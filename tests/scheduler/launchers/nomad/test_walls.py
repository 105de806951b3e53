"""A slot of a cluster beside one of the Docker launcher, seen from the engine and from inside."""

from __future__ import annotations

import io
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from ops.setup import userns
from ops.setup.runtimes import OWN
from tests.conftest import SetProcess, StartSet
from tests.scheduler.launchers.nomad.conftest import StartClusterSet
from tests.scheduler.launchers.rig import writable_mounts
from tests.sets.runtime.rig import BLOCK, MAPPED

INSIDE = """
grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status
grep -E 'core|locked|open files|pending|msgqueue|processes' /proc/self/limits
cat /proc/self/oom_score_adj /proc/1/oom_score_adj
hostname; cat /etc/hosts; id; pwd; ls /sys/class/net; env | sort
cat /proc/sys/net/ipv4/tcp_max_tw_buckets /proc/sys/net/ipv4/tcp_no_metrics_save
cat /sys/fs/cgroup/cpu/cpu.cfs_*_us /sys/fs/cgroup/cpu.max 2>/dev/null
find /dev -type c | grep -v /dev/pts | sort; stat -c '%A %U %n' /dev/null
touch /x /gc/x /gc/run/x /dev/x /etc/hosts 2>&1 | sed 's/.*: //'
"""
PLACES = """
cd /; places="/tmp /dev/shm /var/room /var/held/room $HOME"
stat -c '%n %u:%g' $places; stat -c '%n %a' /tmp /dev/shm /var/room $HOME
for place in $places; do
    grep " $place " /proc/mounts | tr ', ' '\\n' | grep -vE '^(mode|uid|gid)=' | sort | tr '\\n' ' '
    echo; df -k --output=size,iused,itotal $place
    cp /bin/true $place/program && $place/program && echo $place runs programs
    ls -A $place
done
cat /var/held/file; ls -la --time-style=+ /var/held | awk '{print $1, $3, $4, $NF}' | grep -v room | grep -v '\\.\\.'
touch /var/held/new /var/held/file 2>&1 | sed 's/.*: //'; rm -f /var/held/file 2>&1 | sed 's/.*: //'
cat ~/.profile
"""
"""How each place looks, and a VOLUME with files of the image. The options with which a tmpfs was made, uid and gid, are
seen by those who came after the mount: its owner is what counts. The mode of a place within a VOLUME with files is left
out: runc before 1.1.8 gives it that of the image's folder, on Docker alone."""
MAPS = "cat /proc/self/uid_map /proc/self/gid_map"
DEVICES = "cd /dev; for each in *; do test -c $each -a -r $each && echo $each; done; head -c 9 zero > null && echo used"
DEVICE = re.compile("/dev/(full|null|random|tty|urandom|zero)$")
"""How INSIDE lists a device. In a user namespace, runc can only bind those of the machine, whose root is nobody there;
the cluster's job has a folder of them, which our runtime maps. Both can be used alike."""
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
    with shell_image(engine, "") as reference:
        yield reference


@pytest.fixture(scope="session")
def shell_of_user(engine: docker.DockerClient) -> Iterator[str]:
    """The same, as a USER who has a HOME with a file."""
    with shell_image(
        engine,
        "RUN useradd --uid 12345 --create-home worker && echo text > /home/worker/.profile\nUSER worker\n",
    ) as reference:
        yield reference


@contextmanager
def shell_image(engine: docker.DockerClient, more: str) -> Iterator[str]:
    reference = f"gc-test-{uuid.uuid4().hex[:10]}:1"
    text = (
        "FROM cat:1\nRUN mkdir -p /var/held/room /var/room && chmod 755 /var/room && echo image > /var/held/file\n"
        "RUN chmod 666 /var/held/file && chmod 777 /var/held\n"
        "RUN rm -rf /root && mkdir -m 700 /root && touch /root/.profile\n"
        f'{more}VOLUME /var/room /var/held /var/held/room\nENTRYPOINT ["/bin/sh", "-c"]\n'
    )
    engine.images.build(fileobj=io.BytesIO(text.encode()), tag=reference, network_mode="none")
    try:
        yield reference
    finally:
        engine.images.remove(reference, force=True)


def ask(client: httpx.Client, image: str, script: str) -> str:
    """What a task of the image prints."""
    answer = client.post(f"/v1/run/{image}", params={"arg": script, "queue_timeout_s": 60}, timeout=90)
    assert answer.status_code == 200, answer.text
    return answer.text


def inspected(engine: docker.DockerClient, set_name: str, account: str = "default") -> dict[str, Any]:
    """The engine's account of the set's only slot for an account."""
    labels = [f"org.general-compute.set={set_name}", f"org.general-compute.account={account}"]
    # Its first task may have ended before the engine lists it as one that runs; to inspect it waits for that.
    (found,) = engine.containers.list(all=True, filters={"label": labels})
    described: dict[str, Any] = found.attrs
    return described


def assert_same_walls(of_cluster: dict[str, Any], of_docker: dict[str, Any]) -> None:
    """What the engine says of two slots does not differ where it keeps an algorithm inside."""
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


def test_a_slot_of_a_cluster_has_the_walls_of_docker(
    cluster_set: StartClusterSet, shared_set: SetProcess, engine: docker.DockerClient, shell: str
) -> None:
    made = cluster_set()
    with made.set.client() as there, shared_set.client(**{"X-Account": "walls"}) as here:
        assert ask(there, shell, INSIDE) == ask(here, shell, INSIDE)
        assert_same_walls(
            inspected(engine, made.set.name), inspected(engine, shared_set.name, account="walls")
        )


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


CONNECT = """
perl -MSocket -e '
    for (qw(/gc/nomad/secrets/api.sock /secrets/api.sock /gc/nomad/local/x /gc/nomad/alloc/data/x)) {
        socket(S, PF_UNIX, SOCK_STREAM, 0) or die;
        print "$_: ", connect(S, sockaddr_un($_)) ? "connected" : $!, "\\n";
    }'
find / -path /proc -prune -o -type d -writable -print 2>/dev/null | sort
"""


@pytest.mark.parametrize("image", ["shell", "shell_of_user"])
def test_a_slot_opens_no_socket_of_nomad_and_writes_to_its_places_only(
    cluster_set: StartClusterSet, request: pytest.FixtureRequest, image: str
) -> None:
    made, reference = cluster_set(), request.getfixturevalue(image)
    home = "/root" if image == "shell" else "/home/worker"
    with made.set.client() as client:
        said = ask(client, reference, CONNECT).splitlines()
    assert said[:4] == [
        "/gc/nomad/secrets/api.sock: Permission denied",
        "/secrets/api.sock: No such file or directory",
        "/gc/nomad/local/x: Permission denied",
        "/gc/nomad/alloc/data/x: Permission denied",
    ]
    assert said[4:] == sorted(["/dev/shm", "/tmp", "/var/held/room", "/var/room", home])


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
    assert "/var/held" not in of_cluster


@pytest.mark.parametrize("image", ["shell", "shell_of_user"])
def test_places_and_files_of_volumes_are_those_of_docker(
    cluster_set: StartClusterSet, shared_set: SetProcess, request: pytest.FixtureRequest, image: str
) -> None:
    """Options, size, inodes, owner and mode of each place, programs there, and what the image has in a VOLUME."""
    made, reference = cluster_set(), request.getfixturevalue(image)
    with made.set.client() as there, shared_set.client(**{"X-Account": "places"}) as here:
        of_cluster, of_docker = (ask(client, reference, PLACES) for client in (there, here))
        assert of_cluster.splitlines() == of_docker.splitlines()
        assert of_cluster.count("runs programs") == 5
        assert "image" in of_cluster
        # The next task finds every place as it was at first.
        changes = "touch /tmp/x /var/room/x ~/x; chmod 700 /var/room /var/held/room ~; echo > ~/.profile"
        ask(there, reference, changes)
        assert ask(there, reference, PLACES).splitlines() == of_docker.splitlines()


def test_a_slot_of_a_cluster_leaves_no_volume_on_the_disk(
    cluster_set: StartClusterSet, engine: docker.DockerClient, shell: str
) -> None:
    made = cluster_set()
    with made.set.client() as client:
        assert ask(client, shell, "cat /var/held/file") == "image\n"
        found = inspected(engine, made.set.name)
        assert {mount["Type"] for mount in found["Mounts"]} <= {"bind", "tmpfs"}


def test_an_image_that_has_something_mounted_among_the_platforms_own_runs_no_task(
    cluster_set: StartClusterSet, engine: docker.DockerClient
) -> None:
    """Where a VOLUME behind a link leads to the folder that hides Nomad's API and disk."""
    reference = f"gc-test-{uuid.uuid4().hex[:10]}:1"
    text = b'FROM cat:1\nRUN ln -s /gc /x\nVOLUME /x/nomad\nENTRYPOINT ["/bin/sh", "-c"]\n'
    engine.images.build(fileobj=io.BytesIO(text), tag=reference, network_mode="none")
    made = cluster_set()
    try:
        with made.set.client() as client:
            query = {"arg": "ls /gc/nomad", "queue_timeout_s": "20"}
            answer = client.post(f"/v1/run/{reference}", params=query, timeout=90)
            assert answer.status_code >= 500, answer.text
            assert not answer.json()["executed"]
            assert "/gc/nomad: the image had something mounted there" in answer.text
    finally:
        made.set.stop()
        engine.images.remove(reference, force=True)


@pytest.fixture(scope="module")
def own_ids_set(start_set: StartSet, engine: docker.DockerClient) -> SetProcess:
    """A set whose slots on the engine have host ids of their own."""
    if OWN not in engine.info()["Runtimes"]:
        pytest.skip(f"the engine has no runtime {OWN}: sets/runtime/README.md")
    if os.geteuid() != 0:
        pytest.skip("host ids for slots need root, as make test in CI has")
    userns.prepare(userns.RUNTIME)
    return start_set("townids", f"runtime: {OWN}\n")


def first_ids(maps: str) -> list[int]:
    """The host's ids of root and its group in a slot, of which it has so many and no others."""
    rows = [tuple(map(int, line.split())) for line in maps.splitlines()]
    assert [(inside, count) for inside, _, count in rows] == [(0, MAPPED)] * 2
    return [first for _, first, _ in rows]


def maps_of_init(engine: docker.DockerClient, set_name: str, account: str) -> str:
    """What the host sees of the only slot of an account."""
    folder = Path(f"/proc/{inspected(engine, set_name, account)['State']['Pid']}")
    return (folder / "uid_map").read_text() + (folder / "gid_map").read_text()


def test_slots_of_a_cluster_with_ids_of_their_own_share_none(
    own_ids_set: SetProcess, cluster_set: StartClusterSet, engine: docker.DockerClient, shell: str
) -> None:
    made = cluster_set(runtime=OWN)
    slots = [(made.set, "one"), (made.set, "other"), (own_ids_set, "third")]
    said = []
    for process, account in slots:
        with process.client(**{"X-Account": account}) as client:
            said.append(ask(client, shell, MAPS))
    # Programs are where their guests are, which the host sees; all are there at the same time.
    assert said == [maps_of_init(engine, process.name, account) for process, account in slots]
    for of_kind in zip(*map(first_ids, said), strict=True):
        assert all(later - earlier >= BLOCK for earlier, later in pairwise(sorted(of_kind)))


@pytest.mark.parametrize("image", ["shell", "shell_of_user"])
def test_slots_with_ids_of_their_own_have_the_walls_of_docker(
    own_ids_set: SetProcess,
    cluster_set: StartClusterSet,
    engine: docker.DockerClient,
    request: pytest.FixtureRequest,
    image: str,
) -> None:
    """The dresser reaches into their user namespace: places have the same owner, limits and files."""
    made, reference = cluster_set(runtime=OWN), request.getfixturevalue(image)
    account = image.replace("_", "-")
    with (
        made.set.client(**{"X-Account": account}) as there,
        own_ids_set.client(**{"X-Account": account}) as here,
    ):
        for script in (INSIDE, DEVICES, PLACES):
            of_cluster, of_docker = (
                [line for line in ask(client, reference, script).splitlines() if not DEVICE.search(line)]
                for client in (there, here)
            )
            assert of_cluster == of_docker
        assert sum("runs programs" in line for line in of_cluster) == 5
        of_cluster_slot, of_docker_slot = (
            inspected(engine, process.name, account) for process in (made.set, own_ids_set)
        )
        assert of_cluster_slot["HostConfig"]["Runtime"] == of_docker_slot["HostConfig"]["Runtime"] == OWN
        assert_same_walls(of_cluster_slot, of_docker_slot)
        # The next task finds every place as it was at first.
        ask(
            there,
            reference,
            "touch /tmp/x /var/room/x ~/x; chmod 700 /var/room /var/held/room ~; echo > ~/.profile",
        )
        assert ask(there, reference, PLACES).splitlines() == of_docker
