"""Netlink sockets, whose memory is charged to nobody: the guest makes each one, and bounds how many live."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sets.guest import wire
from tests.sets.guest.conftest import StartGuest
from tests.sets.guest.rig import Connection, User, processes_of
from tests.sets.guest.test_prestart import is_prestarted, run, waiting

BOUND_BYTES = 16 << 20
EXCESS_BYTES = 65536


@pytest.fixture
def connection(start: StartGuest, user: User) -> Connection:
    """Of a guest with a network of its own, as a slot has: the kernel counts these sockets for each network."""
    _, connection = start(user, namespaces=["--net"])
    return connection


def most() -> int:
    """So many sockets a slot may have."""
    default_bytes = int(Path("/proc/sys/net/core/rmem_default").read_text())
    return BOUND_BYTES // (default_bytes + EXCESS_BYTES)


def test_a_program_gets_as_many_as_fit_the_bound_and_each_task_again(
    connection: Connection, actor: bytes
) -> None:
    for _ in range(3):
        assert connection.run(actor, b"netlink", b"take").stdout == b"%d ENOBUFS" % most()


def test_what_is_closed_does_not_count(connection: Connection, actor: bytes) -> None:
    assert connection.run(actor, b"netlink", b"again", b"500").stdout == b"500 "


def test_flags_and_options_are_as_asked_but_for_the_buffers_size(
    connection: Connection, actor: bytes
) -> None:
    said = connection.run(actor, b"netlink", b"flags").stdout
    assert said == b"cloexec 0 1 nonblock 0 1 passcred 1 rcvbuf kept"


def test_a_program_that_waits_for_its_task_gets_one(connection: Connection, actor: bytes) -> None:
    command = [actor, b"netlink", b"ahead"]
    assert not is_prestarted(run(connection, command))
    for _ in range(2):
        waiting(connection)
        result = run(connection, command)
        assert (result.end, result.stdout) == ((wire.EXITED, 0), b"in")
        assert is_prestarted(result)


def test_many_that_ask_at_once_leave_no_process(connection: Connection, actor: bytes) -> None:
    script = b"for i in 1 2 3 4 5 6 7 8; do %s netlink again 100000 & done; %s netlink again 20" % (
        actor,
        actor,
    )
    result = connection.run(b"/bin/sh", b"-c", script)
    assert (result.end, result.stdout) == ((wire.EXITED, 0), b"20 ")
    assert processes_of(connection.pid) == [connection.pid]


def test_where_the_kernel_cannot_ask_the_guest_nobody_gets_one(
    start: StartGuest, user: User, actor: bytes
) -> None:
    """Another filter asks already, and there may be one such."""
    _, connection = start(user, before=f'exec {actor.decode()} listen "$@"', namespaces=["--net"])
    assert connection.run(actor, b"netlink", b"take").stdout == b"0 ENOBUFS"
    assert connection.run(actor, b"cat", stdin=b"all else is as usual").stdout == b"all else is as usual"
