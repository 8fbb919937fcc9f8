"""A whole gateway in the test's own event loop, between clients that know only HTTP and a scripted server.

Leaving checks that nothing was left behind: no client session, call, question, kept byte or
upstream session, and no error in any log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Final, Literal

import pytest
from msgspec import Raw
from uvicorn.config import Config
from uvicorn.server import ServerState

from bare_client import BareClient, Response
from holdfast import events
from holdfast.clock import Clock
from holdfast.config import ClientSettings, GatewaySettings, ServerSettings
from holdfast.downstream.app import App
from holdfast.downstream.clients import ClientSession
from holdfast.downstream.connection import Connection
from holdfast.gateway import Gateway
from holdfast.servers.server import Server
from holdfast.session.lifecycle import State
from holdfast.testing.clock import ManualClock, settle
from holdfast.testing.listener import Listener
from holdfast.testing.server import ScriptedServer, ServerOptions

Transport = Literal["sse", "json", "stdio", "legacy"]
TRANSPORTS: Final[tuple[Transport, ...]] = ("sse", "json", "stdio", "legacy")
"""Streamable HTTP with streams or JSON, stdio, and the HTTP+SSE of 2024-11-05."""
REVISIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
NAME: Final = "memory"
INITIALIZED: Final = {"jsonrpc": "2.0", "method": "notifications/initialized"}


class Client(BareClient):
    """A `BareClient` that tests may also send nonsense with."""

    @asynccontextmanager
    async def raw(self, request: bytes) -> AsyncGenerator[Response]:
        """Send `request` as it is and read the head of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        try:
            yield await read_head(reader)
        finally:
            writer.close()

    async def events(self, body: Any, path: str = "/mcp", **headers: str | None) -> list[Any]:
        """All messages of the stream that answers `body`, in order."""
        async with self.request("POST", body, path, **headers) as response:
            assert response.status == 200
            assert response.headers["content-type"] == "text/event-stream"
            return await read_all(response)

    async def ask(self, body: Any, path: str = "/mcp", **headers: str | None) -> Any:
        """The last message, or array, of the answer to `body`, whatever its form."""
        async with self.request("POST", body, path, **headers) as response:
            assert response.status == 200, (response.status, await response.body())
            if response.headers["content-type"] == "application/json":
                return await response.json()
            return (await read_all(response))[-1]

    async def tool_text(self, name: str, path: str = "/mcp", **arguments: Any) -> str:
        """The text that a tool gives back."""
        return text_of(await self.ask(self.tool(name, **arguments), path))

    async def post(self, body: Any, path: str = "/mcp", **headers: str | None) -> int:
        """The status of a POST."""
        async with self.request("POST", body, path, **headers) as response:
            return response.status

    async def notify(self, method: str, **params: Any) -> None:
        """Send a notification."""
        assert await self.post({"jsonrpc": "2.0", "method": method, "params": params}) == 202

    async def reply(self, question: Any, **result: Any) -> None:
        """Answer a request of the server."""
        assert await self.post({"jsonrpc": "2.0", "id": question["id"], "result": result}) == 202

    async def delete(self) -> int:
        """End the session."""
        status = await self.status("DELETE")
        self.headers.pop("mcp-session-id", None)
        return status

    @asynccontextmanager
    async def stream(self, **headers: str | None) -> AsyncGenerator[Response]:
        """The GET stream, primed if it is."""
        async with self.request("GET", None, "/mcp", **{"accept": "text/event-stream", **headers}) as response:
            assert response.status == 200
            yield response


async def read_head(reader: asyncio.StreamReader) -> Response:
    status = int((await reader.readuntil(b"\r\n")).split()[1])
    headers: dict[str, str] = {}
    while line := (await reader.readuntil(b"\r\n")).strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return Response(status, headers, reader)


async def read_all(response: Response) -> list[Any]:
    """The messages of a stream to its end; priming events are left out."""
    messages: list[Any] = []
    while (event := await response.event()) is not None:
        if event.data:
            messages.append(json.loads(event.data))
    return messages


