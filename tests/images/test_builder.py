"""Sample images are built when one of their inputs has changed, and only then."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ops.images import builder


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "images"
    shutil.copytree(builder.FOLDER, folder)
    monkeypatch.setattr(builder, "FOLDER", folder)
    return folder


def digests(base: str = "sha256:1") -> dict[str, str]:
    return {name: builder.inputs_digest(name, base) for name in builder.NAMES}


def test_digests_depend_on_contents_not_on_times(copy: Path) -> None:
    before = digests()
    for file in copy.rglob("*"):
        file.touch()
    assert digests() == before
    assert len(set(before.values())) == len(before)


def test_a_new_base_changes_all(copy: Path) -> None:
    assert not set(digests("sha256:1").values()) & set(digests("sha256:2").values())


@pytest.mark.parametrize(
    ("changed", "images"),
    [
        ("imgproc/policy.xml", {"imgproc"}),
        ("ncat/ncat.c", {"ncat"}),
        ("picture.h", {"imgproc", "ocr"}),
        ("builder.py", set()),
    ],
)
def test_a_changed_file_changes_the_images_that_it_goes_into(
    copy: Path, changed: str, images: set[str]
) -> None:
    before = digests()
    with (copy / changed).open("a") as file:
        file.write("\n")
    after = digests()
    assert {name for name in after if after[name] != before[name]} == images


def test_apt_options_are_plain_options() -> None:
    for option in builder.apt_options().split():
        name, _, value = option.partition("=")
        assert name.startswith("-oAcquire::")
        assert value.isalnum()
