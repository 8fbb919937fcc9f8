"""Clients that stop reading (threats, row 38): they hold up nobody, and nothing grows without bound."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import AsyncExitStack
from statistics import median
from typing import Any, Final

from bare_client import BareClient
from faults.rig import answer_to, call, code_of, gateway_to, resident, text_of, together, until
from holdfast.testing.server import ScriptedServer
from requirements import requirement
from rows import Figure, row

READERS: Final = 100
STEPS: Final = 5_000
"""Reports of progress per reader, about 1 MB: more than the sockets between take."""
RECEIVE_BUFFER: Final = 4096
MIB: Final = 1 << 20
CALLS: Final = 20
NOISE: Final = 3


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
async def test_readers_that_stall_hold_up_no_other_call_of_their_session(figure: Figure) -> None:
    async with ScriptedServer() as server, AsyncExitStack() as stack, gateway_to(server.url) as rig:
        client = await rig.opened()
        assert text_of(await call(client, "count")) == "1"
        before = await seconds_of_calls(client, first=2)
        memory = resident()
        for number in range(READERS):
            body = client.tool("progress", steps=STEPS, canary=number)
            body["params"]["_meta"] = {"progressToken": number}
            await never_read(client, body, stack)
        await server.until(lambda: len(server.calls("progress")) == READERS)
        during = await seconds_of_calls(client, first=2 + CALLS)
        await server.until(lambda: all(entry.outcome == "executed" for entry in server.calls("progress")))
        await together(*(quick(client.tool("echo", canary=n), client) for n in range(50)))
        grown = resident() - memory
        assert grown < READERS * MIB
        assert median(during) < 2 * NOISE * median(before)
        figure(
            f"{READERS} stalled readers: {grown / READERS / MIB:.2f} MiB each;"
            f" a call takes {1000 * median(before):.1f} ms before, {1000 * median(during):.1f} ms beside them"
        )


async def seconds_of_calls(client: BareClient, first: int) -> list[float]:
    """How long each of `CALLS` calls took; the session has counted to `first` less one."""
    taken: list[float] = []
    for number in range(first, first + CALLS):
        began = time.perf_counter()
        assert text_of(await call(client, "count")) == str(number)
        taken.append(time.perf_counter() - began)
    return taken


async def quick(body: dict[str, Any], client: BareClient) -> None:
    assert code_of(await answer_to(client, body)) is None


async def test_a_stalled_reader_without_a_session_gets_its_result_when_it_reads_on() -> None:
    async with ScriptedServer() as server, AsyncExitStack() as stack, gateway_to(server.url) as rig:
        client = rig.client()
        body = client.tool("progress", steps=STEPS)
        body["params"]["_meta"] = {"progressToken": "t"}
        sock = await never_read(client, body, stack)
        await server.until(lambda: [e.outcome for e in server.calls("progress")] == ["executed"])
        await until(lambda: not any(session.calls for session in rig.pool.sessions))
        received = b""
        while b'"result"' not in received[-1000:]:
            chunk = await asyncio.get_running_loop().sock_recv(sock, 65536)
            assert chunk, received[-2000:]
            assert chunk, "the stream ended without its result"
            received += chunk
        assert received.count(b'"id":1,') == 1
        assert 0 < received.count(b"notifications/progress") <= STEPS
