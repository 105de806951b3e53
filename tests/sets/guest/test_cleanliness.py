"""Nothing of one task is seen by the next: processes, writable places, and the state of process 1."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import pytest

from tests.sets.guest import wire
from tests.sets.guest.conftest import StartGuest
from tests.sets.guest.rig import ROOT, WAIT_S, WORKER, Connection, Guest, User, processes_of

Started = tuple[Guest, Connection]
RECVMSG = {"x86_64": 47, "aarch64": 212}[platform.machine()]


def test_children_that_still_write_are_ended(guest: Started, actor: bytes) -> None:
    _, connection = guest
    result = connection.run(actor, b"orphans", b"20")
    assert result.end == (wire.EXITED, 0)
    assert set(result.stdout) <= set(b"poured\n")
    assert processes_of(connection.pid) == [connection.pid]


def test_a_daemon_is_ended(start: StartGuest, actor: bytes, user: User) -> None:
    guest, connection = start(user)
    result = connection.run(actor, b"daemon", guest.place() + b"/log")
    assert (result.end, result.stdout) == ((wire.EXITED, 0), b"started")
    assert result.cleaned == (True, 0)
    assert processes_of(connection.pid) == [connection.pid]
    assert list(guest.inside(connection).iterdir()) == []


def test_as_many_children_as_are_allowed(start: StartGuest, actor: bytes) -> None:
    _, connection = start(WORKER, before="prlimit --pid $$ --nproc=300")
    for _ in range(3):
        result = connection.run(actor, b"crowd", b"1000")
        assert result.end == (wire.EXITED, 0)
        assert 200 < int(result.stdout) < 300
        assert processes_of(connection.pid) == [connection.pid]


def test_a_program_that_ignores_its_children(guest: Started, actor: bytes) -> None:
    _, connection = guest
    result = connection.run(actor, b"nochld", b"50")
    assert (result.end, result.stdout) == ((wire.EXITED, 0), b"done")
    assert processes_of(connection.pid) == [connection.pid]


def test_orphans_are_reaped_while_the_program_runs(start: StartGuest, actor: bytes) -> None:
    """Otherwise the dead would use up the slot's processes."""
    _, connection = start(WORKER, before="prlimit --pid $$ --nproc=100")
    assert connection.run(actor, b"churn", b"2000").stdout == b"done"


@pytest.mark.parametrize(
    "mess",
    [(b"deep", b"20000"), (b"many", b"100000"), (b"closed",), (b"names",)],
    ids=lambda mess: mess[0].decode(),
)
def test_leftovers_are_removed(start: StartGuest, actor: bytes, user: User, mess: tuple[bytes, ...]) -> None:
    guest, connection = start(user)
    for index in (1, 0):
        inside = guest.inside(connection, index)
        result = connection.run(actor, mess[0], guest.place(index), *mess[1:])
        assert (result.end, result.stderr) == ((wire.EXITED, 0), b"")
        assert result.exit.flags == wire.CLEANING
        assert result.cleaned == (True, 0)
        assert list(inside.iterdir()) == []
        assert inside.stat().st_mode & 0o7777 == 0o1777
    # Clean means clean: the next task is not followed by any cleaning.
    assert connection.run(actor, b"exit", b"0").cleaned is None


def test_places_without_a_count_of_inodes(start: StartGuest, actor: bytes, user: User) -> None:
    guest, connection = start(user, tmpfs="mode=1777,size=64m,nr_inodes=0")
    result = connection.run(actor, b"closed", guest.place())
    assert result.cleaned == (True, 0)
    assert list(guest.inside(connection).iterdir()) == []
    assert connection.run(actor, b"exit", b"0").cleaned is None


def test_a_full_place(start: StartGuest, actor: bytes, user: User) -> None:
    guest, connection = start(user, tmpfs="mode=1777,size=1m,nr_inodes=50")
    script = (
        b"cd %s; mkdir -p a/b/c; cat /dev/zero > a/b/c/big; i=0; while : > a/b/$i; do i=$((i+1)); done"
        % guest.place()
    )
    result = connection.run(b"/bin/sh", b"-c", script)
    assert b"No space left" in result.stderr
    assert result.cleaned == (True, 0)
    assert connection.run(actor, b"exit", b"0").cleaned is None


