"""Merges the lists of several sets: pages of tasks by their time, rows of usage by their texts. Pure.

A set whose answer cannot be read is left out, with the reason; the other sets' lists are still merged. The work is done
entry by entry, because it may run beside the event loop: one long call into C would hold that up.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from router.errors import RouterError

MOST_DIGITS: Final = 40
"""Maximum number of digits before a number's point, and after it: sums of such numbers are always exact."""
_OURS: Final = ("sets", "partial", "missing")
"""Fields that describe the sets behind a list; a set's own fields of these names are dropped."""
_BAD: Final = (msgspec.DecodeError, ValueError, RecursionError)


class Unreadable(RouterError):
    """None of the sets' lists could be read."""


class _Tasks(msgspec.Struct):
    tasks: list[msgspec.Raw]
    next: str | None = None


class _Callbacks(msgspec.Struct):
    callbacks: list[msgspec.Raw]
    next: str | None = None


class _Batches(msgspec.Struct):
    batches: list[msgspec.Raw]
    next: str | None = None


_PAGES: Final[dict[str, type[_Tasks | _Callbacks | _Batches]]] = {
    "tasks": _Tasks,
    "callbacks": _Callbacks,
    "batches": _Batches,
}


class _Named(msgspec.Struct):
    id: str


def merge_pages(kind: str, bodies: Mapping[str, bytes], missing: Mapping[str, str], limit: int) -> bytes:
    """The newest `limit` entries of all sets' pages, as they came; `next` is the last one's id where there may be
    more. `kind` is the field that has them, such as `tasks`. `missing`: sets that are not there, and why. Raises
    `Unreadable`."""
    out = dict(missing)
    entries: list[tuple[str, str, msgspec.Raw]] = []
    more = False
    for name, body in bodies.items():
        try:
            page = msgspec.json.decode(body, type=_PAGES[kind])
            sent: list[msgspec.Raw] = getattr(page, kind)
            found = []
            for raw in sent[:limit]:
                entry_id = msgspec.json.decode(raw, type=_Named).id
                found.append((entry_id.partition("-")[2], entry_id, raw))
        except _BAD as error:
            out[name] = f"its list could not be read: {error}"
            continue
        entries += found
        more = more or page.next is not None or len(sent) > limit or len(entries) > limit
        entries.sort(key=lambda entry: entry[:2], reverse=True)
        del entries[limit:]
    cursor = entries[-1][1] if entries and more else None
    merged = [raw for _, _, raw in entries]
    return msgspec.json.encode({kind: merged, "next": cursor, **_sets(bodies, out)})


def merge_usage(bodies: Mapping[str, bytes], missing: Mapping[str, str]) -> bytes:
    """Rows that agree in all their texts (day, image, …) become one, their numbers added; so do numbers beside the
    rows. Raises `Unreadable`."""
    out = dict(missing)
    beside: dict[str, Any] = {}
    tables: dict[str, dict[_Group, dict[str, Any]]] = {}
    for name, body in bodies.items():
        try:
            values, rows = _usage(body)
        except _BAD as error:
            out[name] = f"its usage could not be read: {error}"
            continue
        for key, value in values.items():
            if key not in tables:
                beside[key] = _sum(beside[key], value) if key in beside else value
        for key, more in rows.items():
            if key in beside:
                continue
            table = tables.setdefault(key, {})
            for row in more:
                _add(table, row)
    merged = {**beside, **{key: [_encoded(row) for row in table.values()] for key, table in tables.items()}}
    return bytes(_encoded({**merged, **_sets(bodies, out)}))


def _sets(bodies: Mapping[str, bytes], missing: Mapping[str, str]) -> dict[str, object]:
    """The fields that describe the sets behind a list."""
    read = [name for name in bodies if name not in missing]
    if not read:
        raise Unreadable(in_words(missing))
    return {"sets": read, "partial": bool(missing), **({"missing": missing} if missing else {})}


def in_words(missing: Mapping[str, str], at_most: int = 5) -> str:
    """Sets that are not there and why, for people."""
    parts = [f"set {name!r}: {why}" for name, why in list(missing.items())[:at_most]]
    more = len(missing) - at_most
    return "; ".join([*parts, f"and {more} more"] if more > 0 else parts)


_Group = tuple[tuple[str, str], ...]


def _usage(body: bytes) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Read one set's usage: single values, and lists of rows. All numbers in it can be added to others."""
    values: dict[str, Any] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
    for key, raw in msgspec.json.decode(body, type=dict[str, msgspec.Raw]).items():
        if key in _OURS:
            continue
        if bytes(memoryview(raw)[:1]) != b"[":
            values[key] = _DECODER.decode(raw)
            continue
        rows = tables[key] = []
        for each in msgspec.json.decode(raw, type=list[msgspec.Raw]):
            row = _DECODER.decode(each)
            if not isinstance(row, dict):
                raise ValueError(f"a row of {key!r} is no JSON object")
            rows.append(_with_amount(row))
    return _with_amount(values), tables


def _with_amount(row: dict[str, Any]) -> dict[str, Any]:
    if isinstance(row.get("amount"), str):
        row["amount"] = _Amount(_decimal(row["amount"]))
    return row


def _add(table: dict[_Group, dict[str, Any]], row: dict[str, Any]) -> None:
    group = tuple(
        sorted((key, str(value)) for key, value in row.items() if key != "amount" and not _is_number(value))
    )
    have = table.setdefault(group, row)
    if have is row:
        return
    for key, value in row.items():
        if _is_number(value):
            have[key] = _sum(have[key], value) if key in have else value


def _sum(have: Any, value: Any) -> Any:
    if not (_is_number(have) and _is_number(value)):
        return have
    if isinstance(have, _Amount) or isinstance(value, _Amount):
        return _Amount(Decimal(have) + Decimal(value))
    return have + value


class _Amount(Decimal):
    """A number that is written as a text, so that no reader rounds it."""


def _is_number(value: object) -> bool:
    return isinstance(value, (int, Decimal)) and not isinstance(value, bool)


def _decimal(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"an amount is no number: {text[:40]!r}") from None
    if not number.is_finite() or abs(number.adjusted()) > MOST_DIGITS or len(text) > 2 * MOST_DIGITS:
        raise ValueError(f"a number is out of all bounds: {text[:40]!r}")
    return number


_DECODER: Final = msgspec.json.Decoder(Any, float_hook=_decimal)
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")


def _encoded(value: dict[str, Any]) -> msgspec.Raw:
    plain = {key: str(each) if isinstance(each, _Amount) else each for key, each in value.items()}
    return msgspec.Raw(_ENCODER.encode(plain))
