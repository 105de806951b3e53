"""The guest under a fuzzer, with every system call of its serving played by a model that watches what it does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.sets.guest.fuzz import fuzzer
from tests.sets.guest.fuzz.seeds import CONVERSATIONS

RUNS = 200_000
SOURCES = sorted(fuzzer.GUEST.glob("*.c"))

_SERVING = """
advance answer_netlink attend await_dressing begin carry_out close_files close_from connect_executor connect_with
count_netlink dismiss
drain execute feed feed_inline hand_netlink_over hand_over hear is_fit is_storage keep_file kill_all let_go
make_netlink matches move obey open_file parse_strings prestart read_output reap reaped refuse_netlink report
report_dressed report_unfit reset_run serve serve_files shut spawn start stop tell value_of wait_beside wait_for
wait_for_output write_piece
"""
SERVING = _SERVING.split()
"""The functions that a message comes through, but for those that empty places: the model has none."""

# Pure, or of this process alone; then those of the guest's start and of its places, of which the model has none.
_IN_EARNEST = """
__errno_location _setjmp abort abs atoi bcmp calloc clock_gettime exit fprintf getenv getpagesize getrlimit getrusage
longjmp memchr memcmp memcpy memmove memset perror qsort sigaddset sigemptyset snprintf stderr strchr strchrnul strcmp
strcpy strerror strlen strncmp strndup strrchr strstr strtol strtoul vfprintf
access chdir environ fchmod fchmodat fchown flistxattr fremovexattr fstatfs futimens getcwd getdents64 geteuid
getpid getrandom getsockopt mkdirat mmap munmap prctl pread pwrite renameat2 signalfd statfs symlinkat umask
unlinkat utimensat
"""
IN_EARNEST = frozenset(_IN_EARNEST.split())


@pytest.fixture(scope="session")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _built(tmp_path_factory.mktemp("fuzz") / "guest-fuzzer")


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _built(tmp_path_factory.mktemp("fuzz") / "guest-planted", "-DPLANTED")


def _built(program: Path, *flags: str) -> Path:
    try:
        fuzzer.build(program, *flags)
    except fuzzer.NoClang as error:
        pytest.skip(str(error))
    return program


def _found(program: Path, folder: Path, *arguments: str | Path, plant: str = "") -> str:
    """What a run from that seed reports; nothing when it found nothing."""
    limits = [f"-max_len={fuzzer.INPUT_BYTES}", "-seed=1", "-timeout=20", f"-artifact_prefix={folder}/"]
    ended = fuzzer.run(program, [*limits, *arguments], environment={"PLANT": plant}, timeout_s=400)
    return ended.stderr if ended.returncode else ""


def _played(program: Path, folder: Path, name: str) -> list[str]:
    """The messages of a conversation."""
    path = folder / name
    path.write_bytes(CONVERSATIONS[name])
    ended = fuzzer.run(program, [path], environment={"FUZZ_TRACE": "1"}, timeout_s=60)
    assert ended.returncode == 0, ended.stderr
    return [
        line
        for line in ended.stderr.splitlines()
        if line.startswith(("heard ", "sent ", "ended ", "netlink "))
    ]


def test_no_input_breaks_the_guest(fuzz: Path, tmp_path: Path) -> None:
    fuzzer.write_seeds(tmp_path / "seeds")
    (tmp_path / "corpus").mkdir()
    report = _found(fuzz, tmp_path, f"-runs={RUNS}", tmp_path / "corpus", tmp_path / "seeds")
    assert not report, report


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        # What a malformed message that is taken breaks first differs with the guest's code.
        ("accepts", "BROKEN: "),
        ("descriptor", " descriptors are open between tasks"),
        ("inherited", "BROKEN: a program inherits descriptor"),
        ("overflow", "AddressSanitizer: stack-buffer-overflow"),
        ("undefined", "runtime error: signed integer overflow"),
        ("undressed", "BROKEN: answers a malformed message with 19"),
    ],
)
def test_a_planted_bug_is_found_from_nothing(planted: Path, tmp_path: Path, plant: str, says: str) -> None:
    """Beginning with no input at all: what the fuzzer reaches, it reached by itself, mostly in a tenth of the runs."""
    assert says in _found(planted, tmp_path, f"-runs={5 * RUNS}", "-use_value_profile=1", plant=plant)


def test_a_guest_that_would_block_is_found(planted: Path, tmp_path: Path) -> None:
    fuzzer.write_seeds(tmp_path / "seeds")
    assert "BROKEN: waits for " in _found(
        planted, tmp_path, f"-runs={RUNS}", tmp_path / "seeds", plant="block"
    )


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("small", "sent EXIT task=1 flags=0 how=0 code=0 out=2 err=0 files=0 of 0"),
        ("rich", "sent EXIT task=1 flags=4 how=0 code=3 out=300 err=10 files=2 of 2"),
        ("outgrown", "sent EXIT task=1 flags=1 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("outgrown_at_the_end", "sent EXIT task=1 flags=1 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("piped", "sent EXIT task=1 flags=1 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("pipes_with_the_task", "sent EXIT task=1 flags=0 how=0 code=0 out=100 err=0 files=0 of 0"),
        ("pipes_with_the_task", "sent EXIT task=4 flags=1 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("pipes_for_a_waiting_program", "sent EXIT task=4 flags=8 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("pipes_and_an_answer", "ended 4"),
        ("slow_reader", "sent EXIT task=1 flags=3 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("slow_reader", "sent EXIT task=2 flags=0 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("reader_gone", "sent EXIT task=1 flags=1 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("killed_before_its_pipes", "sent EXIT task=1 flags=3 how=1 code=9 out=0 err=0 files=0 of 0"),
        ("lost_before_its_pipes", "sent EXIT task=1 flags=0 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("files_read", "sent EXIT task=2 flags=0 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("files_read", "sent 19 task=1"),
        ("files_lost", "sent EXIT task=1 flags=0 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("files_retired", "ended 0"),
        ("files_and_their_reader_gone", "sent 19 task=1"),
        ("files_that_cannot_be_read", "sent 19 task=1"),
        ("file_that_is_none", "ended 4"),
        ("file_beyond_its_end", "ended 4"),
        ("task_before_the_release", "ended 4"),
        ("pipes_twice", "ended 4"),
        ("pipes_unasked", "ended 4"),
        ("release_of_nothing", "ended 4"),
        ("two_outputs_full", "sent EXIT task=1 flags=0 how=1 code=11 out=61440 err=61440 files=0 of 0"),
        ("killed", "sent EXIT task=1 flags=2 how=1 code=9 out=0 err=0 files=0 of 0"),
        ("largest", "sent EXIT task=1 flags=0 how=2 code=2 out=0 err=0 files=0 of 0"),
        ("most_strings", "sent EXIT task=1 flags=0 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("most_files", "sent EXIT task=1 flags=4 how=0 code=0 out=0 err=0 files=64 of 64"),
        ("all_kinds_of_files", "sent EXIT task=1 flags=4 how=0 code=0 out=0 err=0 files=2 of 10"),
        ("waiting", "sent EXIT task=3 flags=8 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("waiting_for_a_pipe", "sent EXIT task=3 flags=8 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("waiting_stuffs_its_input", "sent EXIT task=2 flags=8 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("waiting_is_unfit", "sent 20 task=1"),
        ("lost_while_it_runs", "sent EXIT task=1 flags=0 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("netlink", "netlink given"),
        ("netlink", "netlink refused 105"),
        ("waiting_asks_netlink", "netlink given"),
        ("late_kill", "ended 0"),
        ("malformed_after_a_task", "ended 4"),
        ("malformed_while_it_runs", "ended 4"),
        ("descriptor_with_nothing", "ended 4"),
        ("descriptors_too_many", "ended 4"),
        ("variable_without_a_name", "ended 4"),
        ("one_file_too_many", "ended 4"),
        ("one_string_too_many", "ended 4"),
        ("descriptor_with_a_kill", "ended 4"),
        ("descriptor_with_a_kill_while_it_runs", "ended 4"),
        ("descriptor_that_is_not_announced", "ended 4"),
        ("dressed", "sent 19 task=0"),
        ("dressed", "sent EXIT task=1 flags=4 how=0 code=0 out=0 err=0 files=2 of 2"),
        ("dressed_and_waiting", "sent EXIT task=2 flags=8 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("dressed_twice", "ended 4"),
        ("dressed_unasked", "ended 4"),
        ("dressed_by_a_number", "ended 4"),
        ("dressed_with_a_descriptor", "ended 4"),
        ("task_before_it_is_dressed", "ended 4"),
        ("kill_before_it_is_dressed", "ended 4"),
        ("short_before_it_is_dressed", "ended 4"),
        ("retired_before_it_is_dressed", "ended 0"),
        ("retired_by_a_number_before_it_is_dressed", "ended 0"),
        ("lost_before_it_is_dressed", "ended 3"),
        ("hello_is_lost_before_it_is_dressed", "sent 19 task=0"),
        ("report_of_its_dressing_is_lost", "sent EXIT task=1 flags=0 how=0 code=0 out=0 err=0 files=0 of 0"),
        ("truncated", "ended 4"),
        ("too_long", "ended 4"),
    ],
)
def test_a_conversation_comes_to_what_it_is_meant_for(
    fuzz: Path, tmp_path: Path, name: str, ends: str
) -> None:
    """What the real encoder made passes through the harness as through a socket: the model is not beside the point."""
    assert ends in _played(fuzz, tmp_path, name)


def test_the_conversations_reach_nearly_every_line_that_serves(tmp_path: Path) -> None:
    fuzzer.write_seeds(tmp_path / "seeds")
    try:
        lines = fuzzer.coverage(tmp_path, tmp_path / "seeds")
    except fuzzer.NoClang as error:
        pytest.skip(str(error))
    reached, of = (sum(lines[name][i] for name in SERVING) for i in (0, 1))
    assert {name for name in SERVING if not lines[name][0]} == set()
    assert reached / of > 0.93, {name: lines[name] for name in SERVING if lines[name][0] < lines[name][1]}


def test_the_guest_calls_nothing_that_is_not_played(fuzz: Path, tmp_path: Path) -> None:
    """A new system call of the guest needs its place in the model, else the fuzzer makes it in earnest."""
    compiled = tmp_path / "harness.o"
    command: list[str | Path] = ["clang", "-std=gnu11", "-O0", "-w", "-c", fuzzer.HARNESS, "-o", compiled]
    subprocess.run(command, check=True)
    listed = subprocess.run(["nm", "-u", compiled], check=True, capture_output=True, text=True).stdout
    called = {line.split()[-1] for line in listed.splitlines()}
    called = {name for name in called if not name.startswith(("__asan_", "__sanitizer_", "__ubsan_"))}
    assert called - IN_EARNEST == set()


CHECKS = {
    "bugprone-*": "",
    "cert-*": "",
    "clang-analyzer-*": "",
    "-bugprone-branch-clone": "two branches that do the same for other reasons are clearer apart",
    "-bugprone-easily-swappable-parameters": "a matter of taste",
    "-bugprone-macro-parentheses": "the one macro declares a variable, which takes no parentheses",
    "-bugprone-reserved-identifier": "_GNU_SOURCE is meant to be defined",
    "-bugprone-suspicious-string-compare": "whether strings differ is asked as C asks it",
    "-cert-dcl37-c": "the same as bugprone-reserved-identifier",
    "-cert-dcl51-cpp": "the same as bugprone-reserved-identifier",
    "-cert-err33-c": "a line for stderr that is cut says as much as there was room for; sizes of the others are known",
    "-cert-err34-c": "atoi of a number that the kernel wrote",
    "-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling": "the C library has no memcpy_s",
    "-clang-analyzer-security.insecureAPI.strcpy": "of a constant of one byte",
    "-clang-analyzer-security.insecureAPI.vfork": "vfork is what makes a start cheap",
    "-clang-analyzer-unix.Malloc": "names of places live as long as the guest",
    "-clang-analyzer-unix.Vfork": "the child changes only what its parent then reads",
}
"""clang-tidy's checks, and why one is left out."""


def test_the_analysers_are_silent() -> None:
    tidy = shutil.which("clang-tidy")
    if tidy is None:
        pytest.skip("no clang-tidy here: apt-get install clang-tidy")
    checks = ",".join(["-*", *CHECKS])
    command: list[str | Path] = [
        tidy,
        "--quiet",
        "--warnings-as-errors=*",
        f"--checks={checks}",
        *SOURCES,
        "--",
        "-std=gnu11",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
