"""Turns a neutral order into the variables of jobspecs/slot.nomad.hcl, after a check of each of its members. Pure.

Nomad's clients replace `${…}` in a job's strings by facts of the node, and its parser does the same. Therefore a string
that a user may have chosen, such as the path of a VOLUME, is refused if it holds such a mark.
"""

from __future__ import annotations

import json
import posixpath
import re
import unicodedata
from collections.abc import Iterable
from typing import Any, Final

from scheduler.errors import BadRequest
from scheduler.image import Image
from scheduler.images.places import Layout
from scheduler.images.reference import parse_reference
from scheduler.launchers.hardening import harden
from scheduler.launchers.labels import pool_name
from scheduler.launchers.nomad.orders import Add
from scheduler.launchers.nomad.settings import RegistrarSettings
from scheduler.registry.allowed import engines_registry, normal_name

CPU_PER_PERCENT: Final = 10
"""Nomad's CPU for a hundredth of a core, on clients with `cpu_total_compute` of 1000 for each core."""

_SLOT_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_TOKEN: Final = re.compile(r"[0-9a-f]{64}")
_DOOR: Final = re.compile(r"[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,2}")
_ACCOUNT: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_FEATURE: Final = re.compile(r"[A-Za-z0-9_.]{1,64}")
_NODE: Final = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?")
_OPENERS: Final = ("${", "%{")
_RESERVED: Final = ("/proc", "/sys", "/dev", "/gc", "/etc")
_MAX_PLACES: Final = 32
_COVER_BYTES: Final = 4096
"""Size of a tmpfs that stays empty until the executor takes it away."""
_MAX_NAMES: Final = 1024
_MAX_FEATURES: Final = 64
_MAX_TEXT: Final = 65_536


