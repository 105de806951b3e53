"""Metadata of the project, and the build of its C programs.

``python setup.py build_guest`` compiles ``sets/guest/*.c`` to the static program ``sets/guest/guest``,
``build_dresser`` compiles ``sets/dresser/*.c`` to ``sets/dresser/dress``, and ``build_runtime`` compiles
``sets/runtime/*.c`` to ``sets/runtime/gcompute-runc``; so does every other build, the editable install included. A
program that was built from the same sources is kept.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
from pathlib import Path

from setuptools import Command, find_namespace_packages, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
PACKAGES = ("router", "scheduler", "sets", "ops", "jobspecs")
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static")


class BuildProgram(Command):
    """Compiles the C files of a folder to one static program, unless it was built from the same sources."""

    program: Path
    user_options = [("force", "f", "compile even if the program was built from the same sources")]  # noqa: RUF012
    boolean_options = ["force"]  # noqa: RUF012

    editable_mode = False
    force: bool | int

    def initialize_options(self) -> None:
        self.force = False

    def finalize_options(self) -> None:
        pass

    def run(self) -> None:
        program = ROOT / self.program
        sources = self.sources()
        # The program's build id is its sources' digest: `sets.built.unusable` compares them.
        build_id = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).digest()[:20]
        if self.force or not program.exists() or build_id not in program.read_bytes():
            self.compile([source for source in sources if source.suffix == ".c"], program, build_id)

    def sources(self) -> list[Path]:
        return sorted((ROOT / self.program).parent.glob("*.[ch]"))

    def compile(self, sources: list[Path], program: Path, build_id: bytes) -> None:
        """Compiles beside the target and renames, so that an interrupted build leaves no half program."""
        compiler = shlex.split(os.environ.get("CC") or "cc")
        unfinished = program.with_name(f".{program.name}.{os.getpid()}")
        flags = (*FLAGS, f"-Wl,--build-id=0x{build_id.hex()}")
        command = [*compiler, *flags, "-o", str(unfinished), *map(str, sources)]
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
                f"{self.program.parent}/*.c was not compiled: {compiler[0]} ended with {error.returncode}."
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)

    # Required of a step of `build`. The program is package data, so this step does not copy it.
    def get_source_files(self) -> list[str]:
        return [str(path.relative_to(ROOT)) for path in self.sources()]

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class BuildGuest(BuildProgram):
    """Compiles the guest, process 1 of every slot."""

    description = "compile sets/guest/*.c to a static program"
    program = Path("sets/guest/guest")


class BuildDresser(BuildProgram):
    """Compiles the program that dresses slots of a cluster."""

    description = "compile sets/dresser/*.c to a static program"
    program = Path("sets/dresser/dress")


class BuildRuntime(BuildProgram):
    """Compiles the OCI runtime that gives each slot host ids of its own."""

    description = "compile sets/runtime/*.c to a static program"
    program = Path("sets/runtime/gcompute-runc")


class Build(build):
    """Builds the C programs, then the rest, which includes them as package data."""

    sub_commands = [  # noqa: RUF012
        ("build_guest", None),
        ("build_dresser", None),
        ("build_runtime", None),
        *build.sub_commands,
    ]


def packages() -> list[str]:
    """Return our packages. Walks only their folders: `var/` may hold whole file systems with circular links."""
    found: list[str] = []
    for name in PACKAGES:
        found += [name, *(f"{name}.{inner}" for inner in find_namespace_packages(str(ROOT / name)))]
    return [name for name in found if "__pycache__" not in name]


def requirements(name: str) -> list[str]:
    """Return the names in requirements/NAME.in; exact versions belong in the lock, not in the metadata."""
    lines = (ROOT / f"requirements/{name}.in").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


if platform.system() != "Linux":
    raise SystemExit("General Compute runs on Linux: its slots are Linux containers.")

setup(
    name="general-compute",
    # `make package` adds the commit: a package has no .git to ask.
    version=os.environ.get("GC_PACKAGE_VERSION") or "0.1.0",
    description="Serverless compute: run any image that reads standard input and writes standard output, over HTTP",
    python_requires=">=3.11",
    install_requires=requirements("runtime"),
    extras_require={"otel": requirements("otel")},
    packages=packages(),
    # SQL, C, YAML, Dockerfiles and pages are in the folders of the code that uses them.
    package_data={"": ["*"]},
    exclude_package_data={"": ["*.pyc"]},
    include_package_data=False,
    entry_points={"console_scripts": ["gcompute = ops.cli.main:main"]},
    cmdclass={
        "build": Build,
        "build_guest": BuildGuest,
        "build_dresser": BuildDresser,
        "build_runtime": BuildRuntime,
    },
    zip_safe=False,
)
