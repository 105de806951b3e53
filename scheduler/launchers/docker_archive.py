"""One small file out of a container that need not run. The image is hostile, so the file may be anything."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import docker.errors
import msgspec
from docker import APIClient
from docker.utils import decode_json_header

_FACTS_HEADER: Final = "X-Docker-Container-Path-Stat"
_CHUNK_BYTES: Final = 64 * 1024
_TAR_OVERHEAD_BYTES: Final = 256 * 1024
"""Headers, padding and extended attributes beside a file's own bytes."""

# Of Go's os.FileMode, which is what the engine tells.
_LINK: Final = 1 << 27
_NOT_REGULAR: Final = 1 << 31 | _LINK | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19


class ImageFile(msgspec.Struct, frozen=True):
    """`content` is None where there is none: `why` says what is wrong with the file, "" when it is missing."""

    content: bytes | None = None
    why: str = ""


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
        if "no such container" in str(error.explanation or error).lower():
            raise
        return ImageFile()
    with closing(body):
        return _unpacked(_received(body, most_bytes + _TAR_OVERHEAD_BYTES), most_bytes)


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
