"""What a slot looks like to the Docker engine: settings and orders become the body of a create call. Pure."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any, Final

import msgspec

from scheduler.errors import ImageUnusable
from scheduler.image import LABEL_WRITABLE, Image
from scheduler.launchers.contract import PoolKey, SlotOrder
from scheduler.launchers.reference import Reference
from scheduler.launchers.user import Owner

LABEL_SET: Final = "org.general-compute.set"
LABEL_ACCOUNT: Final = "org.general-compute.account"
LABEL_IMAGE: Final = "org.general-compute.image"
LABEL_DIGEST: Final = "org.general-compute.digest"
LABEL_POOL: Final = "org.general-compute.pool"
LABEL_SLOT: Final = "org.general-compute.slot"

GUEST: Final = "/gc/guest"
RUN_DIRECTORY: Final = "/gc/run"
SOCKET: Final = RUN_DIRECTORY + "/executor.sock"
HOSTNAME: Final = "slot"

MAX_WRITABLE_PLACES: Final = 16
"""VOLUMEs and labelled places of one image. Each costs a mount at every start."""

_MAX_PLACE_CHARS: Final = 1024
_ALWAYS_WRITABLE: Final = ("/tmp", "/dev/shm")
_RESERVED: Final = ("/proc", "/sys", "/dev", "/gc")
_HOLDS_THE_SYSTEM: Final = frozenset(
    {"/", "/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr"}
    | {"/usr/bin", "/usr/lib", "/usr/lib64", "/usr/local", "/usr/sbin"}
)
_OOM_SCORE_ADJ: Final = 200
"""Under memory pressure on the host a slot goes before the set's own process."""


_ULIMITS: Final = {
    "core": 0,
    "memlock": 64 * 1024,
    # POSIX queues could not be cleaned between tasks: none can be made.
    "msgqueue": 0,
    "nofile": 4096,
    # Counted by the kernel per host uid, so one slot could use up another's.
    "sigpending": 1024,
}


class DockerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How slots are run on a Docker engine. Sizes are in MiB, times in seconds.

    `tmp_mib` bounds /tmp, `shm_mib` /dev/shm, `writable_mib` each VOLUME and each place of the label
    `org.general-compute.writable`; `inodes` bounds the files in each. What is stored there counts towards
    the slot's memory too. `seccomp_profile` is a JSON file that takes the place of our own profile (seccomp.py).
    `guest_binary` and `hosts_file` are paths on the engine's machine. `pull_registries` names the registries
    that images may be pulled from ("*": any that a reference names); empty, only images that the engine
    holds are run. `ulimits` is laid over limits of ours (soft and hard alike, names as Docker has them).
    """

    set_name: str
    guest_binary: Path
    docker_host: str | None = None
    hosts_file: Path = Path(__file__).with_name("hosts")
    tmp_mib: int = 512
    shm_mib: int = 64
    writable_mib: int = 512
    inodes: int = 65_536
    pids_limit: int = 256
    ulimits: dict[str, int] = {}
    seccomp_profile: Path | None = None
    max_concurrent_starts: int = 4
    ping_timeout_s: float = 3.0
    call_timeout_s: float = 15.0
    start_timeout_s: float = 60.0
    relist_s: float = 30.0
    pull_registries: tuple[str, ...] = ()
    pull_timeout_s: float = 900.0
    pull_stall_s: float = 60.0
    max_concurrent_pulls: int = 2


class EngineFacts(msgspec.Struct, frozen=True):
    """What the engine says of itself; `architecture` in Docker's words (amd64, arm64), "" when it does not say."""

    version: str = ""
    architecture: str = ""
    cgroup_version: int = 2


def container_name(set_name: str, slot_id: str) -> str:
    return f"gc-{set_name}-{slot_id}"


def pool_name(pool: PoolKey) -> str:
    """A pool in one line, for labels."""
    digest = pool.image_digest.removeprefix("sha256:")[:12]
    resources = pool.resources
    return f"{pool.account}/{digest}/{resources.cpu_percent}%/{resources.memory_mib}MiB/{pool.isolation}"


def writable_places(image: Image) -> tuple[str, ...]:
    """Every path that the image may write to, parents before children.

    They are /tmp, /dev/shm, its VOLUMEs and those of its label. Raises `ImageUnusable` for a place that a slot
    cannot give.

    A place is an empty tmpfs, emptied again after each task. Files that the image itself holds there are
    hidden: plain Docker copies them into the volume, but a copy could not be made anew for every task in any
    useful time.
    """
    asked: dict[str, str] = {}
    for volume in image.volumes:
        asked.setdefault(posixpath.normpath(volume) if volume else "", f"VOLUME {volume}")
    label = image.labels.get(LABEL_WRITABLE, "")
    for written in filter(None, (part.strip() for part in label.split(","))):
        place = written.rstrip("/") or "/"
        if place != posixpath.normpath(place):
            raise ImageUnusable(f"label {LABEL_WRITABLE}: {written!r} must be written without //, . and ..")
        asked.setdefault(place, f"label {LABEL_WRITABLE}={written}")
    for place, source in asked.items():
        _check_place(place, source)
    places = set(_ALWAYS_WRITABLE) | set(asked)
    if len(places) > MAX_WRITABLE_PLACES + len(_ALWAYS_WRITABLE):
        raise ImageUnusable(
            f"the image has {len(places)} writable places (VOLUMEs and label {LABEL_WRITABLE}); "
            f"at most {MAX_WRITABLE_PLACES} are allowed"
        )
    return tuple(sorted(places, key=lambda place: (place.count("/"), place)))


