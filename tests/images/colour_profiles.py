"""Small ICC profiles, made by the specification (ICC.1:2001-04, version 2), and PNG files put together by hand."""

from __future__ import annotations

import struct
import zlib

XYZ = tuple[float, float, float]

# Colorants of the primaries, adapted to D50, as the profiles of these names have them.
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
D50 = (0.9642, 1.0, 0.8249)


def _numbers(*values: float) -> bytes:
    """Values as s15Fixed16Number, big-endian."""
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _xyz(value: XYZ) -> bytes:
    return b"XYZ \0\0\0\0" + _numbers(*value)


def _gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256)) + b"\0\0"


def _profile(model: bytes, tags: dict[bytes, bytes], connection: bytes = b"XYZ ") -> bytes:
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": description, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": _xyz(D50), **tags}
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    size = struct.pack(">I", start + len(data))
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    head = size + bytes(4) + b"\x02\x20\0\0" + b"mntr" + model + connection + date + b"acsp" + bytes(28)
    return (head + _numbers(*D50)).ljust(128, b"\0") + table + data


def rgb(colorants: tuple[XYZ, XYZ, XYZ], gamma: float = 2.2) -> bytes:
    """A profile of three colorants and one gamma."""
    red, green, blue = colorants
    tags = {b"rXYZ": _xyz(red), b"gXYZ": _xyz(green), b"bXYZ": _xyz(blue)}
    return _profile(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _gamma(gamma)))


def grey(gamma: float) -> bytes:
    """A profile for grey."""
    return _profile(b"GRAY", {b"kTRC": _gamma(gamma)})


def cmyk() -> bytes:
    """A profile for CMYK with a table of two grid points an ink, by a rule of thumb for how inks look in CIE Lab."""
    table = b""
    for corner in range(16):
        c, m, y, k = (corner >> 3) & 1, (corner >> 2) & 1, (corner >> 1) & 1, corner & 1
        light = 255 * (1 - k) * (1 - 0.4 * c - 0.4 * m - 0.05 * y)
        a, b = (1 - k) * (70 * m - 40 * c), (1 - k) * (85 * y - 45 * c - 5 * m)
        table += bytes([round(light), round(a) + 128, round(b) + 128])
    straight = bytes(range(256))
    matrix = _numbers(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + 4 * straight + table + 3 * straight
    return _profile(b"CMYK", {b"A2B0": lut}, connection=b"Lab ")


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """A PNG with these chunks after its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def png_16_bit(colour: tuple[int, ...], profile: bytes) -> bytes:
    """A PNG of 16 x 12 pixels of one colour, 0 to 255 a channel, one for grey or three, in 16 bits each."""
    row = b"\0" + 16 * b"".join(struct.pack(">H", 257 * value) for value in colour)
    header = struct.pack(">IIBBBBB", 16, 12, 16, 0 if len(colour) == 1 else 2, 0, 0, 0)
    embedded = png_chunk(b"iCCP", b"test\0\0" + zlib.compress(profile))
    pixels = png_chunk(b"IDAT", zlib.compress(12 * row))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + embedded + pixels + png_chunk(b"IEND", b"")


def exif_of_adobe_rgb() -> bytes:
    """An EXIF block as a camera writes it that takes Adobe RGB and embeds no profile: interoperability index R03."""
    pointer = struct.pack("<HHHIII", 1, 0x8769, 4, 1, 26, 0)
    uncalibrated = struct.pack("<HHIHH", 0xA001, 3, 1, 0xFFFF, 0)
    exif = struct.pack("<H", 2) + uncalibrated + struct.pack("<HHIII", 0xA005, 4, 1, 56, 0)
    interoperability = struct.pack("<HHHI4sI", 1, 1, 2, 4, b"R03\0", 0)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + pointer + exif + interoperability
