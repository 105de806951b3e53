"""Images as people build them run unchanged: HOME, WORKDIR and VOLUME where the program lies, a /tmp that is root's.

A real set, guest and slot.
"""

from __future__ import annotations

import struct
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.nomad.agent import Agent
from tests.conftest import SetProcess, StartSet
from tests.scheduler.launchers.nomad.conftest import ClusterSet
from tests.scheduler.launchers.rig import Files, ImageMaker

pytestmark = pytest.mark.docker

HERE = Path(__file__).parent
USERS: Files = {
    "etc/passwd": b"root:x:0:0::/:\napp:x:1234:2345::/home/app:/none\n",
    "etc/group": b"app:x:2345:\n",
}


@pytest.fixture(scope="module")
def cluster_set(
    agent: Agent, images: ImageMaker, start_set: StartSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SetProcess]:
    """A set whose slots are started by Nomad, where `nomad` is on PATH."""
    name = f"tord{uuid.uuid4().hex[:10]}"
    made = ClusterSet(agent, tmp_path_factory.mktemp("cluster"), name, start_set, "max_slots: 4\n", {})
    yield made.set
    made.close()


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    binary = tmp_path_factory.mktemp("writer") / "writer"
    flags = ("-static", "-O1", "-Wall", "-Wextra", "-Werror")
    subprocess.run(["cc", *flags, "-o", binary, HERE / "writer.c"], check=True)
    return binary.read_bytes()


