"""Shared by all parts of the bench: the upstream, the load, the proxies and the rounds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Final, Self, TypeVar

from ops.bench.figures import Figure, Say
from ops.bench.stack import BenchFailed, free_port
from ops.bench_router import programs, proxies
from ops.bench_router.load import Loader
from ops.bench_router.machine import Cores, available_cores, pinned
from ops.bench_router.server import Server
from ops.setup.engine import ROOT

T = TypeVar("T")
LOGGED: Final = 0.99
"""Minimum share of requests that a proxy must log; one that logs less saves work, and a note says so."""


class Bench:
    """Use as a context manager; its state is in a folder under var/ that is removed afterwards."""

    def __init__(self, say: Say) -> None:
        self.say = say
        try:
            self.cores = Cores.of(available_cores())
        except ValueError as error:
            raise BenchFailed(str(error)) from None

    def __enter__(self) -> Self:
        (ROOT / "var").mkdir(exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix="bench-router-", dir=ROOT / "var")
        self.folder = Path(self._folder.name)
        # nginx's worker drops root, and must still reach its folder.
        self.folder.chmod(0o755)
        try:
            self.loader = Loader(self.cores.load, self.folder)
            port = free_port()
            command = pinned(self.cores.upstream, str(programs.compiled("upstream")), str(port))
            self.upstream = Server("upstream", command, self.folder, port)
            self.upstream.start()
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.upstream.stop()
        self._folder.cleanup()

    @contextmanager
    def proxies(self, *names: str) -> Iterator[dict[str, Server]]:
        """Start the available ones on the proxies' core; `router` must be available."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        folder.chmod(0o755)
        with proxies.running(names, folder, self.upstream.port, self.cores.proxy, self.say) as servers:
            yield servers
        for server in servers.values():
            server.collect_log()
            if server.logged < LOGGED * server.requests:
                self.say(f"note: {server.name} logged {server.logged:,} of {server.requests:,} requests")


def turns(names: Sequence[str], rounds: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the names for each round. Each round starts with another name, so that other load on the
    machine affects all alike."""
    for number in range(rounds):
        at = number % len(names)
        yield number, [*names[at:], *names[:at]]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the rounds' ratios."""
    return median(our / their for our, their in zip(ours, theirs, strict=True))


def at_most(what: str, value: float, limit: float, unit: str = "×", digits: int = 2) -> Figure:
    return Figure(what, value, f"{value:.{digits}f} {unit}", f"≤ {limit:g} {unit}", value <= limit)


def at_least(what: str, value: float, limit: float, unit: str = "×") -> Figure:
    return Figure(what, value, f"{value:.2f} {unit}", f"≥ {limit:g} {unit}", value >= limit)


def below(what: str, value: float, limit: float, unit: str = "×") -> Figure:
    return Figure(what, value, f"{value:.2f} {unit}", f"< {limit:g} {unit}", value < limit)


def row(values: Mapping[str, Sequence[T]], read: Callable[[T], float], form: str) -> str:
    """Return `name median` for each name, for a progress line."""
    return ", ".join(f"{name} {median(map(read, shots)):{form}}" for name, shots in values.items() if shots)
