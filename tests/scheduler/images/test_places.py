"""What an image says of its folders, and what is found there, becomes the layout of its slots."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import ImageUnusable
from scheduler.image import LABEL_WRITABLE, Image
from scheduler.images.content import Entry, Kind, packed, seen_by
from scheduler.images.places import (
    MAX_FOLDERS,
    MAX_WRITABLE_PLACES,
    Folder,
    Layout,
    Question,
    home_folders,
    layout,
    question,
    said_home,
    writable_places,
)
from scheduler.images.user import Owner

ID = "sha256:" + "1" * 64
FULL = Folder(holds_files=True)
ALWAYS = ("/tmp", "/dev/shm")


def image(**fields: Any) -> Image:
    return Image(reference="ocr:1", digest=ID, image_id=ID, **fields)


@pytest.mark.parametrize(
    ("volumes", "label", "places"),
    [
        ((), "", ("/tmp", "/dev/shm")),
        (("/v/", "//tmp"[1:]), "", ("/tmp", "/v", "/dev/shm")),
        (("/a/b/../c",), "/x, /y/z ,", ("/tmp", "/x", "/a/c", "/dev/shm", "/y/z")),
        (("/etc/app", "/usr/share/x"), "", ("/tmp", "/dev/shm", "/etc/app", "/usr/share/x")),
        (
            ("/process", "/gcx", "/devices", "/home", "/var", "/opt"),
            "/srv",
            ("/devices", "/gcx", "/home", "/opt", "/process", "/srv", "/tmp", "/var", "/dev/shm"),
        ),
    ],
)
def test_places_of_an_image(volumes: tuple[str, ...], label: str, places: tuple[str, ...]) -> None:
    assert writable_places(image(volumes=volumes, labels={LABEL_WRITABLE: label})) == places


@pytest.mark.parametrize(
    "place",
    [
        "/",
        "/proc",
        "/proc/1",
        "/sys",
        "/dev",
        "/dev/mqueue",
        "/dev/shm/x",
        "/gc",
        "/gc/run",
        "/etc",
        "/usr",
        "/lib64",
        "relative",
        "/with\nnewline",
        "/" + "x" * 2000,
    ],
)
@pytest.mark.parametrize("by", ["volume", "label"])
def test_places_that_are_refused_name_their_origin(place: str, by: str) -> None:
    asked = image(volumes=(place,)) if by == "volume" else image(labels={LABEL_WRITABLE: place})
    with pytest.raises(ImageUnusable, match="VOLUME" if by == "volume" else LABEL_WRITABLE):
        writable_places(asked)


@pytest.mark.parametrize("place", ["/a/../b", "/a//b", "//a", "/./a"])
def test_a_label_is_taken_literally_or_not_at_all(place: str) -> None:
    with pytest.raises(ImageUnusable, match=r"must be written without|single slash"):
        writable_places(image(labels={LABEL_WRITABLE: place}))


def test_the_number_of_places_is_bounded() -> None:
    many = tuple(f"/v{n}" for n in range(MAX_WRITABLE_PLACES))
    assert len(writable_places(image(volumes=many))) == MAX_WRITABLE_PLACES + 2
    with pytest.raises(ImageUnusable, match="at most 16"):
        writable_places(image(volumes=(*many, "/one-more")))


@given(st.lists(st.text(max_size=30), max_size=5), st.text(max_size=60))
def test_no_place_is_ever_outside_the_rules(volumes: list[str], label: str) -> None:
    try:
        places = writable_places(image(volumes=tuple(volumes), labels={LABEL_WRITABLE: label}))
    except ImageUnusable:
        return
    for place in places:
        parts = place.split("/")
        assert parts[0] == ""
        assert len(parts) > 1
        assert not {"", ".", ".."} & set(parts[1:])
        assert parts[1] not in ("proc", "sys", "gc")
        assert parts[1] != "dev" or place == "/dev/shm"


def labelled(places: str, **fields: Any) -> Image:
    return image(labels={LABEL_WRITABLE: places}, **fields)


@pytest.mark.parametrize(
    ("of", "asked"),
    [
        (image(), Question()),
        (image(workdir="/app", env=("PATH=/bin",)), Question()),
        (image(volumes=("/tmp/", "/dev/shm"), workdir="/tmp"), Question()),
        (labelled("/x", workdir="/x"), Question()),
        (image(volumes=("/v/",)), Question(volumes=("/v",))),
        # A folder that is to be empty needs no look.
        (labelled("/v", volumes=("/v",)), Question()),
        (labelled("/v/x,/y", volumes=("/v",)), Question(volumes=("/v",), existence=("/v/x",))),
        (image(env=("HOME=/home/app",)), Question(home="/home/app")),
        (image(env=("HOME=/root", "HOME=/home/app/")), Question(home="/home/app")),
        (image(env=("HOME=/tmp",)), Question()),
        *((image(env=(f"HOME={home}",)), Question()) for home in ("/", "/usr", "/proc/x", "relative", "")),
        (image(workdir="/tmp/work"), Question(folders=("/tmp/work",))),
        (image(workdir="tmp//job/../job"), Question(folders=("/tmp/job",))),
        (labelled("/data", workdir="/data/in"), Question(folders=("/data/in",))),
        (image(workdir="/v/in", volumes=("/v",)), Question(volumes=("/v",))),
    ],
)
def test_what_must_be_looked_up(of: Image, asked: Question) -> None:
    assert question(of, said_home(of) or "") == asked


@pytest.mark.parametrize(
    ("of", "seen", "places", "kept"),
    [
        (image(volumes=("/v",)), {}, ("/tmp", "/v", "/dev/shm"), ()),
        (image(volumes=("/v",)), {"/v": None}, ("/tmp", "/v", "/dev/shm"), ()),
        (image(volumes=("/v",)), {"/v": Folder()}, ("/tmp", "/v", "/dev/shm"), ()),
        (image(volumes=("/v", "/w")), {"/v": FULL}, ("/tmp", "/w", "/dev/shm"), ("/v",)),
        # Who asks for an empty folder by name gets one.
        (labelled("/v", volumes=("/v",)), {"/v": FULL}, ("/tmp", "/v", "/dev/shm"), ()),
        # Folders that hold nothing are as good as new ones.
        (
            image(volumes=("/v",)),
            {"/v": Folder(folders=("in", "out/deep"))},
            ("/tmp", "/v", "/dev/shm", "/v/in", "/v/out/deep"),
            (),
        ),
        # Within what can only be read, a place is possible where there is a folder for it.
        (
            labelled("/v/out", volumes=("/v",)),
            {"/v": FULL, "/v/out": Folder()},
            ("/tmp", "/dev/shm", "/v/out"),
            ("/v",),
        ),
        (
            image(volumes=("/v", "/v/a", "/v/b")),
            {"/v": FULL, "/v/a": FULL, "/v/b": Folder()},
            ("/tmp", "/dev/shm", "/v/b"),
            ("/v", "/v/a"),
        ),
        # What an image has in its HOME is never hidden. Where it is too much to be copied, places within it remain.
        (
            image(env=("HOME=/h",)),
            {"/h": FULL, "/h/.cache": FULL, "/h/.config": Folder(behind_link=True)},
            ("/tmp", "/dev/shm", "/h/.local/share", "/h/.local/state"),
            (),
        ),
        (
            labelled("/h/.config", env=("HOME=/h",), volumes=("/h/.cache/v", "/h/.local/share")),
            {"/h": FULL, "/h/.cache": FULL, "/h/.cache/v": FULL, "/h/.local/share": FULL},
            ("/tmp", "/dev/shm", "/h/.config", "/h/.local/state"),
            ("/h/.cache/v", "/h/.local/share"),
        ),
        (image(env=("HOME=/home/app",)), {"/home/app": None}, ("/tmp", "/dev/shm", "/home/app"), ()),
        (
            image(env=("HOME=/home/app",), workdir="/home/app/work"),
            {"/home/app": Folder(folders=("work",))},
            ("/tmp", "/dev/shm", "/home/app", "/home/app/work"),
            (),
        ),
        (image(env=("HOME=/v/home",), volumes=("/v",)), {"/v": FULL, "/v/home": None}, ALWAYS, ("/v",)),
        # Nothing is ever kept, or added, where a link of the image leads.
        (
            image(volumes=("/v",), env=("HOME=/h",)),
            {"/v": Folder(behind_link=True), "/h": Folder(behind_link=True)}
            | {folder: Folder(behind_link=True) for folder in home_folders("/h")},
            ("/tmp", "/v", "/dev/shm"),
            (),
        ),
        (image(workdir="/tmp/work"), {"/tmp/work": Folder()}, ("/tmp", "/dev/shm", "/tmp/work"), ()),
        (image(workdir="/tmp/a/b"), {}, ("/tmp", "/dev/shm", "/tmp/a/b"), ()),
        (image(workdir="/tmp"), {}, ALWAYS, ()),
        (image(workdir="/tmpfs/x"), {}, ALWAYS, ()),
        (image(workdir="/v/w", volumes=("/v",)), {"/v": FULL}, ALWAYS, ("/v",)),
        (image(workdir="/v/w", volumes=("/v",)), {}, ("/tmp", "/v", "/dev/shm", "/v/w"), ()),
        (labelled("/d", entrypoint=("app",), cmd=("/d/x",)), {}, ("/d", "/tmp", "/dev/shm"), ()),
    ],
)
def test_layouts(
    of: Image, seen: dict[str, Folder | None], places: tuple[str, ...], kept: tuple[str, ...]
) -> None:
    assert layout(of, seen, Owner(1, 2), said_home(of) or "") == Layout(places, kept, Owner(1, 2))


@pytest.mark.parametrize(
    ("of", "seen", "why"),
    [
        (image(workdir="/tmp/app"), {"/tmp/app": FULL}, "WORKDIR /tmp/app has files .* /tmp begins"),
        (labelled("/d", workdir="/d/app"), {"/d/app": FULL}, "WORKDIR /d/app has files .* /d begins"),
        (image(volumes=("/tmp/v",)), {"/tmp/v": FULL}, "VOLUME /tmp/v has files .* /tmp begins"),
        (labelled("/v/new", volumes=("/v",)), {"/v": FULL}, r"writable=/v/new: .*\(RUN mkdir -p /v/new\)"),
        (image(volumes=("/v", "/v/w")), {"/v": FULL, "/v/w": None}, "VOLUME /v/w: the image has no such"),
        (image(workdir="/tmp/a\nb"), {}, "WORKDIR .* control characters"),
        (image(workdir="/tmp/" + "x" * 2000), {}, "too long"),
        (image(entrypoint=("/tmp/run.sh",)), {}, "program /tmp/run.sh lies in /tmp"),
        (image(cmd=("/dev/shm/../shm/x",)), {}, "lies in /dev/shm"),
        (labelled("/app", entrypoint=("/app/run.sh",)), {}, "lies in /app"),
    ],
)
def test_layouts_that_would_hide_what_is_needed_are_refused_with_the_way_out(
    of: Image, seen: dict[str, Folder | None], why: str
) -> None:
    with pytest.raises(ImageUnusable, match=why):
        layout(of, seen, home=said_home(of) or "")


def test_folders_within_places_are_bounded_too() -> None:
    many = tuple(f"/v{n}" for n in range(MAX_WRITABLE_PLACES))
    eight = Folder(folders=tuple("abcdefgh"))
    laid_out = layout(image(volumes=many), {"/v0": eight, "/v1": eight})
    assert len(laid_out.places) == 2 + MAX_WRITABLE_PLACES + MAX_FOLDERS - len(laid_out.kept)
    assert laid_out.kept == ("/v1",)


def entry(path: str, kind: Kind = Kind.FILE, **fields: Any) -> Entry:
    return Entry(path, kind, **fields)


def holding(folder: str, *paths: str) -> Folder:
    return Folder(
        holds_files=bool(paths), content=(entry(folder, Kind.FOLDER), *(entry(path) for path in paths))
    )


def with_cache(folder: Folder) -> Folder:
    content = (*(folder.content or ()), *(holding("/h/.cache", "/h/.cache/m").content or ()))
    return Folder(holds_files=True, content=content)


def laid(*paths: str, folders: tuple[str, ...]) -> bytes:
    """As the guest reads it: `folders` and `paths`, all of the user 1:2."""
    entries = [entry(path, Kind.FOLDER if path in folders else Kind.FILE) for path in paths]
    return packed(seen_by(Owner(1, 2), entries))


@pytest.mark.parametrize(
    ("of", "seen", "places", "kept", "content"),
    [
        (
            image(env=("HOME=/h",)),
            {"/h": holding("/h", "/h/.bashrc")},
            ("/h", *ALWAYS),
            (),
            ("/h", "/h/.bashrc"),
        ),
        # Folders without files are content as well: they have the image's modes.
        (image(env=("HOME=/h",)), {"/h": holding("/h")}, ("/h", *ALWAYS), (), ("/h",)),
        # A HOME that is a VOLUME, one within /tmp, and one with the WORKDIR.
        (
            image(env=("HOME=/v",), volumes=("/v",)),
            {"/v": holding("/v", "/v/x")},
            ("/tmp", "/v", "/dev/shm"),
            (),
            ("/v", "/v/x"),
        ),
        (
            image(env=("HOME=/tmp/h",), workdir="/tmp/h/w"),
            {"/tmp/h": holding("/tmp/h", "/tmp/h/w/run"), "/tmp/h/w": FULL},
            (*ALWAYS, "/tmp/h", "/tmp/h/w"),
            (),
            ("/tmp/h", "/tmp/h/w/run"),
        ),
        # A label still makes an empty place, within HOME too.
        (
            labelled("/h/out", env=("HOME=/h",)),
            {"/h": holding("/h", "/h/x", "/h/out/x")},
            ("/h", *ALWAYS, "/h/out"),
            (),
            ("/h", "/h/x"),
        ),
        (labelled("/h", env=("HOME=/h",)), {}, ("/h", *ALWAYS), (), ()),
        # So that the way to a place within belongs to the USER.
        (
            image(env=("HOME=/h",), workdir="/h/a/b/c"),
            {"/h": holding("/h", "/h/x")},
            ("/h", *ALWAYS, "/h/a", "/h/a/b", "/h/a/b/c"),
            (),
            ("/h", "/h/x"),
        ),
        # A VOLUME with files within HOME would be hidden by it.
        (
            image(env=("HOME=/h",), volumes=("/h/v",)),
            {"/h": with_cache(holding("/h", "/h/v/x")), "/h/v": FULL},
            (*ALWAYS, "/h/.cache", "/h/.config", "/h/.local/share", "/h/.local/state"),
            ("/h/v",),
            ("/h/.cache", "/h/.cache/m"),
        ),
        # One that is within a VOLUME with files has them beneath it.
        (
            image(env=("HOME=/v/h",), volumes=("/v",)),
            {"/v": FULL, "/v/h": holding("/v/h", "/v/h/x")},
            (*ALWAYS, "/v/h"),
            ("/v",),
            ("/v/h", "/v/h/x"),
        ),
    ],
)
def test_homes_with_content(
    of: Image,
    seen: dict[str, Folder | None],
    places: tuple[str, ...],
    kept: tuple[str, ...],
    content: tuple[str, ...],
) -> None:
    found = layout(of, seen, Owner(1, 2), said_home(of) or "")
    assert (set(found.places), found.kept) == (set(places), kept)
    assert found.content == laid(*content, folders=("/h", "/v", "/tmp/h", "/v/h", "/h/.cache"))


@pytest.mark.parametrize(
    ("env", "home"),
    [
        ((), None),
        (("HOME=",), None),
        (("HOME=/a", "HOME="), None),
        (("HOME=/a", "HOME=/b"), "/b"),
        (("HOME=relative",), "relative"),
        (("HOMES=/a",), None),
    ],
)
def test_what_an_image_says_of_its_home(env: tuple[str, ...], home: str | None) -> None:
    assert said_home(image(env=env)) == home
