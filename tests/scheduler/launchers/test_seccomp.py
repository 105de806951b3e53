"""The system calls of a slot: each forbidden one is tried in a container that the launcher made."""

from __future__ import annotations

import itertools
import json
import platform
import re
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from scheduler.launchers import seccomp
from scheduler.launchers.docker import DockerLauncher
from scheduler.launchers.docker_config import DockerSettings
from tests.scheduler.launchers.rig import Probe, Rig, folder_of

HERE = Path(__file__).parent

BAD_FD = 0xFFFF_FFFF
UPPER_BIT = 1 << 32
"""Beyond what the kernel looks at in most arguments, but not beyond what a filter sees."""

LAST_CALL_OF_6_1 = 450
SIGCHLD = 17
CLONE_FS, CLONE_FILES = 0x200, 0x400
NAMESPACES = {
    "CLONE_NEWNS": 0x0002_0000,
    "CLONE_NEWCGROUP": 0x0200_0000,
    "CLONE_NEWUTS": 0x0400_0000,
    "CLONE_NEWIPC": 0x0800_0000,
    "CLONE_NEWUSER": 0x1000_0000,
    "CLONE_NEWPID": 0x2000_0000,
    "CLONE_NEWNET": 0x4000_0000,
}
CLONE_NEWTIME = 0x80
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_ALG, AF_VSOCK = 1, 2, 10, 16, 17, 38, 40
STREAM, DGRAM, RAW, SEQPACKET, SOCK_PACKET = 1, 2, 3, 5, 10
SOL_SOCKET, SOL_TCP, SOL_TLS = 1, 6, 282
IPPROTO_SCTP, IPPROTO_UDPLITE, IPPROTO_MPTCP = 132, 136, 262
NETLINK_XFRM, NETLINK_NETFILTER, NETLINK_CRYPTO = 6, 12, 21

REFUSED = {"errno ENOSYS", "errno EPERM"}
"""What has no rule of its own: newer engines answer with the profile's default, older ones with theirs."""


@pytest.fixture(scope="session")
def numbers() -> dict[str, int]:
    """Every system call that the C library's headers know on this machine."""
    asked = subprocess.run(
        ["cc", "-E", "-dM", "-include", "asm/unistd.h", "-"],
        input="",
        capture_output=True,
        text=True,
        check=True,
    )
    preprocessed = re.findall(r"^#define __NR_(\w+) (\d+)$", asked.stdout, re.MULTILINE)
    return {name: int(number) for name, number in preprocessed}


@pytest.fixture(scope="session")
def caller_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of `seccomp_probe.c`, in the guest's place."""
    binary = tmp_path_factory.mktemp("caller") / "caller"
    flags = ("-static", "-O1", "-Wall", "-Wextra", "-Werror")
    subprocess.run(["cc", *flags, "-o", binary, HERE / "seccomp_probe.c"], check=True)
    return binary


class Caller:
    """Makes system calls in a slot."""

    def __init__(self, probe: Probe, numbers: dict[str, int]) -> None:
        self._probe = probe
        self._numbers = numbers

    async def call(self, name: str, *arguments: int, how: str = "native") -> str:
        words = [how, str(self._numbers[name]), *map(str, arguments)]
        return await self._probe.ask(" ".join(words))

    async def number(self, number: int, *, how: str = "native") -> str:
        return await self._probe.ask(f"{how} {number}")


@pytest.fixture
async def slot(
    docker_settings: DockerSettings, caller_binary: Path, plain_image: str, numbers: dict[str, int]
) -> AsyncIterator[Caller]:
    settings = msgspec.structs.replace(docker_settings, guest_binary=caller_binary)
    launcher = DockerLauncher(settings, folder_of, lambda slot_id, reason: None)
    await launcher.open()
    rig = Rig(launcher, [])
    _, probe = await rig.run(plain_image)
    yield Caller(probe, numbers)
    await launcher.close()
    rig.close()


def names(group: dict[str, str]) -> list[str]:
    return [name for calls in group.values() for name in calls.split()]


