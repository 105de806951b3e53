"""The next task finds nothing of the last one in a VOLUME, with any USER of the image: a real set, guest and slot."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest

from tests.conftest import SetProcess
from tests.scheduler.launchers.rig import Files, ImageMaker

pytestmark = pytest.mark.docker

HERE = Path(__file__).parent
PLACES = ("/r755", "/r700", "/r777", "/new", "/work", "/new/within", "/srv", "/tmp", "/dev/shm")
ROOMS: Files = {
    "etc/passwd": b"app:x:1234:2345::/:\n",
    "etc/group": b"others:x:3456:\n",
    "r755": 0o755,
    "r700": 0o700,
    "r777": 0o777,
    "srv": 0o755,
}


@pytest.fixture(scope="module")
def leaver(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    binary = tmp_path_factory.mktemp("leaver") / "leaver"
    flags = ("-static", "-O1", "-Wall", "-Wextra", "-Werror")
    subprocess.run(["cc", *flags, "-o", binary, HERE / "leaver.c"], check=True)
    return binary.read_bytes()


@pytest.mark.parametrize("user", ["0", "1000:1001", "app", "app:others"])
def test_nothing_stays_in_the_places_of_a_user(
    own_set: SetProcess, images: ImageMaker, leaver: bytes, user: str
) -> None:
    image = images.make(
        'ENTRYPOINT ["/leaver"]',
        f"USER {user}",
        "VOLUME /r755 /r700 /r777 /new /work /new/within",
        "LABEL org.general-compute.writable=/srv",
        "WORKDIR /work",
        files={**ROOMS, "leaver": leaver},
    )
    answers = []
    with own_set.client() as client:
        for _ in range(3):
            answer = client.post(
                f"/v1/run/{image}", params=httpx.QueryParams([("arg", place) for place in PLACES])
            )
            assert answer.status_code == 200, answer.text
            answers.append(answer.text)
    # /dev/shm is root's.
    assert answers[0].count(" mine ") == (len(PLACES) if user == "0" else len(PLACES) - 1)
    # All in one slot, and each found what the first had found.
    assert answers[1:] == answers[:1] * 2
    found = [line.partition(":")[2].split() for line in answers[0].splitlines()[1:]]
    assert [entries for entries in found if entries] == [["within"]]
