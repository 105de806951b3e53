"""A connection to a set that cannot be made: every way of it ends in one failure, none in silence."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from router.wire.addresses import Address, Addresses
from router.wire.dial import Dial, dialled
from tests.descriptors import no_descriptors_left
from tests.router.rig import free_port
from tests.router.wire.conversation import DeafSet
from tests.router.wire.test_addresses import Resolver

NO_FAMILY: Address = (9999, ("192.0.2.1", 80))
"""`socket.socket` raises."""
NO_NAME: Address = (socket.AF_INET, ("no-such-host.invalid", 80))
"""`connect_ex` raises."""


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def there(port: int) -> Address:
    return (socket.AF_INET, ("127.0.0.1", port))


def named(*found: Address) -> Addresses:
    return Addresses(asyncio.get_running_loop(), "set-a", 80, Resolver(*found))


@pytest.mark.parametrize("bad", [NO_FAMILY, NO_NAME], ids=["socket", "connect"])
async def test_an_error_of_the_call_itself_is_told_as_any_other(bad: Address) -> None:
    with pytest.raises(OSError, match=r"family|name|Name"):
        await dialled(named(bad), 5.0)


@pytest.mark.parametrize("bad", [NO_FAMILY, NO_NAME, None], ids=["socket", "connect", "refused"])
async def test_the_next_address_is_tried(bad: Address | None, port: int) -> None:
    addresses = named(bad or there(free_port()), there(port))
    sock = await dialled(addresses, 5.0)
    assert sock.getpeername()[1] == port
    sock.close()
    assert addresses.known()[0] == there(port)


async def test_an_address_that_says_nothing_leaves_time_for_the_next(port: int) -> None:
    deaf = DeafSet()
    try:
        sock = await dialled(named(there(deaf.port), there(port)), 0.4)
        assert sock.getpeername()[1] == port
        sock.close()
    finally:
        deaf.close()


async def test_without_a_descriptor_it_fails_later_not_at_once(port: int) -> None:
    told: list[OSError] = []
    addresses = Addresses(asyncio.get_running_loop(), "127.0.0.1", port)
    with no_descriptors_left():
        Dial(asyncio.get_running_loop(), addresses, 5.0, lambda sock: sock.close(), told.append)
        assert not told
        await asyncio.sleep(0)
    assert [error.strerror for error in told] == ["Too many open files"]


async def test_a_name_that_nobody_resolves_in_time_fails() -> None:
    resolver = Resolver()
    resolver.gate.clear()
    addresses = Addresses(asyncio.get_running_loop(), "set-a", 80, resolver)
    with pytest.raises(TimeoutError, match="not resolved in time"):
        await dialled(addresses, 0.05)
    addresses.close()


async def test_a_name_that_does_not_exist_fails_and_so_does_who_asks_again_at_once() -> None:
    addresses = named()
    for _ in range(2):
        with pytest.raises(OSError, match="'set-a' cannot be resolved"):
            await dialled(addresses, 5.0)


async def test_who_is_not_waited_for_any_more_leaves_nothing_open(port: int) -> None:
    deaf = DeafSet()
    try:
        for addresses in (named(there(deaf.port)), Addresses(asyncio.get_running_loop(), "127.0.0.1", port)):
            dial = Dial(asyncio.get_running_loop(), addresses, 5.0, pytest.fail, pytest.fail)  # type: ignore[arg-type]
            await asyncio.sleep(0)
            dial.cancel()
            await asyncio.sleep(0.02)
            assert dial._sock is None
            assert dial._timer is None
    finally:
        deaf.close()
