"""``python -m ops.images [NAME...]``: builds the sample images, all of them unless some are named."""

from __future__ import annotations

import sys

from ops.images.builder import NAMES, Builder
from ops.setup import engine
from ops.setup.errors import OpsError


def main(arguments: list[str]) -> int:
    """Build the images named like ``imgproc`` or ``imgproc:1``; return the exit code."""
    names = [argument.removesuffix(":1") for argument in arguments] or list(NAMES)
    if unknown := [name for name in names if name not in NAMES]:
        print(f"images: no sample image {unknown[0]!r}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 64
    try:
        builder = Builder(engine.find() or engine.up())
        builder.build(names)
    except OpsError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
