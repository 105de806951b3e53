"""Ordinary programs run under the slots' seccomp profile, in slots of a real set."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ops.images import pictures
from ops.images.builder import INPUTS_LABEL, MADE_BASE, PROXY_VARIABLES, PULLED_BASE, Builder, apt_options
from tests.conftest import SetProcess

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

PROGRAMS = Path(__file__).with_name("programs")
IMAGE = "gc-test-programs:1"
BUILD_TIMEOUT_S = 280


def docker(*words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, timeout=timeout_s)


def compile_go(folder: Path) -> bool:
    """Compile the Go program here where there is a Go; the image's build does it otherwise, at some length."""
    if shutil.which("go") is None:
        return False
    command = ["go", "build", "-o", "ordinary-go", "ordinary.go"]
    subprocess.run(command, cwd=folder, env={**os.environ, "CGO_ENABLED": "0"}, timeout=120, check=True)
    return True


@pytest.fixture(scope="session")
def sample_images(docker_host: str) -> None:
    """imgproc:1 and ocr:1, as `make images` builds them."""
    Builder(docker_host).build(("imgproc", "ocr"))


@pytest.fixture(scope="session")
def programs_image(docker_host: str, sample_images: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of `programs/`: built where it is missing or its files have changed, and kept for the next run."""
    named = os.environ.get("GC_BASE_IMAGE")
    candidates = [named] if named else [PULLED_BASE, MADE_BASE]
    found = {each: docker("image", "inspect", "--format={{.Id}}", each) for each in candidates}
    base, base_id = next((each, asked.stdout) for each, asked in found.items() if asked.returncode == 0)
    digest = hashlib.sha256(base_id.encode())
    for file in sorted(PROGRAMS.iterdir()):
        digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    # Two runs at once would build it twice.
    with (tmp_path_factory.getbasetemp().parent / "programs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        label = f'{{{{index .Config.Labels "{INPUTS_LABEL}"}}}}'
        if docker("image", "inspect", f"--format={label}", IMAGE).stdout.strip() != digest.hexdigest():
            context = shutil.copytree(PROGRAMS, tmp_path_factory.mktemp("context") / "programs")
            arguments = [f"BASE={base}", f"APT_OPTIONS={apt_options()}"]
            arguments += [name for name in PROXY_VARIABLES if name in os.environ]
            if not compile_go(context):
                arguments.append("GO_PACKAGE=golang-go")
            built = docker(
                *(
                    "build",
                    "--network=host",
                    f"--tag={IMAGE}",
                    f"--label={INPUTS_LABEL}={digest.hexdigest()}",
                ),
                *(f"--build-arg={each}" for each in arguments),
                str(context),
                timeout_s=BUILD_TIMEOUT_S,
            )
            if built.returncode != 0:
                said = built.stdout + built.stderr
                if missing := re.search(r"Failed to fetch .*|Unable to locate package .*", said):
                    pytest.skip(f"the languages' packages are not available here: {missing[0]}")
                pytest.fail(said[-4000:])
    return IMAGE


@pytest.fixture(scope="module")
def client(shared_set: SetProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shared_set.url, timeout=120) as client:
        yield client


PYTHON = "numbers threads processes multiprocess files network events rest"
JAVA = "parallel threads processes mapped files sockets selector interfaces rest"


@pytest.mark.parametrize(
    ("command", "things"),
    [
        (["sh", "ordinary.sh"], "pipes files tools processes"),
        (["python3", "ordinary.py"], PYTHON),
        (["java", "-Xmx128m", "-cp", ".", "Ordinary"], JAVA),
        (["./ordinary-go"], "goroutines processes files sockets interfaces rest"),
        (["node", "ordinary.js"], "threads processes files sockets rest"),
    ],
    ids=["coreutils", "Python with numpy", "Java", "Go", "Node"],
)
def test_programs_in_all_languages(
    client: httpx.Client, programs_image: str, command: list[str], things: str
) -> None:
    """Each prints the names of the things that it has done, so a failure shows what it failed at."""
    parameters = {"arg": command, "timeout_s": "100", "memory_mib": "768"}
    answer = client.post(f"/v1/run/{programs_image}", params=parameters)
    assert answer.status_code == 200, json.dumps(answer.json(), indent=1)
    assert answer.text.split() == things.split()


def test_imagemagick(client: httpx.Client, sample_images: None) -> None:
    body = pictures.photograph().read_bytes()
    answer = client.post("/v1/run/imgproc:1", params={"arg": ["thumbnail", "64x64"]}, content=body)
    assert answer.status_code == 200, answer.text
    assert answer.content.startswith(b"\xff\xd8\xff")
    assert len(answer.content) < len(body)


def test_tesseract(client: httpx.Client, sample_images: None) -> None:
    answer = client.post("/v1/run/ocr:1", content=pictures.page().read_bytes())
    assert answer.status_code == 200, answer.text
    assert len(answer.text.split()) > 20
