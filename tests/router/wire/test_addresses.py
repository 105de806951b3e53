"""Names of sets: resolved beside the loop, one lookup at a time, the last good addresses kept."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from structlog.testing import capture_logs

from router.wire import addresses as module
from router.wire.addresses import Address, Addresses
from router.wire.dial import dialled
from tests.router.rig import eventually

V4: Address = (socket.AF_INET, ("192.0.2.1", 80))
OTHER: Address = (socket.AF_INET, ("192.0.2.2", 80))
V6: Address = (socket.AF_INET6, ("2001:db8::1", 80, 0, 0))


class Resolver:
    """Answers what `answer` is: addresses, or an error to raise; `gate` holds answers up."""

    def __init__(self, *found: Address) -> None:
        self.answer: tuple[Address, ...] | Exception = found
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, host: str, port: int, **more: Any) -> list[tuple[Any, ...]]:
        self.asked += 1
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in self.answer]


def made(resolver: Resolver, host: str = "set-a") -> Addresses:
    return Addresses(asyncio.get_running_loop(), host, 80, resolver)


async def looked_up(addresses: Addresses) -> tuple[Address, ...]:
    lookup = addresses.look_up()
    assert lookup is not None
    await lookup
    return addresses.known()


async def test_a_numeric_host_needs_no_resolver() -> None:
    resolver = Resolver()
    assert made(resolver, "192.0.2.1").known() == (V4,)
    assert made(resolver, "2001:db8::1").known() == ((socket.AF_INET6, ("2001:db8::1", 80)),)
    await asyncio.sleep(0)
    assert resolver.asked == 0


async def test_a_name_has_addresses_of_both_families_once_each() -> None:
    addresses = made(Resolver(V6, V4, V6))
    assert addresses.known() == ()
    assert await looked_up(addresses) == (V6, V4)


async def test_one_lookup_runs_at_a_time_and_old_addresses_serve_meanwhile(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "FRESH_S", -1.0)  # Always old.
    resolver = Resolver(V4)
    addresses = made(resolver)
    await looked_up(addresses)
    first = addresses.look_up()  # `looked_up` found them old and began another.
    assert first is not None
    await first
    resolver.gate.clear()
    before = resolver.asked
    resolver.answer = (OTHER,)
    assert [addresses.known() for _ in range(5)] == [(V4,)] * 5
    await asyncio.sleep(0)
    assert resolver.asked == before + 1
    resolver.gate.set()
    lookup = addresses.look_up()
    assert lookup is not None
    await lookup
    assert addresses.known() == (OTHER,)
    addresses.close()


async def test_the_last_good_addresses_outlive_a_resolver_that_fails() -> None:
    resolver = Resolver(V4)
    addresses = made(resolver)
    await looked_up(addresses)
    with capture_logs() as lines:
        for answer in (
            socket.gaierror(-2, "Name or service not known"),
            TimeoutError(),
            (),
            UnicodeError("label"),
        ):
            resolver.answer = answer
            addresses._failed_at = -1e9
            assert await looked_up(addresses) == (V4,)
            assert addresses.error is not None
    assert [(line["event"], line["next"]) for line in lines] == [
        ("host cannot be resolved", "its last addresses stay in use")
    ]
    resolver.answer = (OTHER,)
    addresses._failed_at = -1e9
    assert await looked_up(addresses) == (OTHER,)
    assert addresses.error is None


async def test_a_failed_lookup_is_not_repeated_at_once() -> None:
    resolver = Resolver()
    addresses = made(resolver)
    assert await looked_up(addresses) == ()
    assert addresses.look_up() is None
    assert addresses.error is not None
    assert resolver.asked == 1


async def test_the_address_that_answered_is_tried_first_and_stays_so() -> None:
    resolver = Resolver(V6, V4)
    addresses = made(resolver)
    await looked_up(addresses)
    addresses.answered(V4)
    assert addresses.known() == (V4, V6)
    addresses.answered(OTHER)  # One that the name no longer has.
    assert addresses.known() == (V4, V6)
    assert await looked_up(addresses) == (V4, V6)


async def test_after_its_end_nothing_is_looked_up() -> None:
    resolver = Resolver(V4)
    resolver.gate.clear()
    addresses = made(resolver)
    waiting = asyncio.create_task(dialled(addresses, 5.0))
    await eventually(lambda: resolver.asked == 1)
    addresses.close()
    with pytest.raises(OSError, match="left the configuration"):
        await waiting
    assert addresses.look_up() is None
    assert resolver.asked == 1


async def test_a_set_whose_address_is_not_known_yet_is_not_looked_up() -> None:
    resolver = Resolver(V4)
    addresses = made(resolver, host="")
    with pytest.raises(OSError, match="service registry has not told its address yet"):
        await dialled(addresses, 5.0)
    assert (addresses.known(), resolver.asked) == ((), 0)
