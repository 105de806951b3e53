"""A module has one noun: no module of the product is as long as 400 lines."""

from __future__ import annotations

from tests.test_architecture import ROOT, sources

TOO_LONG_LINES = 400


def test_no_module_is_as_long_as_400_lines() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): path.read_bytes().count(b"\n") for path in sources()}
    assert lengths, "no module was looked at"
    long = [f"{path}: {lines} lines" for path, lines in lengths.items() if lines >= TOO_LONG_LINES]
    assert not long, "split these by what they are about: " + ", ".join(long)
