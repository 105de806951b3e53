"""imgproc:1 brings every colour model and profile to sRGB: what comes out carries no profile and looks the same."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image, ImageCms

from tests.images import colour_profiles as profiles
from tests.images.conftest import Run
from tests.images.test_imgproc import encoded, opened

pytestmark = pytest.mark.docker

P3, ADOBE_RGB = profiles.rgb(profiles.DISPLAY_P3), profiles.rgb(profiles.ADOBE_RGB, 2.199)
CMYK, LINEAR_GREY = profiles.cmyk(), profiles.grey(1.0)
RED = Image.new("RGB", (16, 12), (200, 60, 60))
GREY = Image.new("L", (16, 12), 100)
INKS = Image.new("CMYK", (16, 12), (30, 150, 200, 20))


def in_srgb(picture: Image.Image, profile: bytes) -> tuple[int, ...]:
    """The colour of a one-coloured picture in sRGB, by Little CMS through Pillow."""
    transform = ImageCms.buildTransform(
        io.BytesIO(profile),
        ImageCms.createProfile("sRGB"),
        picture.mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    converted = ImageCms.applyTransform(picture, transform)
    assert converted is not None  # it is only where the picture is changed in place
    return colour(converted)


def colour(picture: Image.Image) -> tuple[int, ...]:
    if picture.mode == "I;16":
        (value,) = struct.unpack("<H", picture.crop((8, 6, 9, 7)).tobytes())
        return 3 * (value // 257,)
    return tuple(picture.convert("RGB").crop((8, 6, 9, 7)).tobytes())


def looks_like(got: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return max(abs(one - other) for one, other in zip(got, wanted, strict=True)) <= 3


def lab() -> Image.Image:
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    picture = ImageCms.applyTransform(RED, transform)
    assert picture is not None
    picture.info.pop("icc_profile", None)
    return picture


def gif(profile: bytes) -> tuple[bytes, tuple[int, ...]]:
    """A GIF of one colour with this profile, and the colour."""
    picture = RED.quantize(2)
    plain = encoded(picture, "GIF")
    start = 13 + 3 * 2 ** ((plain[10] & 7) + 1)
    blocks = b"".join(
        bytes([len(profile[at : at + 255])]) + profile[at : at + 255] for at in range(0, len(profile), 255)
    )
    return plain[:start] + b"\x21\xff\x0bICCRGBG1012" + blocks + b"\0" + plain[start:], colour(opened(plain))


GAMMA = profiles.png_chunk(b"gAMA", struct.pack(">I", round(100_000 / 2.2)))
P3_PRIMARIES = profiles.png_chunk(
    b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
)

# The picture, and its colour in sRGB.
CASES: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "JPEG, Display P3": (encoded(RED, "JPEG", quality=95, icc_profile=P3), (219, 37, 49)),
    "JPEG, Adobe RGB": (encoded(RED, "JPEG", quality=95, icc_profile=ADOBE_RGB), in_srgb(RED, ADOBE_RGB)),
    "JPEG, Adobe RGB by its EXIF alone": (
        encoded(RED, "JPEG", quality=95, exif=profiles.exif_of_adobe_rgb()),
        in_srgb(RED, ADOBE_RGB),
    ),
    "progressive JPEG": (encoded(RED, "JPEG", quality=95, progressive=True, icc_profile=P3), (219, 37, 49)),
    "PNG": (encoded(RED, "PNG", icc_profile=P3), (219, 37, 49)),
    "PNG with transparency": (encoded(RED.convert("RGBA"), "PNG", icc_profile=P3), (219, 37, 49)),
    "PNG with a palette": (encoded(RED.quantize(2), "PNG", icc_profile=P3), (219, 37, 49)),
    "PNG of 16 bits": (profiles.png_16_bit((200, 60, 60), P3), (219, 37, 49)),
    "PNG, primaries and gamma": (
        profiles.with_chunks(encoded(RED, "PNG"), GAMMA, P3_PRIMARIES),
        (219, 37, 49),
    ),
    "PNG that says sRGB": (
        profiles.with_chunks(encoded(RED, "PNG"), profiles.png_chunk(b"sRGB", b"\0"), GAMMA, P3_PRIMARIES),
        (200, 60, 60),
    ),
    "WebP": (encoded(RED, "WEBP", lossless=True, icc_profile=P3), (219, 37, 49)),
    "TIFF": (encoded(RED, "TIFF", icc_profile=P3), (219, 37, 49)),
    "GIF": (gif(P3)[0], in_srgb(Image.new("RGB", (16, 12), gif(P3)[1]), P3)),
    "grey JPEG": (encoded(GREY, "JPEG", icc_profile=LINEAR_GREY), in_srgb(GREY, LINEAR_GREY)),
    "grey JPEG with a profile for RGB": (encoded(GREY, "JPEG", icc_profile=P3), (100, 100, 100)),
    "grey PNG with transparency": (
        encoded(GREY.convert("LA"), "PNG", icc_profile=LINEAR_GREY),
        in_srgb(GREY, LINEAR_GREY),
    ),
    "grey PNG of 16 bits": (profiles.png_16_bit((100,), LINEAR_GREY), in_srgb(GREY, LINEAR_GREY)),
    "CMYK JPEG, inverted as Adobe's": (
        encoded(INKS, "JPEG", quality=95, icc_profile=CMYK),
        in_srgb(INKS, CMYK),
    ),
    "CMYK TIFF": (encoded(INKS, "TIFF", icc_profile=CMYK), in_srgb(INKS, CMYK)),
    "CIE Lab TIFF": (encoded(lab(), "TIFF"), (200, 60, 60)),
}


@pytest.mark.parametrize("name", CASES)
def test_every_profile_is_applied(run: Run, name: str) -> None:
    source, wanted = CASES[name]
    done = run("imgproc:1", "convert", "png", stdin=source)
    assert (done.code, done.err) == (0, "")
    picture = opened(done.out)
    assert looks_like(colour(picture), wanted), (colour(picture), wanted)
    assert "icc_profile" not in picture.info


@pytest.mark.parametrize("arguments", [("thumbnail", "8x8"), ("rotate", "90"), ("convert", "webp")])
def test_every_operation_applies_the_profile(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(
        "imgproc:1", *arguments, stdin=encoded(RED.resize((64, 48)), "JPEG", quality=95, icc_profile=P3)
    )
    picture = opened(done.out)
    assert looks_like(tuple(picture.convert("RGB").crop((3, 3, 4, 4)).tobytes()), (219, 37, 49))
    assert "icc_profile" not in picture.info


@pytest.mark.parametrize(
    ("profile", "complaint"),
    [
        (P3[:200], "is damaged"),
        (bytes(300), "is damaged"),
        (CMYK, "is for CMYK"),
        (LINEAR_GREY, "is for grey pictures"),
    ],
)
def test_a_profile_that_can_not_be_applied_is_ignored_with_a_line(
    run: Run, profile: bytes, complaint: str
) -> None:
    done = run("imgproc:1", "convert", "png", stdin=encoded(RED, "JPEG", quality=95, icc_profile=profile))
    assert (done.code, done.err) == (
        0,
        f"imgproc: the picture's colour profile {complaint}, and is ignored\n",
    )
    assert looks_like(colour(opened(done.out)), (200, 60, 60))


def test_a_png_with_a_broken_profile_is_used_without_it(run: Run) -> None:
    done = run("imgproc:1", "convert", "png", stdin=encoded(RED, "PNG", icc_profile=P3[:200]))
    assert done.code == 0
    assert done.err.startswith("imgproc: the picture's colour profile is ignored: iCCP")
    assert done.err.count("\n") == 1
    assert looks_like(colour(opened(done.out)), (200, 60, 60))


def test_cmyk_without_a_profile_is_still_a_picture(run: Run) -> None:
    done = run("imgproc:1", "convert", "jpeg", stdin=encoded(INKS, "JPEG", quality=95))
    assert (done.code, done.err) == (0, "")
    picture = opened(done.out)
    assert picture.mode == "RGB"
    red, green, blue = colour(picture)
    assert red > green > blue
