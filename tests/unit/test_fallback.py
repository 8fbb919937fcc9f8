"""Which transport a server behind a URL speaks, as its refusals say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random

import pytest
from msgspec import Raw

from holdfast.call import NOBODY, Ask, AskId
from holdfast.config import ServerSettings
from holdfast.errors import OpenFailed
from holdfast.tasks import TaskScope
from holdfast.testing.clock import ManualClock
from holdfast.upstream.connector import Connector
from holdfast.upstream.transport import Fault
from holdfast.upstream.watchdog import Watchdog
from requirements import requirement
from unit.scripted_http import Answer, Peer, ScriptedServer, SeenRequest, chunk, plain, scripted, stream_head
from unit.streamable_rig import ACCEPTED, REFUSAL

ANSWER_1 = b'{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2024-11-05","capabilities":{}}}'


class Nobody:
    """A `Listener` for whom nothing is left to hear."""

    def pushed(self, method: str, params: Raw | None) -> None: ...

    def asked(self, ask: Ask) -> None: ...

    def asked_too_late(self, ask: Ask) -> None: ...

    def withdrawn(self, ask_id: AskId) -> None: ...

    def push_stream(self, is_up: bool) -> None: ...

    def suspected(self, fault: Fault) -> None: ...

    def lost(self, fault: Fault) -> None: ...


async def refused(post: bytes, get: bytes = plain(b"Cannot GET", "404 Not Found", "text/plain")) -> tuple[str, int]:
    """What a failed opening says, and how many GETs the server saw."""

    async def answer(request: SeenRequest, peer: Peer) -> None:
        peer.write(post if request.method == "POST" else get)

    async with connecting(answer) as (server, connect):
        with pytest.raises(OpenFailed) as caught:
            await opened(connect)
    return str(caught.value), len(server.seen("GET"))


@asynccontextmanager
async def connecting(answer: Answer) -> AsyncGenerator[tuple[ScriptedServer, Connector]]:
    """A server, and what connects to it by settings that do not say over which transport it speaks."""
    clock = ManualClock()
    async with asyncio.timeout(60), scripted(answer) as server, TaskScope() as scope:
        settings = ServerSettings(name="a", url=f"{server.url}/sse", era="handshake")
        watchdog = Watchdog(clock)
        connect = Connector(settings, lambda: 65536, scope=scope, clock=clock, rng=Random(1), watchdog=watchdog)
        yield server, connect
        connect.close()
    assert clock.pending == 0


async def opened(connect: Connector) -> None:
    """Open a session, and leave it."""
    upstream = connect(Nobody(), declares=NOBODY)
    try:
        await upstream.open()
    finally:
        upstream.terminate()


@requirement("upstream:legacy-sse:found-out-once")
@pytest.mark.parametrize(
    "post",
    [
        plain(REFUSAL, "400 Bad Request"),
        plain(REFUSAL, "404 Not Found"),
        plain(b"who are you?", "401 Unauthorized", "text/plain"),
        plain(b"oh no", "500 Internal Server Error", "text/plain"),
        plain(b"<html>", "200 OK", "text/html"),
    ],
)
async def test_whoever_speaks_mcp_or_says_something_else_is_not_tried_again(post: bytes) -> None:
    _, gets = await refused(post)
    assert gets == 0


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "405 Method Not Allowed"])
async def test_a_server_that_speaks_neither_is_told_of_by_its_first_refusal(status: str) -> None:
    said, gets = await refused(plain(b"Cannot POST", status, "text/plain"))
    assert f"answered {status} with text/plain, which is no MCP: Cannot POST" in said
    assert gets == 1


async def test_a_server_of_the_old_kind_that_fails_is_told_of_by_that() -> None:
    stream = stream_head() + chunk(b"event: endpoint\ndata: http://evil.example/messages\n\n")
    said, gets = await refused(plain(b"no", "405 Method Not Allowed", "text/plain"), stream)
    assert "wants messages at an endpoint of another origin" in said
    assert gets == 1


@requirement("upstream:legacy-sse:found-out-once")
async def test_a_server_of_the_old_kind_is_asked_in_that_way_until_it_fails() -> None:
    stream: Peer | None = None
    is_replaced = False

    async def answer(request: SeenRequest, peer: Peer) -> None:
        nonlocal stream
        if is_replaced:
            is_post = request.method == "POST"
            peer.write(plain(ANSWER_1) if is_post else plain(b"", "405 Method Not Allowed", "text/plain"))
        elif request.method == "GET":
            stream = peer
            peer.write(stream_head(), chunk(b"event: endpoint\ndata: /messages\n\n"))
            await peer.gone()
        elif request.target == "/sse":
            peer.write(plain(b"no", "405 Method Not Allowed", "text/plain"))
        else:
            assert stream is not None
            peer.write(ACCEPTED)
            if b'"initialize"' in request.body:
                stream.write(chunk(b"data: %b\n\n" % ANSWER_1))

    def probes() -> int:
        return sum(request.target == "/sse" for request in server.seen("POST"))

    async with connecting(answer) as (server, connect):
        for _ in range(3):
            await opened(connect)
        assert probes() == 1
        is_replaced = True
        with pytest.raises(OpenFailed):
            await opened(connect)
        assert probes() == 1
        await opened(connect)
        assert probes() >= 2
