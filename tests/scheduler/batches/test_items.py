"""The inputs of a batch as their readers find them; bad ones are refused with the line or entry that is wrong."""

from __future__ import annotations

import io
import random
import tarfile
from typing import Any, BinaryIO

import pytest

from scheduler.batches.archive import HEADER_BYTES, ArchiveReader
from scheduler.batches.item import (
    EXTRA_ROOM_BYTES,
    PORTION_ITEMS,
    Counter,
    Item,
    ItemLimits,
    Reader,
    inputs_from,
)
from scheduler.batches.lines import LINE_BYTES, LinesReader
from scheduler.errors import BadRequest
from scheduler.execution import TOKEN_VARIABLE
from tests.scheduler.batches.conftest import lines, tar

LIMITS = ItemLimits(100, 1 << 20)


def count(reader: Reader, spool: BinaryIO, limits: ItemLimits = LIMITS) -> int:
    """The number of inputs, as a set counts them: a portion at a time."""
    counter = Counter(reader, spool, limits)
    while counter.portion():
        pass
    return counter.inputs


def items(reader: Reader, data: bytes) -> list[Item]:
    """All inputs, each read as after a restart: from the byte where the one before ended."""
    spool = io.BytesIO(data)
    found: list[Item] = []
    while True:
        begins = found[-1].next_item if found else 0
        item = next(inputs_from(reader, spool, begins, len(found) + 1), None)
        if item is None:
            break
        # Reading it again from its own beginning gives the same, as a retry does.
        assert reader.read(spool, item.item, len(found) + 1) == item
        found.append(item)
    assert count(reader, spool) == len(found)
    return found


def refusal(reader: Reader, data: bytes, limits: ItemLimits = LIMITS) -> str:
    with pytest.raises(BadRequest) as refused:
        count(reader, io.BytesIO(data), limits)
    assert refused.value.field == "body"
    return str(refused.value)


class TestLines:
    def test_empty_lines_are_skipped_and_the_last_one_needs_no_end(self) -> None:
        found = items(LinesReader(), b'\n \n{"input": "a"}\n\n{"name": "b", "args": ["x"]}')
        assert [(item.name, item.data, item.args) for item in found] == [
            ("000001", b"a", ()),
            ("b", b"", ("x",)),
        ]

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"", "the batch has no inputs; send at least one"),
            (b"\n\n", "the batch has no inputs"),
            (b'{"input": "a"}\n{"inptu": "b"}\n', "input 2 (byte 15): Object contains unknown field `inptu`"),
            (b"[]", "input 1 (byte 0): Expected `object`, got `array`"),
            (b'{"args": "x"}', "Expected `array`, got `str` - at `$.args`"),
            (b"{", "input 1 (byte 0): Input data was truncated"),
            (b'{"input": "\xff"}', "input 1 (byte 0):"),
            (b'{"input": "\\ud800"}', "input 1 (byte 0):"),
            (b'{"input_base64": "?"}', "Invalid base64 encoded string"),
            (b'{"input": "a", "input_base64": "YQ=="}', "it has both `input` and `input_base64`; give one"),
            (b'{"args": ["a\\u0000"]}', "a NUL character cannot be passed to a program"),
            (b'{"env": {"A=B": "x"}}', "'A=B' is not the name of a variable"),
            (b'{"env": {"": "x"}}', "'' is not the name of a variable"),
            (b'{"env": {"A": "\\u0000"}}', "a NUL character"),
            (lines({"env": {TOKEN_VARIABLE: "x"}}), "is the platform's own name; choose another"),
            (lines({"name": "a"}, {"name": "a"}), "the name 'a' appears twice"),
            (lines({"name": "000002"}, {}), "the name '000002' appears twice"),
            (
                lines({"name": "a"}, {"name": "a/b"}),
                "the name 'a' is that of an input and of a folder of others",
            ),
            (
                lines({"name": "a/b/c"}, {"name": "a"}),
                "the name 'a' is that of an input and of a folder of others",
            ),
            (lines({"name": "a/b/c"}, {"name": "a/b"}), "the name 'a/b' is that of an input and of a folder"),
            (lines({"name": "../a"}), "the name '../a' is not a plain relative path"),
            (lines({"input": "x" * LINE_BYTES}), f"its line is longer than {LINE_BYTES} bytes"),
            (lines({"args": ["x"] * 8193}), "at most 8192 arguments"),
        ],
    )
    def test_what_is_wrong_is_said_with_its_place(self, data: bytes, said: str) -> None:
        assert said in refusal(LinesReader(), data)

    def test_names_have_a_bounded_number_of_folders(self) -> None:
        names = [{"name": f"{number}/{number}/{number}/x"} for number in range(4)]
        assert count(LinesReader(), io.BytesIO(lines(*names)), ItemLimits(4, 100)) == 4
        deep = [*names[1:], {"name": "/".join("abcdefgh") + "/x"}]
        said = refusal(LinesReader(), lines(*deep), ItemLimits(4, 100))
        assert said == "the names of the inputs have more than 16 folders; use fewer"

    def test_more_inputs_than_a_batch_may_have(self) -> None:
        said = refusal(LinesReader(), lines(*[{}] * 4), ItemLimits(3, 100))
        assert said == "the batch has more than 3 inputs; send them as several batches"

    def test_empty_lines_are_as_many_as_inputs_at_most(self) -> None:
        assert count(LinesReader(), io.BytesIO(b"\n" * 100 + b"{}")) == 1
        said = refusal(LinesReader(), b"\n" * 101 + b"{}")
        assert said == "the batch has more than 100 empty lines or folders; leave them out"

    def test_endless_empty_lines_are_read_a_portion_at_a_time(self) -> None:
        """A body of a gigabyte of empty lines costs as much as the inputs that a batch may have."""
        read = 0

        class Endless(io.BytesIO):
            def readline(self, size: int | None = -1, /) -> bytes:
                nonlocal read
                read += 1
                return b"\n"

        counter = Counter(LinesReader(), Endless(), ItemLimits(3 * PORTION_ITEMS, 100))
        for portion in range(3):
            assert counter.portion()
            assert read == (portion + 1) * PORTION_ITEMS
        with pytest.raises(BadRequest, match="more than 600 empty lines"):
            counter.portion()
        assert read == 3 * PORTION_ITEMS + 1


