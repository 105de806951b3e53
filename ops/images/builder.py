"""Builds the sample images with the docker command, if they are missing or changed.

An image carries the digest of its inputs (its folder, the base image) as a label, and is not built again for the same
digest. The base is ``debian:bookworm-slim`` if a registry answers, else made by mmdebstrap.

Builds use the machine's own network, which an engine with `userns-remap` refuses. Our private one therefore gets its
images from the plain private engine, started just for that; any other engine has a bridge.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from ops.setup import processes
from ops.setup.engine import ROOT, PrivateEngine
from ops.setup.errors import ImageFailed

FOLDER: Final = ROOT / "ops/images"
NAMES: Final = ("imgproc", "ocr", "cat", "ncat", "model")

PULLED_BASE: Final = "debian:bookworm-slim"
MADE_BASE: Final = "general-compute/base:bookworm"
INPUTS_LABEL: Final = "org.general-compute.inputs"

# A registry answers quickly or not at all; after that comes a download of 30 MB.
REGISTRY_TIMEOUT_S: Final = 15
PULL_TIMEOUT_S: Final = 300
BUILD_TIMEOUT_S: Final = 900

PROXY_VARIABLES: Final = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def say(message: str) -> None:
    """Print progress on stderr."""
    print(f"images: {message}", file=sys.stderr, flush=True)


class Builder:
    """Builds on one engine. All calls raise ImageFailed with the end of the log."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._environment = {**os.environ, "DOCKER_HOST": host}
        self._logs = ROOT / "var/log/images"

    def build(self, names: Iterable[str]) -> None:
        """Build the images of these names, tagged ``NAME:1``, if they are missing or changed."""
        self._logs.mkdir(parents=True, exist_ok=True)
        # Two builders at the same time would make the base twice and mix their logs.
        with (self._logs / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._build_all(list(names))

    def _build_all(self, names: Sequence[str]) -> None:
        remapped = self._asked("info", "--format={{.SecurityOptions}}").find("name=userns") >= 0
        if remapped and self._host == PrivateEngine(userns=True).layout.host:
            self._bring(names)
            return
        network = "default" if remapped else "host"
        base, base_id = self.base()
        for name in names:
            digest = inputs_digest(name, base_id)
            if self._is_built(name, base_id):
                say(f"{name}:1 is up to date")
            else:
                self._build(name, base, digest, network)

    def _bring(self, names: Sequence[str]) -> None:
        """Build the images on the plain private engine, and copy those that are missing or changed."""
        bases = [os.environ.get("GC_BASE_IMAGE") or "", PULLED_BASE, MADE_BASE]
        base_id = next((found for base in bases if base and (found := self.inspect(base, "{{.Id}}"))), "")
        if all(self._is_built(name, base_id) for name in names):
            say("all are up to date")
            return
        plain = PrivateEngine()
        was_up = bool(plain.pid)
        plain.start()
        try:
            source = Builder(plain.layout.host)
            source._build_all(names)
            base, _ = source.base()
            say(f"copying to {self._host}")
            wanted = " ".join([base, *(f"{name}:1" for name in names)])
            copy = f"set -o pipefail; docker --host {plain.layout.host} save {wanted} | docker load"
            self._checked(["bash", "-c", copy], "copy", lambda line: None)
        finally:
            if not was_up:
                plain.stop()

    def _is_built(self, name: str, base_id: str) -> bool:
        label = self.inspect(f"{name}:1", f'{{{{index .Config.Labels "{INPUTS_LABEL}"}}}}')
        return bool(base_id) and label == inputs_digest(name, base_id)

    def base(self) -> tuple[str, str]:
        """Return the base image's name and id; pull or make it if it is missing."""
        named = os.environ.get("GC_BASE_IMAGE")
        for candidate in [named] if named else [PULLED_BASE, MADE_BASE]:
            if image_id := self.inspect(candidate, "{{.Id}}"):
                return candidate, image_id
        if named:
            raise ImageFailed(
                f"GC_BASE_IMAGE={named}: this engine has no such image. Pull it, or unset the variable."
            )
        say(f"asking for {PULLED_BASE}, for up to {REGISTRY_TIMEOUT_S} s")
        base = PULLED_BASE if self._pull(PULLED_BASE) else MADE_BASE
        if base == MADE_BASE:
            self._make_base()
        return base, self.inspect(base, "{{.Id}}")

    def _pull(self, image: str) -> bool:
        """Pull an image; return False if no registry answers in time. The first line of output counts as an answer."""
        answered = threading.Event()

        def watch(line: str) -> None:
            answered.set()
            if "Pull complete" in line:
                say(f"  {line}")

        start = time.monotonic()

        def give_up() -> bool:
            return time.monotonic() - start > (PULL_TIMEOUT_S if answered.is_set() else REGISTRY_TIMEOUT_S)

        return self._run(["docker", "pull", image], "base", watch, give_up) == 0

    def _make_base(self) -> None:
        say("no registry answers: making a Debian 12 with mmdebstrap, a minute or so")
        if os.geteuid() != 0:
            raise ImageFailed(
                "making a base image needs root. As root: make images. Or bring a Debian 12 image to the engine "
                "yourself and name it: GC_BASE_IMAGE=NAME make images"
            )
        command = ["bash", "-c", f"set -o pipefail; ops/images/base/make.sh | docker import - {MADE_BASE}"]
        self._checked(command, "base", lambda line: None)

    def _build(self, name: str, base: str, digest: str, network: str) -> None:
        recipe = FOLDER / name / "Dockerfile"
        start = time.monotonic()
        say(f"building {name}:1")
        self.build_one(f"{name}:1", recipe, FOLDER, base, {INPUTS_LABEL: digest}, network)
        say(f"{name}:1 is built, in {time.monotonic() - start:.0f} s")

    def build_one(
        self,
        tag: str,
        recipe: Path,
        context: Path,
        base: str,
        labels: Mapping[str, str],
        network: str = "host",
    ) -> None:
        """Build one image by a Dockerfile whose argument BASE names its base."""
        command = ["docker", "build", f"--network={network}", f"--tag={tag}", f"--file={recipe}"]
        command += [f"--build-arg=BASE={base}", *(f"--label={key}={value}" for key, value in labels.items())]
        if "ARG APT_OPTIONS" in recipe.read_text():
            command.append(f"--build-arg=APT_OPTIONS={apt_options()}")
        # Docker has these build arguments by default and keeps them out of the image.
        command += [f"--build-arg={variable}" for variable in PROXY_VARIABLES if variable in os.environ]

        def show(line: str) -> None:
            # The slow steps in the builder's report, old style or new.
            if step := re.match(r"(?:Step (\d+/\d+) : |#\d+ \[.*?(\d+/\d+)\] )(RUN .*)", line):
                say(f"  {step[1] or step[2]} {step[3][:90]}")

        self._logs.mkdir(parents=True, exist_ok=True)
        self._checked([*command, str(context)], tag.partition(":")[0], show)

    def inspect(self, image: str, template: str) -> str:
        """Return a field of a local image, "" if the image does not exist."""
        return self._asked("image", "inspect", f"--format={template}", image)

    def _asked(self, *words: str) -> str:
        """Return the output of a docker command, "" if it fails."""
        command = ["docker", *words]
        asked = subprocess.run(command, capture_output=True, text=True, env=self._environment, timeout=60)
        return asked.stdout.strip() if asked.returncode == 0 else ""

    def _checked(self, command: Sequence[str], log_name: str, show: Callable[[str], None]) -> None:
        start = time.monotonic()
        status = self._run(command, log_name, show, lambda: time.monotonic() - start > BUILD_TIMEOUT_S)
        if status != 0:
            log = self._logs / f"{log_name}.log"
            raise ImageFailed(
                f"{log_name} was not built: {command[0]} ended with {status}. The end of {log}:\n"
                f"{processes.tail(log)}\n"
                "To use your own package mirror: GC_DEBIAN_MIRROR=URL make images"
            )

    def _run(
        self, command: Sequence[str], log_name: str, show: Callable[[str], None], give_up: Callable[[], bool]
    ) -> int:
        """Run a command in the checkout, with its output in the log and line by line to `show`, until `give_up()`."""
        environment = {**self._environment, "APT_OPTIONS": apt_options()}
        with (
            (self._logs / f"{log_name}.log").open("w") as log,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=environment,
                cwd=ROOT,
            ) as child,
        ):
            watchdog = threading.Thread(target=self._watch, args=(child, give_up), daemon=True)
            watchdog.start()
            try:
                assert child.stdout is not None
                for line in child.stdout:
                    log.write(line)
                    log.flush()
                    show(line.strip())
            except BaseException:
                child.terminate()
                raise
            return child.wait()

    @staticmethod
    def _watch(child: subprocess.Popen[str], give_up: Callable[[], bool]) -> None:
        while child.poll() is None:
            if give_up():
                child.terminate()
                return
            time.sleep(processes.POLL_S)


def inputs_digest(name: str, base_id: str) -> str:
    """Return the digest of an image's inputs: the files of its folder, shared files, its base."""
    files = sorted(file for file in (FOLDER / name).rglob("*") if file.is_file())
    if "COPY picture.h" in (FOLDER / name / "Dockerfile").read_text():
        files.append(FOLDER / "picture.h")
    digest = hashlib.sha256(base_id.encode())
    for file in files:
        digest.update(f"\0{file.relative_to(FOLDER)}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def apt_options() -> str:
    """Return this machine's apt settings for dates and retries, as options for apt in a build.

    A machine with frozen package lists has a setting for that in its apt configuration. A new image lacks it, and
    would refuse the lists as expired.
    """
    wanted = ("Acquire::Check-Valid-Until", "Acquire::Check-Date")
    options = ["-oAcquire::Retries=3"]
    if shutil.which("apt-config"):
        told = subprocess.run(["apt-config", "dump", *wanted], capture_output=True, text=True).stdout
        options += [
            f"-o{key}={value}"
            for key, value in re.findall(r'^(\S+) "(\w+)";$', told, re.MULTILINE)
            if key in wanted
        ]
    return " ".join(options)
