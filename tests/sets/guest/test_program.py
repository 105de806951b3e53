"""How a program is started: arguments, environment, search of PATH, standard input, and what it inherits."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.sets.guest import wire
from tests.sets.guest.conftest import StartGuest
from tests.sets.guest.rig import ROOT, WORKER, Connection, Guest, User

Started = tuple[Guest, Connection]


def test_hello_comes_first_and_bears_the_token(guest: Started) -> None:
    _, connection = guest  # `greet` compared version and token
    assert Path(f"/proc/{connection.pid}/status").read_text().count("NSpid") == 1
    assert connection.run(b"/bin/true").end == (wire.EXITED, 0)


def test_inline_stdin_comes_back(guest: Started, actor: bytes, user: User) -> None:
    _, connection = guest
    for size in (0, 1, 4096, 4097, 61_440):
        body = os.urandom(size)
        result = connection.run(actor, b"cat", stdin=body)
        assert (result.end, result.stdout, result.stderr) == ((wire.EXITED, 0), body, b"")
        assert result.handed_over is False
        assert result.cleaned is None


def test_stdin_by_descriptor(start: StartGuest, actor: bytes, user: User) -> None:
    _, connection = start(user)
    body = os.urandom(1_000_000)
    read_end, write_end = os.pipe()
    connection.begin([actor, b"cat"], stdin_fd=read_end)
    os.close(read_end)

    def feed() -> None:
        with open(write_end, "wb") as pipe:
            pipe.write(body)

    feeder = threading.Thread(target=feed)
    feeder.start()
    result = connection.finish()
    feeder.join()
    assert (result.end, result.stdout) == ((wire.EXITED, 0), body)


def test_whoever_feeds_stdin_learns_that_nobody_reads(guest: Started, actor: bytes) -> None:
    _, connection = guest
    read_end, write_end = os.pipe()
    connection.begin([actor, b"half", b"500"], stdin_fd=read_end)
    os.close(read_end)
    with pytest.raises(BrokenPipeError), open(write_end, "wb", buffering=0) as pipe:
        pipe.writelines(itertools.repeat(bytes(65536)))
    assert connection.finish().stderr == b"after"


def test_a_program_that_does_not_read_its_input(guest: Started, actor: bytes) -> None:
    _, connection = guest
    body = bytes(61_440)
    assert connection.run(actor, b"exit", b"5", stdin=body).end == (wire.EXITED, 5)
    result = connection.run(actor, b"half", b"30", stdin=body)
    assert (result.end, result.stdout, result.stderr) == ((wire.EXITED, 0), b"before", b"after")


@pytest.mark.parametrize("code", [0, 1, 3, 127, 255])
def test_exit_codes(guest: Started, actor: bytes, code: int) -> None:
    assert guest[1].run(actor, b"exit", b"%d" % code).end == (wire.EXITED, code)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT, 40])
def test_signals(guest: Started, actor: bytes, number: int) -> None:
    assert guest[1].run(actor, b"raise", b"%d" % number).end == (wire.SIGNALLED, number)


def test_what_cannot_be_executed(start: StartGuest, actor: bytes, user: User) -> None:
    guest, connection = start(user)
    script = guest.inside(connection) / "script"

    def attempt(content: bytes, mode: int) -> tuple[int, int]:
        script.write_bytes(content)
        os.chown(script, user.uid, user.gid)
        script.chmod(mode)
        result = connection.run(guest.place() + b"/script")
        assert (result.stdout, result.stderr) == (b"", b"")
        assert result.cleaned == (True, 0)
        return result.end

    assert attempt(b"echo no shell is involved\n", 0o700) == (wire.NOT_EXECUTED, errno.ENOEXEC)
    assert attempt(b"#!/bin/true\n", 0o600) == (wire.NOT_EXECUTED, errno.EACCES)
    assert attempt(b"#!/nowhere\n", 0o700) == (wire.NOT_EXECUTED, errno.ENOENT)
    assert attempt(b"#!/bin/true\n", 0o700) == (wire.EXITED, 0)
    assert connection.run(b"/nowhere/program").end == (wire.NOT_EXECUTED, errno.ENOENT)
    assert connection.run(b"/etc/passwd/x").end == (wire.NOT_EXECUTED, errno.ENOTDIR)
    assert connection.run(b"/etc").end == (wire.NOT_EXECUTED, errno.EACCES)
    assert connection.run(actor, b"exit", b"0").end == (wire.EXITED, 0)


ELF_ELSEWHERE = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x16\x00" + bytes(64)


@pytest.mark.parametrize(
    ("content", "mode", "number", "why"),
    [
        (b"#!/bin/true\n", 0o600, errno.EACCES, 2),
        (b"#!/bin/sh\r\ncat\r\n", 0o700, errno.ENOENT, 3),
        (b"#!/nowhere\n", 0o700, errno.ENOENT, 4),
        (b"cat\n", 0o700, errno.ENOEXEC, 6),
        (b"", 0o700, errno.ENOEXEC, 6),
        (b"\x7fELF", 0o700, errno.ENOEXEC, 6),
        (ELF_ELSEWHERE, 0o700, errno.ENOEXEC, 7),
        (None, 0o700, errno.EACCES, 1),
    ],
)
@pytest.mark.parametrize("by_path", [False, True])
def test_why_a_file_cannot_be_executed(
    start: StartGuest, user: User, content: bytes | None, mode: int, number: int, why: int, by_path: bool
) -> None:
    guest, connection = start(user)
    script = guest.inside(connection) / "program"
    if content is None:
        script.mkdir()
    else:
        script.write_bytes(content)
    os.chown(script, user.uid, user.gid)
    script.chmod(mode)
    path = b"PATH=/nowhere:" + guest.place() + b":/usr/bin"
    result = connection.run(b"program" if by_path else guest.place() + b"/program", env=[path])
    assert (result.end, result.exit.why) == ((wire.NOT_EXECUTED, number), why)


def test_a_program_without_its_loader(start: StartGuest, user: User) -> None:
    guest, connection = start(user)
    program = guest.inside(connection) / "program"
    program.write_bytes(Path("/bin/true").read_bytes().replace(b"/lib64/ld-", b"/nowhere/l"))
    program.chmod(0o755)
    result = connection.run(guest.place() + b"/program")
    assert (result.end, result.exit.why) == ((wire.NOT_EXECUTED, errno.ENOENT), 5)


def test_a_program_that_is_missing_has_no_reason(guest: Started) -> None:
    for name in (b"/nowhere", b"nowhere", b"/etc/passwd/x", b""):
        assert guest[1].run(name).exit.why == 0
    result = guest[1].run(b"/bin/sh", b"-c", b"kill -SYS $$")
    assert (result.end, result.exit.why) == ((wire.SIGNALLED, signal.SIGSYS), 0)


def test_search_of_path(start: StartGuest, actor: bytes, actor_path: Path) -> None:
    folder = str(actor_path.parent)
    _, connection = start(WORKER, env=[f"PATH=/nowhere:/etc/passwd:/root:{folder}:/bin"])
    assert connection.run(b"actor", b"exit", b"4").end == (wire.EXITED, 4)
    assert connection.run(b"true").end == (wire.EXITED, 0)
    # /root may not be searched by this user: that is told only if nothing is found elsewhere.
    assert connection.run(b"no-such-program").end == (wire.NOT_EXECUTED, errno.EACCES)
    assert connection.run(b"actor", env=[b"PATH=/bin"]).end == (wire.NOT_EXECUTED, errno.ENOENT)
    assert connection.run(b"actor", b"exit", b"6", env=[b"PATH=/bin:" + bytes(actor_path.parent)]).end[1] == 6


def test_an_empty_part_of_path_is_the_working_directory(
    start: StartGuest, actor_path: Path, user: User
) -> None:
    guest, connection = start(user, cwd="tmp")
    program = guest.inside(connection) / "here"

    def attempt(path: bytes) -> tuple[int, int]:
        program.write_bytes(actor_path.read_bytes())
        os.chown(program, user.uid, user.gid)
        program.chmod(0o755)
        return connection.run(b"here", b"exit", b"8", env=[path]).end

    assert attempt(b"PATH=") == attempt(b"PATH=/bin:") == attempt(b"PATH=/x::/bin") == (wire.EXITED, 8)
    assert attempt(b"PATH=/bin") == (wire.NOT_EXECUTED, errno.ENOENT)


def test_an_empty_name_is_no_program(guest: Started) -> None:
    assert guest[1].run(b"").end == (wire.NOT_EXECUTED, errno.ENOENT)


def test_a_script_that_is_no_program_ends_the_search(start: StartGuest) -> None:
    guest, connection = start(ROOT)
    script = guest.inside(connection) / "true"
    script.write_bytes(b"not a program\n")
    script.chmod(0o755)
    result = connection.run(b"true", env=[b"PATH=" + guest.place() + b":/bin"])
    assert result.end == (wire.NOT_EXECUTED, errno.ENOEXEC)
    assert result.cleaned == (True, 0)


def test_environment_is_added_and_replaced(start: StartGuest, actor: bytes) -> None:
    _, connection = start(env=["A=1", "B=2", "EMPTY=", "AB=3"])

    def environment(*added: bytes) -> list[bytes]:
        return sorted(connection.run(actor, b"env", env=added).stdout.split(b"\0")[:-1])

    # The guest's shell in these tests adds PWD.
    known = [
        entry for entry in environment() if not entry.startswith((b"PWD=", b"OLDPWD=", b"_=", b"SHLVL="))
    ]
    assert known == [b"A=1", b"AB=3", b"B=2", b"EMPTY="]
    changed = environment(b"B=two=2", b"NEW=\xff\n\x01", b"A=")
    assert {b"A=", b"AB=3", b"B=two=2", b"EMPTY=", b"NEW=\xff\n\x01"} <= set(changed)
    assert b"A=1" not in changed
    assert b"B=2" not in changed
    assert environment() == environment()


def test_nothing_of_the_platform_is_in_the_environment(start: StartGuest, actor: bytes, user: User) -> None:
    kept = {"GC_TOKEN=1", "NOMAD_ADDR=image's", "GENERAL_COMPUTE_SLOT=x", "GENERAL_COMPUTE_SLOT_TOKENS=y"}
    _, connection = start(user, env=sorted(kept))
    given = connection.run(actor, b"env").stdout.split(b"\0")
    assert {entry.encode() for entry in kept} <= set(given)
    assert not [entry for entry in given if entry.startswith(b"GENERAL_COMPUTE_SLOT_TOKEN=")]
    # The token is not in the guest's memory where the kernel shows the environment, either.
    assert b"0123456789abcdef" not in Path(f"/proc/{connection.pid}/environ").read_bytes()


def test_an_orchestrators_variables_stay_out_unless_image_or_caller_set_them(
    start: StartGuest, actor: bytes
) -> None:
    _, connection = start(
        env=["NOMAD_TOKEN=secret", "NOMAD_ADDR=image's", "PATH=/bin:/usr/bin", "A=1", "AB=2", "EMPTY="],
        arguments=["--", "PATH", "NOMAD_ADDR", "AB", "EMPTY", "NOT_THERE"],
    )

    def environment(*added: bytes) -> list[bytes]:
        return sorted(connection.run(actor, b"env", env=added).stdout.split(b"\0")[:-1])

    named = [b"AB=2", b"EMPTY=", b"NOMAD_ADDR=image's", b"PATH=/bin:/usr/bin"]
    assert environment() == named
    assert environment(b"NOMAD_TOKEN=caller's") == sorted([*named, b"NOMAD_TOKEN=caller's"])


def test_a_guest_that_is_given_no_variables(start: StartGuest, actor: bytes) -> None:
    _, connection = start(env=["A=1"], arguments=["--"])
    assert connection.run(actor, b"env").stdout == b""


def test_arguments_of_any_bytes(guest: Started, actor: bytes) -> None:
    _, connection = guest
    every_byte = bytes(range(1, 256))
    arguments = [b"", every_byte, b"", b"a b", b"*", every_byte[::-1]]
    assert connection.run(actor, b"argv", *arguments).stdout == b"\0".join([b"argv", *arguments, b""])


def test_sixty_kilobytes_of_arguments_beside_sixty_of_input(guest: Started, actor: bytes) -> None:
    _, connection = guest
    one = bytes(1 + i % 255 for i in range(60_000))
    result = connection.run(actor, b"argv", one, stdin=bytes(61_440))
    assert result.stdout == b"argv\0" + one + b"\0"
    many = [b"%d" % i for i in range(8190)]
    assert connection.run(actor, b"argv", *many).stdout == b"\0".join([b"argv", *many, b""])


def test_the_most_strings(guest: Started, actor: bytes) -> None:
    _, connection = guest
    added = [b"V%d=" % i for i in range(8192 - 2)]
    result = connection.run(actor, b"env", env=added)
    assert set(added) <= set(result.stdout.split(b"\0"))
    room = wire.STRINGS_BYTES - len(actor) - len(b"exit") - len(b"7") - 3
    assert connection.run(actor, b"exit", b"7", b"x" * (room - 1)).end == (wire.EXITED, 7)


def own_limit(connection: Connection) -> list[int]:
    """The guest's soft and hard limit of descriptors."""
    limits = Path(f"/proc/{connection.pid}/limits").read_text().splitlines()
    return [int(word) for line in limits if line.startswith("Max open files") for word in line.split()[3:5]]


