"""Every configuration that was in force, with when and by whom; kept in the router's state folder, bounded.

`live.jsonl` has one line for each change, oldest first: a file that came into force, or weights that a rollout put
over it. The files' bytes lie beside it, each under its SHA-256, once. All workers of a router write here: under a
lock, and a change that the last line tells already is not told again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from router.config.reader import ConfigError, load
from router.errors import RouterError
from router.routing.table import Table, Weights

KEEP_CHANGES: Final = 500
KEEP_BYTES: Final = 64 * 1024 * 1024
INDEX: Final = "live.jsonl"
_ENCODER: Final = msgspec.json.Encoder()
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class HistoryError(RouterError):
    """The history of configurations cannot be read or written."""


class NoSuchVersion(HistoryError):
    """No such version was in force."""


class Change(msgspec.Struct, frozen=True):
    """A change that came into force `at` (seconds since 1970).

    `weights`: the default weights in hundredths of a percent where a rollout put them over the file's, else None.
    """

    at: float
    version: int
    digest: str
    by: str = ""
    why: str = ""
    weights: dict[str, int] | None = None


class History(msgspec.Struct, frozen=True):
    """The history in `folder`, which is made when the first change is recorded."""

    folder: Path
    keep_changes: int = KEEP_CHANGES
    keep_bytes: int = KEEP_BYTES

    def record(self, text: bytes, table: Table, now: float) -> bool:
        """Record that a file came into force at `now` (wall clock). Returns False if the last change says so already.
        Raises `HistoryError` if it cannot be written."""
        change = Change(now, table.version, table.digest, table.changed_by, table.changed_why)
        return self._append(change, text)

    def record_weights(self, table: Table, by: str, why: str, now: float) -> bool:
        """Record that a rollout's weights came into force over the file's. Raises `HistoryError`."""
        shares = {name: share for name, share in table.default.shares.items() if share}
        return self._append(Change(now, table.version, table.digest, by, why, shares), None)

    def changes(self) -> list[Change]:
        """Return all changes that are kept, oldest first; lines that cannot be read are left out. Raises
        `HistoryError`."""
        try:
            lines = (self.folder / INDEX).read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise HistoryError(f"{self.folder / INDEX} cannot be read: {error.strerror}") from error
        found = []
        for line in lines:
            with contextlib.suppress(msgspec.MsgspecError):
                change = msgspec.json.decode(line, type=Change)
                if _DIGEST.fullmatch(change.digest):
                    found.append(change)
        return found

    def files(self) -> list[Change]:
        """The changes of the file, oldest first."""
        return [change for change in self.changes() if change.weights is None]

    def find(self, wanted: str | None) -> Change:
        """Return the latest file of version `wanted`: a number, or the first characters of a digest (6 at least). None:
        the file before the one in force. Raises `NoSuchVersion`, `HistoryError`."""
        files = self.files()
        if wanted is None:
            latest = files[-1].digest if files else ""
            earlier = [change for change in files if change.digest != latest]
            if not earlier:
                raise NoSuchVersion("no other configuration was in force before this one")
            return earlier[-1]
        for change in reversed(files):
            if str(change.version) == wanted or (len(wanted) >= 6 and change.digest.startswith(wanted)):
                return change
        known = ", ".join(dict.fromkeys(str(change.version) for change in reversed(files[-20:]))) or "none"
        raise NoSuchVersion(f"version {wanted!r} was not in force, or is no longer kept (known: {known})")

    def text(self, digest: str) -> bytes:
        """The bytes of a file that was in force. Raises `HistoryError`."""
        if not _DIGEST.fullmatch(digest):
            raise NoSuchVersion(
                f"{digest!r} is no digest; give the 64 hexadecimal digits of one that /history lists"
            )
        try:
            return self._file(digest).read_bytes()
        except OSError as error:
            raise HistoryError(f"{self._file(digest)} cannot be read: {error.strerror}") from error

    def ended_since(self, moment: float, set_urls: Mapping[str, str]) -> list[tuple[float, Table]]:
        """Return the tables that ended at `moment` or later, each with the time of its end, oldest first. The table in
        force, and files that can no longer be read, are left out. Raises `HistoryError`."""
        changes = self.changes()
        tables: dict[str, Table | None] = {}
        ended = []
        for change, following in pairwise(changes):
            if following.at < moment:
                continue
            if change.digest not in tables:
                tables[change.digest] = self._table(change.digest, set_urls)
            table = tables[change.digest]
            if table is not None:
                ended.append((following.at, _with_weights(table, change.weights)))
        return ended

    def _table(self, digest: str, set_urls: Mapping[str, str]) -> Table | None:
        try:
            text = self.text(digest)
            known = load(text).table.sets
            return load(text, set_urls={name: url for name, url in set_urls.items() if name in known}).table
        except (HistoryError, ConfigError):
            return None

    def _append(self, change: Change, text: bytes | None) -> bool:
        try:
            with self._locked():
                changes = self.changes()
                if changes and _same(changes[-1], change):
                    return False
                if text is not None and not self._file(change.digest).exists():
                    _write(self._file(change.digest), text)
                kept = self._kept([*changes, change])
                lines = b"".join(_ENCODER.encode(each) + b"\n" for each in kept)
                _write(self.folder / INDEX, lines)
                self._remove_unknown({each.digest for each in kept})
                return True
        except OSError as error:
            raise HistoryError(f"{self.folder} cannot be written: {error.strerror}") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _kept(self, changes: list[Change]) -> list[Change]:
        """The newest changes that fit into both bounds; always the last one."""
        kept: list[Change] = []
        seen: set[str] = set()
        size = 0
        for change in reversed(changes[-self.keep_changes :]):
            if change.digest not in seen:
                with contextlib.suppress(OSError):
                    size += self._file(change.digest).stat().st_size
                seen.add(change.digest)
            if kept and size > self.keep_bytes:
                break
            kept.append(change)
        return kept[::-1]

    def _remove_unknown(self, digests: set[str]) -> None:
        for path in self.folder.glob("*.yaml"):
            if path.stem not in digests:
                path.unlink(missing_ok=True)

    def _file(self, digest: str) -> Path:
        return self.folder / f"{digest}.yaml"


def _same(last: Change, new: Change) -> bool:
    # A restarted worker loads the file first, and then puts the rollout's weights over it: that is no change, either.
    return last.digest == new.digest and (new.weights is None or last.weights == new.weights)


def _with_weights(table: Table, shares: Mapping[str, int] | None) -> Table:
    if shares is None or not set(shares) <= set(table.sets):
        return table
    return replace(table, default=Weights(table.sets, shares))


def _write(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing, also after a crash."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
