"""Query strings as names and values."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from scheduler.errors import BadRequest


def decode_pairs(query: bytes) -> list[tuple[str, str]]:
    """Names and values of a query string, in its order. Raises `BadRequest` for a value that is not UTF-8."""
    pairs: list[tuple[str, str]] = []
    for piece in query.split(b"&"):
        if not piece:
            continue
        raw_name, _, raw_value = piece.replace(b"+", b" ").partition(b"=")
        name = unquote_to_bytes(raw_name).decode(errors="replace")
        try:
            pairs.append((name, unquote_to_bytes(raw_value).decode()))
        except UnicodeDecodeError:
            raise BadRequest(
                f"{name}: the value is not UTF-8; send binary data as the body", field=name
            ) from None
    return pairs