@pytest.mark.parametrize("descriptors", [16, 1024, 2000])
def test_the_program_has_its_own_limit_of_descriptors_and_the_guest_the_containers(
    start: StartGuest, actor: bytes, user: User, descriptors: int
) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    _, connection = start(user, descriptors=descriptors, before="ulimit -Sn 512")
    for stdin in (b"", bytes(61_440)):
        result = connection.run(actor, b"limit", stdin=stdin)
        assert result.stdout == b"%d %d 0" % (descriptors, descriptors)
    assert own_limit(connection) == [hard, hard]


def test_a_program_may_have_as_many_descriptors_as_its_container(start: StartGuest, actor: bytes) -> None:
    _, connection = start(WORKER, descriptors=1024, before="ulimit -n 1024")
    assert connection.run(actor, b"limit").stdout == b"1024 1024 0"
    assert own_limit(connection) == [1024, 1024]


def test_a_program_that_is_to_have_more_descriptors_than_its_container_is_refused(guest_binary: Path) -> None:
    guest = Guest(guest_binary, descriptors=1024, before="ulimit -n 1023")
    assert guest.ended() == 2
    assert guest.said() == "guest: 1024: more descriptors than the container may have\n"
    guest.close()


@pytest.mark.parametrize("descriptors", ["", "x", "2", "-1", "4096k", "99999999999"])
def test_a_limit_that_is_no_number_is_refused(guest_binary: Path, descriptors: str) -> None:
    guest = Guest(guest_binary, descriptors=descriptors)
    assert guest.ended() == 2
    assert "no number of descriptors" in guest.said()
    guest.close()


