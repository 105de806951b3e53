"""The container engine: the one that answers already, else a private one under ``var/docker/``.

    python -m ops.setup.engine up       finds or starts an engine; prints its DOCKER_HOST, progress on stderr
    python -m ops.setup.engine down     stops the private one, and nothing else
    python -m ops.setup.engine status   prints what there is

Order: DOCKER_HOST where set; a private engine that runs; the usual socket where one answers; as root on Debian or
Ubuntu, a private one, for which docker.io is installed. The private engine has no bridge and no iptables, so it needs
and changes nothing of the machine's network, and its own socket, so it meets no other engine.

With GC_ENGINE_USERNS=1 it is another private one, under ``var/docker-userns/``, whose containers run in a user
namespace (Docker's `userns-remap`): root in a slot is nobody on the machine. That engine refuses
`docker build --network=host`, so the sample images are built on the plain one and copied.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ops.setup import processes, userns
from ops.setup.errors import EngineFailed, NoEngine, OpsError

ROOT = Path(__file__).resolve().parents[2]
USUAL_SOCKET = Path("/var/run/docker.sock")

START_TIMEOUT_S = 60
STOP_GRACE_S = 30
PING_TIMEOUT_S = 15

# A unix socket's path may have 107 bytes. The longest that the engine makes under its folder is
# exec/containerd/containerd.sock.ttrpc, 38 bytes with the slash; the rest is for versions to come.
DEEPEST_FOLDER = 60


def say(message: str) -> None:
    """Progress, on stderr: stdout is for the answer."""
    print(f"engine: {message}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Layout:
    """Where a private engine keeps what.

    `sockets` is `folder` itself, or where that lies too deep for a socket's path, a short stand-in under /run.
    With `userns` it always is: root of a container must reach the data, and a checkout may lie where only root can go.
    """

    folder: Path
    sockets: Path
    userns: bool = False

    @classmethod
    def under(cls, root: Path, *, userns: bool = False) -> Layout:
        """The layout for a checkout; the same on every call, so that a later run finds an earlier one's engine."""
        folder = root / ("var/docker-userns" if userns else "var/docker")
        if len(os.fsencode(folder)) <= DEEPEST_FOLDER and not userns:
            return cls(folder, folder)
        digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        return cls(folder, Path(f"/run/gcompute-{digest}"), userns)

    @property
    def data(self) -> Path:
        """Images and containers; kept when the engine stops."""
        return self.folder / "data"

    @property
    def data_root(self) -> Path:
        """The path by which the engine knows `data`; with `userns`, a bind mount."""
        return self.sockets / "data" if self.userns else self.data

    @property
    def exec(self) -> Path:
        """State and sockets of what runs."""
        return self.sockets / "exec"

    @property
    def socket(self) -> Path:
        """Where the engine listens."""
        return self.sockets / "docker.sock"

    @property
    def link(self) -> Path:
        """The socket as documented: the socket itself, or a symbolic link to it."""
        return self.folder / "docker.sock"

    @property
    def pid_file(self) -> Path:
        return self.folder / "dockerd.pid"

    @property
    def log(self) -> Path:
        return self.folder / "dockerd.log"

    @property
    def host(self) -> str:
        """The DOCKER_HOST of this engine."""
        return f"unix://{self.socket}"

    @property
    def daemon_mark(self) -> str:
        """What only this engine's dockerd has on its command line."""
        return f"--pidfile {self.pid_file} "

    @property
    def child_marks(self) -> tuple[str, str]:
        """What only its containerd and the shims of its containers have on theirs."""
        return (
            f"containerd --config {self.exec}/containerd/containerd.toml",
            f"-address {self.exec}/containerd/containerd.sock",
        )


