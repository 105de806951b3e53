"""Digits for request ids: never given twice, not even to a process and its child."""

from __future__ import annotations

import os
import re

from router.wire.ids import HexSource


def test_digits_are_given_once() -> None:
    source = HexSource()
    taken = [source.take(48) for _ in range(2000)]
    assert len(set(taken)) == 2000
    assert all(re.fullmatch(rb"[0-9a-f]{48}", digits) for digits in taken)
    assert not {digits[:16] for digits in taken} & {digits[16:32] for digits in taken}


def test_a_child_has_digits_of_its_own() -> None:
    source = HexSource()
    source.take(32)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, source.take(32))
        os._exit(0)
    ours = source.take(32)
    assert os.read(read, 32) not in (b"", ours)
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)
