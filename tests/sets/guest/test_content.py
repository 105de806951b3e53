"""A place that begins with content: the program may change all of it, and the next task finds it as it was."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scheduler.images.content import MAX_ENTRIES, Entry, Kind, packed
from scheduler.images.places import HOME_FOLDERS
from tests.sets.guest import wire
from tests.sets.guest.conftest import StartGuest
from tests.sets.guest.rig import Connection, Guest, User

CONTENT = (
    Entry("home", Kind.FOLDER, mode=0o750),
    Entry("home/.profile", Kind.FILE, mode=0o600, mtime_s=1_000_000_000, data=b"profile"),
    Entry("home/.cache", Kind.FOLDER, mode=0o755, mtime_s=1_000_000_001),
    Entry("home/.cache/link", Kind.LINK, mtime_s=1_000_000_002, data=b"model/v1"),
    Entry("home/.cache/model", Kind.FOLDER, mode=0o555, mtime_s=1_000_000_003),
    Entry("home/.cache/model/v1", Kind.FILE, mode=0o640, mtime_s=1_000_000_004, data=b"weights" * 10_000),
    Entry("home/empty", Kind.FILE, mode=0o400, mtime_s=1_000_000_005),
)
LIST = "find . -printf '%P %y %m %s %T@ %n %l;\\n' | sort; cat .profile; cksum .cache/link; id -u >&2"
LISTED = """\
 d 750 100 {top} 3 ;
.cache d 755 80 1000000001.0000000000 3 ;
.cache/link l 777 8 1000000002.0000000000 1 model/v1;
.cache/model d 755 60 1000000003.0000000000 2 ;
.cache/model/v1 f 640 70000 1000000004.0000000000 1 ;
.profile f 600 7 1000000000.0000000000 1 ;
empty f 400 0 1000000005.0000000000 1 ;
profile"""


def tmpfs(user: User) -> str:
    """Places as the launcher makes them: the USER's."""
    return f"mode=1777,size=64m,nr_inodes=10k,noatime,uid={user.uid},gid={user.gid}"


def shell(connection: Connection, script: str, guest: Guest) -> str:
    result = connection.run(b"/bin/sh", b"-c", b"cd " + guest.place() + b" && " + script.encode())
    assert result.end == (wire.EXITED, 0), result.stderr
    assert result.cleaned in (None, (True, 0))
    return result.stdout.decode()


def start_with_content(start: StartGuest, user: User) -> tuple[Guest, Connection, str]:
    guest, connection = start(user, places=("home", "tmp"), content=CONTENT, tmpfs=tmpfs(user))
    listed = shell(connection, LIST, guest)
    # A folder that can not be written to could not be emptied either.
    assert ".cache/model d 755" in listed
    return guest, connection, listed


def test_it_is_there_as_the_image_has_it(start: StartGuest, user: User) -> None:
    guest, connection, listed = start_with_content(start, user)
    top = listed.partition("\n")[0].split()[3]
    checksum = subprocess.run(["cksum"], input=b"weights" * 10_000, stdout=subprocess.PIPE, check=True).stdout
    assert listed == LISTED.format(top=top) + checksum.decode().rstrip("\n") + " .cache/link\n"
    result = connection.run(b"/bin/sh", b"-c", b"cat " + guest.place() + b"/.cache/link")
    # Reading is no change.
    assert (result.stdout, result.cleaned) == (b"weights" * 10_000, None)


@pytest.mark.parametrize(
    "change",
    [
        "echo more >> .profile",
        "printf PROFILE 1<> .profile",
        "printf PROFILE 1<> .profile; touch -d @1000000000 .profile",
        "rm .profile && printf profile > .profile && chmod 600 .profile && touch -d @1000000000 .profile",
        "chmod 640 .profile",
        "chmod u+w empty && echo full > empty",
        "touch -d @5 empty",
        "touch -a -d @5 .cache/model/v1",
        "touch -h -d @5 .cache/link",
        "touch -d @5 .cache/model",
        "chmod 700 .cache/model && touch .cache/model/new",
        "rm -r .cache",
        "mv .cache .kept && ln -s .kept .cache",
        "rm -r .cache && ln -s /proc .cache",
        "rm .cache/link && ln -s model/v2 .cache/link",
        "ln .profile .again && rm empty",
        "mv .profile .p && mv .p .profile",
        "rm .cache/model/v1 && mkfifo .cache/model/v1",
        "mkdir -p deep/er && mv .cache deep/er",
        "rm -rf * .[a-z]*; chmod 0 .",
        "rm -r .cache && echo > .cache",
        "touch new && chmod 700 .",
    ],
)
def test_whatever_a_task_does_the_next_finds_it_as_it_was(start: StartGuest, user: User, change: str) -> None:
    guest, connection, listed = start_with_content(start, user)
    for _ in range(2):
        # The change is the very first thing that happens after the content was written again.
        result = connection.run(b"/bin/sh", b"-c", b"cd " + guest.place() + b" && " + change.encode())
        assert (result.end, result.stderr) == ((wire.EXITED, 0), b"")
        assert result.cleaned == (True, 0)
    again = connection.run(b"/bin/sh", b"-c", b"cd " + guest.place() + b" && " + LIST.encode())
    assert again.stdout.decode().splitlines()[1:] == listed.splitlines()[1:]
    assert again.stdout.decode().split()[:3] == listed.split()[:3]
    assert again.cleaned is None