class OrderRefused(Exception):
    """An order breaks a rule. `field` is the member at fault."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


def check(add: Add, settings: RegistrarSettings) -> None:
    """Raise `OrderRefused` for an order that the registrar does not carry out."""
    pool = add.pool
    _match("account", pool.account, _ACCOUNT, "an account's name")
    _match("image_digest", pool.image_digest, _DIGEST, "a digest such as sha256:…")
    _match("node", add.node, _NODE, "a node's name")
    check_image(add.image, add.run, add.places, settings)
    if not 0 < pool.resources.cpu_percent <= settings.max_cpu_percent:
        raise OrderRefused(
            "cpu_percent", f"{pool.resources.cpu_percent} is not from 1 to {settings.max_cpu_percent}"
        )
    if not 0 < pool.resources.memory_mib <= settings.max_memory_mib:
        raise OrderRefused(
            "memory_mib", f"{pool.resources.memory_mib} is not from 1 to {settings.max_memory_mib}"
        )
    _count("cpu_features", pool.cpu_features, 0, _MAX_FEATURES)
    for feature in pool.cpu_features:
        _match("cpu_features", feature, _FEATURE, "the name of a CPU feature")
    _check_slots(add, settings)
    _check_paths("covered", add.covered)
    _check_variables(add)


def check_image(image: str, run: str, places: Iterable[str], settings: RegistrarSettings) -> None:
    """Raise `OrderRefused` for an image, as people and the docker driver name it, or for places that none may have."""
    for field, text in (("image", image), ("run", run)):
        try:
            parse_reference(text)
        except BadRequest as error:
            raise OrderRefused(field, str(error)) from error
    registry = engines_registry(parse_reference(run))
    if registry and registry not in map(normal_name, settings.registries):
        raise OrderRefused(
            "registry",
            f"nodes pull no images from {registry}, which is not in the registrar's setting `registries`; "
            "ask the operator to add it",
        )
    _check_paths("places", places)


def _check_paths(field: str, paths: Iterable[str]) -> None:
    _count(field, paths, 0, _MAX_PLACES)
    for path in paths:
        _check_path(field, path)


def _check_slots(add: Add, settings: RegistrarSettings) -> None:
    _count("slots", add.slots, 1, settings.max_slots_per_job)
    if len({slot.slot_id for slot in add.slots}) < len(add.slots):
        raise OrderRefused("slots", "a slot's id appears twice")
    for slot in add.slots:
        _match("slots.slot_id", slot.slot_id, _SLOT_ID, "a slot's id")
        _match("slots.door", slot.door, _DOOR, "a folder of letters, digits, - and _")
        if not _TOKEN.fullmatch(slot.token):
            raise OrderRefused("slots.token", "it is not 64 hexadecimal digits")


def _check_path(field: str, path: str) -> None:
    _harmless(field, path)
    if not path.startswith("/") or path != posixpath.normpath(path) or path == "/":
        raise OrderRefused(field, f"{path!r} is not an absolute path in its shortest form")
    if path != "/dev/shm" and any(path == each or path.startswith(each + "/") for each in _RESERVED):
        raise OrderRefused(field, f"{path} belongs to the slot itself")


def _check_variables(add: Add) -> None:
    _count("names", add.names, 0, _MAX_NAMES)
    _count("env", add.env, 0, _MAX_NAMES)
    if sum(map(len, (*add.names, *add.env, *add.env.values()))) > _MAX_TEXT:
        raise OrderRefused("env", f"the variables have more than {_MAX_TEXT} characters")
    for text in (*add.names, *add.env, *add.env.values()):
        _harmless("env", text)
    for name in add.env:
        if not name or "=" in name or name.startswith(("NOMAD_", "GENERAL_COMPUTE_")):
            raise OrderRefused("env", f"{name!r} is not the name of a variable that an image may set here")


def _match(field: str, text: str, pattern: re.Pattern[str], what: str) -> None:
    if not pattern.fullmatch(text):
        raise OrderRefused(field, f"{text[:100]!r} is not {what}")


def _count(field: str, items: Iterable[object], least: int, most: int) -> None:
    count = len(list(items))
    if not least <= count <= most:
        raise OrderRefused(field, f"it has {count} entries; {least} to {most} are allowed")


def _harmless(field: str, text: str) -> None:
    if len(text) > _MAX_TEXT or "\0" in text:
        raise OrderRefused(field, "a text is too long or holds a NUL")
    if any(opener in text for opener in _OPENERS):
        raise OrderRefused(
            field,
            f"{text[:100]!r} holds ${{ or %{{, which a cluster would replace; such an image runs on Docker only",
        )
    if not unicodedata.is_normalized("NFC", text):
        raise OrderRefused(
            field,
            f"{text[:100]!r} is not in Unicode's form NFC, into which a cluster would change it; "
            "such an image runs on Docker only",
        )


def variables(
    add: Add, settings: RegistrarSettings, job_id: str, installation: str, guest: str, seccomp: str
) -> dict[str, Any]:
    """The variables of the template. `guest` and `seccomp` name the files of this build on every node."""
    image = Image(add.image, add.pool.image_digest, add.run, env=tuple(f"{name}=" for name in add.names))
    walls = harden(image, add.pool.resources, settings.limits, Layout(add.places))
    share = settings.cpu_reservation_percent if add.executor_limits_cpu else 100
    sizes = {place.path: place.size_kib << 10 for place in walls.tmpfs}
    return {
        "job_id": job_id,
        "set_name": settings.set_name,
        "installation": installation,
        "account": add.pool.account,
        "image": add.image,
        "run": add.run,
        "digest": add.pool.image_digest,
        "pool": pool_name(add.pool),
        "cpu": max(1, add.pool.resources.cpu_percent * CPU_PER_PERCENT * share // 100),
        "cpu_hard_limit": share == 100,
        "memory_mib": add.pool.resources.memory_mib,
        "max_run_s": settings.max_run_s,
        "cpu_features": list(add.pool.cpu_features),
        "places": [
            *({"path": path, "size_bytes": sizes[path]} for path in add.places),
            *({"path": path, "size_bytes": _COVER_BYTES} for path in add.covered),
        ],
        "arguments": list(walls.init[2:]),
        "env": dict(add.env),
        "pids": walls.pids,
        "ulimits": {name: str(value) for name, value in walls.ulimits.items()},
        "sysctls": dict(walls.sysctls),
        "oom_score_adj": walls.oom_score_adj,
        "guest": guest,
        "runtime": settings.runtime,
        "seccomp": f"{settings.node_folder}/seccomp/{seccomp}",
        "slots": [
            {"id": slot.slot_id, "token": slot.token, "door": slot.door, "node": add.node}
            for slot in add.slots
        ],
        "status_url": settings.status_url,
        "region": settings.region,
        "namespace": settings.namespace,
        "datacenters": list(settings.datacenters),
        "node_pool": settings.node_pool,
    }


def written(values: dict[str, Any]) -> str:
    """Variables in HCL, one a line.

    JSON is HCL but for the two marks, which no value holds (`check`), two escapes, and characters beyond U+FFFF.
    """
    return "".join(f"{name} = {_hcl(value)}\n" for name, value in values.items())


def _hcl(value: object) -> str:
    escapes = {r"\b": r"\u0008", r"\f": r"\u000c"}
    # Two characters at a time, so that what follows an escaped backslash is no escape.
    return re.sub(
        r"\\.", lambda found: escapes.get(found[0], found[0]), json.dumps(value, ensure_ascii=False)
    )
