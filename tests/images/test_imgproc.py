"""imgproc:1 in a real container, on real pictures, its results looked at with Pillow."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageCms, ImageOps, ImageStat
from PIL.PngImagePlugin import PngInfo

from tests.images.conftest import Run

pytestmark = pytest.mark.docker

# What Pillow reports of a picture's coding, as against what a camera or a program noted in it.
CODING_FACTS = {
    "jfif",
    "jfif_version",
    "jfif_unit",
    "jfif_density",
    "dpi",
    "compression",
    "gamma",
    "chromaticity",
    "srgb",
}
CODING_FACTS |= {"background", "loop", "duration", "version", "extension", "timestamp", "transparency"}


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def encoded(picture: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def difference(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two pictures of one size, in 0 to 255."""
    return max(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean)


def in_srgb(path: Path) -> Image.Image:
    """A photograph as it looks in sRGB."""
    picture = Image.open(path)
    profile = io.BytesIO(picture.info["icc_profile"])
    srgb = ImageCms.createProfile("sRGB")
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    converted = ImageCms.profileToProfile(picture, profile, srgb, renderingIntent=intent)
    assert converted is not None
    return converted


def quartered(width: int = 120, height: int = 80) -> Image.Image:
    """A picture that shows which way up it is: red, green, blue and white quarters."""
    picture = Image.new("RGB", (width, height), "white")
    for colour, x, y in (("red", 0, 0), ("lime", width // 2, 0), ("blue", 0, height // 2)):
        picture.paste(colour, (x, y, x + width // 2, y + height // 2))
    return picture


def blank_png(width: int, height: int) -> bytes:
    """A PNG of this size that is nearly nothing to send: the decompression bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_thumbnail_fits_into_the_size_and_keeps_proportions(run: Run, photograph: Path) -> None:
    done = run("imgproc:1", "thumbnail", "200x200", stdin=photograph.read_bytes())
    assert (done.code, done.err) == (0, "")
    small = opened(done.out)
    assert (small.format, small.size) == ("JPEG", (200, 133))
    expected = in_srgb(photograph).resize(small.size, Image.Resampling.LANCZOS)
    assert difference(small, expected) < 6


def test_thumbnail_never_enlarges(run: Run) -> None:
    done = run("imgproc:1", "thumbnail", "500x500", stdin=encoded(quartered(), "PNG"))
    assert opened(done.out).size == (120, 80)


@pytest.mark.parametrize("format", ["jpeg", "jpg", "png", "webp", "gif", "tiff"])
def test_convert_to_every_format(run: Run, photograph: Path, format: str) -> None:
    done = run("imgproc:1", "convert", format, stdin=photograph.read_bytes())
    assert (done.code, done.err) == (0, "")
    converted = opened(done.out)
    assert converted.format == {"jpg": "JPEG"}.get(format, format.upper())
    assert difference(converted, in_srgb(photograph)) < (20 if format == "gif" else 4)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_every_format_is_read(run: Run, format: str) -> None:
    done = run("imgproc:1", "convert", "png", stdin=encoded(quartered(), format))
    assert (done.code, done.err) == (0, "")
    assert difference(opened(done.out), quartered()) < 8


def test_rotate_90_swaps_the_sides_and_turns_clockwise(run: Run) -> None:
    done = run("imgproc:1", "rotate", "90", stdin=encoded(quartered(), "PNG"))
    turned = opened(done.out)
    assert turned.size == (80, 120)
    assert difference(turned, quartered().transpose(Image.Transpose.ROTATE_270)) == 0


def test_rotate_by_an_odd_angle_lays_bare_clear_corners(run: Run) -> None:
    turned = opened(run("imgproc:1", "rotate", "-30", stdin=encoded(quartered(), "PNG")).out)
    assert turned.width > 120
    assert turned.height > 80
    assert turned.convert("RGBA").getpixel((0, 0)) == (0, 0, 0, 0)


def test_watermark_changes_the_lower_right_corner_only(run: Run, photograph: Path) -> None:
    done = run("imgproc:1", "watermark", "© General Compute", stdin=photograph.read_bytes())
    assert (done.code, done.err) == (0, "")
    marked, plain = opened(done.out), in_srgb(photograph)
    assert marked.size == plain.size == (640, 427)
    corner, rest = (320, 427 - 427 // 12, 640, 427), (0, 0, 640, 380)
    assert difference(marked.crop(corner), plain.crop(corner)) > 20
    assert difference(marked.crop(rest), plain.crop(rest)) < 3


# What ImageMagick would make of the text if it saw it bare, and what must stand in the picture instead. The other
# sample image reads it back.
@pytest.mark.parametrize(
    ("text", "wanted", "interpreted"),
    [
        ("@/etc/passwd", "etc/passwd", "root"),
        ("width %w", "width %", "1600"),
        ("sum %[fx:6*7]", "fx:6", "42"),
        (r"before\nbehind", r"before\nbehind", "before\nbehind"),
        ("-rotate", "rotate", ""),
        ("( label:x )", "label:x", ""),
    ],
)
def test_watermark_text_is_drawn_as_it_stands(run: Run, text: str, wanted: str, interpreted: str) -> None:
    done = run("imgproc:1", "watermark", text, stdin=encoded(Image.new("RGB", (1600, 1200)), "PNG"))
    assert (done.code, done.err) == (0, "")
    label = ImageOps.invert(opened(done.out).convert("L").crop((800, 1100, 1600, 1200)))
    seen = run("ocr:1", "--psm", "6", stdin=encoded(ImageOps.expand(label, 40, "white"), "PNG")).out.decode()
    assert wanted in seen
    assert not interpreted or interpreted not in seen


@pytest.mark.parametrize("text", ["", "x" * 201, "line\nline", "bell\a"])
def test_watermark_refuses_texts_that_it_cannot_draw(run: Run, text: str) -> None:
    done = run("imgproc:1", "watermark", text)
    assert done.code == 64
    assert done.err.startswith("imgproc: watermark wants a text")


@pytest.mark.parametrize(
    "arguments", [("thumbnail", "60x60"), ("convert", "png"), ("rotate", "0"), ("watermark", "x")]
)
def test_pictures_come_out_upright_and_without_metadata(run: Run, arguments: tuple[str, ...]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was held on its side
    exif[0x010F] = "a camera's maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    side_down = quartered().transpose(Image.Transpose.ROTATE_90)
    source = encoded(side_down, "JPEG", exif=exif, icc_profile=profile, comment=b"a secret place", quality=95)
    done = run("imgproc:1", *arguments, stdin=source)
    picture = opened(done.out)
    assert picture.width > picture.height
    assert not picture.getexif()
    assert set(picture.info) <= CODING_FACTS
    if arguments[0] != "watermark":
        assert difference(picture, quartered().resize(picture.size)) < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_honoured_in_every_format_that_carries_it(
    run: Run, format: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = encoded(quartered(), format, exif=exif)
    done = run("imgproc:1", "convert", "png", stdin=source)
    assert (done.code, done.err) == (0, "")
    picture = opened(done.out)
    assert not picture.getexif()
    upright = ImageOps.exif_transpose(opened(source))
    assert picture.size == upright.size
    assert difference(picture, upright) < 8


def test_png_notes_are_dropped(run: Run) -> None:
    notes = PngInfo()
    notes.add_text("Author", "somebody")
    done = run("imgproc:1", "rotate", "180", stdin=encoded(quartered(), "PNG", pnginfo=notes))
    assert set(opened(done.out).info) <= CODING_FACTS
    assert b"somebody" not in done.out
    assert b"date:" not in done.out


def test_of_several_frames_the_first_is_taken(run: Run) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue")]
    source = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    picture = opened(run("imgproc:1", "convert", "png", stdin=source).out)
    assert picture.convert("RGB").getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_of_other_formats_with_several_frames_too(run: Run, format: str) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue")]
    source = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    picture = opened(run("imgproc:1", "convert", "png", stdin=source).out)
    assert difference(picture, frames[0]) < 3


def test_a_first_frame_that_covers_a_part_of_the_screen_keeps_its_place(run: Run) -> None:
    plain = bytearray(encoded(Image.new("P", (10, 10)), "GIF"))
    frame = plain.index(0x2C, 13 + 3 * 2 ** ((plain[10] & 7) + 1))
    plain[6:10] = struct.pack("<HH", 40, 30)
    plain[frame + 1 : frame + 5] = struct.pack("<HH", 20, 10)
    assert opened(run("imgproc:1", "convert", "png", stdin=bytes(plain)).out).size == (40, 30)


def test_clear_parts_become_white_in_a_jpeg(run: Run) -> None:
    clear = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    picture = opened(run("imgproc:1", "convert", "jpeg", stdin=encoded(clear, "PNG")).out)
    assert picture.convert("RGB").getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture at all\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='/etc/passwd'/></svg>",
        b"push graphic-context\nimage over 0,0 0,0 'ephemeral:/etc/passwd'\npop graphic-context\n",
        b"%!PS-Adobe-3.0\n(/etc/passwd) run\n",
        b"%PDF-1.7\n",
        b"\x00\x00\x01\x00" + bytes(60),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\xff\xd8\xff" + bytes(100),
        b"GIF89a",
        b"RIFF\x10\x00\x00\x00WEBPVP8 ",
    ],
)
def test_what_is_no_picture_ends_with_one_clear_line(run: Run, data: bytes) -> None:
    done = run("imgproc:1", "thumbnail", "200x200", stdin=data)
    assert (done.code, done.out) == (65, b"")
    assert done.err.startswith("imgproc: ")
    assert done.err.count("\n") == 1
    assert "picture" in done.err


@pytest.mark.parametrize("percent", [50, 99])
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {}),
    ],
)
def test_a_part_of_a_picture_is_refused(
    run: Run, photograph: Path, format: str, options: dict[str, object], percent: int
) -> None:
    source = encoded(Image.open(photograph), format, **options)
    done = run("imgproc:1", "rotate", "90", stdin=source[: len(source) * percent // 100])
    assert (done.code, done.out) == (65, b"")
    assert done.err.startswith("imgproc: the picture ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1", "AVIF"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"BM\x36\0\0\0", "BMP"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"II+\0\x08\0\0\0", "BigTIFF"),
    ],
)
def test_a_format_that_is_not_read_is_named(run: Run, data: bytes, name: str) -> None:
    done = run("imgproc:1", "convert", "jpeg", stdin=data)
    wanted = f"imgproc: a {name} file is not read here: convert it to a JPEG, PNG, GIF, TIFF or WebP picture first\n"
    assert (done.code, done.out, done.err) == (65, b"", wanted)
    assert name in run("imgproc:1", "--help").out.decode()


@pytest.mark.parametrize(("width", "height"), [(15000, 15000), (60000, 100)])
def test_a_decompression_bomb_is_refused(run: Run, width: int, height: int) -> None:
    done = run("imgproc:1", "thumbnail", "200x200", stdin=blank_png(width, height))
    assert (done.code, done.out) == (65, b"")
    assert done.err.startswith("imgproc: the picture can't be used: ")


HUGE = """
import json, sys
from PIL import Image
Image.new("L", (16000, 16000)).save(sys.stdout.buffer, sys.argv[1], **json.loads(sys.argv[2]))
"""


def huge(format: str, options: dict[str, object]) -> bytes:
    """A picture whose encoder takes gigabytes: made in a process of its own, as every child of this one inherits the
    peak of its memory, by which libFuzzer would be stopped."""
    command = [sys.executable, "-c", HUGE, format, json.dumps(options)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize(
    ("format", "options"),
    [("JPEG", {"progressive": True}), ("WEBP", {"lossless": True, "quality": 0, "method": 0}), ("GIF", {})],
)
@pytest.mark.parametrize("image", ["imgproc:1", "ocr:1"])
def test_a_picture_that_its_decoder_has_no_memory_for_is_refused(
    run: Run, image: str, format: str, options: dict[str, object]
) -> None:
    source = huge(format, options)
    arguments = ("thumbnail", "200x200") if image == "imgproc:1" else ()
    done = run(image, *arguments, stdin=source, options=("--memory-swap=512m",))
    assert (done.code, done.out) == (65, b"")
    assert "memory of this task" in done.err
    assert done.err.count("\n") == 1


def test_more_memory_allows_larger_pictures(run: Run) -> None:
    source = blank_png(8000, 4000)
    refused = run("imgproc:1", "rotate", "90", stdin=source)
    assert (refused.code, refused.out) == (65, b"")
    assert "too large for the memory of this task" in refused.err
    done = run("imgproc:1", "rotate", "90", stdin=source, options=("--memory=1g",))
    assert (done.code, done.err) == (0, "")
    assert Image.open(io.BytesIO(done.out)).size == (4000, 8000)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("thumbnail",),
        ("thumbnail", "200"),
        ("thumbnail", "0x200"),
        ("thumbnail", "200x200!"),
        ("thumbnail", "99999x99999"),
        ("convert", "svg"),
        ("convert", "mvg:/tmp/x"),
        ("convert", "PNG"),
        ("rotate", "a little"),
        ("rotate", "361"),
        ("rotate", "90<"),
        ("explode", "now"),
        ("thumbnail", "200x200", "-write", "/tmp/x"),
    ],
)
def test_wrong_arguments_show_the_usage(run: Run, photograph: Path, arguments: tuple[str, ...]) -> None:
    done = run("imgproc:1", *arguments, stdin=photograph.read_bytes())
    assert (done.code, done.out) == (64, b"")
    assert "usage: imgproc OPERATION" in done.err


def test_help_is_an_answer(run: Run) -> None:
    done = run("imgproc:1", "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(b"usage: imgproc OPERATION")
