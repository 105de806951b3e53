"""The private engine: started, found again, and gone without a trace, also after kill -9."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.setup import engine, processes, userns
from ops.setup.engine import Layout, PrivateEngine
from ops.setup.errors import EngineFailed, NoEngine

SLEEPER_C = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="a private engine needs root, as make test in CI has"
)


def test_layout_of_a_usual_checkout_stays_inside_it() -> None:
    layout = Layout.under(Path("/srv/general-compute"))
    assert layout.socket == layout.link == Path("/srv/general-compute/var/docker/docker.sock")
    assert layout.host == "unix:///srv/general-compute/var/docker/docker.sock"


def test_layout_of_a_deep_checkout_has_short_sockets_and_a_stable_name() -> None:
    deep = Path("/srv") / ("deep" * 30)
    layout = Layout.under(deep)
    assert layout == Layout.under(deep)
    assert layout != Layout.under(deep / "er")
    assert layout.data.is_relative_to(deep)
    assert len(os.fsencode(layout.exec / "containerd/containerd.sock.ttrpc")) < 107
    assert layout.link == deep / "var/docker/docker.sock" != layout.socket


def test_a_named_engine_that_does_not_answer_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(NoEngine, match=r"DOCKER_HOST=unix://.*none\.sock does not answer"):
        engine.find()


@pytest.fixture(params=["short", "d" * 90])
def private(request: pytest.FixtureRequest) -> Iterator[PrivateEngine]:
    """An engine of its own in a fresh folder, near and deep."""
    top = Path(tempfile.mkdtemp(prefix="gce"))
    private = PrivateEngine(top / request.param)
    yield private
    private.stop()
    shutil.rmtree(top)


def docker(private: PrivateEngine, *arguments: str, stdin: bytes | None = None) -> str:
    command = ["docker", "--host", f"unix://{private.layout.socket}", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def run_container(private: PrivateEngine, folder: Path) -> int:
    """Starts a container that does nothing for ever; gives the pid of its first process on this machine."""
    root = folder / "root"
    root.mkdir()
    subprocess.run(
        ["cc", "-static", "-x", "c", "-o", root / "sleeper", "-"], input=SLEEPER_C.encode(), check=True
    )
    archive = subprocess.run(["tar", "-C", root, "-c", "."], capture_output=True, check=True).stdout
    docker(private, "import", "-c", 'ENTRYPOINT ["/sleeper"]', "-", "sleeper:1", stdin=archive)
    docker(private, "run", "-d", "--network=none", "--log-driver=none", "--name=one", "sleeper:1")
    return int(docker(private, "inspect", "--format={{.State.Pid}}", "one"))


def leftovers(private: PrivateEngine) -> list[str]:
    """Return what an engine must not leave behind: processes, mounts, sockets."""
    layout = private.layout
    folders = (str(layout.folder), str(layout.sockets))
    found = [f"process {pid}" for folder in folders for pid in processes.marked(f"{folder}/")]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {mount}" for mount in mounts if any(f" {folder}/" in mount for folder in folders)]
    found += [str(file) for file in (layout.socket, layout.link, layout.pid_file) if os.path.lexists(file)]
    return found


@needs_root
@pytest.mark.docker
def test_started_twice_is_one_engine_and_stopped_leaves_nothing(
    private: PrivateEngine, tmp_path: Path
) -> None:
    private.start()
    first = private.pid
    private.start()
    assert private.pid == first
    assert engine.ping(private.layout.host) == ""
    assert private.layout.link.exists()
    container = run_container(private, tmp_path)
    private.stop()
    assert leftovers(private) == []
    assert not processes.alive(container, "sleeper")
    private.stop()  # a second time is nothing


@needs_root
@pytest.mark.docker
def test_an_engine_with_user_namespaces_takes_root_of_a_container_for_nobody(tmp_path: Path) -> None:
    """Below `tmp_path`, which only root of the machine can enter."""
    private = PrivateEngine(tmp_path, userns=True)
    private.start()
    try:
        assert "name=userns" in docker(private, "info", "--format={{.SecurityOptions}}")
        container = run_container(private, tmp_path)
        first, on_host, count = Path(f"/proc/{container}/uid_map").read_text().split()
        assert (first, int(count)) == ("0", userns.ENGINE.count)
        assert int(on_host) in userns.ENGINE.starts
        os.kill(private.pid, signal.SIGKILL)
        assert processes.wait_until(lambda: not private.pid, 10)
    finally:
        private.stop()
    assert leftovers(private) == []
    assert not processes.alive(container, "sleeper")
    private.start()
    assert "sleeper:1" in docker(private, "images", "--format={{.Repository}}:{{.Tag}}")
    private.stop()


def test_ids_for_slots_are_those_that_nobody_has() -> None:
    low, high = min(userns.ENGINE.starts), max(userns.ENGINE.starts)
    assert userns.free_start("") == high
    assert userns.free_start("root:100000:65536\n# a comment\nbroken line\n") == high
    assert userns.free_start(f"other:{high + 5}:1\n") == low
    assert userns.free_start(f"other:{high}:1\n") == low
    assert userns.free_start(f"other:{high - 5}:5\n") == high
    assert userns.free_start(f"other:{low}:{high}\n") is None


def test_a_slip_in_the_wish_for_user_namespaces_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GC_ENGINE_USERNS", "yes")
    with pytest.raises(NoEngine, match="GC_ENGINE_USERNS=yes: set it to 1"):
        userns.asked()


@needs_root
@pytest.mark.docker
def test_a_killed_daemon_with_a_container_is_cleared_away(private: PrivateEngine, tmp_path: Path) -> None:
    private.start()
    container = run_container(private, tmp_path)
    daemon = private.pid
    os.kill(daemon, signal.SIGKILL)
    assert processes.wait_until(lambda: not private.pid, 10)
    assert processes.alive(container, "sleeper")
    private.stop()
    assert leftovers(private) == []
    assert not processes.alive(container, "sleeper")


Kill = Callable[[PrivateEngine], None]


def kill(*pids: int) -> None:
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def containerds(private: PrivateEngine) -> list[int]:
    return processes.marked(private.layout.child_marks[0])


def shims(private: PrivateEngine) -> list[int]:
    return processes.marked(private.layout.child_marks[1])


def kill_dockerd(private: PrivateEngine) -> None:
    kill(private.pid)
    assert processes.wait_until(lambda: not private.pid, 10)


def kill_both(private: PrivateEngine) -> None:
    kill(private.pid, *containerds(private))
    assert processes.wait_until(lambda: not private.pid and not containerds(private), 10)


def kill_all(private: PrivateEngine) -> None:
    kill(private.pid, *containerds(private), *shims(private))
    assert processes.wait_until(lambda: not private.pid and not shims(private), 10)


def lose_pid_file(private: PrivateEngine) -> None:
    private.layout.pid_file.unlink()


def leave_containerd(private: PrivateEngine) -> None:
    """As a containerd that outlives its dockerd: it holds the lock on its data, and no pid file names it."""
    kill_both(private)
    layout = private.layout
    processes.start_detached(layout.child_marks[0].split(" "), layout.log, os.environ, layout.folder)
    assert processes.wait_until(lambda: layout.containerd_socket.exists() and bool(containerds(private)), 60)


def leave_frozen_containerd(private: PrivateEngine) -> None:
    leave_containerd(private)
    for pid in containerds(private):
        os.kill(pid, signal.SIGSTOP)


KILLS: list[Kill] = [
    kill_dockerd,
    lambda private: kill(*containerds(private)),
    kill_both,
    lambda private: kill(*shims(private)),
    kill_all,
    lose_pid_file,
    leave_containerd,
    leave_frozen_containerd,
]
KILL_NAMES = [
    "dockerd",
    "containerd",
    "both",
    "shims",
    "all",
    "pid-file",
    "left-containerd",
    "frozen-containerd",
]


@needs_root
@pytest.mark.docker
@pytest.mark.parametrize("private", ["k"], indirect=True)
@pytest.mark.parametrize("killed", KILLS, ids=KILL_NAMES)
def test_it_comes_back_after_any_kill(private: PrivateEngine, tmp_path: Path, killed: Kill) -> None:
    private.start()
    run_container(private, tmp_path)
    killed(private)
    private.start()
    docker(private, "run", "-d", "--network=none", "--log-driver=none", "--name=two", "sleeper:1")
    docker(private, "rm", "-f", "one", "two")
    assert docker(private, "ps", "-aq") == ""
    private.stop()
    assert leftovers(private) == []


@needs_root
@pytest.mark.docker
@pytest.mark.parametrize("private", ["k"], indirect=True)
def test_down_after_everything_was_killed_leaves_no_container(private: PrivateEngine, tmp_path: Path) -> None:
    private.start()
    container = run_container(private, tmp_path)
    kill_all(private)
    assert processes.alive(container, "sleeper")
    private.stop()
    assert leftovers(private) == []
    assert not processes.alive(container, "sleeper")


@needs_root
@pytest.mark.docker
@pytest.mark.parametrize("private", ["k"], indirect=True)
def test_down_ends_containers_of_an_engine_whose_data_is_damaged(
    private: PrivateEngine, tmp_path: Path
) -> None:
    private.start()
    container = run_container(private, tmp_path)
    kill_both(private)
    (private.layout.data / "image/overlay2/repositories.json").write_bytes(b"")
    with pytest.raises(EngineFailed, match=r"(?s)reference store.*damaged: make down, then remove .*/data"):
        private.start()
    private.stop()
    assert leftovers(private) == []
    assert not processes.alive(container, "sleeper")


@needs_root
@pytest.mark.docker
@pytest.mark.parametrize("private", ["k"], indirect=True)
def test_a_containerd_that_is_too_slow_for_its_dockerd_is_waited_for(
    private: PrivateEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """dockerd gives up after 15 s."""
    slow = tmp_path / "containerd"
    slow.write_text(f'#!/bin/sh\nsleep 16\nexec {shutil.which("containerd")} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    private.start()
    assert "containerd does not answer yet, after 15 s; waiting" in capsys.readouterr().err
    run_container(private, tmp_path)


def test_a_docker_host_that_up_printed_before_is_the_private_engine_not_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = PrivateEngine().layout.host
    monkeypatch.setenv("DOCKER_HOST", host)
    # Running or not: never an error that asks for that engine to be started.
    assert engine.find() in (host, None)


def test_a_full_disk_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/srv/var/docker/daemon.json")

    monkeypatch.setattr(engine, "up", full)
    assert engine.main(["up"]) == 1
    assert capsys.readouterr().err == (
        "engine: /srv/var/docker/daemon.json: No space left on device; free some space there and try again\n"
    )


@needs_root
@pytest.mark.docker
def test_stale_pid_files_with_strangers_numbers_do_not_keep_it_from_starting(private: PrivateEngine) -> None:
    layout = private.layout
    for file in (layout.pid_file, layout.exec / "containerd/containerd.pid"):
        file.parent.mkdir(parents=True)
        file.write_text(str(os.getpid()))
    private.start()
    assert engine.ping(layout.host) == ""


@needs_root
@pytest.mark.docker
def test_a_daemon_that_cannot_start_says_why(private: PrivateEngine) -> None:
    private.layout.folder.mkdir(parents=True)
    private.layout.data.write_text("a file where a folder should be")
    with pytest.raises(EngineFailed, match=r"(?s)did not start.*data"):
        private.start()