def test_a_store_into_a_mapped_file_which_leaves_no_trace_in_its_times(
    start: StartGuest, actor: bytes, user: User
) -> None:
    guest, connection, _ = start_with_content(start, user)
    path = guest.place() + b"/.cache/model/v1"
    for _ in range(2):
        result = connection.run(actor, b"store", path)
        assert (result.end, result.stderr) == ((wire.EXITED, 0), b"")
        assert result.cleaned == (True, 0)
        assert connection.run(b"/bin/cat", path).stdout == b"weights" * 10_000


def test_a_store_behind_the_end_of_a_mapped_file(start: StartGuest, actor: bytes, user: User) -> None:
    """It changes no byte of the file, but every program that maps the file can read it."""
    guest, connection, _ = start_with_content(start, user)
    path = guest.place() + b"/.profile"
    for _ in range(2):
        result = connection.run(actor, b"store", path)
        assert (result.end, result.stderr) == ((wire.EXITED, 0), b"")
        after = connection.run(actor, b"stored", path)
        assert (after.stdout, after.cleaned) == (b"0", None)
        assert result.cleaned == (True, 0)


def test_a_file_that_was_kept_is_the_next_program_s_unchanged(start: StartGuest, user: User) -> None:
    """The executor has read it before the next program starts, even one that is started ahead."""
    guest, connection, _ = start_with_content(start, user)
    path = guest.place() + b"/.profile"
    for _ in range(2):
        before = connection.run(b"/usr/bin/stat", b"-c", b"%i", path, files=[path])
        assert (before.files, before.cleaned) == ([b"profile"], (True, 0))
        after = connection.run(b"/usr/bin/stat", b"-c", b"%i", path)
        assert after.stdout == before.stdout
        assert after.cleaned is None


def test_a_task_that_only_reads_costs_no_cleaning(start: StartGuest, user: User) -> None:
    guest, connection, _ = start_with_content(start, user)
    for _ in range(3):
        assert connection.run(b"/bin/cat", guest.place() + b"/.profile").cleaned is None


def test_places_within_it(start: StartGuest, user: User) -> None:
    """A place of its own within a HOME, as a WORKDIR there is, begins with its part of the content."""
    guest, connection = start(
        user, places=("home", "home/.cache", "home/.cache/model", "tmp"), content=CONTENT, tmpfs=tmpfs(user)
    )
    within = guest.place(2)
    for script in (
        b"rm v1; echo > new",
        b"rm -r ../link; touch ../../new",
        b"rm -rf ../../.profile",
        b"true",
    ):
        result = connection.run(
            b"/bin/sh", b"-c", b"cd " + within + b" && find .. ../../.profile && " + script
        )
        assert result.end == (wire.EXITED, 0), result.stderr
        assert sorted(result.stdout.decode().split()) == [
            "..",
            "../../.profile",
            "../link",
            "../model",
            "../model/v1",
        ]
        assert result.cleaned == (None if script == b"true" else (True, 0))


def test_as_many_entries_as_there_may_be(start: StartGuest, user: User) -> None:
    files = [Entry(f"home/{n}", Kind.FILE, data=b"%d" % n) for n in range(MAX_ENTRIES - 1)]
    guest, connection = start(user, places=("home",), content=(CONTENT[0], *files), tmpfs=tmpfs(user))
    for _ in range(2):
        assert shell(connection, "cat 0 1 254; ls | wc -l; rm *", guest) == f"01254{MAX_ENTRIES - 1}\n"


def test_as_many_entries_in_each_of_the_folders_that_stand_for_a_large_home(
    start: StartGuest, user: User
) -> None:
    names = [f"home/{n}" for n in range(len(HOME_FOLDERS))]
    content = [
        entry
        for name in names
        for entry in (
            Entry(name, Kind.FOLDER),
            *(Entry(f"{name}/{n}", Kind.FILE, data=b"x") for n in range(MAX_ENTRIES - 1)),
        )
    ]
    guest, connection = start(user, places=tuple(names), content=content, tmpfs=tmpfs(user))
    for _ in range(2):
        assert shell(connection, "cat ../?/* | wc -c; rm *", guest) == f"{(MAX_ENTRIES - 1) * len(names)}\n"


@pytest.mark.parametrize(
    "broken",
    [
        b"x",
        packed(CONTENT)[:-1],
        packed([Entry("/nowhere/x", Kind.FILE)]),
        packed([Entry("relative", Kind.FILE)]),
        packed([Entry("/tmp/a\0b", Kind.FILE)]),
    ],
)
def test_content_that_makes_no_sense_is_no_start(guest_binary: Path, broken: bytes) -> None:
    guest = Guest(guest_binary, content=broken)
    assert guest.ended() == 2
    guest.close()