def ping(host: str) -> str:
    """Asks an engine for its version; gives "" where it answers, else in one line why not."""
    try:
        asked = subprocess.run(
            ["docker", "--host", host, "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=PING_TIMEOUT_S,
        )
    except FileNotFoundError:
        return "the docker command is not installed"
    except subprocess.TimeoutExpired:
        return f"no answer within {PING_TIMEOUT_S} s"
    if asked.returncode == 0:
        return ""
    return (asked.stderr.strip().splitlines() or ["no answer"])[-1]


def find() -> str | None:
    """The DOCKER_HOST of an engine that answers now; None where there is none, and nothing is installed or started.

    Raises NoEngine where DOCKER_HOST names one that doesn't answer: another one would not be what was asked for.
    """
    if named := os.environ.get("DOCKER_HOST"):
        _install_client()
        if problem := ping(named):
            raise NoEngine(
                f"DOCKER_HOST={named} does not answer: {problem}\nStart that engine, or unset DOCKER_HOST."
            )
        return named
    asked = userns.asked()
    for with_userns in [True] if asked else [False, True]:
        private = PrivateEngine(userns=with_userns)
        if private.pid and not ping(private.layout.host):
            return private.layout.host
    if USUAL_SOCKET.exists() and not asked:
        host = f"unix://{USUAL_SOCKET}"
        if not ping(host):
            return host
    return None


def up() -> str:
    """Finds an engine or starts the private one; gives its DOCKER_HOST. Raises NoEngine, EngineFailed."""
    if host := find():
        return host
    if os.geteuid() != 0:
        raise NoEngine(_advice())
    if shutil.which("dockerd") is None:
        _install("a container engine", "docker.io")
    if _apparmor_is_on() and shutil.which("apparmor_parser") is None:
        _install("AppArmor's parser, which the engine needs on this kernel", "apparmor")
    _install_client()
    private = PrivateEngine(userns=userns.asked())
    private.start()
    return private.layout.host


class PrivateEngine:
    """The engine under ``var/docker/`` of one checkout, or with `userns` the one under ``var/docker-userns/``."""

    def __init__(self, root: Path = ROOT, *, userns: bool = False) -> None:
        self.layout = Layout.under(root, userns=userns)

    @property
    def pid(self) -> int:
        """Of its dockerd, 0 where none runs."""
        return processes.running(self.layout.pid_file, self.layout.daemon_mark)

    def start(self) -> None:
        """Starts it where it doesn't run, and returns when it answers. Raises EngineFailed with the end of its log."""
        layout = self.layout
        with self._locked():
            if not self.pid:
                self._clear_stale_files()
                say(f"starting a private one under {layout.folder}")
                layout.log.write_bytes(b"")
                self._spawn()
            self._wait_until_it_answers()
            if layout.link != layout.socket:
                layout.link.unlink(missing_ok=True)
                layout.link.symlink_to(layout.socket)

    def stop(self) -> None:
        """Removes its containers and ends it; afterwards none of its processes, sockets and mounts is left."""
        layout = self.layout
        if not layout.folder.is_dir():
            return
        if not self.pid and self._children():
            # Its dockerd was killed and left containers behind. A new one adopts and ends them as no kill from
            # outside could: shims, cgroups, network namespaces and mounts included.
            say("its daemon is gone but containers are left: starting it to end them")
            with contextlib.suppress(EngineFailed):
                self.start()
        with self._locked():
            if pid := self.pid:
                say("stopping the private one")
                self._remove_containers()
                processes.stop(pid, layout.daemon_mark, STOP_GRACE_S)
            for child in self._children():
                for mark in layout.child_marks:
                    processes.stop(child, mark, 5)
            self._unmount_leftovers()
            for file in (layout.pid_file, layout.socket, layout.link):
                file.unlink(missing_ok=True)
            if layout.sockets != layout.folder:
                shutil.rmtree(layout.sockets, ignore_errors=True)

    def _spawn(self) -> None:
        layout = self.layout
        # The machine's own daemon.json is for the machine's own engine.
        settings = layout.folder / "daemon.json"
        settings.write_text(json.dumps(self._settings()) + "\n")
        environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
        command = [
            "dockerd",
            *("--config-file", str(settings)),
            # The pid file stands before other options: its mark ends with the space that follows.
            *("--pidfile", str(layout.pid_file)),
            *("--data-root", str(layout.data_root)),
            *("--exec-root", str(layout.exec)),
            *("--host", layout.host),
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--log-level=warn",
        ]
        child = processes.start_detached(command, layout.log, environment, layout.folder)
        # It is started once its pid file is there: from then on every later run finds it.
        processes.wait_until(lambda: bool(self.pid) or processes.has_ended(child), 10)
        if not self.pid:
            raise self._failed("it ended at once")

    def _settings(self) -> dict[str, str]:
        layout = self.layout
        if not layout.userns:
            return {}
        user = userns.prepare()
        layout.sockets.chmod(0o711)
        layout.data.mkdir(exist_ok=True)
        layout.data_root.mkdir(exist_ok=True)
        if layout.data_root not in _mount_points():
            subprocess.run(["mount", "--bind", layout.data, layout.data_root], check=True)
        return {"userns-remap": user}

    def _wait_until_it_answers(self) -> None:
        problem = ""

        def settled() -> bool:
            nonlocal problem
            problem = ping(self.layout.host)
            return not problem or not self.pid

        if not processes.wait_until(settled, START_TIMEOUT_S) or problem:
            raise self._failed(problem)

    def _failed(self, problem: str) -> EngineFailed:
        log = self.layout.log
        return EngineFailed(
            f"The private engine did not start: {problem}\nThe end of {log}:\n{processes.tail(log)}\n"
            "Where containers can't run here, set DOCKER_HOST to an engine that answers."
        )

    def _remove_containers(self) -> None:
        """By force and at once: a slot's PID 1 ignores SIGTERM, and a graceful stop would wait for it."""
        docker = ["docker", "--host", self.layout.host]
        try:
            listed = subprocess.run(
                [*docker, "ps", "-aq"], capture_output=True, text=True, timeout=STOP_GRACE_S
            )
            if containers := listed.stdout.split():
                subprocess.run([*docker, "rm", "-fv", *containers], capture_output=True, timeout=STOP_GRACE_S)
        except (OSError, subprocess.TimeoutExpired):
            say("its containers could not be removed one by one; it ends them itself")

    def _children(self) -> list[int]:
        return [pid for mark in self.layout.child_marks for pid in processes.marked(mark)]

    def _clear_stale_files(self) -> None:
        """A pid file whose number is now another process's keeps dockerd from starting, or from its containerd."""
        layout = self.layout
        layout.pid_file.unlink(missing_ok=True)
        containerd = layout.exec / "containerd/containerd.pid"
        if not processes.running(containerd, layout.child_marks[0]):
            containerd.unlink(missing_ok=True)

    def _unmount_leftovers(self) -> None:
        """Deepest first; lazily where something still holds one."""
        folders = (self.layout.data, self.layout.data_root, self.layout.exec)
        ours = [point for point in _mount_points() if any(point.is_relative_to(folder) for folder in folders)]
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


def _mount_points() -> list[Path]:
    return [
        Path(_unescape(line.split()[4])) for line in Path("/proc/self/mountinfo").read_text().splitlines()
    ]


def _unescape(path: str) -> str:
    # mountinfo writes space, tab, newline and backslash as octal.
    for code, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, sign)
    return path


