"""A private engine: a dockerd and a containerd of one checkout, which recover after any of their processes is killed.

It has no bridge and no iptables rules, so it does not touch the machine's network. It has its own socket, separate from
other engines.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from ops.setup import processes, runtimes, userns
from ops.setup.engine_layout import Layout
from ops.setup.errors import EngineFailed
from ops.setup.mounts import mount_points

ROOT: Final = Path(__file__).resolve().parents[2]

START_TIMEOUT_S: Final = 300
"""Longest start in seconds. An idle machine needs two, and ten more to end containers of a killed engine."""
PROGRESS_S: Final = 15
CONTAINERD_RETURNS_S: Final = 30
"""Longest time, in seconds, until dockerd has replaced a killed containerd: usually seven."""
CONTAINERD_TOO_SLOW: Final = "timeout waiting for containerd to start"
"""The last message of a dockerd whose containerd did not answer within 15 s."""
RELOAD_S: Final = 30
"""Longest time, in seconds, until dockerd has read its changed daemon.json: usually less than one."""
STOP_GRACE_S: Final = 30
PING_TIMEOUT_S: Final = 15


def say(message: str) -> None:
    """Print progress on stderr, as stdout is for the answer."""
    print(f"engine: {message}", file=sys.stderr, flush=True)


def ping(host: str) -> str:
    """Ask an engine for its version; return "" if it answers, else the reason in one line."""
    return _ask(host, "version", "{{.Server.Version}}")[1]


def _ask(host: str, command: str, form: str) -> tuple[str, str]:
    """Return the output of `docker COMMAND --format FORM`, and "" or the reason of its failure in one line."""
    try:
        asked = subprocess.run(
            ["docker", "--host", host, command, "--format", form],
            capture_output=True,
            text=True,
            timeout=PING_TIMEOUT_S,
        )
    except FileNotFoundError:
        return "", "the docker command is not installed"
    except subprocess.TimeoutExpired:
        return "", f"no answer within {PING_TIMEOUT_S} s"
    if asked.returncode == 0:
        return asked.stdout.strip(), ""
    return "", (asked.stderr.strip().splitlines() or ["no answer"])[-1]


class PrivateEngine:
    """The engine under ``var/docker/`` of one checkout, or with `userns` the one under ``var/docker-userns/``."""

    def __init__(self, root: Path = ROOT, *, userns: bool = False) -> None:
        self.layout = Layout.under(root, userns=userns)

    @property
    def pid(self) -> int:
        """The pid of its dockerd, 0 if none runs."""
        mark = self.layout.daemon_mark
        if pid := processes.running(self.layout.pid_file, mark):
            return pid
        # Also search without the pid file, which may be lost or not yet written: two dockerds would ruin the data.
        return next((pid for pid in processes.marked(mark) if _is_daemon(pid)), 0)

    def problem(self) -> str:
        """Return why it cannot be used now, or "". A dockerd answers even while its containerd is dead."""
        if problem := ping(self.layout.host):
            return problem
        commit, problem = _ask(self.layout.host, "info", "{{.ContainerdCommit.ID}}")
        return problem or ("its containerd does not answer" if commit == "N/A" else "")

    def start(self) -> None:
        """Start it if it does not run, and return when it answers. Raises EngineFailed with the end of its log.

        It takes over the data of an earlier one, of which any process may have been killed or survived. On a busy
        machine this may take minutes.
        """
        layout = self.layout
        with self._locked():
            deadline = time.monotonic() + START_TIMEOUT_S
            daemon = self.pid
            if daemon and not processes.wait_until(self._containerd_answers, CONTAINERD_RETURNS_S):
                say("its containerd is gone and does not come back: stopping its dockerd")
                processes.stop(daemon, layout.daemon_mark, STOP_GRACE_S)
                daemon = 0
            if daemon and self._write_settings():
                # It was started by an older version of this checkout, or before a runtime was installed.
                os.kill(daemon, signal.SIGHUP)
                processes.wait_until(self._offers_runtimes, RELOAD_S)
            if not daemon:
                say(f"starting a private one under {layout.folder}")
                self._end_leftovers()
                layout.log.write_bytes(b"")
                daemon = self._spawn()
            problem = self._wait_until_it_answers(daemon, deadline)
            if problem and not self.pid and CONTAINERD_TOO_SLOW in processes.tail(layout.log):
                say(
                    "its containerd was too slow for its dockerd: starting that one first, and waiting for it"
                )
                self._end_leftovers()
                self._spawn_containerd(deadline)
                daemon = self._spawn("--containerd", str(layout.containerd_socket))
                problem = self._wait_until_it_answers(daemon, deadline)
            if problem:
                raise self._failed(problem)
            if layout.link != layout.socket:
                layout.link.unlink(missing_ok=True)
                layout.link.symlink_to(layout.socket)

    def stop(self) -> None:
        """Remove its containers and end it; afterwards none of its processes, sockets and mounts is left."""
        layout = self.layout
        if not layout.folder.is_dir():
            return
        if not self.pid and (self._children() or self._has_container_mounts()):
            # Its dockerd was killed, but containers are left. A new dockerd adopts and ends them completely,
            # with shims, cgroups, network namespaces and mounts; killing them from outside would not.
            say("its daemon is gone but containers are left: starting it to end them")
            with contextlib.suppress(EngineFailed):
                self.start()
        with self._locked():
            if pid := self.pid:
                self._remove_containers()
                say("stopping the private one")
                processes.stop(pid, layout.daemon_mark, STOP_GRACE_S)
            self._end_children()
            self._unmount_leftovers()
            for file in (layout.pid_file, layout.socket, layout.link):
                file.unlink(missing_ok=True)
            if layout.sockets != layout.folder:
                shutil.rmtree(layout.sockets, ignore_errors=True)

    def _spawn(self, *options: str) -> int:
        layout = self.layout
        self._write_settings()
        environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
        command = [
            "dockerd",
            # Ignore the machine's daemon.json, which is for the machine's own engine.
            *("--config-file", str(layout.settings)),
            # The pid file comes before other options, so that the space after it ends the mark.
            *("--pidfile", str(layout.pid_file)),
            *("--data-root", str(layout.data_root)),
            *("--exec-root", str(layout.exec)),
            *("--host", layout.host),
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--log-level=warn",
            *options,
        ]
        return processes.start_detached(command, layout.log, environment, layout.folder)

    def _spawn_containerd(self, deadline: float) -> None:
        """Start the containerd for the next dockerd, and wait for it.

        A dockerd gives up, and ends its containerd, if the one that it started does not answer within 15 s.
        """
        layout = self.layout
        command = layout.child_marks[0].split(" ")
        pid = processes.start_detached(command, layout.log, os.environ, layout.folder)
        self._wait("its containerd", self._containerd_answers, lambda: processes.has_ended(pid), deadline)

    def _write_settings(self) -> bool:
        """Write its daemon.json; return True if that changed it."""
        file, text = self.layout.settings, json.dumps(self._settings()) + "\n"
        changed = not file.exists() or file.read_text() != text
        if changed:
            file.write_text(text)
        return changed

    def _settings(self) -> dict[str, object]:
        layout = self.layout
        offered: dict[str, object] = {"runtimes": runtimes.offered()}
        if not layout.userns:
            return offered
        user = userns.prepare()
        layout.sockets.chmod(0o711)
        layout.data.mkdir(exist_ok=True)
        layout.data_root.mkdir(exist_ok=True)
        if layout.data_root not in mount_points():
            subprocess.run(["mount", "--bind", layout.data, layout.data_root], check=True)
        return {**offered, "userns-remap": user}

    def _offers_runtimes(self) -> bool:
        named, _ = _ask(self.layout.host, "info", "{{range $name, $_ := .Runtimes}}{{$name}} {{end}}")
        return runtimes.offered().keys() <= set(named.split())

    def _wait_until_it_answers(self, daemon: int, deadline: float) -> str:
        """Wait until it answers; return "", else the reason. `daemon` is the pid of its dockerd."""
        problem = ""

        def answers() -> bool:
            nonlocal problem
            problem = self.problem()
            return not problem

        # A process has no command line for a moment after its start, so `pid` may not find it yet.
        self._wait(
            "it", answers, lambda: processes.has_ended(daemon) or not processes.exists(daemon), deadline
        )
        if problem and self.pid:
            problem += f"; its dockerd (pid {self.pid}) runs: wait and try again, or end it with make down"
        return problem

    def _wait(
        self, who: str, answers: Callable[[], bool], ended: Callable[[], bool], deadline: float
    ) -> None:
        began = time.monotonic()
        while not processes.wait_until(
            lambda: answers() or ended(), min(PROGRESS_S, deadline - time.monotonic())
        ):
            if time.monotonic() > deadline:
                return
            say(f"{who} does not answer yet, after {time.monotonic() - began:.0f} s; waiting")

    def _containerd_answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(PING_TIMEOUT_S)
            return probe.connect_ex(str(self.layout.containerd_socket)) == 0

    def _failed(self, problem: str) -> EngineFailed:
        log = self.layout.log
        return EngineFailed(
            f"The private engine did not start: {problem}\nThe end of {log}:\n{processes.tail(log)}\n"
            f"Where its data is damaged: make down, then remove {self.layout.data}; images must be built again.\n"
            "Where containers can't run here, set DOCKER_HOST to an engine that answers."
        )

    def _remove_containers(self) -> None:
        """Remove its containers by force, as a slot's PID 1 ignores SIGTERM and a graceful stop would wait for it."""
        docker = ["docker", "--host", self.layout.host]
        try:
            listed = subprocess.run(
                [*docker, "ps", "-aq"], capture_output=True, text=True, timeout=STOP_GRACE_S
            )
            if containers := listed.stdout.split():
                say(f"removing the {len(containers)} containers that are left on the private one")
                subprocess.run([*docker, "rm", "-fv", *containers], capture_output=True, timeout=STOP_GRACE_S)
        except (OSError, subprocess.TimeoutExpired):
            say("its containers could not be removed one by one; it ends them itself")

    def _children(self) -> list[int]:
        return [pid for mark in self.layout.child_marks for pid in processes.marked(mark)]

    def _end_children(self) -> None:
        containerd, shim = self.layout.child_marks
        for pid in processes.marked(shim):
            # No dockerd could be started for this. A killed shim leaves its container running.
            processes.kill_children(pid)
        for mark in (containerd, shim):
            for pid in processes.marked(mark):
                processes.stop(pid, mark, 5)

    def _end_leftovers(self) -> None:
        """Remove remains of a dead dockerd that would keep the next one from starting.

        A surviving containerd holds the lock on the data, and the next dockerd would remove its socket; the next
        containerd takes over its shims. A pid file whose number belongs to another process by now keeps dockerd from
        starting itself or its containerd.
        """
        layout = self.layout
        mark = layout.child_marks[0]
        for containerd in processes.marked(mark):
            processes.stop(containerd, mark, 5)
        for file in (layout.pid_file, layout.exec / "containerd/containerd.pid"):
            file.unlink(missing_ok=True)

    def _has_container_mounts(self) -> bool:
        """True if containers whose shims were killed still run, or still have mounted files."""
        return any(point.is_relative_to(self.layout.data_root / "overlay2") for point in mount_points())

    def _unmount_leftovers(self) -> None:
        """Unmount, deepest first; lazily if a process still uses a mount."""
        folders = (self.layout.data, self.layout.data_root, self.layout.exec)
        ours = [point for point in mount_points() if any(point.is_relative_to(folder) for folder in folders)]
        for point in sorted(ours, reverse=True):
            if subprocess.run(["umount", point], capture_output=True).returncode != 0:
                subprocess.run(["umount", "--lazy", point], capture_output=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.layout.folder.mkdir(parents=True, exist_ok=True)
        self.layout.exec.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.layout.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _is_daemon(pid: int) -> bool:
    """True for the program itself, not for a shell or editor with its command line as an argument."""
    return processes.command_line(pid).startswith("dockerd ")