def _check_place(place: str, source: str) -> None:
    if place in _ALWAYS_WRITABLE:
        return
    if not place.startswith("/"):
        raise ImageUnusable(f"{source}: an absolute path is needed")
    if len(place) > _MAX_PLACE_CHARS or not place.isprintable():
        raise ImageUnusable(f"{source!r}: the path is too long or holds control characters")
    # normpath keeps two leading slashes, as POSIX allows it to.
    if place.startswith("//"):
        raise ImageUnusable(f"{source}: the path must begin with a single slash")
    for reserved in _RESERVED:
        if place == reserved or place.startswith(reserved + "/"):
            raise ImageUnusable(f"{source}: {reserved} belongs to the slot itself; choose another place")
    if place in _HOLDS_THE_SYSTEM:
        raise ImageUnusable(
            f"{source}: a writable place is an empty directory, so {place} would hide the image's own files; "
            "name a directory of its own below it"
        )


def has_places_of_its_own(image: Image) -> bool:
    """Whether the image writes elsewhere than in /tmp and /dev/shm. Raises `ImageUnusable`."""
    return len(writable_places(image)) > len(_ALWAYS_WRITABLE)


def create_body(
    order: SlotOrder,
    settings: DockerSettings,
    facts: EngineFacts,
    seccomp: str | None = None,
    owner: Owner | None = None,
) -> dict[str, Any]:
    """The body of the engine's `POST /containers/create` for a slot. `seccomp` is a profile's JSON.

    `owner` is the image's USER in numbers, to whom its VOLUMEs and labelled places are given; None for root.
    The image's own ENTRYPOINT and CMD never appear: the executor sends them with each task. USER, WORKDIR and
    ENV are left out, so that the engine takes the image's. Raises `ImageUnusable`.
    """
    image, pool = order.image, order.pool
    places = writable_places(image)
    env = [f"GC_TOKEN={order.token}"]
    if not any(entry.startswith("HOME=/") for entry in image.env):
        env.append("HOME=/tmp")
    return {
        "Image": image.image_id,
        "Entrypoint": [GUEST],
        "Cmd": [SOCKET, *places],
        "Env": env,
        "Hostname": HOSTNAME,
        "Tty": False,
        "OpenStdin": False,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "StopSignal": "SIGKILL",
        "Healthcheck": {"Test": ["NONE"]},
        # The container gets a network namespace with nothing but `lo` either way. `none` alone would have the
        # engine set up a sandbox of its own beside it, which takes longer than all the rest of a start.
        "NetworkDisabled": True,
        "Labels": {
            LABEL_SET: settings.set_name,
            LABEL_ACCOUNT: pool.account,
            LABEL_IMAGE: image.reference,
            LABEL_DIGEST: image.digest,
            LABEL_POOL: pool_name(pool),
            LABEL_SLOT: order.slot_id,
        },
        "HostConfig": _host_config(order, settings, facts, places, seccomp, owner or Owner()),
    }


def look_body(image: Image, settings: DockerSettings, look_id: str) -> dict[str, Any]:
    """The body of a create call for a container that is never started: the image's files are read from it.

    It bears the set's label, so that nothing is left behind. Raises `ImageUnusable`.
    """
    return {
        "Image": image.image_id,
        "Entrypoint": [GUEST],
        "Cmd": [],
        # The engine makes the image's own already at this call, and fails where it cannot.
        "WorkingDir": "/",
        "NetworkDisabled": True,
        "Labels": {
            LABEL_SET: settings.set_name,
            LABEL_IMAGE: image.reference,
            LABEL_SLOT: look_id,
        },
        "HostConfig": {
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "LogConfig": {"Type": "none", "Config": {}},
            # Otherwise the engine makes a volume on the host of each VOLUME, and copies what the image holds there.
            "Tmpfs": dict.fromkeys(writable_places(image), ""),
            "Mounts": [],
        },
    }


