"""A machine that is gone is told from a set that takes long or does not read, on real wires that are cut."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from router.wire.limits import Limits
from router.wire.silence import PROBE_AFTER_S, PROBE_EVERY_S, PROBES, is_gone, probe, shows_gone
from tests.cluster.network import Network, why_not

SILENT_S = 4.0
"""Longer than the first probe is away; the second one goes out a little later."""
PATIENCE_S = 120.0
wires = pytest.mark.skipif(bool(why := why_not()), reason=why or "-")


def info(*, repeated: int = 0, probed: int = 0, data_ms: int = 60_000, answer_ms: int = 60_000) -> bytes:
    """What the kernel tells of a connection: the fields that count, in their places."""
    return struct.pack("=BBBB", 1, 0, repeated, probed) + bytes(48) + struct.pack("=II", data_ms, answer_ms)


@pytest.mark.parametrize("how", [{"repeated": 2}, {"probed": 2}, {"probed": 7}])
def test_questions_without_an_answer_for_long_enough(how: dict[str, int]) -> None:
    assert shows_gone(info(**how), 10)
    assert not shows_gone(info(**how), 61)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"probed": 1},
        {"repeated": 5, "answer_ms": 9_000},
        {"repeated": 5, "data_ms": 9_000},
    ],
)
def test_silence_that_nobody_broke_and_answers_of_late_are_no_sign(how: dict[str, int]) -> None:
    assert not shows_gone(info(**how), 10)


def test_what_cannot_be_read_is_no_sign() -> None:
    assert not shows_gone(info(repeated=9)[:-1], 10)
    assert not is_gone(socket.socket(socket.AF_UNIX), 0)


class Line:
    """Two hosts with connections from `router` to `set`."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._opened = contextlib.ExitStack()
        address = (network.address("set"), 80)
        self._listener = self._opened.enter_context(
            network.on("set", lambda: socket.create_server(address, backlog=8))
        )

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """A connection: the router's end, and the set's."""

        def connected() -> socket.socket:
            made = socket.socket()
            probe(made)
            made.settimeout(PATIENCE_S)
            made.connect(self._listener.getsockname())
            return made

        near = self._opened.enter_context(self.network.on("router", connected))
        far, _ = self._listener.accept()
        return near, self._opened.enter_context(far)

    def close(self) -> None:
        self._opened.close()


@pytest.fixture
def line() -> Iterator[Line]:
    with Network(("router", "set")) as network:
        line = Line(network)
        yield line
        line.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answered_ms(sock: socket.socket) -> int:
    """How long ago the kernel heard from the peer."""
    found: int = struct.unpack_from("=I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60), 56)[0]
    return found


@wires
def test_a_cut_machine_is_gone_if_asked_or_sent_to_and_a_silent_one_is_not(line: Line) -> None:
    waiting, sending, idle = (line.connect()[0] for _ in range(3))
    # The kernel does not end this one while a slow machine looks away.
    waiting.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 100)
    # A long task on a sound wire: the kernel asks once, is answered, and both are silent again.
    until(lambda: answered_ms(waiting) > 1000)
    until(lambda: answered_ms(waiting) < 1000)
    assert not is_gone(waiting, SILENT_S)
    line.network.cut("set")
    sending.sendall(b"a request")
    assert not is_gone(sending, SILENT_S)
    until(lambda: is_gone(waiting, SILENT_S))
    until(lambda: is_gone(sending, SILENT_S))
    # The kernel by itself ends one that nobody looks at, such as an idle one that is kept.
    with pytest.raises(OSError, match="timed out"):
        idle.recv(1)


@wires
def test_a_peer_that_does_not_read_is_not_gone(line: Line) -> None:
    near, _ = line.connect()
    near.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            near.send(bytes(1 << 16))
    # It is asked again and again, and answers that there is no room.
    for _ in range(3):
        until(lambda: answered_ms(near) > 1000)
        assert not is_gone(near, SILENT_S)
        until(lambda: answered_ms(near) < 1000)
        assert not is_gone(near, SILENT_S)
    line.network.cut("set")
    until(lambda: is_gone(near, SILENT_S))


def test_several_probes_fit_into_the_usual_limit() -> None:
    assert PROBE_AFTER_S + PROBE_EVERY_S < Limits().peer_silent_s <= PROBE_AFTER_S + PROBE_EVERY_S * PROBES
