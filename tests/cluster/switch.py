"""`python -m tests.cluster.switch NAMESPACE=ADDRESS…`: the wire between namespaces, with faults at the packets' level.

It holds one TUN device in each namespace and carries IPv4 packets between them. A packet can be dropped, delayed and
thereby overtaken by a later one, as the newest order for its direction says. No kernel needs netem for that.

Orders come on standard input, one JSON object a line (`Order`); each is answered with "done" once it is in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import random
import socket
import struct
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NAMESPACES = Path("/run/netns")
DEVICE = "wire0"
MTU_BYTES = 1500
MOST_UNDER_WAY = 20_000
"""Packets that are delayed at the same time; a switch drops what its queue cannot hold."""
PACKETS_A_TURN = 64

_TUNSETIFF = 0x400454CA
_IFF_TUN_WITHOUT_HEAD = 0x1001
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Weather:
    """The state of one direction. Each packet is late by `delay_s` and up to `jitter_s` more, or lost with probability
    `loss`."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    blocked: bool = False


FAIR = Weather()
CUT = Weather(blocked=True)


@dataclass(frozen=True)
class Order:
    """The weather from one host to another, by their addresses, from now on."""

    source: str
    target: str
    weather: Weather

    def line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, line: str) -> Order:
        found = json.loads(line)
        return cls(found["source"], found["target"], Weather(**found["weather"]))


class Directions:
    """Decides what becomes of each packet. Pure: the dice are passed in."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._weather: dict[tuple[bytes, bytes], Weather] = {}

    def obey(self, order: Order) -> None:
        self._weather[socket.inet_aton(order.source), socket.inet_aton(order.target)] = order.weather

    def late_by(self, packet: bytes) -> float | None:
        """By how many seconds an IPv4 packet arrives late; None: it never does."""
        weather = self._weather.get((packet[12:16], packet[16:20]), FAIR)
        if weather is FAIR:
            return 0.0
        if weather.blocked or (weather.loss and self._dice.random() < weather.loss):
            return None
        return weather.delay_s + self._dice.random() * weather.jitter_s


class Switch:
    """Carries packets between its devices. `devices`: descriptors of TUN devices, by the address behind each."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, devices: dict[str, int], directions: Directions
    ) -> None:
        self._loop = loop
        self._directions = directions
        self._device_of = {socket.inet_aton(address): device for address, device in devices.items()}
        self._under_way = 0
        for device in devices.values():
            loop.add_reader(device, self._read, device)

    def _read(self, device: int) -> None:
        for _ in range(PACKETS_A_TURN):
            try:
                packet = os.read(device, MTU_BYTES + 64)
            except OSError:
                return
            target = self._device_of.get(packet[16:20])
            if target is None or packet[0] >> 4 != 4:
                continue
            late_s = self._directions.late_by(packet)
            if late_s is None:
                continue
            if late_s == 0.0:
                _write(target, packet)
            elif self._under_way < MOST_UNDER_WAY:
                self._under_way += 1
                self._loop.call_later(late_s, self._arrive, target, packet)

    def _arrive(self, target: int, packet: bytes) -> None:
        self._under_way -= 1
        _write(target, packet)


def _write(device: int, packet: bytes) -> None:
    # A device whose queue is full drops the packet, as any does.
    with contextlib.suppress(OSError):
        os.write(device, packet)


def enter(namespace: str) -> None:
    """Move the calling thread into a network namespace: the sockets that it opens from now on are there."""
    libc: Any = ctypes.CDLL(None, use_errno=True)
    with (NAMESPACES / namespace).open() as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns into {namespace}")


def open_device(namespace: str) -> int:
    """Make the namespace's TUN device; return its descriptor, which stays valid in any namespace."""
    enter(namespace)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", DEVICE.encode(), _IFF_TUN_WITHOUT_HEAD))
    return device


async def serve(places: dict[str, str], seed: int) -> None:
    loop = asyncio.get_running_loop()
    directions = Directions(random.Random(seed))
    Switch(loop, {address: open_device(namespace) for namespace, address in places.items()}, directions)
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print("done", flush=True)
    while line := await orders.readline():
        directions.obey(Order.of(line.decode()))
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(serve(dict(word.split("=") for word in sys.argv[2:]), int(sys.argv[1])))
