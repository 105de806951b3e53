"""A virtual machine whose set keeps its state on a disk with a volatile cache, and whose power can be cut."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx

from tests.cluster.parts import until
from tests.conftest import ROOT
from tests.ports import free_port
from tests.power.disk import cut

IMAGE = "attempt:1"
DISK_BYTES = 1 << 30
BOOT_S = 900.0
"""Longest wait for a set that is ready: two minutes on an idle machine that emulates the processor."""
RUN = ROOT / "tests" / "vm" / "run.sh"
GUEST = ROOT / "sets" / "guest" / "guest"


def prepared() -> Path:
    """The machine's root disk, with the image of the load in its engine. Made where it is missing or out of date."""
    suite = os.environ.get("GC_VM_SUITE", "bookworm")
    image = ROOT / "tests" / "vm" / "image.sh"
    made = subprocess.run(["bash", image, suite], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    folder = ROOT / made.stdout.strip()
    parts = [folder / "key", ROOT / "tests/cluster/attempt.c", ROOT / "tests/power/inside.sh"]
    key = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    disk, key_file = folder / "power.img", folder / "power.key"
    if not key_file.exists() or key_file.read_text() != key:
        key_file.unlink(missing_ok=True)
        _copy(folder / "root.img", disk)
        words = ("bash", RUN, "bash tests/power/inside.sh prepare")
        subprocess.run(words, cwd=ROOT, check=True, env=os.environ | {"GC_VM_DISK": str(disk)})
        key_file.write_text(key)
    return disk


class Machine:
    """`folder` is empty; it gets the disk of the state, and the console's text. The set's name: `name`."""

    def __init__(self, folder: Path, root: Path, name: str) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{free_port()}"
        self._root = root
        self._disk, self._before, self._log = (folder / each for each in ("state", "before", "log"))
        self._pid_file = folder / "pid"
        self._console = folder / "console"
        self._process: subprocess.Popen[bytes] | None = None
        with self._disk.open("wb") as disk:
            disk.truncate(DISK_BYTES)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", self._disk], check=True)

    def boot(self) -> None:
        """Switch the machine on, and wait until its set is ready."""
        _copy(self._disk, self._before)
        self._log.write_bytes(b"")
        self._pid_file.unlink(missing_ok=True)
        options = (
            f"-pidfile {self._pid_file}"
            f" -netdev user,id=net,restrict=on,hostfwd=tcp:{self.url.removeprefix('http://')}-:8101"
            " -device virtio-net-pci,netdev=net,romfile="
            f" -blockdev driver=file,node-name=disk,filename={self._disk}"
            f" -blockdev driver=file,node-name=log,filename={self._log}"
            " -blockdev driver=raw,node-name=raw-log,file=log"
            " -blockdev driver=blklogwrites,node-name=state,file=disk,log=raw-log,log-sector-size=512"
            " -device virtio-blk-pci,drive=state,discard=off,write-zeroes=off,addr=0x1e"
        )
        env = os.environ | {
            "GC_VM_DISK": f"{self._root},snapshot=on",
            "GC_VM_OPTIONS": options,
            "GC_VM_ADD": str(GUEST),
        }
        words = ("bash", RUN, f"bash tests/power/inside.sh serve {self.name}")
        with self._console.open("ab") as console:
            self._process = subprocess.Popen(
                words, cwd=ROOT, env=env, stdout=console, stderr=console, start_new_session=True
            )
        until(self._ready, f"the set in the machine is ready; see {self._console}", BOOT_S)

    def cut_power(self, dice: random.Random) -> Counter[str]:
        """Kill the emulator, and lose a part of what its disk had not flushed. Returns numbers of writes."""
        self.stop()
        self._before.replace(self._disk)
        return cut(self._disk, self._log, dice)

    def stop(self) -> None:
        """Kill the emulator, if it runs."""
        if self._process is None:
            return
        with suppress(FileNotFoundError, ValueError, ProcessLookupError):
            os.kill(int(self._pid_file.read_text()), signal.SIGKILL)
        self._process.wait(60)
        self._process = None

    def ask(self, path: str, account: str = "default") -> httpx.Response | None:
        """GET a path of the set; None without an answer."""
        headers = {"X-Account": account}
        try:
            return httpx.get(f"{self.url}{path}", headers=headers, timeout=60, trust_env=False)
        except httpx.HTTPError:
            return None

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the machine ended; see {self._console}")
        answer = self.ask("/readyz")
        return answer is not None and answer.status_code == 200


def _copy(source: Path, to: Path) -> None:
    to.unlink(missing_ok=True)
    subprocess.run(["cp", "--sparse=always", source, to], check=True)
    shutil.copymode(source, to)