def test_links_out_of_a_place_lead_nowhere(start: StartGuest, user: User) -> None:
    guest, connection = start(user)
    kept = guest.listener.folder / "kept"
    kept.mkdir(mode=0o777)
    kept.chmod(0o777)
    script = b"cd %s; mkdir d; ln -s %s d/out; ln -s %s out; echo x > %s/file; chmod 0 d" % (
        guest.place(),
        bytes(kept),
        bytes(kept),
        bytes(kept),
    )
    assert connection.run(b"/bin/sh", b"-c", script).cleaned == (True, 0)
    assert (kept / "file").read_bytes() == b"x\n"
    assert kept.stat().st_mode & 0o777 == 0o777


def test_a_place_that_was_spoilt_itself(start: StartGuest, actor: bytes, user: User) -> None:
    guest, connection = start(user, outer=f"umask 0; chown {user.uid}:{user.gid} PLACES")
    before = connection.run(actor, b"look", guest.place()).stdout
    result = connection.run(actor, b"spoil", guest.place())
    assert (result.end, result.stderr) == ((wire.EXITED, 0), b"")
    assert result.cleaned == (True, 0)
    assert connection.run(actor, b"look", guest.place()).stdout == before
    assert connection.run(actor, b"exit", b"0").cleaned is None


def test_what_was_there_at_the_start_is_not_seen_either(start: StartGuest, user: User) -> None:
    guest, connection = start(user, before="mkdir PLACE/old; echo x > PLACE/old/file")
    assert list(guest.inside(connection).iterdir()) == []
    assert connection.run(b"/bin/true").cleaned is None


def test_a_guest_that_cannot_clean_says_so_and_ends(start: StartGuest, actor: bytes) -> None:
    guest, connection = start(WORKER)
    # Of another user, under the sticky bit: as a setuid program might leave it.
    (guest.inside(connection) / "foreign").write_bytes(b"")
    connection.begin([actor, b"exit", b"3"])
    result = connection.finish()
    assert result.end == (wire.EXITED, 3)
    assert result.cleaned == (False, 1)
    assert guest.ended() == 5


def test_a_lost_executor_and_a_place_that_stays_dirty(start: StartGuest, actor: bytes) -> None:
    guest, connection = start(WORKER)
    connection.begin([actor, b"pause"], stream=True)
    connection.output()
    (guest.inside(connection) / "foreign").write_bytes(b"")
    connection.close()
    assert guest.ended() == 5


def test_the_working_directory_within_a_place(start: StartGuest, actor: bytes, user: User) -> None:
    """The engine makes WORKDIR, as root, before the guest starts."""
    guest, connection = start(user, folders=["tmp/a/work"], cwd="tmp/a/work")
    work = guest.place() + b"/a/work"
    said = connection.run(actor, b"facts")
    assert b"cwd " + work + b";" in said.stdout
    assert said.cleaned is None
    script = b"touch %s/beside; mkdir -p %s/d/e" % (guest.place(), guest.place())
    assert connection.run(b"/bin/sh", b"-c", script).cleaned == (True, 0)
    assert [path.name for path in guest.inside(connection).rglob("*")] == ["a", "work"]
    assert b"cwd " + work + b";" in connection.run(actor, b"facts").stdout


@pytest.mark.parametrize(
    "script",
    [
        b"rm -r a",
        b"rmdir a/work",
        b"mv a b",
        b"mv a/work a/b; mkdir a/work",
        b"rm -r a; ln -s / a",
        b"rm -r a; mkdir -p a/work; (cd a/work; mkdir more); chmod 0 a/work",
        b"rm -r a; touch a",
        b"chmod 0 a/work; chmod 0 a",
        b"mkdir x; mv a x/a; mkdir a",
    ],
    ids=bytes.decode,
)
def test_a_working_directory_of_its_own_that_the_program_takes_away(
    start: StartGuest, actor: bytes, user: User, script: bytes
) -> None:
    guest, connection = start(
        user, folders=["tmp/a/work"], cwd="tmp/a/work", outer=f"chown -R {user.uid}:{user.gid} PLACES"
    )
    place, work = guest.place(), guest.place() + b"/a/work"
    for _ in range(2):
        result = connection.run(b"/bin/sh", b"-c", b"cd %s; %s" % (place, script))
        assert (result.end, result.stderr, result.cleaned) == ((wire.EXITED, 0), b"", (True, 0))
        assert sorted(path.name for path in guest.inside(connection).rglob("*")) == ["a", "work"]
        looked = connection.run(actor, b"look", work)
        assert looked.stdout.startswith(b"40755 %d:%d 0 " % (user.uid, user.gid))
        assert b"cwd " + work + b";" in connection.run(actor, b"facts").stdout
        assert looked.cleaned is None


