"""ocr:1 in a real container, on a real page."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.images.conftest import Run
from tests.images.test_imgproc import blank_png

pytestmark = pytest.mark.docker


def test_a_scanned_page_becomes_text(run: Run, page: Path) -> None:
    done = run("ocr:1", "-l", "eng", stdin=page.read_bytes())
    assert (done.code, done.err) == (0, "")
    text = done.out.decode()
    assert "Region-based segmentation" in text
    for words in (
        "determine markers of the coins",
        "markers are pixels that we can label",
        "object or background",
    ):
        assert words in text


def test_english_is_the_default_language(run: Run, page: Path) -> None:
    assert run("ocr:1", stdin=page.read_bytes()) == run("ocr:1", "-l", "eng", stdin=page.read_bytes())


def test_larger_pages_of_every_format_are_read(run: Run, page: Path) -> None:
    large = Image.open(page).convert("L").resize((1536, 764), Image.Resampling.LANCZOS)
    for format in ("JPEG", "PNG", "TIFF", "WEBP"):
        buffer = io.BytesIO()
        large.save(buffer, format)
        done = run("ocr:1", "--psm", "4", stdin=buffer.getvalue())
        assert (done.code, done.err) == (0, "")
        assert "us first determine markers of the coins" in done.out.decode()


def test_words_with_their_places(run: Run, page: Path) -> None:
    table = run("ocr:1", "--psm", "6", "tsv", stdin=page.read_bytes()).out.decode()
    assert table.startswith("level\tpage_num\t")
    row = next(line.split("\t") for line in table.splitlines() if line.endswith("\tsegmentation"))
    left, top = int(row[6]), int(row[7])
    assert 120 < left < 180
    assert 5 < top < 30
    assert b"<div class='ocr_page'" in run("ocr:1", "hocr", stdin=page.read_bytes()).out


@pytest.mark.parametrize(
    "data", [b"", b"no picture\n", b"/etc/passwd\n", b"%PDF-1.7\n", b"\x89PNG\r\n\x1a\n" + bytes(100)]
)
def test_what_is_no_picture_ends_with_one_clear_line(run: Run, data: bytes) -> None:
    done = run("ocr:1", stdin=data)
    assert (done.code, done.out) == (65, b"")
    assert done.err.startswith("ocr: ")
    assert done.err.count("\n") == 1


def test_a_huge_page_is_refused(run: Run) -> None:
    done = run("ocr:1", stdin=blank_png(15000, 15000))
    assert (done.code, done.out) == (65, b"")
    assert done.err.startswith("ocr: the picture can't be used: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("-l",),
        ("-l", "xyz"),
        ("-l", "eng+xyz"),
        ("-l", "../eng"),
        ("--psm", "14"),
        ("--psm", "six"),
        ("--dpi", "1"),
        ("-c", "debug_file=/tmp/x"),
        ("pdf",),
    ],
)
def test_wrong_arguments_show_the_usage(run: Run, page: Path, arguments: tuple[str, ...]) -> None:
    done = run("ocr:1", *arguments, stdin=page.read_bytes())
    assert (done.code, done.out) == (64, b"")
    assert "usage: ocr" in done.err
