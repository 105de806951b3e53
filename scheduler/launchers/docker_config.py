"""Slots in the words of the Docker engine: orders and walls become the body of a create call. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from scheduler.errors import ImageUnusable
from scheduler.execution import TOKEN_VARIABLE
from scheduler.image import Image
from scheduler.images.configuration import check_platform, image_of
from scheduler.images.places import Layout, layout, writable_places
from scheduler.images.reference import Reference
from scheduler.images.user import Owner
from scheduler.launchers.contract import SlotOrder
from scheduler.launchers.hardening import (
    GUEST,
    HOSTS,
    HOSTS_FILE,
    RUN_DIRECTORY,
    Hardening,
    SlotLimits,
    Tmpfs,
    harden,
)
from scheduler.launchers.labels import (
    LABEL_ACCOUNT,
    LABEL_DIGEST,
    LABEL_IMAGE,
    LABEL_INSTALLATION,
    LABEL_POOL,
    LABEL_SET,
    LABEL_SLOT,
    pool_name,
)
from scheduler.launchers.variables import said_twice
from scheduler.registry.settings import RegistryConfig


class DockerSettings(SlotLimits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How slots are run on a Docker engine, for the set `set_name` of an `installation`. Times are in seconds.

    `seccomp_profile` is a JSON file that takes the place of our own profile (seccomp.py). `guest_binary` and
    `hosts_file` are paths on the engine's machine. `registries` are those that images may be pulled from; empty,
    only images that the engine holds are run. `runtime` names one of the engine's OCI runtimes; None is the engine's
    default.
    """

    set_name: str
    installation: str
    guest_binary: Path
    docker_host: str | None = None
    hosts_file: Path = HOSTS_FILE
    seccomp_profile: Path | None = None
    runtime: str | None = None
    max_concurrent_starts: int = 4
    ping_timeout_s: float = 3.0
    call_timeout_s: float = 15.0
    start_timeout_s: float = 60.0
    relist_s: float = 30.0
    registries: tuple[RegistryConfig, ...] = ()
    pull_timeout_s: float = 900.0
    pull_stall_s: float = 60.0
    max_concurrent_pulls: int = 2


class EngineFacts(msgspec.Struct, frozen=True):
    """The engine's own facts; `architecture` in Docker's words (amd64, arm64), "" if unknown."""

    version: str = ""
    architecture: str = ""
    cgroup_version: int = 2
    runtimes: tuple[str, ...] = ()
    user_namespaces: bool = False


def container_name(settings: DockerSettings, slot_id: str) -> str:
    """Return a name that no other container has, of any installation: all users of an engine share its names."""
    return f"gc-{settings.set_name}-{settings.installation}-{slot_id}"


def _labels(settings: DockerSettings, image: Image, slot_id: str) -> dict[str, str]:
    return {
        LABEL_SET: settings.set_name,
        LABEL_INSTALLATION: settings.installation,
        LABEL_IMAGE: image.reference,
        LABEL_SLOT: slot_id,
    }


def create_body(
    order: SlotOrder,
    folder: Path,
    settings: DockerSettings,
    facts: EngineFacts,
    seccomp: str | None = None,
    laid_out: Layout | None = None,
    contents: str | None = None,
) -> dict[str, Any]:
    """The body of the engine's `POST /containers/create` for a slot, whose socket is in `folder` on the host.

    `seccomp` is a profile's JSON. `laid_out` is the image's layout; None for an image of which nothing was looked up.
    `contents` names the container that holds what the image has in those of its VOLUMEs that the layout keeps.
    The image's own ENTRYPOINT and CMD never appear: the executor sends them with each task. USER, WORKDIR and
    ENV are left out, so that the engine takes the image's. Raises `ImageUnusable`.
    """
    image, pool = order.image, order.pool
    walls = harden(image, pool.resources, settings, laid_out or layout(image), seccomp)
    return {
        "Image": image.image_id,
        "Entrypoint": [walls.init[0]],
        "Cmd": list(walls.init[1:]),
        # HOME is the engine's to add, as /etc/passwd says, where the image does not set it.
        "Env": [f"{TOKEN_VARIABLE}={order.token}", *map("=".join, said_twice(image).items())],
        "Hostname": walls.hostname,
        "Tty": False,
        "OpenStdin": False,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "StopSignal": "SIGKILL",
        "Healthcheck": {"Test": ["NONE"]},
        # The container gets a network namespace with nothing but `lo` either way. `none` alone would have the
        # engine set up a sandbox of its own beside it, which takes longer than all the rest of a start.
        "NetworkDisabled": not walls.network,
        "Labels": {
            **_labels(settings, image, order.slot_id),
            LABEL_ACCOUNT: pool.account,
            LABEL_DIGEST: image.digest,
            LABEL_POOL: pool_name(pool),
        },
        "HostConfig": {
            **rendered(walls, facts),
            "Privileged": False,
            "LogConfig": {"Type": "none", "Config": {}},
            "RestartPolicy": {"Name": "no"},
            "Init": False,
            # Nothing is left behind even if the set dies for good, because a guest without its executor ends.
            "AutoRemove": True,
            "Mounts": [
                _read_only(settings.guest_binary, GUEST),
                _read_only(folder, RUN_DIRECTORY),
                _read_only(settings.hosts_file, HOSTS),
            ],
            **({"VolumesFrom": [f"{contents}:ro"]} if contents is not None else {}),
            **({"Runtime": settings.runtime} if settings.runtime is not None else {}),
        },
    }


