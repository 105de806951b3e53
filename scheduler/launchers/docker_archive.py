"""Small files and folders out of a container that need not run. The image is hostile, so they may be anything."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import docker.errors
from docker import APIClient
from docker.utils import decode_json_header

from scheduler.images.content import MAX_ENTRIES, Entry, Kind
from scheduler.images.look import FolderTooLarge, ImageFile
from scheduler.images.places import MAX_FOLDERS, Folder
from scheduler.images.user import Owner

_FACTS_HEADER: Final = "X-Docker-Container-Path-Stat"
_CHUNK_BYTES: Final = 64 * 1024
_PATH_BYTES: Final = 4096
_TAR_OVERHEAD_BYTES: Final = 256 * 1024
"""Room for headers, padding and extended attributes, in addition to a file's own bytes."""

# Of Go's os.FileMode, which is what the engine tells.
_LINK: Final = 1 << 27
_FOLDER: Final = 1 << 31
_NOT_REGULAR: Final = _FOLDER | _LINK | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19


def read_file(client: APIClient, container: str, path: str, most_bytes: int) -> ImageFile:
    """Blocks. Raises what the Docker client raises."""
    try:
        mode, size, target = _facts(client, container, path)
        if mode & _LINK:
            # The engine has followed every link already, within the container: where this leads there is no other.
            path = target
            mode, size, _ = _facts(client, container, path)
        if mode & _NOT_REGULAR:
            return ImageFile(why="is not a regular file")
        if size > most_bytes:
            return ImageFile(why=f"has more than {most_bytes} bytes")
        body, _ = client.get_archive(container, path, _CHUNK_BYTES)
    except docker.errors.NotFound as error:
        if _container_is_gone(error):
            raise
        return ImageFile()
    with closing(body):
        return _unpacked(_received(body, most_bytes + _TAR_OVERHEAD_BYTES), most_bytes)


def mode_of(client: APIClient, container: str, path: str) -> int | None:
    """Return the permissions of others for `path` (read 4, write 2, search 1); None if it is missing. Blocks."""
    try:
        mode, _, target = _facts(client, container, path)
        if mode & _LINK:
            mode, _, _ = _facts(client, container, target)
        return mode & 0o7
    except docker.errors.NotFound as error:
        if _container_is_gone(error):
            raise
        return None


def read_folder(
    client: APIClient, container: str, path: str, most_bytes: int | None, content_bytes: int = 0
) -> Folder | None:
    """Return the content of a folder; None if it is missing or not a folder. Does not follow links.

    Given `most_bytes`, all its files are read, to tell whether they are more. Given `content_bytes`, its content is
    kept where it is no more than that, and no more than `MAX_ENTRIES`.
    Blocks. Raises `FolderTooLarge`, and what the Docker client raises.
    """
    names = path.strip("/").split("/")
    try:
        for depth in range(len(names)):
            mode, _, _ = _facts(client, container, "/" + "/".join(names[: depth + 1]))
            if mode & _LINK:
                return Folder(behind_link=True)
            if not mode & _FOLDER:
                return None
    except docker.errors.NotFound as error:
        if _container_is_gone(error):
            raise
        return None
    url = f"{client.base_url}/v{client.api_version}/containers/{container}/archive"
    # Left early, the connection is closed: so the engine, which would send all of it, ends as well.
    with client.get(url, params={"path": path}, stream=True, timeout=client.timeout) as response:
        if not response.ok:
            raise docker.errors.DockerException(f"the engine does not read {path}: {response.text[:500]}")
        most = max(most_bytes or 0, content_bytes) + _TAR_OVERHEAD_BYTES
        received = _Counted(response.iter_content(_CHUNK_BYTES), most)
        try:
            folder = _unpacked_folder(received, path, content_bytes)
        except (tarfile.TarError, ValueError) as error:
            raise docker.errors.DockerException(f"the engine sent a broken archive: {error}") from error
        while folder.holds_files and most_bytes is not None and received.read(_CHUNK_BYTES):
            pass
    return folder


class _Counted:
    """A stream as a file that can be read; ends with `FolderTooLarge` after so many bytes."""

    def __init__(self, chunks: Iterator[bytes], most_bytes: int) -> None:
        self._chunks = chunks
        self._left = most_bytes
        self._kept = b""

    def read(self, size: int) -> bytes:
        while len(self._kept) < size and (chunk := next(self._chunks, b"")):
            self._left -= len(chunk)
            if self._left < 0:
                raise FolderTooLarge
            self._kept += chunk
        taken, self._kept = self._kept[:size], self._kept[size:]
        return taken


