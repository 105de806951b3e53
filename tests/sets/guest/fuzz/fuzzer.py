"""Builds the fuzzer of the guest and runs it: `make fuzz`, and the tests beside this file.

A finding is an input in `var/fuzz/findings`; `var/fuzz/guest-fuzzer FILE` plays it again, with the messages where
`FUZZ_TRACE=1` is set. Mended, it becomes a conversation in `seeds.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.sets.guest.fuzz.seeds import CONVERSATIONS

HARNESS: Final = Path(__file__).with_name("harness.c")
ROOT: Final = Path(__file__).parents[4]
GUEST: Final = ROOT / "sets/guest"
INPUT_BYTES: Final = 4096
"""Longer inputs say nothing new: what a message repeats is told by a count."""
_SANITIZERS: Final = "-fsanitize=fuzzer,address,undefined"
_FLAGS: Final = ("-std=gnu11", "-g", "-O2", "-Wall", "-Wextra", "-Wno-unused-value", "-Werror")
# Nothing is allocated while the guest serves; what is slow or needs other processes is left out.
_OPTIONS: Final = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}


class NoClang(Exception):
    """There is no clang with libFuzzer here: apt-get install clang libclang-rt-dev llvm clang-tidy"""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


def build(program: Path, *flags: str) -> None:
    """Compile the harness and the guest in it. Raises `NoClang`, and `CalledProcessError` when it does not compile."""
    compiler = shutil.which("clang")
    if compiler is None or not _has_fuzzer(compiler, program.with_suffix(".probe")):
        raise NoClang
    command: list[str | Path] = [
        compiler,
        *_FLAGS,
        _SANITIZERS,
        "-fno-sanitize-recover=all",
        *flags,
        "-o",
        program,
        HARNESS,
    ]
    subprocess.run(command, check=True)


def _has_fuzzer(compiler: str, probe: Path) -> bool:
    """Debian packs the sanitizers' libraries apart from the compiler."""
    source = "int LLVMFuzzerTestOneInput(const char *d, long n) { return !d && n; }"
    command: list[str | Path] = [compiler, "-x", "c", "-", _SANITIZERS, "-o", probe]
    built = subprocess.run(command, input=source, text=True, stderr=subprocess.DEVNULL, check=False)
    probe.unlink(missing_ok=True)
    return built.returncode == 0


def write_seeds(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, conversation in CONVERSATIONS.items():
        (folder / name).write_bytes(conversation)


def run(
    program: Path,
    arguments: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    timeout_s: float,
) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer; its report is in `stderr`. It ends with another status than 0 when it found something."""
    return subprocess.run(
        [program, *arguments],
        env={**os.environ, **_OPTIONS, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )


def coverage(folder: Path, *corpora: Path) -> dict[str, tuple[int, int]]:
    """Lines of the guest that the inputs reach, and all, by function. Raises `NoClang` without llvm's tools."""
    if not all(map(shutil.which, ("llvm-profdata", "llvm-cov"))):
        raise NoClang
    program, raw, merged = folder / "guest-covered", folder / "covered.raw", folder / "covered"
    build(program, "-fprofile-instr-generate", "-fcoverage-mapping")
    played = run(program, ["-runs=0", *corpora], environment={"LLVM_PROFILE_FILE": str(raw)}, timeout_s=600)
    if played.returncode:
        raise SystemExit(played.stderr)
    merge: list[str | Path] = ["llvm-profdata", "merge", "-o", merged, raw]
    subprocess.run(merge, check=True)
    export: list[str | Path] = ["llvm-cov", "export", f"-instr-profile={merged}", program]
    exported = subprocess.run(export, check=True, capture_output=True).stdout
    return _lines_by_function(json.loads(exported))


def _lines_by_function(
    exported: dict[str, list[dict[str, list[dict[str, object]]]]],
) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for function in exported["data"][0]["functions"]:
        names, regions = function["filenames"], function["regions"]
        assert isinstance(names, list)
        assert isinstance(regions, list)
        if Path(names[0]).resolve().parent != GUEST:
            continue
        # A region: first line and column, last line and column, count, file, expanded file, kind (0: code).
        counts: dict[int, int] = {}
        for first, _, last, _, count, _, _, kind in sorted(regions, key=lambda region: region[0:2]):
            if kind == 0:
                counts.update(dict.fromkeys(range(first, last + 1), count))
        found[str(function["name"]).split(":")[-1]] = (sum(map(bool, counts.values())), len(counts))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description="Fuzz the guest's messages.")
    parser.add_argument("--seconds", type=int, default=60)
    seconds = parser.parse_args().seconds
    folder = ROOT / "var/fuzz"
    program, seeds, corpus, findings = (
        folder / name for name in ("guest-fuzzer", "seeds", "corpus", "findings")
    )
    for path in (corpus, findings):
        path.mkdir(parents=True, exist_ok=True)
    write_seeds(seeds)
    try:
        build(program)
    except NoClang as error:
        print(f"make fuzz: {error}", file=sys.stderr)
        return 1
    limits = [f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES}", "-timeout=10"]
    command: list[str | Path] = [
        program,
        *limits,
        "-use_value_profile=1",
        f"-artifact_prefix={findings}/",
        corpus,
        seeds,
    ]
    status = subprocess.run(command, env={**os.environ, **_OPTIONS}, check=False).returncode
    if status:
        print(f"make fuzz: a finding, in {findings}", file=sys.stderr)
        return 1
    for name, (reached, lines) in coverage(folder, corpus, seeds).items():
        if reached:
            print(f"{reached:4} of {lines:3} lines  {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