def limit(connection: Connection, user: User, what: str) -> None:
    """Set a soft limit of the guest, as its own user: the test may lack the right to do it as root."""
    as_user = ("setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups")
    subprocess.run([*as_user, "prlimit", f"--pid={connection.pid}", f"--{what}:"], check=True)


@pytest.mark.parametrize("room", range(6))
def test_a_lack_of_descriptors_is_not_the_programs_fault(
    start: StartGuest, actor: bytes, user: User, room: int
) -> None:
    """Three pipes need six; whichever is missing, nothing stays open."""
    _, connection = start(user)
    own = len(os.listdir(f"/proc/{connection.pid}/fd"))
    limit(connection, user, f"nofile={own + room}")
    for _ in range(3):
        assert connection.run(actor, b"cat", stdin=b"x").end == (wire.NOT_STARTED, errno.EMFILE)
    limit(connection, user, f"nofile={own + 6}")
    for _ in range(3):
        assert connection.run(actor, b"cat", stdin=b"x").stdout == b"x"


def test_a_lack_of_processes_is_not_the_programs_fault(start: StartGuest, actor: bytes) -> None:
    _, connection = start(WORKER)
    # Counted per user of the host: the guest is one already.
    limit(connection, WORKER, "nproc=1")
    for _ in range(3):
        assert connection.run(actor, b"cat", stdin=b"x").end == (wire.NOT_STARTED, errno.EAGAIN)
    limit(connection, WORKER, "nproc=1000")
    assert connection.run(actor, b"cat", stdin=b"x").stdout == b"x"


