"""Fixtures: the built guest, the program that it runs, and guests that are started and ended."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sets.guest import GUEST_BINARY
from tests.sets.guest.rig import ROOT, WORKER, Connection, Guest, User
from tests.sets.guest.wire import UNDRESSED

HERE = Path(__file__).parent
SOURCES = Path(__file__).parents[3]

StartGuest = Callable[..., tuple[Guest, Connection]]


@pytest.fixture(scope="session")
def guest_binary() -> Path:
    """The guest that `python setup.py build_guest` builds, or the one that GUEST_BINARY names."""
    named = os.environ.get("GUEST_BINARY")
    if named:
        return Path(named)
    subprocess.run([sys.executable, "setup.py", "-q", "build_guest"], cwd=SOURCES, check=True)
    return GUEST_BINARY


@pytest.fixture(scope="session")
def actor_path() -> Iterator[Path]:
    """The program of `actor/`, where every user may run it."""
    folder = Path(tempfile.mkdtemp(prefix="gca"))
    folder.chmod(0o755)
    program = folder / "actor"
    flags = ("-static", "-O1", "-Wall", "-Wextra", "-Werror")
    subprocess.run(["cc", *flags, "-o", program, *sorted((HERE / "actor").glob("*.c"))], check=True)
    yield program
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def actor(actor_path: Path) -> bytes:
    return bytes(actor_path)


@pytest.fixture
def start(guest_binary: Path) -> Iterator[StartGuest]:
    """`start(USER, …)` gives a guest and its connection, hello checked; options as of `Guest`."""
    if os.geteuid() != 0:
        pytest.skip("a guest under test needs namespaces of its own: run as root")
    started: list[tuple[Guest, Connection]] = []

    def start(user: User = ROOT, **options: object) -> tuple[Guest, Connection]:
        guest = Guest(guest_binary, user, **options)  # type: ignore[arg-type]
        try:
            connection = guest.listener.greet(UNDRESSED if options.get("undressed") else 0)
        except BaseException:
            guest.process.kill()
            print(guest.said())
            guest.close()
            raise
        started.append((guest, connection))
        return guest, connection

    yield start
    for guest, connection in started:
        connection.close()
        guest.close()


@pytest.fixture(params=[ROOT, WORKER], ids=lambda user: user.name)
def user(request: pytest.FixtureRequest) -> User:
    """Images run as root or as a USER: each test runs for both."""
    found = request.param
    assert isinstance(found, User)
    return found


@pytest.fixture
def guest(start: StartGuest) -> tuple[Guest, Connection]:
    """A guest as root, for what cannot depend on the user."""
    return start(ROOT)
