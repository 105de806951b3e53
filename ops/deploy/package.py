"""Makes the package of a build: one archive with our code, the guest and the locked Python packages.

Unpacked anywhere, it runs with the machine's own Python of the same version: `bin/gcompute`, and `bin/python` for the
modules of `ops`. It is made from the files that Git knows, in a folder of its own, so nothing else gets in.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ops.setup.engine import ROOT
from ops.setup.errors import OpsError

FOLDER: Final = ROOT / "var/package"
SOURCES: Final = (
    "router",
    "scheduler",
    "sets",
    "ops",
    "jobspecs",
    "requirements",
    "setup.py",
    "pyproject.toml",
)
LAUNCHERS: Final = Path(__file__).parent / "launchers"
COMMAND_TIMEOUT_S: Final = 900

_PYTHON: Final = f"python{sys.version_info[0]}.{sys.version_info[1]}"
_TARGET: Final = f"linux-{platform.machine()}-{_PYTHON}"


def say(message: str) -> None:
    """Print progress on stderr."""
    print(f"package: {message}", file=sys.stderr, flush=True)


def version() -> str:
    """Return the build's version, such as `0.1.0+018bbc8ab012`; it ends in `.dirty` if files have been changed."""
    number = _run([sys.executable, "setup.py", "--version"], {}).split()[-1].partition("+")[0]
    commit = _run(["git", "describe", "--always", "--exclude=*", "--dirty=.dirty", "--abbrev=12"], {})
    return f"{number}+{commit.strip()}"


def file_name(build: str) -> str:
    """Return the name of a build's package, without `.tar.gz`: its version and what it runs on."""
    return f"general-compute-{tag(build)}-{_TARGET}"


def tag(build: str) -> str:
    """Return a build's version as image tags and addresses allow it."""
    return build.replace("+", "-")


def build_package() -> Path:
    """Make the package of this checkout, unless a clean one is there. Returns the archive. Raises `OpsError`."""
    build = version()
    archive = FOLDER / f"{file_name(build)}.tar.gz"
    with _locked():
        if archive.exists() and not build.endswith(".dirty"):
            say(f"{archive.name} is up to date")
            return archive
        work = FOLDER / "work"
        shutil.rmtree(work, ignore_errors=True)
        folder = work / file_name(build)
        (folder / "lib").mkdir(parents=True)
        say("the locked Python packages")
        locked = ["--require-hashes", "--only-binary=:all:", "-r", str(ROOT / "requirements/runtime.txt")]
        _install(folder / "lib", locked, {})
        say(f"this project, version {build}")
        sources = work / "sources"
        _export(sources)
        ours = ["--no-deps", "--no-build-isolation", str(sources)]
        _install(folder / "lib", ours, {"GC_PACKAGE_VERSION": build})
        # Scripts of the packages name this machine's Python.
        shutil.rmtree(folder / "lib/bin", ignore_errors=True)
        _launchers(folder)
        (folder / "VERSION").write_text(build + "\n")
        # Its users may not be able to write there, and every start would compile all modules again.
        compiling = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash"]
        _run([*compiling, str(folder / "lib")], {})
        _pack(folder, archive)
        shutil.rmtree(work)
    say(f"{archive.name}: {archive.stat().st_size / 1e6:.0f} MB")
    return archive


def _install(target: Path, what: list[str], variables: dict[str, str]) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    _run([*pip, "--no-compile", "--upgrade", f"--target={target}", *what], variables)


def _export(target: Path) -> None:
    """Copy what Git knows of our sources, as it is now. The installation compiles the C programs in it."""
    listed = _run(["git", "ls-files", "-z", "--", *SOURCES], {})
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def _launchers(folder: Path) -> None:
    (folder / "bin").mkdir()
    for launcher in LAUNCHERS.iterdir():
        written = folder / "bin" / launcher.name
        written.write_text(launcher.read_text().replace("@PYTHON@", _PYTHON))
        written.chmod(0o755)


def _pack(folder: Path, archive: Path) -> None:
    """Write the folder as an archive that is the same for the same content, in one step."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mtime = 0
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    unfinished = archive.with_name(f".{archive.name}.{os.getpid()}")
    with (
        unfinished.open("wb") as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted([folder, *folder.rglob("*")]):
            tar.add(path, str(path.relative_to(folder.parent)), recursive=False, filter=plain)
    unfinished.replace(archive)


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], variables: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise OpsError(f"{' '.join(command[:4])} ended with {done.returncode}:\n{said}")
    return done.stdout
