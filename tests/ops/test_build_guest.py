"""``python setup.py build_guest``: compiles a changed source with the compiler of CC, whole or not at all."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from ops.setup.engine import ROOT
from sets.guest import unusable

INTERPRETER = 3  # PT_INTERP: the segment that names the dynamic loader


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with a guest of two small files and a header."""
    (tmp_path / "sets/guest").mkdir(parents=True)
    (tmp_path / "sets/guest/guest.c").write_text('#include "answer.h"\nint main(void) { return answer(); }\n')
    (tmp_path / "sets/guest/answer.h").write_text("int answer(void);\n")
    (tmp_path / "sets/guest/answer.c").write_text('#include "answer.h"\nint answer(void) { return 7; }\n')
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def build(tree: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "setup.py", "--quiet", "build_guest"]
    return subprocess.run(
        command, cwd=tree, capture_output=True, text=True, env={**os.environ, **environment}, timeout=50
    )


def segments(program: Path) -> set[int]:
    """The types of an ELF program's segments."""
    data = program.read_bytes()
    (offset,), (size, count) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<HH", data, 54)
    return {struct.unpack_from("<I", data, offset + size * number)[0] for number in range(count)}


def guests(tree: Path) -> list[str]:
    return sorted(entry.name for entry in (tree / "sets/guest").iterdir())


def test_it_is_static_and_runs(tree: Path) -> None:
    done = build(tree)
    assert done.returncode == 0, done.stderr
    program = tree / "sets/guest/guest"
    assert subprocess.run([program]).returncode == 7
    assert INTERPRETER not in segments(program)
    assert guests(tree) == ["answer.c", "answer.h", "guest", "guest.c"]


def test_it_is_compiled_again_only_when_its_source_has_changed(tree: Path) -> None:
    build(tree)
    program, source = tree / "sets/guest/guest", tree / "sets/guest/guest.c"
    first = program.stat().st_ino, program.stat().st_mtime_ns
    assert build(tree, CC="/no/compiler/is/needed").returncode == 0
    assert (program.stat().st_ino, program.stat().st_mtime_ns) == first
    os.utime(source)
    assert build(tree, CC="/no/compiler/is/needed").returncode == 0
    source.write_text('#include "answer.h"\nint main(void) { return answer() + 1; }\n')
    os.utime(source, ns=(first[1] - 1, first[1] - 1))
    assert build(tree).returncode == 0
    assert subprocess.run([program]).returncode == 8
    (tree / "sets/guest/answer.h").write_text("// more\nint answer(void);\n")
    assert build(tree, CC="/no/such/compiler").returncode == 1


def test_a_set_refuses_a_guest_that_is_missing_or_of_another_source(tree: Path) -> None:
    program, folder = tree / "sets/guest/guest", tree / "sets/guest"
    assert (
        unusable(program, folder)
        == f"the guest {program} is missing; build it with `python setup.py build_guest`"
    )
    build(tree)
    assert unusable(program, folder) == ""
    (folder / "answer.c").write_text("int answer(void) { return 8; }\n")
    assert "was built from other sources" in unusable(program, folder)


def test_a_source_with_a_warning_is_refused_and_leaves_nothing(tree: Path) -> None:
    (tree / "sets/guest/guest.c").write_text("int main(int count, char **words) { return 0; }\n")
    done = build(tree)
    assert done.returncode == 1
    assert "unused parameter" in done.stderr
    assert "sets/guest/*.c was not compiled" in done.stderr
    assert guests(tree) == ["answer.c", "answer.h", "guest.c"]


def test_a_missing_compiler_is_told(tree: Path) -> None:
    done = build(tree, CC="/no/such/compiler")
    assert done.returncode == 1
    assert "No C compiler '/no/such/compiler': install gcc and libc6-dev, or set CC." in done.stderr


def test_a_compiler_with_options_is_understood(tree: Path) -> None:
    assert build(tree, CC="cc -DWORD=1").returncode == 0
    assert "guest" in guests(tree)
