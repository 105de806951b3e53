"""Image references: the grammar that Docker and registries share, and what a reference says."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from scheduler.errors import BadRequest

MAX_CHARS: Final = 512
"""A name of 255, a tag of 128 and a sha512 digest fit."""

_MAX_NAME_CHARS: Final = 255
_LABEL: Final = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_PATH_PART: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_DIGEST: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,128}")
_IMAGE_ID: Final = re.compile(r"sha256:[0-9a-f]{64}")
_DEFAULT_DOMAIN: Final = "docker.io"


class Reference(msgspec.Struct, frozen=True):
    """A parsed reference.

    `domain` is the registry that was named, "" where none was; `path` is the repository within it. `tag` is
    "latest" where neither tag nor digest was given. An engine's own image id has `image_id` alone.
    """

    text: str
    domain: str = ""
    path: str = ""
    tag: str = ""
    digest: str = ""
    image_id: str = ""

    @property
    def repository(self) -> str:
        """The repository as engines list it: Docker's own registry and its `library/` are left out."""
        if self.domain in ("", _DEFAULT_DOMAIN, "index.docker.io"):
            return self.path.removeprefix("library/")
        return f"{self.domain}/{self.path}"

    @property
    def tagged(self) -> str:
        """REPOSITORY:TAG as engines list it; "" for an image id and for a digest."""
        return f"{self.repository}:{self.tag}" if self.tag and not self.digest else ""


def parse_reference(text: str) -> Reference:
    """Parse what a caller named as image. Raises `BadRequest` (field `image`) saying what is wrong with it."""
    if not text:
        raise _bad("no image was named; name one such as imgproc:1")
    if len(text) > MAX_CHARS:
        raise _bad(f"the image reference has {len(text)} characters; at most {MAX_CHARS} are allowed")
    if _IMAGE_ID.fullmatch(text):
        return Reference(text=text, image_id=text)

    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _bad(
            f"{_shown(text)}: after the @ a digest such as sha256:… with its hexadecimal digits is expected"
        )
    name, tag = rest, ""
    head, colon, tail = rest.rpartition(":")
    if colon and "/" not in tail:
        name, tag = head, tail
        if not _TAG.fullmatch(tag):
            raise _bad(
                f"{_shown(text)}: the tag after the colon may hold up to 128 letters, digits, _ . and -, "
                "and begins with a letter, a digit or _"
            )
    domain, path = _split_domain(name)
    if domain and not _DOMAIN.fullmatch(domain):
        raise _bad(f"{_shown(text)}: {_shown(domain)} is not the name of a registry (HOST or HOST:PORT)")
    if len(name) > _MAX_NAME_CHARS:
        raise _bad(f"the image's name has {len(name)} characters; at most {_MAX_NAME_CHARS} are allowed")
    for part in path.split("/"):
        if not _PATH_PART.fullmatch(part):
            raise _bad(_why_bad_part(text, part))
    return Reference(
        text=text, domain=domain, path=path, tag=tag or ("" if digest else "latest"), digest=digest
    )


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return "", name


def _why_bad_part(text: str, part: str) -> str:
    if not part:
        return f"{_shown(text)} is not an image reference: a part of its name is empty"
    if part.lower() != part and _PATH_PART.fullmatch(part.lower()):
        return f"{_shown(text)}: an image's name must be in lower case"
    return (
        f"{_shown(text)} is not an image reference: {_shown(part)} may hold only lower-case letters and digits, "
        "separated by . _ __ or -"
    )


def _shown(text: str) -> str:
    cut = text if len(text) <= 80 else text[:80] + "…"
    return cut.encode("unicode_escape").decode() if not cut.isprintable() else cut


def _bad(message: str) -> BadRequest:
    return BadRequest(message, field="image")
