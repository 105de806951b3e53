"""Labels of a slot's container: the same on every launcher's slots."""

from __future__ import annotations

from typing import Final

from scheduler.pool import PoolKey

LABEL_SET: Final = "org.general-compute.set"
LABEL_INSTALLATION: Final = "org.general-compute.installation"
LABEL_ACCOUNT: Final = "org.general-compute.account"
LABEL_IMAGE: Final = "org.general-compute.image"
LABEL_DIGEST: Final = "org.general-compute.digest"
LABEL_POOL: Final = "org.general-compute.pool"
LABEL_SLOT: Final = "org.general-compute.slot"


def pool_name(pool: PoolKey) -> str:
    """A pool in one line, for people."""
    digest = pool.image_digest.removeprefix("sha256:")[:12]
    resources = pool.resources
    return f"{pool.account}/{digest}/{resources.cpu_percent}%/{resources.memory_mib}MiB/{pool.isolation}"
