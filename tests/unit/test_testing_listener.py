"""Connections that arrive as a listener closes: each is made, or ends at once."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import pytest

from holdfast.testing.listener import Listener
from holdfast.testing.proxy import FaultProxy
from holdfast.testing.server import ScriptedServer
from stdio_rig import on_both_loops

TURNS = range(10)
"""Of the event loop, between the arrival of a connection and the end of its listener: all of it takes about five."""


class Greeting(asyncio.Protocol):
    """Says that it is there, and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection = cast("asyncio.Transport", transport)  # uvloop's is none by class
        connection.write(b"hello")
        connection.close()


async def read_all(client: socket.socket) -> bytes:
    """What comes until the connection ends, however it ends."""
    client.setblocking(False)
    received = b""
    try:
        async with asyncio.timeout(60):
            while chunk := await asyncio.get_running_loop().sock_recv(client, 100):
                received += chunk
    except ConnectionResetError:
        pass
    return received


@asynccontextmanager
async def arrived(port: int, turns: int) -> AsyncGenerator[socket.socket]:
    """A connection that the kernel has taken, `turns` turns of the loop ago."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        yield client


@on_both_loops
async def test_what_arrives_as_a_listener_closes_is_served_or_ended() -> None:
    received: list[bytes] = []
    for turns in TURNS:
        async with Listener(Greeting) as listener, arrived(listener.port, turns) as client:
            listener.close()
            received.append(await read_all(client))
    assert received == sorted(received), "served, once it is accepted"
    assert {*received} == {b"", b"hello"}
    gc.collect()  # a socket that nobody closed would warn now


@on_both_loops
async def test_what_arrives_as_a_listeners_block_is_left_is_served_or_ended() -> None:
    for turns in TURNS:
        listener = Listener(Greeting)
        await listener.__aenter__()
        async with arrived(listener.port, turns) as client:
            await listener.__aexit__(None, None, None)
            assert await read_all(client) in {b"hello", b""}
    gc.collect()


@on_both_loops
async def test_all_that_wait_at_once_are_served() -> None:
    async with Listener(Greeting) as listener, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(arrived(listener.port, 0)) for _ in range(100)]
        assert [await read_all(client) for client in clients] == [b"hello"] * 100


async def test_a_port_that_is_taken_raises() -> None:
    async with Listener(Greeting) as listener:
        with pytest.raises(OSError, match="in use"):
            await Listener(Greeting, port=listener.port).__aenter__()


@pytest.mark.parametrize("turns", TURNS)
async def test_a_scripted_server_that_stops_ends_what_it_accepts_at_the_last_moment(turns: int) -> None:
    async with ScriptedServer() as server, arrived(server.port, turns) as client:
        await server.stop()
        assert await read_all(client) == b""
        await server.until(lambda: server.connections == 0)
    gc.collect()


@pytest.mark.parametrize("turns", TURNS)
async def test_a_proxy_that_refuses_ends_what_it_accepts_at_the_last_moment(turns: int) -> None:
    async with (
        ScriptedServer() as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        arrived(proxy.port, turns) as client,
    ):
        proxy.refuse()
        proxy.drop_all()
        assert await read_all(client) == b""
    gc.collect()
