"""Which folders of a slot can be written to, and what becomes of what an image itself holds there. Pure.

A place is an empty tmpfs, emptied again after each task. Whatever the image holds in that folder would be hidden, so
a folder with files is no place unless its image says so by label: it stays as the image has it, to be read only.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from scheduler.errors import ImageUnusable
from scheduler.image import LABEL_WRITABLE, Image
from scheduler.launchers.user import Owner

MAX_WRITABLE_PLACES: Final = 16
"""VOLUMEs and labelled places of one image. Each costs a mount at every start."""
MAX_FOLDERS: Final = 8
"""Folders that the image may have within a place before they count as content."""

ALWAYS_WRITABLE: Final = ("/tmp", "/dev/shm")

_MAX_PLACE_CHARS: Final = 1024
_MOST_PLACES: Final = len(ALWAYS_WRITABLE) + MAX_WRITABLE_PLACES + MAX_FOLDERS
_RESERVED: Final = ("/proc", "/sys", "/dev", "/gc")
_HOLDS_THE_SYSTEM: Final = frozenset(
    {"/", "/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr"}
    | {"/usr/bin", "/usr/lib", "/usr/lib64", "/usr/local", "/usr/sbin"}
)


class Folder(msgspec.Struct, frozen=True):
    """A folder as the image has it.

    `holds_files`: there is anything but folders, or more than `MAX_FOLDERS` of those. Otherwise `folders` are those
    within that hold nothing, as paths relative to this one. `behind_link`: a symbolic link leads there, and it was not
    looked at: what lies where a mount goes must never be the image's to choose (such as over the guest).
    """

    holds_files: bool = False
    folders: tuple[str, ...] = ()
    behind_link: bool = False


class Layout(msgspec.Struct, frozen=True):
    """How the slots of an image are laid out.

    `places` are tmpfs, parents before children, and belong to `owner`; `kept` are the VOLUMEs whose content the
    image brings along.
    """

    places: tuple[str, ...]
    kept: tuple[str, ...] = ()
    owner: Owner = Owner()


class Question(msgspec.Struct, frozen=True):
    """What must be known of an image's folders before its slots can be laid out."""

    volumes: tuple[str, ...] = ()
    """VOLUMEs, of which it matters what they hold, and how much."""
    folders: tuple[str, ...] = ()
    """Folders of which it matters only whether they hold files."""
    existence: tuple[str, ...] = ()
    """Paths of which it matters only whether they exist."""


def writable_places(image: Image) -> tuple[str, ...]:
    """Every path that the image asks to write to, parents before children.

    They are /tmp, /dev/shm, its VOLUMEs and those of its label. Raises `ImageUnusable` for a place that a slot
    cannot give.
    """
    asked = _asked(image)
    for place, source in asked.items():
        _check_place(place, source)
    places = set(ALWAYS_WRITABLE) | set(asked)
    if len(places) > MAX_WRITABLE_PLACES + len(ALWAYS_WRITABLE):
        raise ImageUnusable(
            f"the image has {len(places)} writable places (VOLUMEs and label {LABEL_WRITABLE}); "
            f"at most {MAX_WRITABLE_PLACES} are allowed"
        )
    _check_program(image)
    return _in_order(places)


def question(image: Image) -> Question:
    """What a look into the image must answer. Raises `ImageUnusable`."""
    places, labelled = writable_places(image), _labelled(image)
    volumes = tuple(place for place in places if place not in ALWAYS_WRITABLE and place not in labelled)
    folders, workdir = _home(image, places), _workdir(image)
    if workdir not in (*places, *folders) and _holder(workdir, (*ALWAYS_WRITABLE, *labelled)):
        folders.append(workdir)
    return Question(volumes, tuple(folders), tuple(place for place in labelled if _holder(place, volumes)))


