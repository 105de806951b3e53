"""The witness sees the rig's programs, from birth to death, and no others."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.cluster.clock import boot_s
from tests.cluster.cluster import compile_attempt
from tests.cluster.parts import until
from tests.cluster.witness import PROGRAM, Witness


def program(binary: Path, mark: str) -> subprocess.Popen[bytes]:
    """The rig's algorithm as a process of this machine, called as in its container; it waits for its input."""
    words = (PROGRAM.decode(), mark, "0", "0")
    return subprocess.Popen(words, executable=binary, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


def test_it_sees_when_a_program_lives(tmp_path: Path) -> None:
    binary = compile_attempt(tmp_path)
    before_s = boot_s()
    with Witness("x1-") as witness, program(binary, "x1-a") as ours, program(binary, "x2-a") as another:
        until(lambda: witness.running() == ["x1-a"], "it is seen")
        ours.kill()
        ours.wait()
        until(lambda: not witness.running(), "its end is seen")
        ended_s = boot_s()
        another.kill()
    (life,) = witness.lives
    assert (life.mark, life.pid) == ("x1-a", ours.pid)
    # The kernel tells a birth by the hundredth of a second.
    assert before_s - 0.02 <= life.began_s <= life.last_s <= ended_s
