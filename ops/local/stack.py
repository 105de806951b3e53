"""Starts, stops and shows the local stack: a router, the sets a and b, and an engine where none answers.

    python -m ops.local.stack up       starts what is missing or dead; returns when all is ready
    python -m ops.local.stack down     stops all of it, slots and the private engine included
    python -m ops.local.stack status   tells what runs; exit code 0 when all does

The parts run detached, with pid files in ``var/run/``, logs in ``var/log/`` and state in ``var/set-a/``, ``var/set-b/`` and
``var/router/``. Ports: GC_ROUTER_PORT, GC_ADMIN_PORT, GC_SET_A_PORT, GC_SET_B_PORT. Engine: DOCKER_HOST.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from ops.local.parts import HOST, SET_NAMES, Part, Ports, environment_for, parts_of
from ops.setup import engine, processes
from ops.setup.engine import ROOT, PrivateEngine
from ops.setup.errors import NoEngine, OpsError, StackFailed

READY_TIMEOUT_S = 60
# A set finishes what runs for up to 30 s (drain_timeout_s), a router what is in flight.
STOP_GRACE_S = 40
LOG_LIMIT_BYTES = 32 << 20

# Ours go to 127.0.0.1, whatever the proxies of this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def say(message: str) -> None:
    """Progress, on stderr."""
    print(f"stack: {message}", file=sys.stderr, flush=True)


def up(ports: Ports) -> None:
    """Starts what is missing, dead or at another address; returns when all is ready. Raises StackFailed, NoEngine."""
    with _locked():
        host = engine.up()
        parts = parts_of(ports)
        wrong = [part for part in parts if not part.runs_as_wanted(host)]
        for part in reversed(wrong):  # the router first, so that nothing is routed to a set that goes
            if part.pid:
                say(f"{part.name} runs with another address or engine: stopping it")
            _stop(part)
        (ROOT / "var/run").mkdir(parents=True, exist_ok=True)
        # Where the slots are, for whoever stops them; DOCKER_HOST may be another one by then.
        (ROOT / "var/run/engine").write_text(f"{host}\n")
        for part in wrong:
            _check_ports(part)
            _start(part, host)
        for part in parts:
            _wait_until_ready(part)
    say(f"ready: {ports.router_url} (traffic), http://{HOST}:{ports.admin} (admin)")


def down() -> None:
    """Stops all; afterwards no process, container and mount of it is left. Nothing to stop is no error."""
    with _locked():
        parts = parts_of(Ports())  # found by pid file, whatever the ports
        if any(processes.marked(part.mark) for part in parts):
            say("stopping the router and the sets")
        _stop(parts[-1])
        stopping = [threading.Thread(target=_stop, args=(part,)) for part in parts[:-1]]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        _remove_slots()
        PrivateEngine().stop()


def status(ports: Ports) -> bool:
    """Prints a line for each part; says whether all are ready."""
    try:
        host = engine.find()
    except NoEngine as error:
        host = None
        print(error)
    print(f"{'engine':8} {host or 'none'}")
    ready = host is not None
    for part in parts_of(ports):
        problem = _asked(part.ready_url)
        state = "stopped" if not part.pid else problem or "ready"
        print(
            f"{part.name:8} {state}{f', pid {part.pid}' if part.pid else ''}, log {part.log.relative_to(ROOT)}"
        )
        ready = ready and state == "ready"
    return ready


def is_up(ports: Ports) -> bool:
    """Whether every part runs at these ports and is ready."""
    return all(part.pid and not _asked(part.ready_url) for part in parts_of(ports))


def _start(part: Part, host: str) -> None:
    say(f"starting {part.name}")
    with contextlib.suppress(FileNotFoundError):
        if part.log.stat().st_size > LOG_LIMIT_BYTES:
            part.log.replace(part.log.with_suffix(".log.1"))
    pid = processes.start_detached(part.command, part.log, environment_for(host), ROOT)
    unfinished = part.pid_file.with_suffix(".new")
    unfinished.write_text(f"{pid}\n")
    unfinished.replace(part.pid_file)


def _wait_until_ready(part: Part) -> None:
    problem = ""

    def settled() -> bool:
        nonlocal problem
        problem = _asked(part.ready_url)
        return not problem or not part.pid or processes.has_ended(part.pid)

    processes.wait_until(settled, READY_TIMEOUT_S)
    if not part.pid:
        problem = "it ended"
    if problem:
        raise StackFailed(
            f"{part.name} did not become ready: {problem}\nThe end of {part.log}:\n{processes.tail(part.log)}"
        )


def _stop(part: Part) -> None:
    if pid := part.pid:
        processes.stop(pid, part.mark, STOP_GRACE_S)
    # Workers of one that was killed; they bear the same command line.
    for pid in processes.marked(part.mark):
        processes.stop(pid, part.mark, STOP_GRACE_S)
    part.pid_file.unlink(missing_ok=True)


def _check_ports(part: Part) -> None:
    """Finds out before a start what would otherwise stand somewhere in a log."""
    for port, variable in part.ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise StackFailed(
                        f"{HOST}:{port}, where {part.name} should listen, is taken by a process that is not of this "
                        f"stack.\nStop that one (ss -ltnp 'sport = :{port}' tells which), or choose another port: "
                        f"{variable}=NUMBER make up"
                    ) from error
                raise StackFailed(
                    f"{HOST}:{port}, where {part.name} should listen: {error.strerror}"
                ) from error


def _asked(url: str) -> str:
    """Asks a /readyz; gives "" for 200, else why it isn't ready, in a few words."""
    try:
        with _opener.open(url, timeout=5):
            return ""
    except urllib.error.HTTPError as error:
        return f"{url} answers {error.code}"
    except OSError as error:
        return f"{url}: {getattr(error, 'reason', error)}"


def _remove_slots() -> None:
    """Containers that the sets could not remove themselves, because they were killed or their engine hung."""
    recorded = ROOT / "var/run/engine"
    with contextlib.suppress(FileNotFoundError):
        host = recorded.read_text().strip()
        if shutil.which("docker") and not engine.ping(host):
            for name in SET_NAMES:
                label = f"label=org.general-compute.set={name}"
                if slots := _docker(host, "ps", "-aq", "--filter", label).split():
                    say(f"removing {len(slots)} slots of set {name}")
                    _docker(host, "rm", "-fv", *slots)
        recorded.unlink()


def _docker(host: str, *arguments: str) -> str:
    command: Sequence[str] = ("docker", "--host", host, *arguments)
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=STOP_GRACE_S).stdout
    except subprocess.TimeoutExpired:
        say(f"the engine did not answer within {STOP_GRACE_S} s: {' '.join(command[:6])}")
        return ""


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Two calls at once would each start what both find missing."""
    folder = Path(ROOT / "var")
    folder.mkdir(exist_ok=True)
    with (folder / "stack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: list[str]) -> int:
    """The command line; see the module's docstring."""
    try:
        match arguments:
            case ["up"]:
                up(Ports.of(os.environ))
            case ["down"]:
                down()
            case ["status"]:
                return 0 if status(Ports.of(os.environ)) else 1
            case _:
                print(__doc__, file=sys.stderr)
                return 64
    except OpsError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
