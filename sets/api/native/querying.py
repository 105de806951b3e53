"""Query parameters of calls that look at things: each given once, and none that does not exist."""

from __future__ import annotations

import re

import falcon.asgi

from scheduler.errors import BadRequest
from sets.api.query import decode_pairs


def one_of_each(req: falcon.asgi.Request, names: tuple[str, ...]) -> dict[str, str]:
    """The request's query parameters. Raises `BadRequest` for one that is not among `names`, or that comes twice."""
    found: dict[str, str] = {}
    for name, value in decode_pairs(req.scope["query_string"]):
        if name not in names:
            known = f"there are {', '.join(names)}" if names else "this call takes none"
            raise BadRequest(f"{name[:80]}: there is no such parameter; {known}", field=name)
        if name in found:
            raise BadRequest(f"{name}: given twice; give it once", field=name)
        found[name] = value
    return found


def whole_number(query: dict[str, str], name: str, default: int, most: int) -> int:
    """A parameter from 1 to `most`, or its default. Raises `BadRequest`."""
    text = query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not 1 <= int(text) <= most:
        raise BadRequest(f"{name}: a whole number from 1 to {most}", field=name)
    return int(text)
