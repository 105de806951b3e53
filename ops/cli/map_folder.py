"""The folders of `gcompute map`: the one whose files are sent, and the one that gets the results."""

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from ops.cli import report
from ops.cli.downloads import save
from ops.client import NotGeneralCompute

STATE_FILE: Final = ".gcompute-map.json"
"""Name of the file in the results' folder that says which batch they are of, and how many of them are there."""
PIECE_BYTES: Final = 1 << 18
_ERROR_END: Final = ".error.json"
_COMMENT: Final = "after="


def files_below(source: Path, results: Path) -> list[tuple[str, Path]]:
    """The files of a folder by their relative paths, sorted.

    The results' folder within it is left out, and so is what an earlier `gcompute map` notes among its results.
    """
    without = results.resolve()
    found = [
        (path.relative_to(source).as_posix(), path)
        for path in source.rglob("*")
        if path.is_file() and without not in path.resolve().parents and path != source / STATE_FILE
    ]
    return sorted(found)


def archive_of(files: list[tuple[str, Path]], sent: Callable[[int], None]) -> Iterator[bytes]:
    """A tar archive of the files, made while it is sent. `sent` is told the bytes of each piece. Raises OSError."""
    for name, path in files:
        with path.open("rb") as file:
            entry = tarfile.TarInfo(name)
            entry.size = left = path.stat().st_size
            yield entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
            while left:
                piece = file.read(min(PIECE_BYTES, left))
                if not piece:
                    raise OSError(0, "it became shorter while it was sent", str(path))
                left -= len(piece)
                sent(len(piece))
                yield piece
            yield bytes(-entry.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


class Results:
    """The results in a folder. `facts` are kept in a file there, so that a later call goes on where this one ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / STATE_FILE
        try:
            facts = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            facts = {}
        except ValueError:
            raise OSError(0, "it is damaged; name another folder", str(self._file)) from None
        self.facts: dict[str, Any] = facts

    def keep(self, **facts: Any) -> None:
        """Change some facts, on disk too."""
        self.facts |= facts
        save([json.dumps(self.facts).encode()], self._file)

    def unpack(self, pieces: Iterator[bytes]) -> None:
        """Save the entries of an archive of results. What was saved whole before an error is not fetched again.

        Raises ClientError and OSError.
        """
        after = self.facts.get("after", 0)
        try:
            stream: Any = _Pieces(pieces)
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for entry in archive:
                    # tarfile would remember each entry.
                    archive.members = []  # type: ignore[attr-defined]
                    file = archive.extractfile(entry)
                    if file is None:
                        continue
                    self._save(entry.name, iter(lambda file=file: file.read(PIECE_BYTES), b""))  # type: ignore[misc]
                    comment = entry.pax_headers.get("comment", "")
                    if comment.startswith(_COMMENT):
                        after = int(comment.removeprefix(_COMMENT))
        except tarfile.TarError as error:
            raise NotGeneralCompute(
                f"the results are not the archive that they should be: {error}"
            ) from error
        finally:
            if after != self.facts.get("after", 0):
                self.keep(after=after)

    def _save(self, name: str, pieces: Iterator[bytes]) -> None:
        path = PurePosixPath(name)
        if name == STATE_FILE:
            report.say(
                f"the result {name} is not saved: the file of this name says how far this command has come; "
                "`gcompute batch results` has it"
            )
            return
        if path.is_absolute() or ".." in path.parts:
            raise NotGeneralCompute(
                f"the results have a file {name!r}, which does not belong in their folder"
            )
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        save(pieces, target)
        if not name.endswith(_ERROR_END):
            # It failed before, and was run again.
            target.with_name(target.name + _ERROR_END).unlink(missing_ok=True)


class _Pieces:
    """A file of pieces that come one after the other. Reads may be short."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        # What has come is unpacked before the next piece, which may never come.
        if not self._rest:
            self._rest = next(self._pieces, b"")
        data, self._rest = self._rest[:size], self._rest[size:]
        return data
