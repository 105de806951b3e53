"""Layouts by a look at an image's files, without an engine: as a registry's layers would be looked at."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.errors import ImageUnusable
from scheduler.image import Image
from scheduler.images.content import Entry, Kind
from scheduler.images.look import FolderTooLarge, ImageFile, layout_by, layout_without_look
from scheduler.images.places import Folder, Layout
from scheduler.images.user import Owner

ID = "sha256:" + "1" * 64
PASSWD = b"root:x:0:0::/root:/none\nworker:x:12:34::/home/worker:/none\n"
SIZE_BYTES = 1000


def image(**fields: Any) -> Image:
    return Image("ocr:1", ID, ID, entrypoint=("/app",), **fields)


class Files:
    """An image's files in memory; `asked` are those that were looked at. A folder is given with its size in bytes."""

    def __init__(
        self, files: dict[str, ImageFile] | None = None, folders: dict[str, tuple[Folder, int]] | None = None
    ) -> None:
        self.files = {"/etc/passwd": ImageFile(PASSWD), **(files or {})}
        self.folders = folders or {}
        self.asked: list[str] = []

    def file(self, path: str, most_bytes: int) -> ImageFile:
        self.asked.append(path)
        return self.files.get(path, ImageFile())

    def mode(self, path: str) -> int | None:
        self.asked.append(path)
        return 5 if path in self.folders else None

    def folder(self, path: str, most_bytes: int | None, content_bytes: int = 0) -> Folder | None:
        self.asked.append(path)
        if path not in self.folders:
            return None
        folder, size_bytes = self.folders[path]
        if most_bytes is not None and size_bytes > most_bytes:
            raise FolderTooLarge
        return folder if size_bytes <= content_bytes else Folder(folder.holds_files, folder.folders)


def look(files: Files, **fields: Any) -> Layout:
    return layout_by(files, image(**fields), volume_bytes=SIZE_BYTES, home_bytes=SIZE_BYTES)


def test_a_configuration_that_says_enough_takes_no_look() -> None:
    found = layout_without_look(image(user="12:34", env=("HOME=/tmp",)))
    assert found is not None
    assert (found.places, found.owner) == (("/tmp", "/dev/shm"), Owner(12, 34))
    for fields in ({"user": "worker"}, {"env": ()}, {"env": ("HOME=/tmp",), "volumes": ("/v",)}):
        assert layout_without_look(image(**fields)) is None


def test_a_user_who_cannot_be_is_refused_without_a_look() -> None:
    with pytest.raises(ImageUnusable, match="out of range"):
        layout_without_look(image(user="4294967296", env=("HOME=/tmp",)))


def test_a_user_by_name_and_his_home_are_looked_up() -> None:
    files = Files()
    found = look(files, user="worker")
    assert found.owner == Owner(12, 34)
    assert "/home/worker" in found.places
    assert files.asked == ["/etc/passwd", "/home/worker"]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "unable to find user nobody-here"),
        ({"/etc/passwd": ImageFile()}, "the image has no file /etc/passwd"),
        ({"/etc/passwd": ImageFile(why="is not a regular file")}, "/etc/passwd is not a regular file"),
    ],
)
def test_a_user_who_is_not_there_makes_the_image_unusable(files: dict[str, ImageFile], why: str) -> None:
    with pytest.raises(ImageUnusable, match=why):
        look(Files(files), user="nobody-here")


def test_a_volume_with_files_is_kept_up_to_its_bound() -> None:
    full = Folder(holds_files=True)
    assert look(Files(folders={"/v": (full, SIZE_BYTES)}), volumes=("/v", "/w")).kept == ("/v",)
    with pytest.raises(ImageUnusable, match="VOLUME /v has more than"):
        look(Files(folders={"/v": (full, SIZE_BYTES + 1)}), volumes=("/v",))


def test_a_home_begins_with_its_files_up_to_its_bound() -> None:
    entries = (Entry("/root", Kind.FOLDER), Entry("/root/a", Kind.FILE, data=b"x"))
    home = Folder(holds_files=True, content=entries)
    small = look(Files(folders={"/root": (home, SIZE_BYTES)}))
    assert "/root" in small.places
    assert small.content
    large = look(Files(folders={"/root": (home, SIZE_BYTES + 1)}))
    assert "/root" not in large.places
    assert "/root/.cache" in large.places