GROUPS = (seccomp.ALLOWED, seccomp.NOT_PERMITTED, seccomp.NOT_THERE, seccomp.DONE_ALREADY)


def test_every_call_is_decided_once(numbers: dict[str, int]) -> None:
    decided = Counter(itertools.chain(seccomp.BY_ARGUMENT.split(), *map(names, GROUPS)))
    assert [name for name, times in decided.items() if times > 1] == []
    known = {name for name, number in numbers.items() if number <= LAST_CALL_OF_6_1}
    assert known - set(decided) == set()


def test_the_profile_is_what_the_engine_takes() -> None:
    profile = json.loads(seccomp.profile_json())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert all(not each["subArchitectures"] for each in profile["archMap"])
    by_argument = {name for rule in profile["syscalls"] if "args" in rule for name in rule["names"]}
    assert by_argument == set(seccomp.BY_ARGUMENT.split())
    # The upper half of an argument is never compared: the kernel would not look at it.
    conditions = [each for rule in profile["syscalls"] for each in rule.get("args", [])]
    assert all(each["op"] == "SCMP_CMP_MASKED_EQ" and each["value"] < UPPER_BIT for each in conditions)


@pytest.mark.docker
@pytest.mark.parametrize(
    ("group", "answer"),
    [
        (seccomp.NOT_PERMITTED, "errno EPERM"),
        (seccomp.NOT_THERE, "errno ENOSYS"),
        # With a descriptor that is none, so that the kernel itself would have said EBADF.
        (seccomp.DONE_ALREADY, "ok"),
    ],
    ids=["not permitted", "not there", "done already"],
)
async def test_what_is_forbidden_whatever_its_arguments(
    slot: Caller, numbers: dict[str, int], group: dict[str, str], answer: str
) -> None:
    tried = {name: await slot.call(name, BAD_FD) for name in names(group) if name in numbers}
    assert tried
    assert {name: got for name, got in tried.items() if got != answer} == {}


@pytest.mark.docker
async def test_what_is_newer_than_the_table_is_refused(slot: Caller) -> None:
    # 471 is beyond Linux 6.17; 2000 will be for long.
    assert {await slot.number(number) for number in (471, 600, 2000)} <= REFUSED


@pytest.mark.docker
@pytest.mark.parametrize("name", NAMESPACES)
async def test_no_new_namespace(slot: Caller, name: str) -> None:
    flag = NAMESPACES[name]
    for flags in (flag, flag | UPPER_BIT, flag | CLONE_FS, flag | NAMESPACES["CLONE_NEWUSER"]):
        assert await slot.call("clone", flags | SIGCHLD) in REFUSED
        assert await slot.call("unshare", flags) in REFUSED


@pytest.mark.docker
async def test_processes_and_threads_are_made_as_usual(slot: Caller) -> None:
    assert await slot.call("clone", SIGCHLD) == "ok"
    assert await slot.call("clone", CLONE_FS | CLONE_FILES | SIGCHLD) == "ok"
    assert await slot.call("unshare", CLONE_FS | CLONE_FILES) == "ok"
    assert await slot.call("unshare", CLONE_NEWTIME) in REFUSED