def layout(
    image: Image, seen: Mapping[str, Folder | None] | None = None, owner: Owner | None = None
) -> Layout:
    """How slots of the image look like. Raises `ImageUnusable`.

    `seen` answers `question`, None for what the image does not have; without it every folder counts as absent.
    """
    seen = seen or {}
    asked, explicit = _asked(image), {*ALWAYS_WRITABLE, *_labelled(image)}
    places = {*writable_places(image)}
    home = _home(image, places)
    kept: list[str] = []
    for place in _in_order({*places, *home} - explicit):
        held = seen.get(place) or Folder()
        folders = {f"{place}/{name}" for name in held.folders}
        if held.behind_link:
            # A VOLUME stays an empty tmpfs, wherever that is; HOME is left alone.
            continue
        if held.holds_files or len(places | folders) > _MOST_PLACES:
            places.discard(place)
            kept += [place] if place in asked else []
        elif place in asked or not (_holder(place, kept) and seen.get(place) is None):
            places |= {place, *folders}
    for place in kept:
        if above := _holder(place, places):
            raise ImageUnusable(_hidden(asked[place], above))
    for place in places:
        if (above := _holder(place, kept)) and seen.get(place) is None:
            raise ImageUnusable(
                f"{asked.get(place, place)}: the image has no such folder, and VOLUME {above}, in which it lies, can "
                f"only be read because the image has files there; make the folder in the image (RUN mkdir -p {place})"
            )
    workdir = _workdir(image)
    if workdir not in places and (above := _holder(workdir, {*places, *kept})) in places:
        found = seen.get(workdir)
        if found is not None and found.holds_files:
            raise ImageUnusable(_hidden(f"WORKDIR {workdir}", above))
        if len(workdir) > _MAX_PLACE_CHARS or not workdir.isprintable():
            raise ImageUnusable(f"WORKDIR {workdir!r}: the path is too long or holds control characters")
        places.add(workdir)
    return Layout(_in_order(places), tuple(sorted(kept)), owner or Owner())


def _hidden(what: str, above: str) -> str:
    return (
        f"{what} has files of the image, which slots would hide because {above} begins as an empty directory; "
        "keep them elsewhere, such as in /app"
    )


def _in_order(places: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(places, key=lambda place: (place.count("/"), place)))


def _asked(image: Image) -> dict[str, str]:
    """Places, and where the image asks for each."""
    asked: dict[str, str] = {}
    for volume in image.volumes:
        asked.setdefault(posixpath.normpath(volume) if volume else "", f"VOLUME {volume}")
    for place, written in _labelled(image).items():
        asked.setdefault(place, f"label {LABEL_WRITABLE}={written}")
    return asked


def _labelled(image: Image) -> dict[str, str]:
    labelled: dict[str, str] = {}
    for written in filter(None, (part.strip() for part in image.labels.get(LABEL_WRITABLE, "").split(","))):
        place = written.rstrip("/") or "/"
        if place != posixpath.normpath(place):
            raise ImageUnusable(f"label {LABEL_WRITABLE}: {written!r} must be written without //, . and ..")
        labelled.setdefault(place, written)
    return labelled


def _check_place(place: str, source: str) -> None:
    if place in ALWAYS_WRITABLE:
        return
    if not place.startswith("/"):
        raise ImageUnusable(f"{source}: an absolute path is needed")
    if len(place) > _MAX_PLACE_CHARS or not place.isprintable():
        raise ImageUnusable(f"{source!r}: the path is too long or holds control characters")
    # normpath keeps two leading slashes, as POSIX allows it to.
    if place.startswith("//"):
        raise ImageUnusable(f"{source}: the path must begin with a single slash")
    for reserved in _RESERVED:
        if place == reserved or place.startswith(reserved + "/"):
            raise ImageUnusable(f"{source}: {reserved} belongs to the slot itself; choose another place")
    if place in _HOLDS_THE_SYSTEM:
        raise ImageUnusable(
            f"{source}: a writable place is an empty directory, so {place} would hide the image's own files; "
            "name a directory of its own below it"
        )


def _check_program(image: Image) -> None:
    """A program that a slot would hide is refused at once, with the reason, rather than not found later."""
    program = next(iter(image.entrypoint or image.cmd), "")
    place = _holder(posixpath.normpath(program or "/"), (*ALWAYS_WRITABLE, *_labelled(image)))
    if place:
        raise ImageUnusable(
            f"its program {program} lies in {place}, which begins as an empty directory in slots; "
            "keep it elsewhere, such as in /app"
        )


def _home(image: Image, places: Collection[str]) -> list[str]:
    """HOME, where the image sets it to a folder that could be a place; without a word where it could not."""
    said = [entry.removeprefix("HOME=") for entry in image.env if entry.startswith("HOME=/")]
    home = posixpath.normpath(said[-1]) if said else ""
    if not home or home in places:
        return []
    try:
        _check_place(home, "HOME")
    except ImageUnusable:
        return []
    return [home]


def _workdir(image: Image) -> str:
    workdir = posixpath.normpath(posixpath.join("/", image.workdir))
    return "/" + workdir.lstrip("/")


def _holder(path: str, folders: Collection[str]) -> str:
    """The innermost of these folders that `path` lies strictly within, or ""."""
    return max((folder for folder in folders if path.startswith(folder + "/")), key=len, default="")