def _install(why: str, *packages: str) -> None:
    done = subprocess.run(["bash", str(ROOT / "ops/setup/packages.sh"), why, *packages], cwd=ROOT)
    if done.returncode != 0:
        raise NoEngine(_advice())


def _apparmor_is_on() -> bool:
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False


def _install_client() -> None:
    """The docker command comes with docker.io on Debian 12 and Ubuntu 24.04, as docker-cli on later ones."""
    if shutil.which("docker") is None:
        _install("the docker command", "docker.io")
    if shutil.which("docker") is None:
        _install("the docker command", "docker-cli")


def _advice() -> str:
    lines = ["No container engine answers, and none could be started here. One of these helps:"]
    if USUAL_SOCKET.exists():
        lines.append(f"- {USUAL_SOCKET} exists, but: {ping(f'unix://{USUAL_SOCKET}')}")
        lines.append('  if that is a matter of rights: sudo usermod -aG docker "$USER", then log in anew')
    lines.append(
        "- install and start Docker: sudo apt-get install -y docker.io && sudo systemctl start docker"
    )
    lines.append("- name an engine that runs elsewhere: export DOCKER_HOST=unix:///path/to/docker.sock")
    lines.append("- run make as root on Debian or Ubuntu: it installs docker.io and starts a private engine")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """The command line; see the module's docstring."""
    try:
        match arguments:
            case ["up"]:
                print(up())
            case ["down"]:
                for with_userns in (False, True):
                    PrivateEngine(userns=with_userns).stop()
            case ["status"]:
                print(find() or "none")
            case _:
                print(__doc__, file=sys.stderr)
                return 64
    except OpsError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
