"""The part of an image's file system that a look needs, put together from its layers. Pure.

Names and links come from strangers. All paths here are absolute and normal: no `..` leads out of the image.
"""

from __future__ import annotations

import enum
import posixpath
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from scheduler.errors import ImageUnusable
from scheduler.images.content import MAX_ENTRIES, Entry, Kind
from scheduler.images.look import MAX_FILE_BYTES, FolderTooLarge, ImageFile
from scheduler.images.places import MAX_FOLDERS, Folder
from scheduler.images.user import Owner

MAX_KEPT: Final = 100_000
"""Entries that are kept of one image. One has some 400 bytes here."""
MAX_DATA_BYTES: Final = 32 << 20
"""Files' bytes that are kept of one image."""

_TOO_MANY: Final = (
    f"it has too many files in its VOLUMEs, HOME and writable places; at most {MAX_KEPT} are allowed"
)
_MAX_LINKS: Final = 40
_PATH_BYTES: Final = 4096
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"


class Sort(enum.Enum):
    FOLDER = 1
    FILE = 2
    LINK = 3
    HARD_LINK = 4
    OTHER = 5


class Found(msgspec.Struct, frozen=True):
    """An entry of a layer. `target` is a link's; `data` is None where a file's bytes were not kept."""

    sort: Sort
    mode: int = 0o755
    owner: Owner = Owner()
    mtime_s: int = 0
    size_bytes: int = 0
    target: str = ""
    data: bytes | None = None


