"""Watches which programs of the rig run on this machine, whatever the platform says."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from tests.cluster.books import Life
from tests.cluster.clock import boot_s

PROGRAM = b"/attempt"
LOOK_EVERY_S = 0.05
LOOKS_AT_A_NEW_PROCESS = 4
"""A process has its own command line only a moment after its birth."""
STALL_S = 0.5
"""A pause between two looks that shows that the machine had no time for its programs."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Witness:
    """Use as a context manager. It sees the programs whose mark begins with `prefix`; very short ones may be missed."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._lives: dict[tuple[int, float], Life] = {}
        self._ours: dict[int, tuple[str, float]] = {}
        self._looks: dict[int, int] = {}
        self.stalls: list[tuple[float, float]] = []
        """Times in which the machine was too busy to look, and so perhaps too busy to kill."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="witness")

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def lives(self) -> list[Life]:
        return list(self._lives.values())

    def running(self) -> list[str]:
        """The marks of the programs that ran at the last look."""
        return [mark for mark, _ in self._ours.values()]

    def _watch(self) -> None:
        before_s = boot_s()
        while not self._over.wait(LOOK_EVERY_S):
            now_s = boot_s()
            if now_s - before_s > STALL_S:
                self.stalls.append((before_s, now_s))
            before_s = now_s
            self._look()

    def _look(self) -> None:
        pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        for gone in self._looks.keys() - pids:
            del self._looks[gone]
            self._ours.pop(gone, None)
        for pid in pids:
            if pid in self._ours:
                self._see(pid)
            elif self._looks.get(pid, 0) < LOOKS_AT_A_NEW_PROCESS:
                self._looks[pid] = self._looks.get(pid, 0) + 1
                self._know(pid)

    def _know(self, pid: int) -> None:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return
        if words[0] == PROGRAM and len(words) > 3 and words[1].startswith(self._prefix.encode()):
            began_s, alive = _stat(pid)
            if alive:
                self._ours[pid] = (words[1].decode(), began_s)
                self._see(pid)

    def _see(self, pid: int) -> None:
        mark, began_s = self._ours[pid]
        now_s = boot_s()
        began, alive = _stat(pid)
        if not alive or began != began_s:
            # It ended, and its number may be another one's by now.
            del self._ours[pid]
            self._looks.pop(pid, None)
            return
        self._lives[pid, began_s] = Life(mark, pid, began_s, now_s)


def _stat(pid: int) -> tuple[float, bool]:
    """When a process was born, in seconds since the machine's start, and whether it can still run code."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, False
    return int(fields[19]) / _TICKS_PER_S, fields[0] not in "ZX"