def _host_config(
    order: SlotOrder,
    settings: DockerSettings,
    facts: EngineFacts,
    places: tuple[str, ...],
    seccomp: str | None,
    owner: Owner,
) -> dict[str, Any]:
    resources = order.pool.resources
    memory = resources.memory_mib * 1024 * 1024
    config: dict[str, Any] = {
        "NetworkMode": "none",
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "ReadonlyRootfs": True,
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true", *([f"seccomp={seccomp}"] if seccomp else [])],
        "LogConfig": {"Type": "none", "Config": {}},
        "RestartPolicy": {"Name": "no"},
        "Init": False,
        # So that nothing is left behind even when the set dies for good: the guest ends without its executor.
        "AutoRemove": True,
        "PidsLimit": settings.pids_limit,
        "Memory": memory,
        "MemorySwap": memory,
        "NanoCpus": resources.cpu_percent * 10_000_000,
        "OomScoreAdj": _OOM_SCORE_ADJ,
        "Ulimits": [
            {"Name": name, "Soft": value, "Hard": value}
            for name, value in sorted({**_ULIMITS, **settings.ulimits}.items())
        ],
        "Mounts": [
            _read_only(settings.guest_binary, GUEST),
            _read_only(order.directory, RUN_DIRECTORY),
            # The engine writes none without a network; the name `localhost` must still be known.
            _read_only(settings.hosts_file, "/etc/hosts"),
        ],
        "Tmpfs": {place: _tmpfs(place, settings, owner) for place in places},
    }
    # The engine's own /dev can be written to by root and is cleaned by nobody. `dev`: its devices must work.
    config["Tmpfs"]["/dev"] = "ro,dev,nosuid,noexec,mode=755,size=64k,nr_inodes=64"
    if facts.cgroup_version == 1:
        config["MemorySwappiness"] = 0
    return config


def _read_only(source: Path, target: str) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source.absolute()), "Target": target, "ReadOnly": True}


def _tmpfs(place: str, settings: DockerSettings, owner: Owner) -> str:
    size_mib = {"/tmp": settings.tmp_mib, "/dev/shm": settings.shm_mib}.get(place, settings.writable_mib)
    # Where the image has a directory already (the engine makes one for a WORKDIR), runc gives the tmpfs that one's mode
    # in place of ours, and 755 would keep all but its owner from writing. So its owner is who writes.
    belongs_to = "" if place in _ALWAYS_WRITABLE or owner == Owner() else f"uid={owner.uid},gid={owner.gid},"
    return f"rw,exec,nosuid,nodev,mode=1777,{belongs_to}size={size_mib}m,nr_inodes={settings.inodes}"


def image_from(reference: Reference, inspected: dict[str, Any], facts: EngineFacts) -> Image:
    """What the engine's inspection says about an image. Raises `ImageUnusable` when it cannot be run on this engine."""
    system, architecture = inspected.get("Os") or "linux", inspected.get("Architecture") or ""
    if system != "linux":
        raise ImageUnusable(f"{reference.text} is an image for {system}; slots run linux")
    if architecture and facts.architecture and architecture != facts.architecture:
        raise ImageUnusable(
            f"{reference.text} is built for {architecture}, this machine is {facts.architecture}; "
            f"build it with --platform linux/{facts.architecture}"
        )
    image_id = inspected.get("Id")
    if not isinstance(image_id, str) or not image_id:
        raise ImageUnusable(f"{reference.text}: the engine gives the image no id")
    config = inspected.get("Config") or {}
    if not isinstance(config, dict):
        raise _broken(reference, "Config")
    image = Image(
        reference=reference.text,
        digest=_digest(reference, inspected.get("RepoDigests") or [], image_id),
        image_id=image_id,
        entrypoint=_strings(reference, config, "Entrypoint"),
        cmd=_strings(reference, config, "Cmd"),
        env=_strings(reference, config, "Env"),
        user=_string(reference, config, "User"),
        workdir=_string(reference, config, "WorkingDir"),
        volumes=tuple(sorted(_mapping(reference, config, "Volumes"))),
        labels={name: str(value) for name, value in _mapping(reference, config, "Labels").items()},
    )
    writable_places(image)
    return image


def _digest(reference: Reference, repo_digests: list[str], image_id: str) -> str:
    if reference.digest:
        return reference.digest
    prefix = reference.repository + "@"
    found = sorted(entry.removeprefix(prefix) for entry in repo_digests if entry.startswith(prefix))
    return found[0] if found and not reference.image_id else image_id


def _strings(reference: Reference, config: dict[str, Any], field: str) -> tuple[str, ...]:
    value = config.get(field) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _broken(reference, field)
    return tuple(value)


def _string(reference: Reference, config: dict[str, Any], field: str) -> str:
    value = config.get(field) or ""
    if not isinstance(value, str):
        raise _broken(reference, field)
    return value


def _mapping(reference: Reference, config: dict[str, Any], field: str) -> dict[str, Any]:
    value = config.get(field) or {}
    if not isinstance(value, dict):
        raise _broken(reference, field)
    return value


def _broken(reference: Reference, field: str) -> ImageUnusable:
    return ImageUnusable(f"{reference.text}: the image's configuration is broken at {field}; build it again")