class NotGathered(Exception):
    """The answer depends on a path that was not kept when the layers were read."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Tree:
    """Keeps `wanted` paths, all that lies below them, and the folders on the way there.

    Layers are added from the lowest up. Of files, bytes are kept up to `content_bytes` each.
    """

    def __init__(self, wanted: Iterable[str], content_bytes: int) -> None:
        self._wanted = tuple(sorted(set(wanted)))
        self._ways = {way for path in self._wanted for way in _ways(path)}
        # The first part of its path decides about most entries.
        self._firsts = {path.split("/", 2)[1] for path in self._wanted}
        self._content_bytes = content_bytes
        self._entries: dict[str, Found] = {}
        self._data_bytes = 0

    def __len__(self) -> int:
        """The number of entries that are kept."""
        return len(self._entries)

    def keeps(self, path: str) -> bool:
        """Return True if the tree knows whether the path exists in the layers added so far."""
        if path.split("/", 2)[1] not in self._firsts:
            return False
        if path in self._ways or path in self._wanted:
            return True
        return any(path.startswith(wanted + "/") for wanted in self._wanted)

    def keeps_data(self, path: str, size_bytes: int) -> bool:
        """Return True if a file's bytes are to be read for `Layering.add`."""
        most_bytes = MAX_FILE_BYTES if path in self._wanted else self._content_bytes
        return (
            size_bytes <= most_bytes and self._data_bytes + size_bytes <= MAX_DATA_BYTES and self.keeps(path)
        )

    def layer(self) -> Layering:
        return Layering(self)

    def put_on(self, added: dict[str, Found], removed: set[str], opaque: set[str]) -> None:
        """Take in a layer. What it removes is only what lies below it."""
        entries = self._entries
        replaced = {path for path, found in added.items() if found.sort is not Sort.FOLDER}
        if removed or opaque or replaced:
            for path in list(entries):
                above = set(_ways(path))
                if path in removed or above & (removed | opaque | replaced):
                    del entries[path]
        for path, found in added.items():
            for way in _ways(path):
                known = entries.get(way)
                if known is None or (known.sort is not Sort.FOLDER and way not in added):
                    entries[way] = added.get(way) or Found(Sort.FOLDER)
            entries[path] = found
        if len(entries) > MAX_KEPT:
            raise ImageUnusable(_TOO_MANY)

    def count_data(self, size_bytes: int) -> None:
        self._data_bytes += size_bytes

    # The look (`scheduler.images.look.Look`)

    def file(self, path: str, most_bytes: int) -> ImageFile:
        found = self._followed(path)
        if found is None:
            return ImageFile()
        if found.sort is not Sort.FILE:
            return ImageFile(why="is not a regular file")
        if found.size_bytes > most_bytes or found.data is None:
            return ImageFile(why=f"has more than {most_bytes} bytes")
        return ImageFile(found.data)

    def mode(self, path: str) -> int | None:
        found = self._followed(path)
        return None if found is None else found.mode & 0o7

    def folder(self, path: str, most_bytes: int | None, content_bytes: int = 0) -> Folder | None:
        for way in (*_ways(path), path):
            found = self._at(way)
            if found is None:
                return None
            if found.sort is Sort.LINK:
                return Folder(behind_link=True)
            if found.sort is not Sort.FOLDER:
                return None
        inside = list(self._below(path))
        if most_bytes is not None and sum(found.size_bytes for _, found in inside) > most_bytes:
            raise FolderTooLarge
        if len(inside) >= MAX_ENTRIES:
            # Sorting these would keep the interpreter from all other threads for as long as it takes.
            return Folder(holds_files=True)
        inside.sort(key=lambda entry: entry[0].split("/"))
        content = self._content(path, inside, content_bytes) if content_bytes else None
        names = [name.removeprefix(path + "/") for name, _ in inside]
        only_folders = all(found.sort is Sort.FOLDER for _, found in inside)
        if not only_folders or len(names) > MAX_FOLDERS or not all(name.isprintable() for name in names):
            return Folder(holds_files=True, content=content)
        innermost = [name for name in names if not any(other.startswith(name + "/") for other in names)]
        return Folder(folders=tuple(innermost), content=content)

    def _at(self, path: str) -> Found | None:
        if not self.keeps(path):
            raise NotGathered(path)
        return self._entries.get(path)

    def _followed(self, path: str) -> Found | None:
        """The entry that a path leads to by links, which stay within the image; None if no such entry exists."""
        links_left = _MAX_LINKS
        todo, here = path.strip("/").split("/"), ""
        found: Found | None = None
        while todo:
            step = posixpath.normpath(f"{here}/{todo.pop(0)}")
            found = self._at(step)
            if found is not None and found.sort is Sort.LINK:
                links_left -= 1
                if not links_left:
                    return None
                target = posixpath.join(here or "/", found.target)
                todo, here = normal(target).strip("/").split("/") + todo, ""
                continue
            if found is None or (todo and found.sort is not Sort.FOLDER):
                return None
            here = step
        if found is not None and found.sort is Sort.HARD_LINK:
            target_found = self._at(found.target)
            return target_found if target_found is not None and target_found.sort is Sort.FILE else None
        return found

    def _below(self, path: str) -> Iterator[tuple[str, Found]]:
        return ((name, found) for name, found in self._entries.items() if name.startswith(path + "/"))

    def _content(
        self, path: str, inside: list[tuple[str, Found]], most_bytes: int
    ) -> tuple[Entry, ...] | None:
        """The folder and all that it holds; None beyond `most_bytes`. Devices and pipes are left out."""
        entries, left = [], most_bytes
        for name, found in ((path, self._entries[path]), *inside):
            if found.sort is Sort.HARD_LINK:
                linked = self._entries.get(found.target)
                if linked is None:
                    return None
                found = linked
            match found.sort:
                case Sort.FOLDER:
                    kind, data = Kind.FOLDER, b""
                case Sort.LINK:
                    kind, data = Kind.LINK, found.target.encode("utf-8", "surrogateescape")
                case Sort.FILE if found.data is not None:
                    kind, data = Kind.FILE, found.data
                case Sort.FILE:
                    return None
                case _:
                    continue
            left -= len(data)
            if left < 0 or len(name.encode("utf-8", "surrogateescape")) >= _PATH_BYTES:
                return None
            entries.append(Entry(name, kind, found.owner, found.mode, found.mtime_s, data))
        return tuple(entries)


class Layering:
    """Collects one layer's entries; `done` puts them onto the tree."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._added: dict[str, Found] = {}
        self._removed: set[str] = set()
        self._opaque: set[str] = set()

    def add(self, path: str, found: Found) -> None:
        """Take the archive's next entry."""
        folder, _, name = path.rpartition("/")
        if name == _OPAQUE:
            if self._tree.keeps(folder or "/"):
                self._opaque.add(folder)
            return
        if name.startswith(_WHITEOUT):
            removed = f"{folder}/{name.removeprefix(_WHITEOUT)}"
            if self._tree.keeps(removed):
                self._removed.add(removed)
            return
        if not self._tree.keeps(path):
            return
        if found.data is not None:
            self._tree.count_data(len(found.data))
        self._added[path] = found
        if len(self._added) + len(self._removed) > MAX_KEPT:
            raise ImageUnusable(_TOO_MANY)

    def done(self) -> None:
        self._tree.put_on(self._added, self._removed, self._opaque)


def normal(name: str) -> str:
    """An archive's name as an absolute path; `..` stays within the image."""
    return "/" + posixpath.normpath("/" + name).lstrip("/")


def _ways(path: str) -> list[str]:
    """The folders above a path, the outermost first, without the root."""
    parts = path.strip("/").split("/")
    return ["/" + "/".join(parts[:depth]) for depth in range(1, len(parts))]
