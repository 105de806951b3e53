"""An image: its digest, and the parts of its configuration that matter for running it."""

from __future__ import annotations

from typing import Final

import msgspec

LABEL_CONTENT_TYPE: Final = "org.general-compute.content-type"
LABEL_ISOLATION: Final = "org.general-compute.isolation"
LABEL_WRITABLE: Final = "org.general-compute.writable"
LABEL_CPU_FEATURES: Final = "org.general-compute.cpu-features"
LABEL_PRESTART: Final = "org.general-compute.prestart"


class Image(msgspec.Struct, frozen=True):
    """`digest` is the registry's digest, or the engine's image id for an image built locally.

    `location` is the image's full name in a registry (`HOST/PATH@DIGEST`), by which nodes pull it; "" for an image that
    was found in an engine.
    """

    reference: str
    digest: str
    image_id: str
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    volumes: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    location: str = ""

    def argv(self, args: tuple[str, ...]) -> tuple[str, ...]:
        """The whole command line: arguments replace the image's CMD, as with `docker run IMAGE ARGS`."""
        return self.entrypoint + (args or self.cmd)

    @staticmethod
    def variables(given: tuple[str, ...]) -> tuple[str, ...]:
        """Return the caller's variables as `docker run -e` takes them: of several values of a name the last counts, and
        an empty HOME is dropped."""
        last = {variable.partition("=")[0]: variable for variable in given}
        return tuple([variable for variable in last.values() if variable != "HOME="])