@pytest.fixture(scope="module")
def printer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Writes to the file that it is told, or prints why it cannot, as most programs do."""
    binary = tmp_path_factory.mktemp("printer") / "printer"
    source = (
        "#include <stdio.h>\n"
        'int main(int count, char **args) { return count > 1 && fopen(args[1], "w") ? 0 : (perror(args[1]), 1); }'
    )
    subprocess.run(["cc", "-static", "-x", "c", "-", "-o", binary], input=source.encode(), check=True)
    return binary.read_bytes()


HOME: Files = {**USERS, "home/app": 0o755, "home/app/model.bin": b"weights", "tmp": 0o755}
READ_ONLY = "Read-only file system"
NOT_THERE = "No such file or directory"


IMAGES = [
    pytest.param(
        ["ENV HOME=/home/app", "WORKDIR /home/app"],
        HOME,
        "home/app/run",
        {".": "ok", "/home/app/.cache": NOT_THERE, "model.bin": "weights", "/tmp": "ok"},
        id="program in HOME",
    ),
    pytest.param(
        ["ENV HOME=/home/app", "WORKDIR /home/app/src"],
        {**HOME, "home/app/src": 0o755},
        "home/app/src/run",
        {".": "ok", "..": "ok", "../model.bin": "weights", "/tmp": "ok"},
        id="program below HOME",
    ),
    pytest.param(
        ["ENV HOME=/home/app", "WORKDIR /home/app"],
        {
            **HOME,
            "home/app/big": b"x" * (1 << 20),
            "home/app/.config": 0o755,
            "home/app/.config/rc": b"rc",
        },
        "home/app/run",
        {".": READ_ONLY, "model.bin": "weights", ".config/rc": "rc", ".config": "ok", ".cache": "ok"},
        id="program in a large HOME",
    ),
    pytest.param(
        ["WORKDIR /app", "VOLUME /app"],
        {**USERS, "app": 0o755, "app/model.bin": b"weights", "tmp": 0o700},
        "app/run",
        {".": READ_ONLY, "model.bin": "weights", "/tmp": "ok"},
        id="program in VOLUME",
    ),
    pytest.param(
        ["ENV HOME=/home/app", "WORKDIR /home/app/work"],
        {**USERS, "home/app": 0o755, "app": 0o755},
        "app/run",
        {".": "ok", "/home/app": "ok", "/tmp": "ok"},
        id="empty HOME",
    ),
    pytest.param(
        ["WORKDIR /tmp/work", "ENV HOME=/"],
        {**USERS, "tmp": 0o755, "app": 0o755},
        "app/run",
        {".": "ok", "/tmp": "ok", "/": READ_ONLY},
        id="WORKDIR in tmp",
    ),
    pytest.param(
        ["WORKDIR /data", "VOLUME /data", "LABEL org.general-compute.writable=/out"],
        {**USERS, "data": 0o555, "out": 0o500, "tmp": 0o555, "app": 0o755},
        "app/run",
        {".": "ok", "/out": "ok", "/tmp": "ok"},
        id="folders without write permission",
    ),
    pytest.param(
        ["WORKDIR /data/in", "VOLUME /data"],
        {**USERS, "data/in": 0o755, "data/out": 0o700, "app": 0o755},
        "app/run",
        {".": "ok", "/data": "ok", "/data/out": "ok", "/data/from-image": NOT_THERE},
        id="VOLUME of folders",
    ),
]
"""Changes to an image, its files, its program, and what that says of each path."""


@pytest.mark.parametrize("user", ["0", "1000", "app"])
@pytest.mark.parametrize(("changes", "files", "program", "told"), IMAGES)
def test_an_unchanged_image_finds_its_files_and_writes_where_it_may(
    own_set: SetProcess,
    images: ImageMaker,
    writer: bytes,
    user: str,
    changes: list[str],
    files: Files,
    program: str,
    told: dict[str, str],
) -> None:
    image = images.make(
        f'ENTRYPOINT ["/{program}"]', f"USER {user}", *changes, files={**files, program: writer}, bare=True
    )
    _finds_its_files(own_set, image, told)


@pytest.mark.parametrize(("changes", "files", "program", "told"), IMAGES)
def test_it_does_so_in_a_slot_of_a_cluster(
    cluster_set: SetProcess,
    images: ImageMaker,
    writer: bytes,
    changes: list[str],
    files: Files,
    program: str,
    told: dict[str, str],
) -> None:
    image = images.make(
        f'ENTRYPOINT ["/{program}"]', "USER app", *changes, files={**files, program: writer}, bare=True
    )
    _finds_its_files(cluster_set, image, told)


def _finds_its_files(running: SetProcess, image: str, told: dict[str, str]) -> None:
    with running.client() as client:
        for _ in range(3):
            # Each task finds what the first did.
            answer = client.post(
                f"/v1/run/{image}",
                params=[("queue_timeout_s", "60"), *(("arg", path) for path in told)],
                timeout=90,
            )
            assert answer.status_code == 200, answer.text
            assert dict(line.split("\t", 1) for line in answer.text.splitlines()) == told


def test_a_program_that_slots_would_hide_is_refused_with_the_reason(
    own_set: SetProcess, images: ImageMaker, writer: bytes
) -> None:
    hidden = images.make('ENTRYPOINT ["/tmp/run"]', files={"tmp": 0o1777, "tmp/run": writer})
    beside = images.make(
        'ENTRYPOINT ["./run"]',
        "WORKDIR /tmp/app",
        files={"tmp": 0o1777, "tmp/app": None, "tmp/app/run": writer},
    )
    with own_set.client() as client:
        for image, why in ((hidden, "/tmp/run lies in /tmp"), (beside, "WORKDIR /tmp/app has files")):
            answer = client.post(f"/v1/run/{image}")
            assert answer.status_code == 422
            assert why in answer.json()["detail"]


@pytest.mark.parametrize(("user", "home"), [("app", "/home/app"), ("1234", "/home/app"), ("0", "/root")])
def test_what_the_build_left_in_a_home_that_the_image_does_not_name(
    own_set: SetProcess, images: ImageMaker, writer: bytes, user: str, home: str
) -> None:
    """`RUN mkdir -p ~/.cache/model && echo weights > ~/.cache/model/v1` and no ENV HOME."""
    below = home.lstrip("/")
    files: Files = {
        **USERS,
        "etc/passwd": b"root:x:0:0::/root:/\napp:x:1234:2345::/home/app:/none\n",
        below: 0o755,
        f"{below}/.cache": 0o755,
        f"{below}/.cache/model": 0o755,
        f"{below}/.cache/model/v1": b"weights",
        "run": writer,
    }
    image = images.make('ENTRYPOINT ["/run"]', f"USER {user}", files=files, bare=True)
    told = {f"{home}/.cache/model/v1": "weights", home: "ok", f"{home}/.cache": "ok"}
    with own_set.client() as client:
        for _ in range(2):
            answer = client.post(f"/v1/run/{image}", params=[("arg", path) for path in told])
            assert answer.status_code == 200, answer.text
            assert dict(line.split("\t", 1) for line in answer.text.splitlines()) == told


def elf32(code: bytes) -> bytes:
    """A whole 32-bit program for x86: its headers, and code that begins right behind them."""
    begin, size = 0x08048000, 52 + 32
    header = struct.pack(
        "<16sHHIIIIIHHHHHH",
        b"\x7fELF\x01\x01\x01",
        *(2, 3, 1, begin + size, 52, 0, 0, 52, 32, 1, 0, 0, 0),
    )
    segment = struct.pack("<IIIIIIII", 1, 0, begin, begin, size + len(code), size + len(code), 5, 4096)
    return header + segment + code


@pytest.mark.parametrize(
    ("program", "executed", "hint"),
    [
        (b"#!/bin/sh\r\ncat\r\n", False, "its #! line ends in a carriage return"),
        (b"#!/nowhere\n", False, "the interpreter of its #! line is not in the image"),
        (b"cat\n", False, "neither a program nor a script with a #! line"),
        # exit(0), by the call of 32-bit programs. A kernel that has no such calls does not execute it.
        (elf32(b"\xb8\x01\x00\x00\x00\x31\xdb\xcd\x80"), None, "built for another architecture"),
    ],
)
def test_a_program_that_no_slot_can_run_is_told_why(
    own_set: SetProcess, images: ImageMaker, program: bytes, executed: bool | None, hint: str
) -> None:
    image = images.make('ENTRYPOINT ["/run"]', files={"run": program})
    with own_set.client() as client:
        answer = client.post(f"/v1/run/{image}")
    assert answer.status_code == 422
    assert hint in answer.json()["detail"]
    assert executed in (None, answer.json()["executed"])


def test_a_refusal_that_a_program_prints_has_its_hint(
    own_set: SetProcess, images: ImageMaker, printer: bytes
) -> None:
    image = images.make('ENTRYPOINT ["/run"]', files={"run": printer})
    with own_set.client() as client:
        answer = client.post(f"/v1/run/{image}", params={"arg": "/data/new"})
    assert answer.status_code == 422
    assert answer.json()["stderr_head"] == "/data/new: Read-only file system\n"
    assert "exit code 1; stderr says 'Read-only file system': " in answer.json()["detail"]
    assert "org.general-compute.writable" in answer.json()["detail"]