def rendered(walls: Hardening, facts: EngineFacts) -> dict[str, Any]:
    """A slot's walls in Docker's words: members of `HostConfig`."""
    memory_bytes = walls.resources.memory_mib << 20
    privileges = f"no-new-privileges:{str(not walls.new_privileges).lower()}"
    config: dict[str, Any] = {
        "NetworkMode": "default" if walls.network else "none",
        "IpcMode": "private" if "ipc" in walls.private else "host",
        "CgroupnsMode": "private" if "cgroup" in walls.private else "host",
        "ReadonlyRootfs": walls.read_only_root,
        "CapDrop": ["ALL"],
        "CapAdd": list(walls.capabilities),
        "SecurityOpt": [privileges, *([f"seccomp={walls.seccomp}"] if walls.seccomp else [])],
        "PidsLimit": walls.pids,
        "Memory": memory_bytes,
        "MemorySwap": memory_bytes,
        "NanoCpus": walls.resources.cpu_percent * 10_000_000,
        "OomScoreAdj": walls.oom_score_adj,
        "Sysctls": dict(walls.sysctls),
        "Ulimits": [
            {"Name": name, "Soft": value, "Hard": value} for name, value in sorted(walls.ulimits.items())
        ],
        "Tmpfs": {place.path: _options(place) for place in walls.tmpfs},
    }
    if facts.cgroup_version == 1:
        config["MemorySwappiness"] = 0
    return config


def _options(place: Tmpfs) -> str:
    owner = place.owner
    size = f"{place.size_kib >> 10}m" if place.size_kib % 1024 == 0 else f"{place.size_kib}k"
    return ",".join(
        (
            "rw" if place.writable else "ro",
            "exec" if place.programs else "noexec",
            "nosuid",
            "dev" if place.devices else "nodev",
            # Which of the files in HOME a task has read is nothing for the next to know.
            "noatime",
            f"mode={place.mode:o}",
            *(() if owner == Owner() else (f"uid={owner.uid}", f"gid={owner.gid}")),
            f"size={size}",
            f"nr_inodes={place.inodes}",
        )
    )


def look_body(image: Image, settings: DockerSettings, look_id: str) -> dict[str, Any]:
    """The body of a create call for a container that is never started: the image's files are read from it.

    It bears the set's labels, so that nothing is left behind. Raises `ImageUnusable`.
    """
    body = _unstarted(image, settings, look_id, writable_places(image))
    # The engine makes the image's own already at this call, and fails where it cannot.
    body["WorkingDir"] = "/"
    return body


def contents_body(image: Image, settings: DockerSettings, laid_out: Layout, holder_id: str) -> dict[str, Any]:
    """As `look_body`, for a container with whose creation the engine copies the image's files in kept VOLUMEs.

    The copies are volumes on the host, of no name, and go with the last container that has them.
    """
    volumes = [place for place in writable_places(image) if place not in laid_out.kept]
    return _unstarted(image, settings, holder_id, volumes)


def _unstarted(
    image: Image, settings: DockerSettings, container_id: str, hidden: Iterable[str]
) -> dict[str, Any]:
    return {
        "Image": image.image_id,
        "Entrypoint": [GUEST],
        "Cmd": [],
        "NetworkDisabled": True,
        "Labels": _labels(settings, image, container_id),
        "HostConfig": {
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "LogConfig": {"Type": "none", "Config": {}},
            # Otherwise the engine makes a volume on the host of each VOLUME, and copies what the image holds there.
            "Tmpfs": dict.fromkeys(hidden, ""),
            "Mounts": [],
        },
    }


def _read_only(source: Path, target: str) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source.absolute()), "Target": target, "ReadOnly": True}


def image_from(reference: Reference, inspected: dict[str, Any], facts: EngineFacts) -> Image:
    """Read the engine's inspection of an image. Raises `ImageUnusable` if it cannot run on this engine."""
    check_platform(
        reference, inspected.get("Os") or "linux", inspected.get("Architecture") or "", facts.architecture
    )
    image_id = inspected.get("Id")
    if not isinstance(image_id, str) or not image_id:
        raise ImageUnusable(f"{reference.text}: the engine gives the image no id")
    digest = _digest(reference, inspected.get("RepoDigests") or [], image_id)
    return image_of(reference, inspected.get("Config") or {}, digest=digest, image_id=image_id)


def _digest(reference: Reference, repo_digests: list[str], image_id: str) -> str:
    if reference.digest:
        return reference.digest
    prefix = reference.repository + "@"
    found = sorted(entry.removeprefix(prefix) for entry in repo_digests if entry.startswith(prefix))
    return found[0] if found and not reference.image_id else image_id
