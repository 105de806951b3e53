"""What an image says of its folders, and what is found there, becomes the layout of its slots."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import ImageUnusable
from scheduler.image import LABEL_WRITABLE, Image
from scheduler.launchers.places import (
    MAX_FOLDERS,
    MAX_WRITABLE_PLACES,
    Folder,
    Layout,
    Question,
    layout,
    question,
    writable_places,
)
from scheduler.launchers.user import Owner

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
        (image(env=("HOME=/home/app",)), Question(folders=("/home/app",))),
        (image(env=("HOME=/root", "HOME=/home/app/")), Question(folders=("/home/app",))),
        (image(env=("HOME=/tmp",)), Question()),
        *((image(env=(f"HOME={home}",)), Question()) for home in ("/", "/usr", "/proc/x", "relative", "")),
        (image(workdir="/tmp/work"), Question(folders=("/tmp/work",))),
        (image(workdir="tmp//job/../job"), Question(folders=("/tmp/job",))),
        (labelled("/data", workdir="/data/in"), Question(folders=("/data/in",))),
        (image(workdir="/v/in", volumes=("/v",)), Question(volumes=("/v",))),
    ],
)
def test_what_must_be_looked_up(of: Image, asked: Question) -> None:
    assert question(of) == asked


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
        # The program of an image that keeps it in its HOME is never hidden.
        (image(env=("HOME=/home/app",)), {"/home/app": FULL}, ALWAYS, ()),
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
            {"/v": Folder(behind_link=True), "/h": Folder(behind_link=True)},
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
    assert layout(of, seen, Owner(1, 2)) == Layout(places, kept, Owner(1, 2))


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
        layout(of, seen)


def test_folders_within_places_are_bounded_too() -> None:
    many = tuple(f"/v{n}" for n in range(MAX_WRITABLE_PLACES))
    eight = Folder(folders=tuple("abcdefgh"))
    laid_out = layout(image(volumes=many), {"/v0": eight, "/v1": eight})
    assert len(laid_out.places) == 2 + MAX_WRITABLE_PLACES + MAX_FOLDERS - len(laid_out.kept)
    assert laid_out.kept == ("/v1",)