def test_nothing_is_inherited(start: StartGuest, actor: bytes, user: User) -> None:
    # The shell that starts the guest leaves it descriptors and ignored signals.
    _, connection = start(user, before="trap '' HUP PIPE CHLD USR1; exec 7</dev/null 9>/dev/null")
    for stdin_fd in (None, os.open("/dev/null", os.O_RDONLY)):
        result = connection.run(actor, b"fds", stdin_fd=stdin_fd, files=[b"/etc/passwd"])
        assert result.stdout == b"0 1 2 "
        result = connection.run(actor, b"signals", stdin_fd=stdin_fd)
        assert result.stdout == b"blocked 0;; pending"


def test_standard_descriptors_may_be_missing_at_the_start(start: StartGuest, actor: bytes) -> None:
    _, connection = start(before="exec <&- >&- 2>&-")
    result = connection.run(actor, b"fds", stdin=b"x")
    assert (result.stdout, result.stderr) == (b"0 1 2 ", b"")
    assert connection.run(actor, b"cat", stdin=b"input").stdout == b"input"


def test_session_user_directory_and_preference_of_the_oom_killer(
    start: StartGuest, actor: bytes, user: User
) -> None:
    guest, connection = start(user, cwd="tmp", before="umask 077")
    for _ in range(3):
        said = connection.run(actor, b"facts").stdout.decode()
        assert said.startswith(f"sid 1 of 1; parent 1; uid {user.uid}; cwd {guest.places[0]}; oom ")
        assert said.endswith("; umask 22")
        program, own = said.partition("oom ")[2].partition(";")[0].split()
        assert int(program) > int(own)


def test_oom_preference_where_the_score_cannot_be_lowered(
    start: StartGuest, actor: bytes, user: User
) -> None:
    """A slot's score is raised by its launcher, and the guest may not go below it."""
    _, connection = start(user, outer="echo 200 > /proc/self/oom_score_adj")
    for _ in range(3):
        said = connection.run(actor, b"facts").stdout.decode()
        program, own = said.partition("oom ")[2].partition(";")[0].split()
        assert own == "200"
        assert int(program) > 200


def test_the_account_of_a_task(guest: Started, actor: bytes) -> None:
    _, connection = guest
    told = connection.run(actor, b"doze", b"50").exit
    assert told.wall_us >= 50_000
    assert told.max_rss_kib > 0
    assert told.reaped_cpu_us < told.wall_us
    told = connection.run(b"/nowhere").exit
    assert told.guest_cpu_us < 1_000_000
