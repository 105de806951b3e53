"""The writable folders of a slot, and the image's own files in them. Pure.

A *place* is a tmpfs that is put back to its first state after each task. It starts empty, except HOME, which starts
with the image's files there, up to a bound. Any other folder with files is no place unless its image says so by label:
it stays as the image has it, read-only.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from scheduler.errors import ImageUnusable
from scheduler.image import LABEL_WRITABLE, Image
from scheduler.images.content import Entry, Kind, packed, seen_by
from scheduler.images.user import Owner

MAX_WRITABLE_PLACES: Final = 16
"""Maximum number of VOLUMEs and labelled places of one image. Each costs a mount at every start."""
MAX_FOLDERS: Final = 8
"""Maximum number of folders within a place; an image with more counts as having content there."""

ALWAYS_WRITABLE: Final = ("/tmp", "/dev/shm")

HOME_FOLDERS: Final = (".cache", ".config", ".local/share", ".local/state")
"""Folders of a HOME that programs write to (XDG base directories). They are places if HOME itself holds too much to be
one."""

_MAX_PLACE_CHARS: Final = 1024
_MOST_PLACES: Final = len(ALWAYS_WRITABLE) + MAX_WRITABLE_PLACES + MAX_FOLDERS
_RESERVED: Final = ("/proc", "/sys", "/dev", "/gc")
_HOLDS_THE_SYSTEM: Final = frozenset(
    {"/", "/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr"}
    | {"/usr/bin", "/usr/lib", "/usr/lib64", "/usr/local", "/usr/sbin"}
)


class Folder(msgspec.Struct, frozen=True):
    """A folder as the image has it.

    `holds_files`: it holds anything but folders, or more than `MAX_FOLDERS` of them. Otherwise `folders` are the empty
    folders within, as paths relative to this one. `behind_link`: a symbolic link leads there, so it was not looked at:
    an image must never choose where a mount goes (such as over the guest). `content` is the folder and everything in
    it, parents first, if that was asked for and is within the bound.
    """

    holds_files: bool = False
    folders: tuple[str, ...] = ()
    behind_link: bool = False
    content: tuple[Entry, ...] | None = None


class Layout(msgspec.Struct, frozen=True):
    """How the slots of an image are laid out.

    `places` are tmpfs, parents before children, and belong to `owner`; `kept` are the VOLUMEs whose content the
    image brings along. `content` is what the guest writes to places at the start (`content.packed`).
    """

    places: tuple[str, ...]
    kept: tuple[str, ...] = ()
    owner: Owner = Owner()
    content: bytes = b""


class Question(msgspec.Struct, frozen=True):
    """Facts about an image's folders that the layout of its slots depends on."""

    volumes: tuple[str, ...] = ()
    """VOLUMEs, whose content matters, and its size."""
    folders: tuple[str, ...] = ()
    """Folders of which it only matters whether they hold files."""
    existence: tuple[str, ...] = ()
    """Paths of which it only matters whether they exist."""
    home: str = ""
    """HOME, whose content matters up to a bound; beyond that, the content of `HOME_FOLDERS`."""


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


def question(image: Image, home: str = "") -> Question:
    """Return the facts to look up in the image. Raises `ImageUnusable`."""
    places, labelled = writable_places(image), _labelled(image)
    volumes = tuple(place for place in places if place not in ALWAYS_WRITABLE and place not in labelled)
    home, workdir = _home(image, home), _workdir(image)
    hidden = workdir not in (*places, home) and _holder(workdir, (*ALWAYS_WRITABLE, *labelled))
    return Question(
        volumes,
        (workdir,) if hidden else (),
        tuple(place for place in labelled if _holder(place, volumes)),
        home,
    )


