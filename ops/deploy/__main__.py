"""Makes what machines install, from this checkout.

python -m ops.deploy package   make the package of this build under var/package/: one archive, unpacked into /opt
python -m ops.deploy image     make the container image of the same build, on the engine of DOCKER_HOST
python -m ops.deploy version   print the build's version
"""

from __future__ import annotations

import sys

from ops.deploy.image import build_image
from ops.deploy.package import build_package, version
from ops.setup import engine
from ops.setup.errors import OpsError, described


def main(arguments: list[str]) -> int:
    match arguments:
        case ["package"]:
            print(build_package())
        case ["image"]:
            print(build_image(engine.find() or engine.up()))
        case ["version"]:
            print(version())
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OpsError as error:
        sys.exit(f"ops.deploy: {error}")
    except OSError as error:
        sys.exit(f"ops.deploy: {described(error)}")
