"""cat:1 and ncat:1: what goes in comes out, also without libc."""

from __future__ import annotations

import random

import pytest

from tests.images.conftest import Run


@pytest.mark.docker
@pytest.mark.parametrize("image", ["cat:1", "ncat:1"])
@pytest.mark.parametrize("size", [0, 1, 1000, 131072, 3_000_001])
def test_bytes_come_out_as_they_went_in(run: Run, image: str, size: int) -> None:
    data = random.Random(size).randbytes(size)
    done = run(image, stdin=data)
    assert (done.code, done.err) == (0, "")
    assert done.out == data
