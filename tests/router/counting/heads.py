"""A request's head, as far as counting looks at it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


def head_of(
    client: str = "192.0.2.1",
    *,
    image: str | None = None,
    account: str = "default",
    request_id: bytes = b"id",
    path: bytes = b"/v1/run/ocr:1",
) -> Any:
    facts = SimpleNamespace(client=client, image=image, account=account)
    return SimpleNamespace(request_id=request_id, method=b"POST", path=path, facts=facts)
