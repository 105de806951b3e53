"""Lays out an image's slots by looking at its files, wherever they lie: in an engine, or in a registry's layers."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from scheduler.errors import ImageUnusable
from scheduler.image import Image
from scheduler.images.places import Folder, Layout, Question, home_folders, layout, question, said_home
from scheduler.images.user import PASSWD, User, UserUnusable, home_of, parse_user

MAX_FILE_BYTES: Final = 1 << 20
"""Limit of an image's /etc/passwd and /etc/group each, in bytes."""


class ImageFile(msgspec.Struct, frozen=True):
    """A file of an image. `content` is None if it cannot be read: `why` says why not, "" if the file is missing."""

    content: bytes | None = None
    why: str = ""


class FolderTooLarge(Exception):
    """A folder holds more than was allowed."""


class Look(Protocol):
    """Reads files of one image. All methods block, and raise the errors of whatever holds the image."""

    def file(self, path: str, most_bytes: int) -> ImageFile:
        """Read a file, following links within the image."""

    def mode(self, path: str) -> int | None:
        """Return the permissions of others for `path` (read 4, write 2, search 1); None if it is missing."""

    def folder(self, path: str, most_bytes: int | None, content_bytes: int = 0) -> Folder | None:
        """Return a folder; None if it is missing or not a folder. Does not follow links.

        Raises `FolderTooLarge` if its files have more than `most_bytes`, unless that is None. Its content is kept if it
        has `content_bytes` at most, and not too many entries.
        """


def layout_without_look(image: Image) -> Layout | None:
    """The layout of an image whose configuration says enough; None for others. Raises `ImageUnusable`."""
    try:
        user, home = parse_user(image.user), said_home(image)
        if user.files_needed() or home is None or question(image, home) != Question():
            return None
        return layout(image, owner=user.owner({}), home=home)
    except UserUnusable as error:
        raise ImageUnusable(str(error)) from error


def layout_by(look: Look, image: Image, *, volume_bytes: int, home_bytes: int) -> Layout:
    """The image's layout. Blocks. Raises `ImageUnusable`, and as `look` does.

    `volume_bytes` bounds the image's files in one VOLUME, `home_bytes` those in HOME that programs can write to.
    """
    try:
        user, said = parse_user(image.user), said_home(image)
        files = _files(look, user, said)
        owner = user.owner(files)
    except UserUnusable as error:
        raise ImageUnusable(str(error)) from error
    home = said if said is not None else home_of(owner.uid, files.get(PASSWD))
    asked = question(image, home)
    return layout(image, _folders(look, asked, volume_bytes, home_bytes), owner, home)


def _files(look: Look, user: User, home: str | None) -> dict[str, bytes | None]:
    """The files that define the USER, and its HOME if the image does not set that."""
    needed = user.files_needed()
    files = {}
    for path in {*needed, *([PASSWD] if home is None else ())}:
        file = look.file(path, MAX_FILE_BYTES)
        if file.why and path in needed:
            raise UserUnusable(
                f"its USER cannot be looked up: {path} {file.why}; mend the file, or name the USER by numbers"
            )
        files[path] = file.content
    return files


def _folders(look: Look, asked: Question, volume_bytes: int, home_bytes: int) -> dict[str, Folder | None]:
    found: dict[str, Folder | None] = {}
    for path in asked.volumes:
        found[path] = _volume(look, path, volume_bytes, home_bytes if path == asked.home else 0)
    for path in asked.folders:
        found[path] = look.folder(path, None)
    for path in asked.existence:
        found[path] = Folder() if look.mode(path) is not None else None
    if asked.home and asked.home not in found:
        found[asked.home] = home = _content(look, asked.home, home_bytes)
        if home is not None and home.holds_files and home.content is None:
            for path in home_folders(asked.home):
                found.setdefault(path, _content(look, path, home_bytes))
    return found


def _content(look: Look, path: str, home_bytes: int) -> Folder | None:
    try:
        return look.folder(path, None, home_bytes)
    except FolderTooLarge:
        return Folder(holds_files=True)


def _volume(look: Look, path: str, volume_bytes: int, content_bytes: int) -> Folder | None:
    try:
        return look.folder(path, volume_bytes, content_bytes)
    except FolderTooLarge:
        raise ImageUnusable(
            f"VOLUME {path} has more than {volume_bytes >> 20} MiB of the image's files, and slots are given a "
            "copy of those; take the VOLUME out of the Dockerfile, and they are read where they lie"
        ) from None