@pytest.mark.docker
async def test_socket_families_and_protocols(slot: Caller) -> None:
    cloexec_nonblock = 0o2004000
    for asked in (
        (AF_UNIX, STREAM, 0),
        (AF_UNIX, DGRAM | cloexec_nonblock, 0),
        (AF_UNIX, SEQPACKET, 0),
        (AF_INET, STREAM, 0),
        (AF_INET, STREAM | cloexec_nonblock, 6),
        (AF_INET, DGRAM, 17),
        (AF_INET6, STREAM, 0),
        (AF_NETLINK, RAW | cloexec_nonblock, 0),
        (AF_NETLINK, DGRAM, 0),
    ):
        # A kernel may have no IPv6; the profile has.
        assert await slot.call("socket", *asked) in ("ok", "errno EAFNOSUPPORT"), asked
    assert await slot.call("socketpair", AF_UNIX, STREAM, 0, 0) == "errno EFAULT"
    served = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK}
    for family in set(range(46)) - served:
        for bits in (family, family | UPPER_BIT):
            assert await slot.call("socket", bits, RAW, 0) == "errno EAFNOSUPPORT", family
        assert await slot.call("socketpair", family, STREAM, 0, 0) in REFUSED
    for asked in (
        (AF_INET, RAW, 1),
        (AF_INET, SOCK_PACKET, 3),
        (AF_INET, STREAM, IPPROTO_SCTP),
        (AF_INET, STREAM, IPPROTO_MPTCP),
        (AF_INET, STREAM, IPPROTO_MPTCP | UPPER_BIT),
        (AF_INET6, DGRAM, IPPROTO_UDPLITE),
        (AF_NETLINK, RAW, NETLINK_XFRM),
        (AF_NETLINK, RAW, NETLINK_NETFILTER),
        (AF_NETLINK, RAW, NETLINK_CRYPTO | UPPER_BIT),
    ):
        assert await slot.call("socket", *asked) in REFUSED, asked


@pytest.mark.docker
async def test_socket_options(slot: Caller) -> None:
    """On no descriptor: what the filter lets through is EBADF."""
    for allowed in ((SOL_SOCKET, 2), (SOL_TCP, 1), (SOL_TCP, 9), (41, 26)):
        assert await slot.call("setsockopt", BAD_FD, *allowed) == "errno EBADF", allowed
    tcp_ulp, tcp_repair, tcp_md5 = 31, 19, 14
    for option in (tcp_ulp, tcp_repair, tcp_md5):
        for level in (SOL_TCP, SOL_TCP | UPPER_BIT):
            assert await slot.call("setsockopt", BAD_FD, level, option) in REFUSED
    assert await slot.call("setsockopt", BAD_FD, SOL_TLS, 1) in REFUSED


@pytest.mark.docker
async def test_requests_to_devices_and_files(slot: Caller) -> None:
    """On no descriptor: what the filter lets through is EBADF."""
    isatty, window_size, pty_number = 0x5401, 0x5413, 0x8004_5430
    sign_extended = 0xFFFF_FFFF_0000_0000
    for allowed in (isatty, window_size, pty_number, pty_number | sign_extended):
        assert await slot.call("ioctl", BAD_FD, allowed) == "errno EBADF", hex(allowed)
    forbidden = {
        "TIOCSTI": 0x5412,
        "TIOCLINUX": 0x541C,
        "TIOCCONS": 0x541D,
        "TIOCSETD": 0x5423,
        "FS_IOC_SETFLAGS": 0x4008_6602,
        "FS_IOC_FSSETXATTR": 0x401C_5820,
        "FICLONE": 0x4004_9409,
        "NS_GET_USERNS": 0xB701,
        "SIOCETHTOOL": 0x8946,
        "PERF_EVENT_IOC_SET_BPF": 0x4004_2408,
        "LOOP_CTL_GET_FREE": 0x4C82,
    }
    for name, request in forbidden.items():
        for bits in (request, request | UPPER_BIT):
            assert await slot.call("ioctl", BAD_FD, bits) in REFUSED, name


@pytest.mark.docker
async def test_the_personality_stays_the_usual_one(slot: Caller) -> None:
    for allowed in (0, 0xFFFF_FFFF):
        assert await slot.call("personality", allowed) == "ok"
    for forbidden in (0x0040000, 0x8, 0x0400000, 0x0100000, 0x20000):
        assert await slot.call("personality", forbidden) in REFUSED


@pytest.mark.docker
@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="only x86-64 has 32-bit and x32 calls in a 64-bit program"
)
async def test_a_call_of_another_architecture_kills_its_process(
    slot: Caller, numbers: dict[str, int]
) -> None:
    getpid_of_i386 = 20
    assert await slot.number(getpid_of_i386, how="int80") == "signal SYS"
    for name in ("getpid", "ptrace", "clone3"):
        got = await slot.call(name, how="x32")
        assert got in {"signal SYS", "errno ENOSYS"}, name
    # The same slot goes on.
    assert await slot.call("getpid") == "ok"
