"""A guest under test: process 1 of a PID namespace of its own, with the test as its executor."""

from __future__ import annotations

import array
import contextlib
import os
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from scheduler.images.content import Entry, packed
from tests.sets.guest import wire

TOKEN = "0123456789abcdef" * 4
DESCRIPTORS = 1024
WAIT_S = 60.0
"""No answer after this long is a failure."""


@dataclass
class Result:
    """The results of a task: `stdout` and `stderr` complete, whichever way they came."""

    exit: wire.Exit
    stdout: bytes
    stderr: bytes
    handed_over: bool
    files: list[bytes | int] = field(default_factory=list)
    """Each output file's content, or the errno instead."""
    cleaned: tuple[bool, int] | None = None
    """What CLEANED said, if it came."""

    @property
    def end(self) -> tuple[int, int]:
        return self.exit.how, self.exit.code


def pattern(size: int, start: int = 0) -> bytes:
    """The first bytes of what `actor write` gives."""
    numbers = array.array("I", range(start, start + (size + 3) // 4))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()[:size]


def stderr_pattern(size: int) -> bytes:
    return pattern(size, 1 << 24)


class Connection:
    """One connection of a guest, and tasks over it."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(WAIT_S)
        self.number = 0
        # Our ends of the pipes that went with the last task.
        self.given: tuple[int, ...] = ()
        credentials = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.pid, self.uid, _ = struct.unpack("iII", credentials)

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        if fds:
            socket.send_fds(self.socket, [message], list(fds))
        else:
            self.socket.send(message)

    def receive(self) -> bytes:
        """The next message. No guest ever sends a descriptor."""
        message, fds, flags, _ = socket.recv_fds(self.socket, wire.MESSAGE_BYTES + 1, 64)
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        assert not fds
        return message

    def lost(self) -> bool:
        """Whether the guest has closed its end; waits for it."""
        try:
            return not self.socket.recv(wire.MESSAGE_BYTES)
        except ConnectionResetError:
            return True

    def begin(
        self,
        argv: Sequence[bytes],
        *,
        stdin: bytes = b"",
        stdin_fd: int | None = None,
        env: Sequence[bytes] = (),
        files: Sequence[bytes] = (),
        stream: bool = False,
        pipes: bool = False,
        flags: int = 0,
    ) -> int:
        """Send a TASK, with `pipes` for its outputs if asked; its number."""
        self.number += 1
        flags |= (wire.STREAM if stream else 0) | (wire.STDIN_FD if stdin_fd is not None else 0)
        fds = [] if stdin_fd is None else [stdin_fd]
        ends: list[int] = []
        for fd in self.given:
            os.close(fd)
        self.given = ()
        if pipes:
            flags |= wire.OUTPUT_FDS
            (stdout, out_end), (stderr, err_end) = os.pipe(), os.pipe()
            self.given, ends = (stdout, stderr), [out_end, err_end]
            for fd in ends:
                # As the executor does: the program may be another user than we are.
                os.fchmod(fd, 0o666)
            fds += [stdout, out_end, stderr, err_end]
        self.send(wire.task(self.number, argv, env, files, stdin, flags), fds)
        for fd in ends:
            os.close(fd)
        return self.number

    def output(self) -> tuple[bytes, bytes, int, int]:
        """The OUTPUT message that must come now: what was read, and the two pipes that it is answered with."""
        message = self.receive()
        assert wire.read_head(message) == wire.Head(wire.OUTPUT, 0, self.number)
        return *wire.read_output(message), *self.give_pipes()

    def give_pipes(self) -> tuple[int, int]:
        """Answer an OUTPUT, if its pipes did not go with the task; our ends of those for stdout and stderr."""
        if self.given:
            stdout, stderr = self.given
            self.given = ()
            return stdout, stderr
        (stdout, out_end), (stderr, err_end) = os.pipe(), os.pipe()
        self.send(wire.head(wire.PIPES, self.number), [out_end, err_end])
        os.close(out_end)
        os.close(err_end)
        return stdout, stderr

    def ask_for(self, file: int, first: int, length: int) -> int:
        """Ask for bytes of an output file; our end of the pipe."""
        ours, end = os.pipe()
        self.send(wire.read(self.number, file, first, length), [end])
        os.close(end)
        return ours

    def read_file(self, file: int, size: int) -> bytes:
        """All of an output file."""
        return read_and_close(self.ask_for(file, 0, size))

    def finish(self) -> Result:
        """Everything until the guest is ready for the next task."""
        pipes: list[_Drain] = []
        heads = [b"", b""]
        message = self.receive()
        if wire.read_head(message).type == wire.OUTPUT:
            assert wire.read_head(message) == wire.Head(wire.OUTPUT, 0, self.number)
            heads = list(wire.read_output(message))
            pipes = [_Drain(fd) for fd in self.give_pipes()]
            message = self.receive()
        ended = wire.read_exit(message)
        assert ended.task == self.number
        assert bool(ended.flags & wire.HANDED_OVER) == bool(pipes)
        if pipes:
            assert (ended.stdout, ended.stderr) == (b"", b"")
            bodies = [first + rest.bytes() for first, rest in zip(heads, pipes, strict=True)]
        else:
            bodies = [ended.stdout, ended.stderr]
        files = [self.read_file(at, size) if size >= 0 else -size for at, size in enumerate(ended.files)]
        if any(isinstance(file, bytes) for file in files):
            assert ended.flags & wire.CLEANING
            self.send(wire.head(wire.RELEASE, self.number))
        result = Result(ended, bodies[0], bodies[1], bool(pipes), files)
        if ended.flags & wire.CLEANING:
            message = self.receive()
            assert wire.read_head(message) == wire.Head(wire.CLEANED, 0, self.number)
            result.cleaned = wire.read_cleaned(message)
        return result

    def finish_exit(self) -> wire.Exit:
        """The EXIT that must come now."""
        return wire.read_exit(self.receive())

    def run(
        self,
        *argv: bytes,
        stdin: bytes = b"",
        stdin_fd: int | None = None,
        env: Sequence[bytes] = (),
        files: Sequence[bytes] = (),
        stream: bool = False,
        pipes: bool = False,
        flags: int = 0,
    ) -> Result:
        self.begin(
            argv,
            stdin=stdin,
            stdin_fd=stdin_fd,
            env=env,
            files=files,
            stream=stream,
            pipes=pipes,
            flags=flags,
        )
        return self.finish()

    def close(self) -> None:
        for fd in self.given:
            os.close(fd)
        self.given = ()
        self.socket.close()


def read_and_close(fd: int) -> bytes:
    # Pipes come as the guest used them, without blocking or with.
    os.set_blocking(fd, True)
    with open(fd, "rb") as file:
        return file.read()


class _Drain:
    """Reads a pipe to its end in a thread, because the other pipe must be read at the same time."""

    def __init__(self, fd: int) -> None:
        self._data = b""
        self._fd = fd
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        self._data = read_and_close(self._fd)

    def bytes(self) -> bytes:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "the pipe does not end"
        return self._data


class Listener:
    """Where the executor listens."""

    def __init__(self) -> None:
        # A socket's path may have 107 bytes, which pytest's own folders can exceed.
        self.folder = Path(tempfile.mkdtemp(prefix="gcg"))
        self.folder.chmod(0o755)
        self.path = self.folder / "executor.sock"
        self.open()

    def open(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(str(self.path))
        self.path.chmod(0o666)
        self._socket.listen(4)
        self._socket.settimeout(WAIT_S)

    def accept(self) -> Connection:
        connection, _ = self._socket.accept()
        return Connection(connection)

    def greet(self, flags: int = 0) -> Connection:
        """Accept, and check the hello."""
        connection = self.accept()
        message = connection.receive()
        assert wire.read_hello(message, flags) == (wire.VERSION, TOKEN.encode())
        return connection

    def stop(self) -> None:
        self._socket.close()
        self.path.unlink()

    def close(self) -> None:
        self._socket.close()
        shutil.rmtree(self.folder)


@dataclass(frozen=True)
class User:
    """The user that the guest runs as; never with any capability, as in a slot."""

    name: str
    uid: int
    gid: int


ROOT = User("root", 0, 0)
WORKER = User("worker", 1234, 2345)


class Guest:
    """A guest in a PID namespace, with `places` on tmpfs."""

    def __init__(
        self,
        binary: Path,
        user: User = ROOT,
        *,
        places: Sequence[str] = ("tmp", "shm"),
        folders: Sequence[str] = (),
        cwd: str = "",
        env: Sequence[str] = (),
        tmpfs: str = "mode=1777,size=256m,nr_inodes=200k",
        before: str = "",
        outer: str = "",
        arguments: Sequence[str] = (),
        descriptors: int | str = DESCRIPTORS,
        content: Sequence[Entry] | bytes = b"",
        namespaces: Sequence[str] = (),
        undressed: bool = False,
    ) -> None:
        """`content` is what places begin with, its paths relative to the folder of all places; or that as bytes.
        `folders` are made within the places before the start; `outer` and `before` are shell that runs first: with
        the test's own rights, and with the guest's; PLACE and PLACES in them stand for the first place and for all.
        `namespaces` are options of unshare beside the usual ones. `undressed`: the guest waits until it is told that
        its slot is dressed.
        """
        self.listener = Listener()
        self.places = [self.listener.folder / "places" / place for place in places]
        self.user = user
        places_folder = self.listener.folder / "places"
        places_folder.mkdir()
        outer, before = (
            shell.replace("PLACES", " ".join(map(str, self.places))).replace("PLACE", str(self.places[0]))
            for shell in (outer, before)
        )
        if not isinstance(content, bytes):
            content = packed(replace(entry, path=f"{places_folder}/{entry.path}") for entry in content)
        if content:
            (self.listener.folder / "content").write_bytes(content)
        if undressed:
            (self.listener.folder / "dressing").touch()
        script = ["set -e"]
        for place in self.places:
            script.append(f"mkdir -p {place}; mount -t tmpfs -o {tmpfs} guest-test {place}")
        script += [f"mkdir -p {places_folder / folder}" for folder in folders]
        command = [
            *("setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups"),
            *("--bounding-set=-all", "--inh-caps=-all"),
            *("env", "-i", f"GENERAL_COMPUTE_SLOT_TOKEN={TOKEN}", *env),
            *("sh", "-c", f'{before or ":"}; exec "$@"', "sh", str(binary), str(self.listener.path)),
            str(descriptors),
            *map(str, self.places),
            *arguments,
        ]
        script += [outer or ":", f"cd {places_folder / cwd if cwd else '/'}", f"exec {shlex.join(command)}"]
        usual = ("--pid", "--fork", "--mount-proc", "--mount", "--ipc", "--kill-child=SIGKILL")
        self.process = subprocess.Popen(
            ["unshare", *usual, *namespaces, "sh", "-c", "\n".join(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def place(self, index: int = 0) -> bytes:
        return bytes(self.places[index])

    def inside(self, connection: Connection, index: int = 0) -> Path:
        """A place as it can be seen from here."""
        return Path(f"/proc/{connection.pid}/root{self.places[index]}")

    def ended(self) -> int:
        """Its exit code; waits for it."""
        return self.process.wait(WAIT_S)

    def said(self) -> str:
        """Return what it, or a sanitizer in it, wrote; call it after its end."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    def kill(self) -> None:
        """End it, and so its whole namespace."""
        if self.process.poll() is None:
            # The guest first: what `--kill-child` asks of the kernel is forgotten when a process changes its user.
            unshare = self.process.pid
            for child in Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
            self.process.wait(WAIT_S)

    def close(self) -> None:
        self.kill()
        said = self.said()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.listener.close()
        assert "ERROR: AddressSanitizer" not in said, said
        assert "runtime error" not in said, said


def processes_of(pid: int) -> list[int]:
    """Every process in the PID namespace of `pid`, itself included, as numbers of the test's own namespace."""
    wanted = os.readlink(f"/proc/{pid}/ns/pid")
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.readlink(f"/proc/{entry}/ns/pid") == wanted and not _is_zombie(int(entry)):
                    found.append(int(entry))
            except OSError:
                continue
    return found


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def wait_readable(fd: int) -> None:
    ready, _, _ = select.select([fd], [], [], WAIT_S)
    assert ready
