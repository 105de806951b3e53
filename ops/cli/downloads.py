"""Downloads the output files of tasks: chooses where each goes and writes it whole or not at all."""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ops.cli import report
from ops.cli.command import BadParameter
from ops.cli.waiting import ProgressLine
from ops.client import Client, Task


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output file at `path` in the container, and the local file that it is saved as."""

    path: str
    to: Path

    @classmethod
    def of(cls, text: str) -> "Wanted":
        """Parse PATH or PATH:LOCAL. Raises BadParameter where LOCAL cannot be written, before the task runs."""
        path, colon, local = text.partition(":")
        name = path.rpartition("/")[2]
        if not path.startswith("/") or name in ("", ".", ".."):
            raise BadParameter(
                f"{path!r} must be a file's absolute path in the container", param_hint="--output"
            )
        if colon and local in ("", "-"):
            raise BadParameter(
                f"{text!r}: give a file name after the colon; standard output carries the algorithm's output",
                param_hint="--output",
            )
        to = Path(local or name)
        if local.endswith("/") or to.is_dir():
            to /= name
        folder = to.resolve().parent
        if to.is_dir() or not os.access(to if _is_special(to) else folder, os.W_OK):
            raise BadParameter(f"{to} cannot be written: {_obstacle(to, folder)}", param_hint="--output")
        return cls(path, to)


def wanted(texts: Sequence[str] | None) -> list[Wanted]:
    """Parse the values of --output. Raises BadParameter also where two files would be saved under one name."""
    found = [Wanted.of(text) for text in texts or ()]
    for number, each in enumerate(found):
        if each.to.resolve() in [other.to.resolve() for other in found[:number]]:
            raise BadParameter(
                f"two files would be saved as {each.to}; rename one with PATH:LOCAL", param_hint="--output"
            )
    return found


def bring(client: Client, task: Task, files: Sequence[Wanted], *, told: bool) -> None:
    """Save those of the files that the task left. `told` reports each on stderr. Raises ClientError and OSError."""
    kept = task.get("files") or {}
    for each in files:
        if each.path in kept:
            size = save(client.result(task["id"], each.path), each.to, size_bytes=kept[each.path])
            if told:
                report.say(f"{report.counted(size, 'byte')} in {each.to}", prefix="")


def save(pieces: Iterable[bytes], to: Path, *, size_bytes: int | None = None) -> int:
    """Write beside the target, then rename, so that the target is never half a download. Returns its size in bytes.

    A device or pipe is written directly; of a link the target is replaced. Raises OSError.
    """
    if _is_special(to):
        with to.open("wb") as device:
            return _copy(pieces, device.write, to, size_bytes)
    target = to.resolve()
    unfinished = target.with_name(f".{target.name[:200]}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            size = _copy(pieces, file.write, to, size_bytes)
        unfinished.replace(target)
    except OSError as error:
        # The error would name the temporary file, which the caller does not know.
        raise OSError(error.errno, error.strerror, str(to)) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return size


def _copy(pieces: Iterable[bytes], write: Callable[[bytes], int], to: Path, size_bytes: int | None) -> int:
    line = ProgressLine(after_s=1)
    size = 0
    try:
        for piece in pieces:
            write(piece)
            size += len(piece)
            whole = f" of {size_bytes / 2**20:.1f}" if size_bytes is not None else ""
            line.show(f"{to.name}: {size / 2**20:.1f}{whole} MiB")
    finally:
        line.clear()
    return size


def _is_special(path: Path) -> bool:
    """True if the path exists and is not a regular file but a device, pipe or terminal."""
    try:
        return not stat.S_ISREG(path.stat().st_mode) and not path.is_dir()
    except OSError:
        return False


def _obstacle(to: Path, folder: Path) -> str:
    if to.is_dir():
        return "it is a folder"
    if not folder.is_dir():
        return f"there is no folder {folder}"
    return "permission denied"
