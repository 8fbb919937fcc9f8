"""Clients that stop reading (threats, row 38): they hold up nobody, and nothing grows without bound."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import AsyncExitStack
from typing import Any, Final

from bare_client import BareClient
from faults.rig import gateway_to, until
from faults.twins import compared, running, twins
from holdfast.testing.server import ScriptedServer
from requirements import requirement
from rows import Figure, row

READERS: Final = 100
LINE: Final = 16_000
LINES: Final = 500
"""Bytes and number of the log messages that each is sent: 8 MB, twice what Linux takes for a socket."""
RECEIVE_BUFFER: Final = 4096
MIB: Final = 1 << 20


async def never_read(client: BareClient, body: dict[str, Any], stack: AsyncExitStack) -> socket.socket:
    """Send a request from a connection that takes next to nothing, and do not read its answer."""
    sock = stack.enter_context(socket.socket())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", client.port))
    sent = json.dumps(body).encode()
    headers = {
        "host": "localhost",
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "content-length": str(len(sent)),
        **client.headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    await loop.sock_sendall(sock, f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + sent)
    return sock


@row(38)
@requirement("faults:slow:holds-up-nobody")
async def test_readers_that_stall_hold_up_no_other_call_of_their_session_and_are_given_up(figure: Figure) -> None:
    async with (
        ScriptedServer() as server,
        AsyncExitStack() as stack,
        twins(running(server.url)) as (hurt, spared),
    ):
        for twin in (hurt, spared):
            await twin.client.open()
            await twin.call(tool="count")
        memory, descriptors = hurt.resident(), await hurt.metric("process_open_fds")
        for number in range(READERS):
            body = hurt.client.tool("log", level="error", message="x" * LINE, count=LINES, canary=number)
            await never_read(hurt.client, body, stack)
        await server.until(lambda: len(server.calls("log")) == READERS)
        assert await hurt.metric("process_open_fds") > descriptors + READERS
        grown = 0
        while await hurt.metric("process_open_fds") > descriptors + READERS / 5:  # until they are given up
            for _ in range(20):
                await hurt.call(tool="count")
                await spared.call(tool="count")
            grown = max(grown, hurt.resident() - memory)
        assert all(entry.outcome == "executed" for entry in server.calls("log"))
        dropped = await hurt.metric('holdfast_messages_dropped_total{reason="slow"}')
        assert dropped > 0
        assert grown < READERS * MIB
        figure(
            f"{READERS} stalled readers, {dropped:,.0f} events dropped: {grown / READERS / MIB:.2f} MiB each;"
            f" in their session {compared(hurt, spared)}"
        )


async def test_a_stalled_reader_without_a_session_gets_its_result_when_it_reads_on() -> None:
    async with ScriptedServer() as server, AsyncExitStack() as stack, gateway_to(server.url) as rig:
        client = rig.client()
        body = client.tool("log", level="error", message="x" * LINE, count=LINES)
        sock = await never_read(client, body, stack)
        await server.until(lambda: [e.outcome for e in server.calls("log")] == ["executed"])
        await until(lambda: not any(session.calls for session in rig.pool.sessions))
        received = b""
        while b'"result"' not in received[-1000:]:
            chunk = await asyncio.get_running_loop().sock_recv(sock, 65536)
            assert chunk, "the stream ended without its result"
            received += chunk
        assert received.count(b'"id":1,') == 1
        assert 0 < received.count(b"notifications/message") < LINES, "what it missed was dropped, and nothing else"
