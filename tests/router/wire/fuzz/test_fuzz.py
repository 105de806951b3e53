"""A bounded run of the fuzzer for every check; `make fuzz-router` goes on for as long as it is told."""

from __future__ import annotations

import importlib.util
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import h11
import pytest

from router.wire import framing, stream
from router.wire.stream import Stream
from tests.fuzzer import ROOT
from tests.router.wire.fuzz import run, targets

RUNS = {"framing": 15_000, "answers": 15_000, "mixing": 800}
FEWEST_EDGES = {"framing": 200, "answers": 70, "mixing": 600}
"""What the seeds alone reach, and a little less: fewer mean that the router is not watched any more."""


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this platform"
)
@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", run.FUZZER.targets)
def test_guided_runs_find_nothing(name: str, tmp_path: Path) -> None:
    command = run.FUZZER.command(name, tmp_path, f"-runs={RUNS[name]}", "-seed=1", "-max_total_time=60")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=140, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr[-3000:]
    edges = [int(count) for count in re.findall(r" cov: (\d+) ", ended.stderr)]
    assert edges[-1] >= FEWEST_EDGES[name]


def blind_runs(name: str, count: int) -> None:
    """Seeds, changed a little without looking at what they reach."""
    rng = random.Random(1)
    inputs = list(run.seeds(name).values())
    for _ in range(count):
        data = bytearray(rng.choice(inputs))
        at = rng.randrange(len(data) + 1)
        data[at : at + rng.randrange(2)] = rng.choice((b"", b"\r", b"\n", b" ", b";", b"0", rng.randbytes(1)))
        targets.TARGETS[name](bytes(data))


@pytest.mark.parametrize(("name", "count"), [("framing", 5_000), ("answers", 5_000), ("mixing", 200)])
def test_blind_runs_find_nothing(name: str, count: int) -> None:
    blind_runs(name, count)


def keeps_without_copying(usual: Callable[..., None]) -> Callable[..., None]:
    return lambda self, kept, shared: usual(self, kept, False)


def test_a_buffer_that_two_connections_share_is_noticed() -> None:
    with (
        mock.patch.object(Stream, "_keep", keeps_without_copying(Stream._keep)),
        pytest.raises(AssertionError, match="another client's"),
    ):
        blind_runs("mixing", 400)


def test_a_loan_that_is_forgotten_is_noticed() -> None:
    with (
        mock.patch.object(stream.Buffers, "give_back", return_value=None),
        pytest.raises(AssertionError),
    ):
        blind_runs("mixing", 400)


def test_a_lax_size_line_is_noticed() -> None:
    lax = re.compile(rb"\s*([0-9A-Fa-f]{1,15})[^\r\n]*\r\n")
    with (
        mock.patch.object(framing, "_CHUNK_LINE", lax),
        pytest.raises((AssertionError, h11.RemoteProtocolError)),
    ):
        blind_runs("framing", 20_000)


def test_a_body_that_is_read_by_the_chunk_it_came_in_is_noticed() -> None:
    usual = framing.LengthBody.feed

    def feed(self: framing.LengthBody, buf: bytes, view: memoryview, start: int, end: int) -> object:
        pieces, stop = usual(self, buf, view, start, end)
        self.done = True
        return pieces, stop

    with mock.patch.object(framing.LengthBody, "feed", feed), pytest.raises(AssertionError):
        blind_runs("framing", 2_000)
