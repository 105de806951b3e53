"""Watches the configuration file: checks it twice a second, reads it when it has changed, and keeps the last good table
if there are mistakes, with an error in the log.

The file may be edited in place, replaced by a rename, or be a link that is swung to another file (as Kubernetes does):
so device, inode, size and both times are compared through the link, and the content by hash. The inode's time of change
reveals an edit whose time of modification was put back, as by `rsync --times` or `cp -p`.
"""

from __future__ import annotations

import gc
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import structlog

from router.config.history import HistoryError
from router.config.reader import MAX_FILE_BYTES, ConfigError, Loaded, Mistake, load
from router.errors import reason_of
from router.routing.table import Table

POLL_S: Final = 0.5
REREAD_YOUNGER_THAN_S: Final = 2.0
"""A file changed this recently is read even if nothing about it seems to differ: clocks of file systems are
coarse."""
SETTLE_S: Final = 0.02
"""A young file is read twice, this far apart."""

log = structlog.get_logger()
Stamp = tuple[int, int, int, int, int]


class Recorder(Protocol):
    """Keeps the versions that were in force: `history.History`, or for several processes
    `history_writer.HistoryWriter`."""

    def record(self, text: bytes, table: Table, now: float) -> bool: ...


class ConfigFile:
    """The operators' file and the copy of the last good one (`last_good_path`), which survives a restart.

    `history` is told of every file that comes into force.
    """

    def __init__(
        self,
        path: Path,
        *,
        last_good_path: Path | None,
        set_urls: Mapping[str, str],
        history: Recorder | None = None,
    ) -> None:
        self.path = path
        self._history = history
        self._last_good_path = last_good_path
        self._set_urls = dict(set_urls)
        self._stamp: Stamp | None = None
        self._seen: bytes | None = None
        self.loaded: Loaded | None = None
        self.error: str | None = None
        """Why the file as it is now is not in force; None: it is."""
        self.reloads = 0
        self.failures = 0

    def count_on(self, *, reloads: int, failures: int) -> None:
        """Add the counts of the worker before."""
        self.reloads += reloads
        self.failures += failures

    def first(self) -> Loaded:
        """Load at start. With mistakes in the file the last good copy serves; without one `ConfigError` is
        raised."""
        self._stamp = self._look()
        try:
            text = self._read()
            self._seen = text
            self._accept(load(text, set_urls=self._set_urls), text)
        except ConfigError as error:
            self._reject(error)
            copy = self._last_good()
            if copy is None:
                raise
            self.loaded = copy
            log.error("last good configuration serves", file=str(self.path), version=copy.table.version)
        assert self.loaded is not None
        return self.loaded

    def poll(self, *, force: bool = False) -> Loaded | None:
        """The newly loaded file if its content changed and holds no mistake; else None. `force`: do not trust
        the stamp."""
        stamp = self._look()
        if not force and stamp == self._stamp and not self._young(stamp):
            return None
        self._stamp = stamp
        try:
            text = self._read()
        except ConfigError as error:
            if self.error != str(error):
                self._reject(error)
            self._seen = None
            return None
        if text == self._seen and not (force and self.error):
            return None
        if not self._settled(text):
            self._stamp = None  # Looked at again at the next poll.
            return None
        self._seen = text
        try:
            with _uncollected():
                loaded = load(text, set_urls=self._set_urls)
        except ConfigError as error:
            self._reject(error)
            return None
        old = self.loaded
        if old is not None and old.table.digest == loaded.table.digest:
            if self.error is not None:
                self.error = None
                log.info(
                    "configuration is good again, as in force",
                    file=str(self.path),
                    version=loaded.table.version,
                )
            return None
        if old is not None and loaded.table.version <= old.table.version:
            log.warning(
                "version did not grow: taken anyway, as after a revert",
                file=str(self.path),
                version=loaded.table.version,
                version_before=old.table.version,
            )
        self._accept(loaded, text)
        self.reloads += 1
        return loaded

    def _look(self) -> Stamp | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _young(self, stamp: Stamp | None) -> bool:
        if stamp is None:
            return False
        try:
            found, now = os.stat(self.path), time.time()
            return min(abs(found.st_mtime - now), abs(found.st_ctime - now)) < REREAD_YOUNGER_THAN_S
        except OSError:
            return False

    def _read(self) -> bytes:
        try:
            # A pipe there would block us for ever.
            with open(
                self.path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)
            ) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ConfigError([Mistake(1, 1, f"{self.path} cannot be read: it is no regular file")])
                return file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ConfigError([Mistake(1, 1, f"{self.path} cannot be read: {error.strerror}")]) from None

    def _settled(self, text: bytes) -> bool:
        """Return True if nobody is writing the file in place: half a file could be valid and mean something else."""
        if not self._young(self._stamp):
            return True
        time.sleep(SETTLE_S)
        try:
            return self._read() == text
        except ConfigError:
            return False

    def _accept(self, loaded: Loaded, text: bytes) -> None:
        self.loaded = loaded
        self.error = None
        table = loaded.table
        given = {"changed_by": table.changed_by, "changed_why": table.changed_why}
        log.info(
            "configuration in force",
            file=str(self.path),
            version=table.version,
            **{name: text for name, text in given.items() if text},
        )
        for warning in loaded.warnings:
            log.warning("warning about the configuration", file=str(self.path), warning=warning)
        if self._last_good_path is not None:
            try:
                self._last_good_path.parent.mkdir(parents=True, exist_ok=True)
                new = self._last_good_path.with_name(f"{self._last_good_path.name}.{os.getpid()}")
                new.write_bytes(text)
                os.replace(new, self._last_good_path)
            except OSError as error:
                log.error(
                    "last good configuration cannot be kept",
                    file=str(self._last_good_path),
                    reason=reason_of(error),
                )
        if self._history is not None:
            try:
                self._history.record(text, table, time.time())
            except HistoryError as error:
                log.error("version is not in the history", version=table.version, reason=str(error))

    def _reject(self, error: ConfigError) -> None:
        self.error = str(error)
        self.failures += 1
        for mistake in error.mistakes:
            log.error("mistake in the configuration", file=str(self.path), mistake=str(mistake))
        if self.loaded is not None:
            log.error(
                "configuration is not taken: the version before stays in force",
                file=str(self.path),
                version=self.loaded.table.version,
            )

    def _last_good(self) -> Loaded | None:
        if self._last_good_path is None:
            return None
        try:
            return load(self._last_good_path.read_bytes(), set_urls=self._set_urls)
        except (OSError, ConfigError):
            return None


@contextmanager
def _uncollected() -> Iterator[None]:
    """Parse without the garbage collector: hundreds of thousands of nodes come and go, and none of them is in a cycle
    that matters. Scanning them all would hold up the event loop."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
