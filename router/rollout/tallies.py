"""Tallies of all workers, shared through files: each writes its own, the leader reads them all.

A file outlives its process, so that a restart loses a few seconds of evidence, not the step's. Files of another
stint count nothing and are removed.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from router.counting.tally import Tally, total
from router.rollout.glide import Load
from router.rollout.statefile import write_whole

MAX_FILES: Final = 64
MAX_FILE_BYTES: Final = 512 * 1024
STALE_S: Final = 15.0
"""Age, in seconds, after which a worker's count of requests in flight is ignored."""


class Seen(msgspec.Struct):
    """One worker's view: its tallies of a stint, and how many requests it has in flight at each set."""

    stint: int
    at: float
    canary: Tally
    control: Tally
    inflight: dict[str, int] = {}
    max_inflight: dict[str, int] = {}


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Seen)


class Tallies:
    """The folder of tally files; `mine` names this worker's, the same never used by two living ones."""

    def __init__(self, folder: Path, mine: str) -> None:
        self._folder = folder
        self._path = folder / f"{mine}.tally"

    def write(self, seen: Seen) -> None:
        """Put this worker's view in its file. Not synced: a power cut may cost evidence, never progress. `OSError`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._path.with_suffix(".new"), self._path, _encoder.encode(seen), sync=False)

    def read(self, stint: int) -> list[Seen]:
        """Every worker's view of a stint; files that are damaged, of another stint, or too many are removed."""
        found: list[tuple[float, Path]] = []
        with contextlib.suppress(OSError):
            for path in self._folder.glob("*.tally"):
                with contextlib.suppress(OSError):
                    found.append((path.stat().st_mtime, path))
        views = []
        for age, (_, path) in enumerate(sorted(found, reverse=True)):
            view = _load(path) if age < MAX_FILES else None
            if view is None or view.stint < stint:
                if path != self._path:
                    with contextlib.suppress(OSError):
                        os.unlink(path)
            elif view.stint == stint:
                views.append(view)
        return views


def _load(path: Path) -> Seen | None:
    try:
        with path.open("rb") as file:
            return _decoder.decode(file.read(MAX_FILE_BYTES))
    except (OSError, msgspec.MsgspecError):
        return None


def cohorts(views: list[Seen], now: float) -> tuple[Tally, Tally]:
    """Canary and control over all workers. Requests that were open at a worker which no longer writes are over."""
    for view in views:
        if abs(now - view.at) > STALE_S:
            view.canary.open = {}
            view.control.open = {}
            view.canary.witnesses = ()
    return total(view.canary for view in views), total(view.control for view in views)


def loads(views: list[Seen], now: float) -> dict[str, Load]:
    """Each set's requests in flight, and the room for them, over all workers that write."""
    inflight: dict[str, int] = {}
    limits: dict[str, int] = {}
    for view in views:
        if abs(now - view.at) > STALE_S:
            continue
        for name, count in view.inflight.items():
            inflight[name] = inflight.get(name, 0) + count
        for name, limit in view.max_inflight.items():
            limits[name] = limits.get(name, 0) + limit
    return {name: Load(count, limits.get(name)) for name, count in inflight.items()}
