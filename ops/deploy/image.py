"""Builds the container image of the platform from the package of the same build."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from ops.deploy.package import FOLDER, build_package, tag, version
from ops.images.builder import Builder

NAME: Final = "general-compute"
RECIPE: Final = Path(__file__).parent / "Dockerfile"
VERSION_LABEL: Final = "org.opencontainers.image.version"


def build_image(docker_host: str) -> str:
    """Build the image on this engine, unless it has that of a clean checkout. Returns its name. Raises `OpsError`."""
    build = version()
    name = f"{NAME}:{tag(build)}"
    builder = Builder(docker_host)
    if builder.inspect(name, "{{.Id}}") and not build.endswith(".dirty"):
        return name
    archive = build_package()
    base, _ = builder.base()
    context = FOLDER / "context"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir(parents=True)
    shutil.copy2(archive, context)
    shutil.copy2(RECIPE, context)
    try:
        builder.build_one(name, context / "Dockerfile", context, base, {VERSION_LABEL: build})
    finally:
        shutil.rmtree(context)
    return name
