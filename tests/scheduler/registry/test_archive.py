"""Layers from strangers: archives that are broken, huge or lead out of the image, read in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest

from scheduler.errors import ImageUnusable
from scheduler.images.content import MAX_ENTRIES
from scheduler.images.look import FolderTooLarge, ImageFile
from scheduler.images.places import Folder
from scheduler.registry import archive as archive_module
from scheduler.registry.archive import read_layer
from scheduler.registry.tree import MAX_KEPT, NotGathered, Tree

ZERO_BLOCKS = b"\0" * 1024


def chunks(content: bytes, size: int = 1000) -> Callable[[], bytes]:
    """Gives the content in pieces, as a registry would."""
    pieces = iter(content[at : at + size] for at in range(0, len(content), size))
    return lambda: next(pieces, b"")


def tar(*entries: tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format) as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(b"x" * entry.size) if entry.isreg() else None)
    return made.getvalue()


def file(name: str, size: int = 1, **fields: object) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    return file(name, 0, type=kind, linkname=target)


def folder(name: str, mode: int = 0o755) -> tarfile.TarInfo:
    return file(name, 0, type=tarfile.DIRTYPE, mode=mode)


def tree_of(*layers: bytes, wanted: tuple[str, ...] = ("/v", "/etc/passwd")) -> Tree:
    tree = Tree(wanted, content_bytes=100)
    for layer in layers:
        read_layer(tree, chunks(layer))
    return tree


@pytest.mark.parametrize(
    "packed",
    [
        bytes,
        gzip.compress,
        lambda content: gzip.compress(content) + b"\0" * 5000,
        lambda content: b"".join(gzip.compress(content[at : at + 512]) for at in range(0, len(content), 512)),
    ],
    ids=["plain", "gzip", "gzip with padding", "many gzip members"],
)
def test_a_layer_is_read_however_it_is_packed(packed: Callable[[bytes], bytes]) -> None:
    tree = tree_of(packed(tar(file("v/a"), file("etc/passwd", 50))))
    assert tree.file("/etc/passwd", 100) == ImageFile(b"x" * 50)
    assert tree.folder("/v", None) == Folder(holds_files=True)


@pytest.mark.parametrize("name", ["v/a", "./v/a", "/v/a", "v//a", "../../v/a", "/../v/./x/../a", "v/a/"])
def test_every_spelling_of_a_name_stays_within_the_image(name: str) -> None:
    assert tree_of(tar(file(name))).folder("/v", None) == Folder(holds_files=True)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (b"", "broken"),
        (b"no archive", "broken"),
        (b"x" * 4096, "broken"),
        (gzip.compress(b"no archive" * 100), "broken"),
        (gzip.compress(tar(file("v/a", 100_000)))[:60], "broken"),
        (gzip.compress(tar(file("v/a")))[:10] + b"\xff" * 100, "broken"),
        (tar(file("v/a", 100_000))[:5000], "broken"),
        (b"\x28\xb5\x2f\xfd rest", "zstd"),
        (bz2.compress(tar(file("v/a"))), "broken"),
    ],
)
def test_what_is_no_layer_is_told(layer: bytes, why: str) -> None:
    with pytest.raises(ImageUnusable, match=why):
        tree_of(layer)


def pax_of(size: int) -> Iterator[bytes]:
    """The header of an extended header of so many bytes, and those bytes, in gzip."""
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, size
    packer = zlib.compressobj(wbits=31)
    yield packer.compress(header.tobuf(tarfile.USTAR_FORMAT))
    for _ in range(0, size, 1 << 20):
        yield packer.compress(b"\0" * (1 << 20))
    yield packer.flush()


def test_a_header_that_says_to_be_huge_is_not_read_into_memory() -> None:
    pieces = filter(None, pax_of(256 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ImageUnusable, match="headers are too large"):
            read_layer(Tree(["/v"], 100), lambda: next(pieces, b""))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 32 << 20


def test_sparse_files_are_refused() -> None:
    entry = file("v/a", 0)
    entry.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    block[386:482] = b"0" * 11 + b"\0" + b"0" * 11 + b"\0" + b"\0" * 72
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    with pytest.raises(ImageUnusable, match="sparse"):
        tree_of(bytes(block) + ZERO_BLOCKS)


def test_a_bomb_ends_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_UNPACKED_BYTES", 1 << 20)
    with pytest.raises(ImageUnusable, match="more than 0 GiB"):
        tree_of(gzip.compress(tar(file("elsewhere", 4 << 20))))


def test_the_number_of_files_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_ENTRIES_READ", 10)
    with pytest.raises(ImageUnusable, match="too many files; at most 10"):
        tree_of(tar(*(file(f"elsewhere/{n}") for n in range(11))))


def test_what_is_not_wanted_is_not_kept() -> None:
    monster = tar(*(file(f"usr/{n}", 0) for n in range(2000)))
    tree = tree_of(monster)
    assert len(tree) == 0
    with pytest.raises(NotGathered):
        tree.folder("/usr", None)


@pytest.mark.parametrize("mtime", [0, -1, 1e300, 1.5])
def test_times_of_any_size_are_taken(mtime: float) -> None:
    tree = tree_of(tar(file("v/a", 1, mtime=mtime)))
    found = tree.folder("/v", None, 1000)
    assert found is not None
    assert found.content is not None
    struct.pack("q", found.content[1].mtime_s)


def test_hard_links_have_the_content_of_their_file() -> None:
    tree = tree_of(tar(file("v/a", 3), link("v/b", "v/a", tarfile.LNKTYPE)))
    found = tree.folder("/v", None, 1000)
    assert found is not None
    assert found.content is not None
    assert [(entry.path, entry.data) for entry in found.content] == [
        ("/v", b""),
        ("/v/a", b"xxx"),
        ("/v/b", b"xxx"),
    ]
    beyond = tree_of(tar(file("usr/a", 3), link("v/b", "usr/a", tarfile.LNKTYPE)))
    assert beyond.folder("/v", None, 1000) == Folder(holds_files=True)


def test_the_content_of_a_folder_with_too_many_entries_is_left_out() -> None:
    most = [file(f"v/{number:03}") for number in range(MAX_ENTRIES - 1)]
    found = tree_of(tar(*most)).folder("/v", None, 1000)
    assert found is not None
    assert found.content is not None
    assert [entry.path for entry in found.content] == ["/v", *(f"/{entry.name}" for entry in most)]
    more = tree_of(tar(*most, file("v/one-more")))
    assert more.folder("/v", None, 1000) == Folder(holds_files=True)
    with pytest.raises(FolderTooLarge):
        more.folder("/v", MAX_ENTRIES - 1, 1000)


def test_devices_and_pipes_are_files_without_content() -> None:
    tree = tree_of(
        tar(folder("v"), file("v/pipe", 0, type=tarfile.FIFOTYPE), file("v/dev", 0, type=tarfile.CHRTYPE))
    )
    found = tree.folder("/v", None, 1000)
    assert found is not None
    assert found.holds_files
    assert [entry.path for entry in found.content or ()] == ["/v"]


def test_a_folder_behind_a_link_is_not_looked_at() -> None:
    assert tree_of(tar(link("v", "/etc"))).folder("/v", None) == Folder(behind_link=True)
    inner = tree_of(tar(folder("v"), link("v/a", "/")), wanted=("/v/a/b",))
    assert inner.folder("/v/a/b", None) == Folder(behind_link=True)


def test_a_file_is_no_folder() -> None:
    assert tree_of(tar(file("v"))).folder("/v", None) is None
    assert tree_of(tar(file("v")), wanted=("/v/a",)).folder("/v/a", None) is None


def test_a_volume_is_measured() -> None:
    tree = tree_of(tar(file("v/a", 600), file("v/b", 600)))
    assert tree.folder("/v", 1200) == Folder(holds_files=True)
    with pytest.raises(FolderTooLarge):
        tree.folder("/v", 1199)


def test_a_link_s_target_is_asked_for() -> None:
    tree = tree_of(tar(link("etc/passwd", "../usr/lib/passwd")))
    with pytest.raises(NotGathered) as missing:
        tree.file("/etc/passwd", 100)
    assert missing.value.path == "/usr"
    wider = tree_of(
        tar(link("etc/passwd", "../usr/lib/passwd"), file("usr/lib/passwd", 7)),
        wanted=("/etc/passwd", "/usr"),
    )
    assert wider.file("/etc/passwd", 100) == ImageFile(b"x" * 7)


def test_links_in_a_circle_end() -> None:
    tree = tree_of(tar(link("v/a", "b"), link("v/b", "a")))
    assert tree.file("/v/a", 100) == ImageFile()
    assert tree.mode("/v/a") is None


def test_files_that_cannot_be_taken_say_why() -> None:
    tree = tree_of(tar(folder("etc/passwd"), file("v/big", 500), file("v/a", 5)))
    assert tree.file("/etc/passwd", 100) == ImageFile(why="is not a regular file")
    assert tree.file("/v/big", 100) == ImageFile(why="has more than 100 bytes")
    assert tree.file("/v/a", 4) == ImageFile(why="has more than 4 bytes")
    assert tree.file("/v/none", 100) == ImageFile()


def test_the_rights_of_others() -> None:
    tree = tree_of(tar(folder("v", 0o751), file("v/a", mode=0o4644)))
    assert (tree.mode("/v"), tree.mode("/v/a"), tree.mode("/v/b")) == (1, 4, None)


def test_an_upper_layer_hides_a_lower_one() -> None:
    lower = tar(folder("v"), file("v/a"), file("v/b/c"))
    assert tree_of(lower, tar(file("v/b"))).folder("/v", None, 100) is not None
    replaced = tree_of(lower, tar(file("v/b")), wanted=("/v/b",))
    assert replaced.folder("/v/b", None) is None
    through_link = tree_of(tar(link("v", "/etc")), tar(file("v/a")))
    assert through_link.folder("/v", None) == Folder(holds_files=True)


def test_the_files_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.registry.tree.MAX_KEPT", 10)
    with pytest.raises(ImageUnusable, match=f"too many files in its VOLUMEs.*at most {MAX_KEPT}"):
        tree_of(tar(*(file(f"v/{n}", 0) for n in range(11))))


def test_no_bytes_bring_it_down() -> None:
    """Random damage: a layer is read, or it is unusable."""
    layer = tar(folder("v"), file("v/a", 700), link("v/l", "/etc"), file("v/" + "n" * 200, 3))
    outcomes = set()
    for seed in range(300):
        damaged = bytearray(layer)
        noise = os.urandom(3)
        for byte in range(3):
            damaged[(seed * 37 + byte * 511) % len(damaged)] = noise[byte]
        try:
            tree_of(bytes(damaged))
            outcomes.add("read")
        except ImageUnusable:
            outcomes.add("unusable")
    assert outcomes == {"read", "unusable"}