async def next_message(response: Response) -> Any:
    """The next message of a stream; priming events are left out."""
    while True:
        event = await response.event()
        assert event is not None, "the stream ended"
        if event.data:
            return json.loads(event.data)


def text_of(answer: Any) -> str:
    """The text of a tool's result."""
    text: str = answer["result"]["content"][0]["text"]
    return text


class Rig:
    """The parts of a running gateway, as tests look at them."""

    def __init__(
        self,
        gateway: Gateway,
        port: int,
        connections: Collection[object],
        upstream: ScriptedServer | None,
        clock: ManualClock | None,
    ) -> None:
        self.gateway = gateway
        self.port = port
        self.connections = connections
        """Those of clients that are open now."""
        self._upstream = upstream
        self._clock = clock
        self._clients: list[Client] = []

    @property
    def app(self) -> App:
        return self.gateway.app

    @property
    def server(self) -> Server:
        return self.gateway.servers[NAME]

    @property
    def upstream(self) -> ScriptedServer:
        """The scripted server, where it is reached over HTTP."""
        assert self._upstream is not None
        return self._upstream

    @property
    def clock(self) -> ManualClock:
        """The clock, where it stands still."""
        assert self._clock is not None
        return self._clock

    def client(self, **headers: str) -> Client:
        """A client that sends these headers with every request."""
        client = Client(self.port)
        client.keeps_connection = True
        self._clients.append(client)
        client.headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        return client

    async def connected(self, version: str = "2025-11-25", capabilities: dict[str, Any] | None = None) -> Client:
        """A client with a session."""
        client = self.client()
        await client.open(version, **(capabilities or {}))
        return client

    def close_clients(self) -> None:
        """Close the connections that clients keep."""
        for client in self._clients:
            client.close()

    def session_of(self, client: Client) -> ClientSession:
        """What the gateway knows of a client's session."""
        return next(s for s in self.app.sessions if s.id == client.headers["mcp-session-id"])

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Return once `predicate` holds; the loop runs meanwhile."""
        while not predicate():
            await settle(1)

    async def until_idle(self) -> None:
        """Return once no call runs and no session opens or closes."""
        busy = {State.OPENING, State.DRAINING, State.LOST, State.CLOSED}  # those that are still closing too
        await self.until(lambda: not any(s.leases or s.state in busy for s in self.server.pool.sessions))

    async def until_unread(self, client: Client) -> None:
        """Return once the gateway has seen that no response reads the client's push stream."""
        await self.until(lambda: not self.session_of(client).push_stream.is_read)

    def push(self, client: Client, number: int) -> None:
        """Give the client a numbered notification that belongs to no call."""
        self.session_of(client).push("test/event", Raw(b'{"number":%d}' % number))

    async def passing(self, seconds: float) -> None:
        """Let time pass on the clock, and what was waiting for it happen."""
        await settle()
        await self.clock.advance_settled(seconds)

    async def check_that_nothing_is_left(self) -> None:
        """Close every client session; then no call, question or byte may be left."""
        for session in self.app.sessions:
            self.app.sessions.end(session)
            assert session.calls == {}
            assert session.questions == 0
            assert session.streams == {}
            assert session.requests == 0
        assert len(self.app.sessions) == 0
        assert self.app.sessions.budget.used == 0
        await self.until_idle()
        assert (len(self.app.modern.parked), len(self.app.modern.listeners)) == (0, 0)
        for upstream in self.server.pool.sessions:
            assert upstream.leases == 0
            assert upstream.watchers == []


def check_that_all_ended(upstream: ScriptedServer) -> None:
    """The gateway has ended, and with it every session that it opened."""
    assert list(upstream.sessions) == []


async def streams_ended(upstream: ScriptedServer) -> None:
    """Return once every session has ended where the end of its stream is all that says so: HTTP+SSE, 2026-07-28."""
    if upstream.options.sse or upstream.options.era != "handshake":
        await upstream.until(lambda: not upstream.sessions)


