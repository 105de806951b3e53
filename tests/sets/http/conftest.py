"""A set's HTTP for conversations: a server, and clients that are connected to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from sets.http.connection import Connection
from tests.sets.http.served import Client, Server


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Callable[[], Awaitable[Client]]]:
    listener = await server.loop.create_server(lambda: Connection(server), "127.0.0.1", 0)
    clients: list[Client] = []

    async def connect() -> Client:
        clients.append(Client(*await asyncio.open_connection(*listener.sockets[0].getsockname())))
        return clients[-1]

    yield connect
    for client in clients:
        client.writer.close()
    for held in list(server.connections):
        held.abort()
    listener.close()


@pytest.fixture
async def client(connect: Callable[[], Awaitable[Client]]) -> Client:
    return await connect()
