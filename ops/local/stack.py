"""Starts, stops and shows the local stack: a router, the sets a and b, and an engine if none answers.

    python -m ops.local.stack up       starts the parts that do not run, and restarts those that run older code;
                                       returns when all are ready
    python -m ops.local.stack down     stops everything, including slots and the private engine
    python -m ops.local.stack status   shows which parts run; exit code 0 if all are ready

The parts run detached, with pid files in ``var/run/``, logs in ``var/log/`` and state in ``var/set-a/``, ``var/set-b/``
and ``var/router/``. Ports: GC_ROUTER_PORT, GC_ADMIN_PORT, GC_SET_A_PORT, GC_SET_B_PORT. Engine: DOCKER_HOST.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ops.local.parts import HOST, SET_NAMES, Part, Ports, parts_of
from ops.setup import engine, processes
from ops.setup.engine import ROOT, PrivateEngine
from ops.setup.errors import NoEngine, OpsError, StackFailed, described
from router.choosing.serving import SERVING
from scheduler.installation import known

READY_TIMEOUT_S: Final = 60
# A set finishes running tasks for up to 30 s (drain_timeout_s), and a router its requests.
STOP_GRACE_S: Final = 40
LOG_LIMIT_BYTES: Final = 32 << 20

# Our requests go to 127.0.0.1 directly, whatever proxies this machine has.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def say(message: str) -> None:
    """Print progress on stderr."""
    print(f"stack: {message}", file=sys.stderr, flush=True)


class Stack:
    """The local stack of one checkout, at these ports. `code`: the checkout with the wanted sources."""

    def __init__(self, ports: Ports, root: Path = ROOT, code: Path = ROOT) -> None:
        self.ports = ports
        self.parts = parts_of(ports, root, code)
        self._var = root / "var"
        self._private = [PrivateEngine(root), PrivateEngine(root, userns=True)]

    def up(self) -> None:
        """Start the parts that do not run or have another address, and restart those that run older code; return when
        all are ready.

        Raises StackFailed with the end of the failed part's log, NoEngine, EngineFailed.
        """
        with self._locked():
            host = engine.up()
            wrong = [
                part
                for part in self.parts
                # An outdated part that is not ready may never be: it needs no gentle restart.
                if not part.runs_as_wanted(host) or (part.is_outdated() and _asked(part.ready_url))
            ]
            for part in reversed(wrong):  # the router first, so that it routes nothing to a stopping set
                if part.pid:
                    say(f"{part.name} runs with another address or engine, or is not ready: stopping it")
                _stop(part)
            self._engine_file.write_text(f"{host}\n")
            for part in wrong:
                _check_ports(part)
            for part in wrong:
                _start(part, host)
            for part in self.parts:
                _wait_until_ready(part)
            self._renew(host)
        say(f"ready: {self.ports.router_url} (traffic), http://{HOST}:{self.ports.admin} (admin)")
        if variables := self._variables(host):
            say(f"for docker and gcompute: export {' '.join(variables)}")

    def _renew(self, host: str) -> None:
        """Restart the parts that run older code one after another, so that a set always takes work."""
        for part in self.parts:
            if not part.is_outdated():
                continue
            say(f"{part.name} runs older code than this checkout: restarting it when its tasks have ended")
            _stop(part)
            _check_ports(part)
            _start(part, host)
            _wait_until_ready(part)
            processes.wait_until(self._all_sets_up, READY_TIMEOUT_S)

    def _all_sets_up(self) -> bool:
        """Return True if the router sends work to every set; also if it cannot tell."""
        try:
            with _opener.open(f"http://{HOST}:{self.ports.admin}/status", timeout=5) as answer:
                sets = json.load(answer)["sets"].values()
        except (OSError, ValueError, KeyError):
            return True
        return all(each["health"] in SERVING or each["state"] != "ready" for each in sets)

    def _variables(self, host: str) -> list[str]:
        """Environment variables that other commands need to find this stack, which is not where they look at first."""
        standard = Ports()
        found = []
        if host in [private.layout.host for private in self._private]:
            found.append(f"DOCKER_HOST={host}")
        if self.ports.router != standard.router:
            found.append(f"GC_URL={self.ports.router_url}")
        if self.ports.admin != standard.admin:
            found.append(f"GC_ADMIN_URL=http://{HOST}:{self.ports.admin}")
        return found

    def down(self, *, keep_engine: bool = False) -> None:
        """Stop everything that runs; afterwards none of its processes, containers and mounts is left.

        With `keep_engine`, a private engine keeps running, without slots.
        """
        with self._locked():
            if any(part.all_pids() for part in self.parts):
                say("stopping the router and the sets")
            *sets, router = self.parts
            _stop(router)
            stopping = [threading.Thread(target=_stop, args=(part,)) for part in sets]
            for thread in stopping:
                thread.start()
            for thread in stopping:
                thread.join()
            self._remove_slots()
            if not keep_engine:
                for private in self._private:
                    private.stop()

    def status(self) -> bool:
        """Print a line for each part; return True if all are ready."""
        try:
            host = engine.find()
        except NoEngine as error:
            host = None
            print(error)
        print(f"{'engine':8} {host or 'none'}")
        for part in self.parts:
            state = (_asked(part.ready_url) or f"ready, pid {part.pid}") if part.pid else "stopped"
            print(f"{part.name:8} {state}, log {part.log}")
        return host is not None and self.is_up()

    @property
    def runs(self) -> bool:
        """Return True if any part runs, at any address, ready or not."""
        return any(part.pid for part in self.parts)

    def is_up(self) -> bool:
        """Return True if every part runs and is ready."""
        return all(part.pid and not _asked(part.ready_url) for part in self.parts)

    @property
    def _engine_file(self) -> Path:
        """Store the engine's address for `down`, as DOCKER_HOST may have changed by then."""
        return self._var / "run/engine"

    def _remove_slots(self) -> None:
        """Remove containers that the sets could not remove, because they were killed or their engine hung.

        Removes only those of this installation: other sets of the same names may run on the engine.
        """
        with contextlib.suppress(FileNotFoundError):
            host = self._engine_file.read_text().strip()
            problem = engine.ping(host)
            for name in SET_NAMES:
                installation = known(self._var / f"set-{name}")
                if problem or installation is None:
                    continue
                label = f"label=org.general-compute.installation={installation}"
                if slots := _docker(host, "ps", "-aq", "--filter", label).split():
                    say(f"removing the containers of set {name}: {len(slots)}")
                    _docker(host, "rm", "-fv", *slots)
            if problem:
                say(
                    f"the engine at {host} does not answer ({problem}): slots that still run there end by themselves "
                    "within a minute, and the next make up on that engine removes the rest"
                )
            self._engine_file.unlink()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the stack: two calls at the same time would both start the missing parts."""
        (self._var / "run").mkdir(parents=True, exist_ok=True)
        with (self._var / "run/lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another make up or make down of this checkout is running: waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _start(part: Part, host: str) -> None:
    say(f"starting {part.name}")
    with contextlib.suppress(FileNotFoundError):
        if part.log.stat().st_size > LOG_LIMIT_BYTES:
            part.log.replace(part.log.with_suffix(".log.1"))
    pid = processes.start_detached(part.command, part.log, part.environment(host), part.root)
    unfinished = part.pid_file.with_suffix(".new")
    unfinished.write_text(f"{pid}\n")
    unfinished.replace(part.pid_file)


def _wait_until_ready(part: Part) -> None:
    started = processes.read_pid(part.pid_file)
    problem = ""

    def settled() -> bool:
        nonlocal problem
        problem = "it ended" if processes.has_ended(started) else _asked(part.ready_url)
        return problem in ("", "it ended")

    if not processes.wait_until(settled, READY_TIMEOUT_S) or problem:
        raise StackFailed(
            f"{part.name} did not become ready: {problem}\nThe end of {part.log}:\n{processes.tail(part.log)}"
        )


def _stop(part: Part) -> None:
    if pid := part.pid:
        processes.stop(pid, part.mark, STOP_GRACE_S)
    for pid in part.all_pids():  # workers of a killed process
        processes.stop(pid, part.mark, STOP_GRACE_S)
    part.pid_file.unlink(missing_ok=True)


def _check_ports(part: Part) -> None:
    """Check the ports before a start, as an error in a log would be hard to find."""
    for port, variable in part.ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise StackFailed(
                        f"{HOST}:{port}, where {part.name} should listen, is taken by {_holder(port)}.\n"
                        f"Stop that one, or choose another port: {variable}=NUMBER make up"
                    ) from error
                raise StackFailed(
                    f"{HOST}:{port}, where {part.name} should listen: {error.strerror}"
                ) from error


def _holder(port: int) -> str:
    """Describe the process that listens on a port, from its command line: usually the stack of another checkout."""
    for pid in processes.marked(f"{HOST}:{port} "):
        words = processes.command_line(pid).split()
        if files := [word for word in words if word.endswith((".yaml", ".yml"))]:
            return f"process {pid}, which runs {files[0]}: the stack of another checkout"
    return f"a process of another program (find it with ss -ltnp 'sport = :{port}')"


def _asked(url: str) -> str:
    """Ask a /readyz; return "" for 200, else a short reason."""
    try:
        with _opener.open(url, timeout=5):
            return ""
    except urllib.error.HTTPError as error:
        return f"{url} answers {error.code}"
    except OSError as error:
        return f"{url}: {getattr(error, 'reason', error)}"


def _docker(host: str, *arguments: str) -> str:
    command: Sequence[str] = ("docker", "--host", host, *arguments)
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=STOP_GRACE_S).stdout
    except subprocess.TimeoutExpired:
        say(f"the engine did not answer within {STOP_GRACE_S} s: {' '.join(command[:6])}")
        return ""


def main(arguments: list[str]) -> int:
    """Run the command line; see the module's docstring."""
    try:
        match arguments:
            case ["up"]:
                Stack(Ports.of(os.environ)).up()
            case ["down"]:
                Stack(Ports()).down()  # found by pid file, with any ports
            case ["status"]:
                return 0 if Stack(Ports.of(os.environ)).status() else 1
            case _:
                print(__doc__, file=sys.stderr)
                return 64
    except OpsError as error:
        say(str(error))
        return 1
    except OSError as error:
        say(described(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