@contextmanager
def no_errors_logged(*, restarts: bool) -> Generator[None]:
    """No part of the program may log an error, and asyncio may not complain of anything.

    uvicorn says something on behalf of a scripted server that is stopped amid its answers.
    """
    records: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    collector = Collector(logging.ERROR)
    logging.getLogger().addHandler(collector)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(collector)
    allowed = {"ASGI callable returned without completing response."} if restarts else set[str]()
    assert [text for record in records if (text := record.getMessage()) not in allowed] == []


@contextmanager
def time_to_end() -> Generator[None]:
    """For a gateway in the block, sessions end in order however long a busy machine takes for it."""
    with pytest.MonkeyPatch.context() as patch:
        for bound in (
            "holdfast.gateway.DRAIN_TIMEOUT",
            "holdfast.session.roster.CLOSE_TIMEOUT",
            "holdfast.upstream.streamable_http.CLOSE_TIMEOUT",
            "holdfast.upstream.http_posts.DELIVERY_TIMEOUT",
        ):
            patch.setattr(bound, 30.0)
        yield


@asynccontextmanager
async def serving(gateway: Gateway) -> AsyncGenerator[tuple[int, Collection[object]]]:
    """Serve `gateway.app` on a free port of this machine; the port, and the connections that are open."""
    config = Config(
        gateway.app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # what stands before the application would hide that its connections know it
        timeout_keep_alive=75,
    )
    config.load()
    state = ServerState()
    try:
        async with Listener(lambda: Connection(config, state, {})) as listener:
            yield listener.port, state.connections
    finally:
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(state.tasks)


@asynccontextmanager
async def rig(
    way: Transport = "sse",
    /,
    *,
    clock: ManualClock | None = None,
    server_clock: Clock | None = None,
    options: dict[str, Any] | None = None,
    clients: tuple[ClientSettings, ...] = (ClientSettings(name="local"),),
    emit: events.Emit = lambda _: None,
    gateway: dict[str, Any] | None = None,
    is_learnt: bool = True,
    restarts: bool = False,
    **server: Any,
) -> AsyncGenerator[Rig]:
    """A gateway in front of one server, which has been learnt from already unless `is_learnt` is false.

    `server` are fields of `ServerSettings`, `gateway` of `GatewaySettings`, `options` of `ServerOptions`.
    """
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(60))
        stack.enter_context(no_errors_logged(restarts=restarts))
        stack.enter_context(time_to_end())
        upstream: ScriptedServer | None = None
        if way == "stdio":
            flags = [f"--{name.replace('_', '-')}={value}" for name, value in (options or {}).items()]
            server["command"] = (sys.executable, "-m", "holdfast.testing.server", "--stdio", *flags)
        else:
            chosen: dict[str, Any] = {"json": way == "json", "sse": way == "legacy"} | (options or {})
            scripted = ServerOptions(**chosen)
            upstream = await stack.enter_async_context(ScriptedServer(scripted, clock=server_clock))
            server = {"url": upstream.url, **server}
            stack.callback(check_that_all_ended, upstream)
            stack.push_async_callback(streams_ended, upstream)
        settings = GatewaySettings(servers=(ServerSettings(name=NAME, **server),), clients=clients, **(gateway or {}))
        learnt = asyncio.Event()

        def heard(event: events.Event) -> None:
            if isinstance(event, events.ListsLearned):
                learnt.set()
            emit(event)

        whole = await stack.enter_async_context(Gateway(settings, emit=heard, clock=clock))
        port, connections = await stack.enter_async_context(serving(whole))
        running = Rig(whole, port, connections, upstream, clock)
        if is_learnt:
            await learnt.wait()
        try:
            yield running
        finally:
            running.close_clients()
        await running.check_that_nothing_is_left()
    if clock is not None:
        assert clock.pending == 0