def _unpacked_folder(received: _Counted, path: str, content_bytes: int) -> Folder:
    """Reads until it is certain that there are files, and more than may be kept as content."""
    found: list[str] = []
    content = _Content(path, content_bytes) if content_bytes else None
    holds_files = False
    with tarfile.open(fileobj=received, mode="r|") as unpacked:  # type: ignore[call-overload]
        top = unpacked.next()
        if top is None or not top.isdir():
            raise ValueError("it does not begin with the folder")
        if content is not None:
            content.add(unpacked, top)
        # Iterating over the archive would begin with the folder itself again.
        while (entry := unpacked.next()) is not None:
            name = entry.name.partition("/")[2]
            if not entry.isdir() or not name.isprintable() or len(found) == MAX_FOLDERS:
                holds_files = True
            found.append(name)
            if content is not None and not content.add(unpacked, entry):
                content = None
            if holds_files and content is None:
                return Folder(holds_files=True)
    kept = tuple(content.entries) if content is not None else None
    if holds_files:
        return Folder(holds_files=True, content=kept)
    innermost = tuple(name for name in found if not any(other.startswith(name + "/") for other in found))
    return Folder(folders=innermost, content=kept)


class _Content:
    """A folder's entries, as they come out of an archive, while they are within the bounds."""

    def __init__(self, path: str, most_bytes: int) -> None:
        self.entries: list[Entry] = []
        self._path = path
        self._left = most_bytes
        self._files: dict[str, bytes] = {}

    def add(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bool:
        """Take the archive's next entry; False when it is beyond the bounds. Devices and pipes are left out."""
        name = entry.name.rstrip("/").partition("/")[2]
        path = f"{self._path}/{name}" if name else self._path
        if entry.isdir():
            kind, data = Kind.FOLDER, b""
        elif entry.issym():
            kind, data = Kind.LINK, os.fsencode(entry.linkname)
        elif entry.islnk():
            if (linked := self._files.get(entry.linkname)) is None:
                return False
            kind, data = Kind.FILE, linked
        elif entry.isreg():
            if entry.size > self._left or (file := archive.extractfile(entry)) is None:
                return False
            kind, data = Kind.FILE, file.read()
            self._files[entry.name] = data
        else:
            return True
        self._left -= len(data)
        owner, mtime_s = Owner(entry.uid, entry.gid), max(0, int(entry.mtime))
        self.entries.append(Entry(path, kind, owner, entry.mode & 0o7777, mtime_s, data))
        return self._left >= 0 and len(self.entries) <= MAX_ENTRIES and len(os.fsencode(path)) < _PATH_BYTES


def _container_is_gone(error: docker.errors.NotFound) -> bool:
    return "no such container" in str(error.explanation or error).lower()


def _facts(client: APIClient, container: str, path: str) -> tuple[int, int, str]:
    """Mode, size and the target of a link.

    Asked for without the file: until an archive is read, all else that is asked of its container waits, its
    removal too, and a whole directory could come.
    """
    url = f"{client.base_url}/v{client.api_version}/containers/{container}/archive"
    with client.head(url, params={"path": path}, timeout=client.timeout) as response:
        refused, told = not response.ok, response.headers.get(_FACTS_HEADER)
    if refused:
        # Only the answer to a GET has a text that says why.
        body, _ = client.get_archive(container, path, _CHUNK_BYTES)
        body.close()
    facts = decode_json_header(told) if told else None
    if not isinstance(facts, dict) or not all(isinstance(facts.get(name), int) for name in ("mode", "size")):
        raise docker.errors.DockerException("the engine does not say what kind of file it has")
    return facts["mode"], facts["size"], str(facts.get("linkTarget") or "")


def _received(body: Iterator[bytes], most_bytes: int) -> bytes:
    received = bytearray()
    for chunk in body:
        received += chunk
        if len(received) > most_bytes:
            break
    return bytes(received[:most_bytes])


def _unpacked(archive: bytes, most_bytes: int) -> ImageFile:
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as unpacked:
            entry = unpacked.next()
            file = unpacked.extractfile(entry) if entry is not None and entry.isreg() else None
            content = file.read(most_bytes + 1) if file is not None else None
    except (tarfile.TarError, ValueError, OSError, EOFError) as error:
        raise docker.errors.DockerException(f"the engine sent a broken archive: {error}") from error
    if entry is None or content is None or len(content) != entry.size:
        raise docker.errors.DockerException("the engine sent another file than it had announced")
    return ImageFile(content)
