"""Metadata of the project, and the build of the guest.

``python setup.py build_guest`` compiles ``sets/guest/guest.c`` to the static program ``sets/guest/guest``; so
does every other build, the editable install included. Nothing is done where the program is newer than its source.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from pathlib import Path

from setuptools import Command, find_namespace_packages, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
PACKAGES = ("router", "scheduler", "sets", "ops")
GUEST_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static")


class BuildGuest(Command):
    """Compiles the guest where its source is newer than the program."""

    description = "compile sets/guest/guest.c to a static program"
    user_options = [("force", "f", "compile even if the program is newer than its source")]  # noqa: RUF012
    boolean_options = ["force"]  # noqa: RUF012

    editable_mode = False
    force: bool | int

    def initialize_options(self) -> None:
        self.force = False

    def finalize_options(self) -> None:
        pass

    def run(self) -> None:
        source, program = ROOT / "sets/guest/guest.c", ROOT / "sets/guest/guest"
        if self.force or not program.exists() or program.stat().st_mtime <= source.stat().st_mtime:
            self.compile(source, program)

    def compile(self, source: Path, program: Path) -> None:
        """Compiles beside the target and renames, so that an interrupted build leaves no half program."""
        compiler = shlex.split(os.environ.get("CC") or "cc")
        unfinished = program.with_name(f".guest.{os.getpid()}")
        command = [*compiler, *GUEST_FLAGS, "-o", str(unfinished), str(source)]
        print(shlex.join(command), flush=True)
        try:
            subprocess.run(command, check=True)
            unfinished.replace(program)
        except FileNotFoundError as error:
            raise SystemExit(
                f"No C compiler {compiler[0]!r}: install gcc and libc6-dev, or set CC."
            ) from error
        except subprocess.CalledProcessError as error:
            raise SystemExit(
                f"{source.name} was not compiled: {compiler[0]} ended with {error.returncode}."
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)

    # What setuptools asks of a step of `build`: the program is package data, so copying it is not our business.
    def get_source_files(self) -> list[str]:
        return ["sets/guest/guest.c"]

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class Build(build):
    """The guest, then the usual build, which finds the guest among the package data."""

    sub_commands = [("build_guest", None), *build.sub_commands]  # noqa: RUF012


def packages() -> list[str]:
    """Our packages. Only their own folders are walked: `var/` may hold whole file systems, with links in circles."""
    found: list[str] = []
    for name in PACKAGES:
        found += [name, *(f"{name}.{inner}" for inner in find_namespace_packages(str(ROOT / name)))]
    return [name for name in found if "__pycache__" not in name]


def runtime_requirements() -> list[str]:
    """The names in requirements/runtime.in; exact versions are the lock's matter, not the metadata's."""
    lines = (ROOT / "requirements/runtime.in").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


if platform.system() != "Linux":
    raise SystemExit("General Compute runs on Linux: its slots are Linux containers.")

setup(
    name="general-compute",
    version="0.1.0",
    description="Serverless compute: run any image that reads standard input and writes standard output, over HTTP",
    python_requires=">=3.11",
    install_requires=runtime_requirements(),
    packages=packages(),
    # SQL, C, YAML, Dockerfiles and pages lie beside the code that uses them.
    package_data={"": ["*"]},
    exclude_package_data={"": ["*.pyc"]},
    include_package_data=False,
    entry_points={"console_scripts": ["gcompute = ops.cli.main:main"]},
    cmdclass={"build": Build, "build_guest": BuildGuest},
    zip_safe=False,
)
