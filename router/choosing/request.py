"""The purpose of a request, as a dialect reads it. Pure."""

from __future__ import annotations

import enum

import msgspec

from router.choosing.retry import RequestKind


class Destination(enum.Enum):
    """RUN: new work, by rules and weights. OWNER: a task's set. MERGED: all sets, merged. ANY: by rules and
    weights. NOWHERE: what a set tells its operators is not relayed. PAGE: the router answers with a page of its own."""

    RUN = enum.auto()
    OWNER = enum.auto()
    MERGED = enum.auto()
    ANY = enum.auto()
    NOWHERE = enum.auto()
    PAGE = enum.auto()


class Purpose(msgspec.Struct, frozen=True):
    """Where a request goes and what its repetition would mean.

    `owner`: the name of the task's set, for the destination OWNER. `long_wait`: the answer may wait for a task.
    `always_200`: the answer's status says nothing, so a refusal is told by its other parts.
    """

    destination: Destination
    kind: RequestKind
    owner: str = ""
    long_wait: bool = False
    always_200: bool = False
