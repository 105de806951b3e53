"""ocr:1 in a real container, on a real page."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont, ImageOps

from tests.images.conftest import Finished, Run
from tests.images.test_imgproc import blank_png, encoded

pytestmark = pytest.mark.docker

# How a page has to lie in the file for its orientation tag to turn it upright.
TO_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def written(text: str, size: int = 32) -> Image.Image:
    """A page with this text, in letters of so many pixels."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text, font)
    page = Image.new("L", (int(right - left) + 6 * size, int(bottom - top) + 6 * size), 255)
    ImageDraw.Draw(page).multiline_text((3 * size, 3 * size), text, 0, font)
    return page


def test_a_scanned_page_becomes_text(run: Run, page: Path) -> None:
    done = run("ocr:1", "-l", "eng", stdin=page.read_bytes())
    assert (done.code, done.err) == (0, "")
    assert done.out.decode().startswith(
        "Region-based segmentation\n\n"
        "Let us first determine markers of the coins and the\n"
        "background. These markers are pixels that we can label\n"
        "unambiguously as either object or background. Here,\n"
        "the markers are found at the two extreme parts of the\n"
        "histogram of grey values:\n"
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_page_is_turned_by_its_orientation_tag(run: Run, format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    sideways = written("Turned by camera").transpose(TO_ORIENTATION[orientation]) if orientation > 1 else None
    source = encoded(sideways or written("Turned by camera"), format, exif=exif)
    assert run("ocr:1", stdin=source) == Finished(0, b"Turned by camera\n", "")


@pytest.mark.parametrize("size", [10, 12, 16, 24, 48])
def test_small_and_large_letters_are_read(run: Run, size: int) -> None:
    done = run(
        "ocr:1", stdin=encoded(written("Small letters on this page\nthat nobody scanned well", size), "PNG")
    )
    assert done == Finished(0, b"Small letters on this page\nthat nobody scanned well\n", "")


@pytest.mark.parametrize("size", [12, 40])
@pytest.mark.parametrize("format", ["tsv", "hocr"])
def test_places_are_those_of_the_page_as_it_came(run: Run, format: str, size: int) -> None:
    page = written("Before after", size)
    left, top, right, bottom = ImageOps.invert(page).getbbox() or (0, 0, 0, 0)
    text = run("ocr:1", format, stdin=encoded(page, "PNG")).out.decode()
    if format == "tsv":
        rows = [line.split("\t") for line in text.splitlines()[1:]]
        assert rows[0][6:10] == ["0", "0", str(page.width), str(page.height)]
        line = next(row for row in rows if row[0] == "4")
        x, y, width, height = (int(value) for value in line[6:10])
        found = x, y, x + width, y + height
    else:
        assert f"bbox 0 0 {page.width} {page.height}" in text
        match = re.search(r"class='ocr_line'.*?bbox (\d+) (\d+) (\d+) (\d+); baseline", text)
        assert match
        x, y, right_edge, lower_edge = (int(value) for value in match.groups())
        found = x, y, right_edge, lower_edge
    for got, wanted in zip(found, (left, top, right, bottom), strict=True):
        assert abs(got - wanted) <= 2


def test_all_pages_of_a_tiff_are_read(run: Run) -> None:
    pages = [written("The first page"), written("Another page with smaller letters", 11)]
    done = run("ocr:1", stdin=encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert done == Finished(0, b"The first page\n\fAnother page with smaller letters\n", "")
    table = run("ocr:1", "tsv", stdin=encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])).out
    assert [row.split(b"\t")[1] for row in table.splitlines() if row.startswith(b"1\t")] == [b"1", b"2"]


def test_text_on_nothing_is_text_on_white(run: Run) -> None:
    page = Image.new("LA", (500, 120), (0, 0))
    page.putalpha(ImageOps.invert(written("Black on nothing").resize((500, 120))))
    assert run("ocr:1", stdin=encoded(page, "PNG")).out == b"Black on nothing\n"
    assert run("ocr:1", stdin=encoded(page.convert("RGBA").quantize(8), "PNG")).out == b"Black on nothing\n"


def test_light_text_on_dark_is_read(run: Run) -> None:
    page = ImageOps.invert(written("White on black"))
    assert run("ocr:1", stdin=encoded(page, "PNG")).out == b"White on black\n"


def test_a_blank_page_has_no_text(run: Run) -> None:
    done = run("ocr:1", stdin=encoded(Image.new("L", (600, 800), 255), "PNG"))
    assert (done.code, done.out.strip(), done.err) == (0, b"", "")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "GIF", "WEBP"])
def test_a_part_of_a_page_is_refused(run: Run, page: Path, format: str) -> None:
    source = encoded(Image.open(page).convert("RGB"), format)
    done = run("ocr:1", stdin=source[: len(source) * 9 // 10])
    assert (done.code, done.out) == (65, b"")
    assert done.err.startswith("ocr: the picture can't be used: nothing in it could be decoded")
    assert done.err.count("\n") == 1


def test_orientation_and_script_alone(run: Run, page: Path) -> None:
    turned = Image.open(page).convert("L").transpose(Image.Transpose.ROTATE_90)
    told = run("ocr:1", "--psm", "0", stdin=encoded(turned, "PNG")).out.decode()
    assert "Rotate: 90\n" in told
    assert "Script: Latin\n" in told


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
