"""What a request asks for, read from its method and path. Pure."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, unquote_to_bytes

from router.choosing.retry import RequestKind
from router.wire.request_head import RequestHead

DEFAULT_ACCOUNT = "default"
RUN = b"/v1/run/"
_BEARER = re.compile(r"bearer +gc_([A-Za-z0-9-]+)_\S+", re.IGNORECASE)


class Destination(enum.Enum):
    """RUN: new work, by rules and weights. OWNER: a task's set. MERGED: all sets, merged. ANY: by rules and
    weights. NOWHERE: what a set tells its operators is not relayed."""

    RUN = enum.auto()
    OWNER = enum.auto()
    MERGED = enum.auto()
    ANY = enum.auto()
    NOWHERE = enum.auto()


@dataclass(frozen=True, slots=True)
class Purpose:
    """Where a request goes and what its repetition would mean; `long_wait`: its answer may wait for a
    task."""

    destination: Destination
    kind: RequestKind
    task_id: str = ""
    long_wait: bool = False


_SYNC_RUN = Purpose(Destination.RUN, RequestKind.SYNC_RUN, long_wait=True)
_ASYNC_RUN = Purpose(Destination.RUN, RequestKind.UNSAFE, long_wait=True)
_SAFE_ANY = Purpose(Destination.ANY, RequestKind.SAFE)
_UNSAFE_ANY = Purpose(Destination.ANY, RequestKind.UNSAFE)
_MERGED = Purpose(Destination.MERGED, RequestKind.SAFE)
_NOWHERE = Purpose(Destination.NOWHERE, RequestKind.SAFE)
_OPERATORS = re.compile(rb"/+(?:metrics|livez|readyz|v1/admin)(?:/.*)?", re.DOTALL)


def purpose_of(method: bytes, path: bytes, query: bytes, prefer: bytes | None) -> Purpose:
    """Read `/v1/run/{image}`, `/v1/tasks/{id}…`, `TaskId=` in the query, and the merged lists."""
    if method == b"POST" and path.startswith(RUN):
        return _ASYNC_RUN if prefer is not None and is_async(prefer) else _SYNC_RUN
    if _OPERATORS.fullmatch(unquote_to_bytes(path) if b"%" in path else path):
        return _NOWHERE
    if path.startswith(b"/v1/tasks/"):
        task_id, _, rest = path[10:].partition(b"/")
        if task_id:
            kind = RequestKind.SAFE if rest == b"cancel" else _kind(method)
            text = unquote(task_id.decode("latin-1"), errors="surrogateescape")
            return Purpose(Destination.OWNER, kind, task_id=text, long_wait=b"wait=" in query)
    elif path in (b"/v1/tasks", b"/v1/usage") and method in (b"GET", b"HEAD"):
        return _MERGED
    if b"TaskId=" in query:
        ids = parse_qs(query.decode("latin-1"), max_num_fields=1000).get("TaskId")
        if ids:
            return Purpose(Destination.OWNER, _kind(method), task_id=ids[0], long_wait=b"wait=" in query)
    return _SAFE_ANY if _kind(method) is RequestKind.SAFE else _UNSAFE_ANY


def _kind(method: bytes) -> RequestKind:
    return RequestKind.SAFE if method in (b"GET", b"HEAD", b"OPTIONS") else RequestKind.UNSAFE


def is_async(prefer: bytes) -> bool:
    """Whether a Prefer header asks for `respond-async`."""
    return any(part.split(b";")[0].strip().lower() == b"respond-async" for part in prefer.split(b","))


def account_of(authorization: bytes | None, x_account: bytes | None) -> str:
    """The account that a request speaks for, as readable from it; the set alone checks the secret."""
    if authorization is not None:
        match = _BEARER.fullmatch(authorization.decode("latin-1"))
        if match is not None:
            return match[1]
    return x_account.decode("latin-1") if x_account else DEFAULT_ACCOUNT


class HeadFacts:
    """What rules and keys may look at (`table.Facts`), read from a head only when asked for."""

    __slots__ = ("_client", "_head", "header")

    def __init__(self, head: RequestHead, client: bytes) -> None:
        self._head = head
        self._client = client
        self.header = head.get

    @property
    def method(self) -> str:
        return self._head.method.decode()

    @property
    def path(self) -> str:
        return self._head.path.decode("latin-1")

    @property
    def account(self) -> str:
        return account_of(self._head.get(b"authorization"), self._head.get(b"x-account"))

    @property
    def image(self) -> str | None:
        path = self._head.path
        if not path.startswith(RUN):
            return None
        return unquote(path[len(RUN) :].decode("latin-1"), errors="surrogateescape")

    @property
    def client(self) -> str:
        return self._client.decode()


def queue_timeout_s(query: bytes, default: float = 10.0) -> float:
    """The caller's `queue_timeout_s`; the default where it is missing or no number."""
    match = re.search(rb"(?:^|&)queue_timeout_s=([0-9.]{1,12})(?:&|$)", query)
    if match is None:
        return default
    try:
        return float(match[1])
    except ValueError:
        return default