def entry(name: str, kind: bytes = tarfile.REGTYPE, **facts: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for fact, value in facts.items():
        setattr(made, fact, value)
    return made


class TestArchives:
    @pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_files_have_their_paths_as_names_and_folders_are_skipped(self, form: int) -> None:
        data = tar(
            [
                (entry("./", tarfile.DIRTYPE), b""),
                ("./a", b"1"),
                (entry("b", tarfile.DIRTYPE), b""),
                ("b/c", bytes(1024)),
                ("b/" + "d" * 90 + "/" + "e" * 90, b""),
            ],
            form,
        )
        found = items(ArchiveReader(), data)
        assert [(item.name, item.size_bytes) for item in found] == [
            ("a", 1),
            ("b/c", 1024),
            ("b/" + "d" * 90 + "/" + "e" * 90, 0),
        ]
        assert data[found[0].at : found[0].at + 1] == b"1"

    def test_folders_are_as_many_as_inputs_at_most(self) -> None:
        folders = [(entry(f"d{number}", tarfile.DIRTYPE), b"") for number in range(101)]
        assert count(ArchiveReader(), io.BytesIO(tar([*folders[:100], ("x", b"")]))) == 1
        said = refusal(ArchiveReader(), tar([*folders, ("x", b"")]))
        assert said == "the batch has more than 100 empty lines or folders; leave them out"

    def test_names_of_other_alphabets(self) -> None:
        assert [item.name for item in items(ArchiveReader(), tar([("straße/写真.jpg", b"x")]))] == [
            "straße/写真.jpg"
        ]

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("../x", "is not a plain relative path"),
            ("a/../../x", "is not a plain relative path"),
            ("/etc/passwd", "is not a plain relative path"),
            ("a//b", "is not a plain relative path"),
            ("a/./b", "is not a plain relative path"),
            ("a\nb", "characters that cannot be printed"),
            ("a\x7f", "characters that cannot be printed"),
            ("x.error.json", "ends in .error.json or .files"),
            ("x.files/y", "ends in .error.json or .files"),
            ("x" * 256, "has more than 255 characters"),
        ],
    )
    def test_names_that_climb_or_cannot_name_a_result_are_refused(self, name: str, said: str) -> None:
        refused = refusal(ArchiveReader(), tar([("first", b"1"), (name, b"2")]))
        assert said in refused
        assert "entry" in refused

    def test_a_name_that_is_not_unicode(self) -> None:
        data = tar([("a\udcff", b"1")], tarfile.GNU_FORMAT)
        assert "not UTF-8" in refusal(ArchiveReader(), data)

    @pytest.mark.parametrize(
        ("made", "kind"),
        [
            (entry("x", tarfile.SYMTYPE, linkname="/etc/passwd"), "a link"),
            (entry("x", tarfile.LNKTYPE, linkname="a"), "a link"),
            (entry("x", tarfile.CHRTYPE, devmajor=1, devminor=3), "a device or a pipe"),
            (entry("x", tarfile.BLKTYPE), "a device or a pipe"),
            (entry("x", tarfile.FIFOTYPE), "a device or a pipe"),
        ],
    )
    def test_links_and_devices_are_refused(self, made: tarfile.TarInfo, kind: str) -> None:
        said = refusal(ArchiveReader(), tar([("a", b"1"), (made, b"")], tarfile.GNU_FORMAT))
        assert f"entry 'x' (byte 1024): it is {kind}; a batch takes files and folders only" == said

    def test_a_file_with_holes_is_refused(self) -> None:
        made = entry("x", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "1000"})
        assert "it is a file with holes" in refusal(ArchiveReader(), tar([(made, b"1")]))

    def test_a_name_twice(self) -> None:
        assert "the name 'a' appears twice" in refusal(ArchiveReader(), tar([("a", b"1"), ("./a", b"2")]))

    def test_an_input_that_is_too_large(self) -> None:
        said = refusal(ArchiveReader(), tar([("a", bytes(101))]), ItemLimits(10, 100))
        assert said == "the input 'a' has 101 bytes; an input has at most 100"

    def test_headers_that_claim_gigabytes_are_not_read(self) -> None:
        made = entry("x", tarfile.XHDTYPE, size=(1 << 33) - 1)
        data = made.tobuf(tarfile.USTAR_FORMAT)[:512] + bytes(2048)
        assert f"its headers are longer than {HEADER_BYTES} bytes" in refusal(ArchiveReader(), data)
        long_name = entry("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=1 << 30)
        data = long_name.tobuf(tarfile.GNU_FORMAT)[:512] + bytes(2048)
        assert f"its headers are longer than {HEADER_BYTES} bytes" in refusal(ArchiveReader(), data)

    def test_attributes_of_many_entries_have_a_bound(self) -> None:
        """Each has fewer than an entry may have; together they would take minutes."""
        files = [
            (entry(f"f{number}", pax_headers={f"a.{n}": "b" for n in range(3_000)}), b"")
            for number in range(EXTRA_ROOM_BYTES // 30_000 + 3)
        ]
        said = refusal(ArchiveReader(), tar(files))
        assert said.endswith("inputs; write an archive with `--format=gnu`")
        assert "the headers, folders and empty lines before byte" in said
        assert count(ArchiveReader(), io.BytesIO(tar(files[:20]))) == 20

    def test_headers_without_an_end_are_not_followed(self) -> None:
        """Each long name says that another long name follows."""
        one = entry("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=5).tobuf(tarfile.GNU_FORMAT)[:512]
        data = (one + b"name\0".ljust(512, b"\0")) * 2000
        assert "input 1 (byte 0)" in refusal(ArchiveReader(), data)

    def test_attributes_of_all_entries_are_refused(self) -> None:
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w", pax_headers={"path": "../x"}) as archive:
            archive.addfile(tarfile.TarInfo("a"))
        assert "attributes for all of its entries" in refusal(ArchiveReader(), target.getvalue())

    def test_an_archive_of_git_is_taken(self) -> None:
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w", pax_headers={"comment": "0123abc"}) as archive:
            archive.addfile(tarfile.TarInfo("a"))
        assert [item.name for item in items(ArchiveReader(), target.getvalue())] == ["a"]

    @pytest.mark.parametrize("data", [b"\x1f\x8b\x08" + bytes(600), b"BZh9" + bytes(600)])
    def test_a_compressed_archive(self, data: bytes) -> None:
        assert "the archive is compressed; send it as it is" in refusal(ArchiveReader(), data)

    @pytest.mark.parametrize("data", [b"", b"x", b"hello" * 300, bytes(1024)])
    def test_what_is_no_archive_or_empty(self, data: bytes) -> None:
        said = refusal(ArchiveReader(), data)
        assert "not a tar archive" in said or "the batch has no inputs" in said

    def test_an_archive_that_was_cut_off_is_refused_wherever_that_was(self) -> None:
        whole = tar([("a", b"1" * 700), ("b" * 150, b"2" * 10), ("c", b"3")], tarfile.GNU_FORMAT)
        end = whole.rindex(b"3") + 1
        end += -end % 512
        for length in range(0, end + 1, 64):
            assert refusal(ArchiveReader(), whole[:length])
        assert len(items(ArchiveReader(), whole[: end + 512])) == 3

    def test_damage_never_gets_past_the_reader(self) -> None:
        """Whatever the bytes are: the reader finds inputs within them, or refuses them."""
        chance = random.Random(5)
        forms = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
        for number in range(600):
            names = [
                ("dir/" + "n" * chance.randrange(1, 100), bytes(chance.randrange(700))) for _ in range(3)
            ]
            data = bytearray(tar(names, forms[number % 3])[: 512 * 14])
            for _ in range(chance.randrange(1, 6)):
                at = chance.randrange(len(data))
                data[at : at + 1] = chance.choice([b"\0", b"\xff", b"7", b"L", b"x", b"S"])
            spool = io.BytesIO(data)
            try:
                count(ArchiveReader(), spool)
            except BadRequest:
                continue
            assert all(item.at + item.size_bytes <= len(data) for item in items(ArchiveReader(), bytes(data)))