def test_a_place_within_a_place(start: StartGuest, actor: bytes, user: User) -> None:
    guest, connection = start(user, places=["data", "data/far/cache"])
    outer, inner = guest.place(0), guest.place(1)
    assert connection.run(actor, b"exit", b"0").cleaned is None
    script = b"touch %s/x %s/x; mkdir -p %s/far2/d %s/d/e" % (outer, inner, outer, inner)
    for _ in range(2):
        result = connection.run(b"/bin/sh", b"-c", script)
        assert (result.end, result.stderr, result.cleaned) == ((wire.EXITED, 0), b"", (True, 0))
        assert sorted(path.name for path in guest.inside(connection).rglob("*")) == ["cache", "far"]
    assert connection.run(actor, b"exit", b"0").cleaned is None


def test_a_place_that_is_no_folder_is_refused(guest_binary: Path) -> None:
    for place, said in [(b"relative", "absolute"), (b"/etc/passwd", "Not a directory"), (b"//", "absolute")]:
        guest = Guest(guest_binary, WORKER, arguments=[place.decode()])
        assert guest.ended() == 2
        assert said in guest.said()
        guest.close()


def test_a_place_that_does_not_exist_is_none(start: StartGuest) -> None:
    _, connection = start(WORKER, arguments=["/nowhere/at/all"])
    assert connection.run(b"/bin/true").end == (wire.EXITED, 0)


def test_nothing_can_be_left_on_process_1(start: StartGuest, actor: bytes, user: User) -> None:
    _, connection = start(user)
    before = connection.run(actor, b"inherited").stdout
    # Not one of the attempts may succeed.
    assert connection.run(actor, b"tamper").stdout == b"0" * 10
    assert connection.run(actor, b"inherited").stdout == before
    # Other processes may still be told what to do.
    assert connection.run(b"/usr/bin/nice", b"-n", b"5", b"/usr/bin/nice").stdout == b"5\n"
    assert (
        connection.run(b"/usr/bin/prlimit", b"--nofile=64", b"/bin/sh", b"-c", b"ulimit -n").stdout == b"64\n"
    )


def test_root_leaves_no_word_in_the_files_of_process_1(start: StartGuest, actor: bytes, user: User) -> None:
    _, connection = start(user)
    before = connection.run(actor, b"inherited").stdout
    for _ in range(3):
        result = connection.run(actor, b"mark")
        # To root these files belong; to others they do not.
        assert (result.stdout.splitlines()[1] == b"00000007") == (user is ROOT)
        assert result.cleaned is None
        assert connection.run(actor, b"inherited").stdout == before


def test_ten_thousand_tasks_leave_no_trace_in_the_guest(start: StartGuest, actor: bytes) -> None:
    guest, connection = start(WORKER)
    script = b"echo x > %s/x; echo y" % guest.place()

    def ordinary() -> None:
        connection.run(actor, b"cat", stdin=b"x" * 5000)
        connection.run(b"/nowhere")
        connection.run(b"/bin/sh", b"-c", script, files=[guest.place() + b"/x", b"/missing"])
        connection.run(actor, b"write", b"1", b"70000", b"3")
        read_end, write_end = os.pipe()
        os.close(write_end)
        connection.run(actor, b"cat", stdin_fd=read_end, stream=True)
        os.close(read_end)

    def state() -> tuple[list[str], int]:
        # The guest closes what was the task's right after it has told of its end.
        idle = f"{RECVMSG} "
        deadline = time.monotonic() + WAIT_S
        while not Path(f"/proc/{connection.pid}/syscall").read_text().startswith(idle):
            assert time.monotonic() < deadline
        status = Path(f"/proc/{connection.pid}/status").read_text()
        resident_kib = int(status.split("RssAnon:")[1].split()[0])
        return sorted(os.listdir(f"/proc/{connection.pid}/fd")), resident_kib

    for _ in range(20):
        ordinary()
    descriptors, resident_kib = state()
    for i in range(10_000):
        if i % 50:
            assert connection.run(actor, b"exit", b"3").end == (wire.EXITED, 3)
        else:
            ordinary()
    assert state()[0] == descriptors
    # Sanitizers keep what was freed; the guest itself frees nothing, because it takes nothing.
    assert state()[1] <= resident_kib + (0 if "GUEST_BINARY" not in os.environ else 4096)
    assert connection.number == 10_000 + 4 * 200 + 5 * 20