def layout(
    image: Image,
    seen: Mapping[str, Folder | None] | None = None,
    owner: Owner | None = None,
    home: str = "",
) -> Layout:
    """The layout of the image's slots. `home` is HOME as its programs have it. Raises `ImageUnusable`.

    `seen` answers `question`, None for what the image does not have; without it every folder counts as absent.
    """
    seen, home = seen or {}, _home(image, home)
    asked, explicit = _asked(image), {*ALWAYS_WRITABLE, *_labelled(image)}
    places = {*writable_places(image)}
    kept: list[str] = []
    # HOME comes last: it gives way to folders that are kept within it.
    for place in (*_in_order(places - explicit - {home}), *([home] if home else ())):
        held = seen.get(place) or Folder()
        folders = {f"{place}/{name}" for name in held.folders}
        if held.behind_link:
            # A VOLUME stays an empty tmpfs, wherever that is; HOME is left alone.
            continue
        if held.content is not None and not _within(place, kept):
            places.add(place)
        elif held.holds_files or len(places | folders) > _MOST_PLACES:
            places.discard(place)
            kept += [place] if place in asked else []
        elif place in asked or not (_holder(place, kept) and seen.get(place) is None):
            places |= {place, *folders}
    filled = [home] if home in places and (seen.get(home) or Folder()).content is not None else []
    in_home = seen.get(home)
    if home not in (*places, *kept) and in_home is not None and in_home.holds_files:
        if in_home.content is not None:
            seen = {**seen, **{folder: _below(folder, in_home.content) for folder in home_folders(home)}}
        new = [folder for folder in home_folders(home) if _can_be_place(folder, seen, {*places, *kept})]
        places |= {*new}
        filled = [folder for folder in new if (seen.get(folder) or Folder()).content is not None]
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
        if above not in filled and found is not None and found.holds_files:
            raise ImageUnusable(_hidden(f"WORKDIR {workdir}", above))
        if len(workdir) > _MAX_PLACE_CHARS or not workdir.isprintable():
            raise ImageUnusable(f"WORKDIR {workdir!r}: the path is too long or holds control characters")
        places.add(workdir)
    # The engine would make folders on the way to a place as root's, and content in them could not be written.
    places |= {way for place in places for way in _ways(place, filled)}
    owner = owner or Owner()
    return Layout(_in_order(places), tuple(sorted(kept)), owner, _content(filled, seen, owner, explicit))


def home_folders(home: str) -> tuple[str, ...]:
    """The paths of `HOME_FOLDERS`."""
    return tuple(f"{home}/{name}" for name in HOME_FOLDERS)


def _below(folder: str, content: Collection[Entry]) -> Folder | None:
    """A folder within one whose content is known."""
    found = tuple(entry for entry in content if entry.path == folder or entry.path.startswith(folder + "/"))
    if not found:
        return None
    return (
        Folder(holds_files=True, content=found) if found[0].kind is Kind.FOLDER else Folder(behind_link=True)
    )


def _can_be_place(folder: str, seen: Mapping[str, Folder | None], taken: Collection[str]) -> bool:
    """Return True if a folder of a read-only HOME can be made writable without hiding anything of the image."""
    held = seen.get(folder) or Folder()
    if held.behind_link or folder in taken or _within(folder, taken):
        return False
    return held.content is not None or not held.holds_files


def _content(
    filled: Collection[str], seen: Mapping[str, Folder | None], owner: Owner, emptied: Collection[str]
) -> bytes:
    """Return the content that the guest writes to filled places, without that of places that start empty."""
    found = [entry for place in filled if (held := seen.get(place)) for entry in held.content or ()]
    return packed(
        seen_by(
            owner,
            (entry for entry in found if _holder(entry.path + "/.", (*filled, *emptied)) not in emptied),
        )
    )


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
    """Refuse a program that a slot would hide. Otherwise it would only be "not found" later."""
    program = next(iter(image.entrypoint or image.cmd), "")
    place = _holder(posixpath.normpath(program or "/"), (*ALWAYS_WRITABLE, *_labelled(image)))
    if place:
        raise ImageUnusable(
            f"its program {program} lies in {place}, which begins as an empty directory in slots; "
            "keep it elsewhere, such as in /app"
        )


def said_home(image: Image) -> str | None:
    """Return HOME as the image sets it; None if it does not, and /etc/passwd decides. Of several values the last
    counts; an empty one counts as none."""
    said = [entry.removeprefix("HOME=") for entry in image.env if entry.startswith("HOME=")]
    return said[-1] or None if said else None


def _home(image: Image, home: str) -> str:
    """HOME if it can be a place and no label wants it empty; else ""."""
    if not home.startswith("/"):
        return ""
    path = "/" + posixpath.normpath(home).lstrip("/")
    try:
        _check_place(path, "HOME")
    except ImageUnusable:
        return ""
    return "" if path in ALWAYS_WRITABLE or path in _labelled(image) else path


def _workdir(image: Image) -> str:
    workdir = posixpath.normpath(posixpath.join("/", image.workdir))
    return "/" + workdir.lstrip("/")


def _holder(path: str, folders: Collection[str]) -> str:
    """The innermost of these folders that `path` lies strictly within, or ""."""
    return max((folder for folder in folders if path.startswith(folder + "/")), key=len, default="")


def _ways(place: str, folders: Collection[str]) -> list[str]:
    """The folders between a place and the one of `folders` that it lies in."""
    above = _holder(place, folders)
    parts = place.removeprefix(above + "/").split("/") if above else []
    return ["/".join([above, *parts[:depth]]) for depth in range(1, len(parts))]


def _within(folder: str, paths: Collection[str]) -> bool:
    """Return True if any of these paths lies strictly within `folder`."""
    return any(path.startswith(folder + "/") for path in paths)
