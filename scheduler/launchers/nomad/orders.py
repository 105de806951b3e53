"""Messages between the launcher in a set and the registrar: one JSON object a line over a unix socket.

The set says `Hello`, the registrar answers `Found`, the set answers `Keep`. From then on the set sends `Add`,
`Drop` and `Ahead`, the registrar `Added`, `Report`, `NodeState`, `ClusterState` and `Replaced`. The set names pools and
numbers; the registrar alone decides what a job looks like. An attacker in a set can order slots, but sees none of
Nomad's tokens.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from scheduler.errors import EngineUnavailable
from scheduler.launchers.hardening import SlotLimits
from scheduler.launchers.nomad.words import Kind
from scheduler.policy.node import Standing
from scheduler.pool import PoolKey

VERSION: Final = 3
MESSAGE_BYTES: Final = 4 << 20
"""Longest message in bytes: what ten thousand found slots need."""
UNREAD_BYTES: Final = 4 * MESSAGE_BYTES
"""Most bytes of messages that the other side may leave unread; a side that leaves more is cut off."""


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    version: int
    set_name: str
    installation: str


class Keep(msgspec.Struct, frozen=True, tag="keep"):
    """The found slots that the set goes on using; the registrar removes all others."""

    slot_ids: tuple[str, ...]


class NewSlot(msgspec.Struct, frozen=True):
    """`door` is the folder of its socket, relative to the node's folder for sockets; `token` is a secret."""

    slot_id: str
    token: str
    door: str


class Add(msgspec.Struct, frozen=True, tag="add"):
    """Start slots of one pool, on any node or on the one that Nomad and the set call `node`.

    `image` is for people, `run` for the docker driver. `places` can be written to; `names` are variables of the image
    that the guest passes on; `env` is set beside them. `covered` are VOLUMEs with files of the image: each gets a
    tmpfs, which the executor takes away again. `executor_limits_cpu`: the job need not limit the slots' CPU;
    a set of an earlier build leaves that to the job where a slot is on another machine than its own.
    """

    request: int
    pool: PoolKey
    image: str
    run: str
    places: tuple[str, ...]
    names: tuple[str, ...]
    slots: tuple[NewSlot, ...]
    env: dict[str, str] = {}
    node: str = ""
    executor_limits_cpu: bool = False
    covered: tuple[str, ...] = ()


class AheadImage(msgspec.Struct, frozen=True):
    """An image that every node is to have: as `Add` names it, with its VOLUMEs and other places."""

    image: str
    run: str
    places: tuple[str, ...]


class Ahead(msgspec.Struct, frozen=True, tag="ahead"):
    """The images that the set wants on every node ahead of its tasks; it wants no others."""

    images: tuple[AheadImage, ...]


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    """The slot is not wanted any more."""

    slot_id: str


class Found(msgspec.Struct, frozen=True, tag="found"):
    """The ids of the slots of which anything may be left on a node.

    `inodes` bounds the files in each place of a slot: jobs cannot say it, so the slot's executor is told. The cluster
    ends each slot `slot_life_s` after its start; 0: never.
    """

    slots: tuple[str, ...]
    inodes: int = SlotLimits().inodes
    slot_life_s: float = 0.0


class Added(msgspec.Struct, frozen=True, tag="added"):
    """The answer to `Add`. `error` is empty if the job is registered; `field` names the part of an order at fault."""

    request: int
    error: str = ""
    field: str = ""


class Report(msgspec.Struct, frozen=True, tag="report"):
    """How a slot fares now."""

    slot_id: str
    kind: Kind
    words: str


class NodeState(msgspec.Struct, frozen=True, tag="node"):
    """How a node of the cluster stands, and why it takes no new slots. All are told at the start, then changes."""

    node: str
    standing: Standing
    words: str = ""


class ClusterState(msgspec.Struct, frozen=True, tag="cluster"):
    """Says why the cluster does not answer the registrar; `reason` is empty when it answers."""

    reason: str


class Replaced(msgspec.Struct, frozen=True, tag="replaced"):
    """Another process of the set has connected. This one is to leave, and not to come back."""


ToRegistrar = Hello | Keep | Add | Drop | Ahead
ToLauncher = Found | Added | Report | NodeState | ClusterState | Replaced


class Line:
    """One side of a connection. Messages of type `incoming` are read from it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, incoming: object) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder: msgspec.json.Decoder[ToRegistrar | ToLauncher] = msgspec.json.Decoder(incoming)

    async def read(self) -> ToRegistrar | ToLauncher:
        """Raises `EngineUnavailable` when the other side is gone, or says what is no message."""
        try:
            line = await self._reader.readuntil(b"\n")
            return self._decoder.decode(line)
        except asyncio.IncompleteReadError as error:
            raise EngineUnavailable("the other side has closed the connection") from error
        except (asyncio.LimitOverrunError, msgspec.ValidationError, msgspec.DecodeError) as error:
            raise EngineUnavailable(f"the other side sent what is no message: {error}") from error
        except OSError as error:
            raise EngineUnavailable(f"the connection broke: {error.strerror or error}") from error

    def send(self, message: ToRegistrar | ToLauncher) -> None:
        """Send without waiting. Ends the connection if the other side reads too little."""
        if self._writer.is_closing():
            return
        self._writer.write(msgspec.json.encode(message) + b"\n")
        if self._writer.transport.get_write_buffer_size() > UNREAD_BYTES:
            self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()
