"""The scripted server over HTTP+SSE, the transport of revision 2024-11-05: one GET stream is one session."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final
from urllib.parse import parse_qs

from holdfast.testing.server_core import Changes, ServerCore, Session
from holdfast.testing.server_methods import initialize_result, receive
from holdfast.testing.server_wire import Exchange, Refusal
from holdfast.wire import headers as wire_headers
from holdfast.wire import jsonrpc, sse

SSE_PATH: Final = "/sse"
MESSAGES_PATH: Final = "/messages"


class SessionStream:
    """The `Outlet` of everything that one session is told."""

    def __init__(self) -> None:
        self.has_reader = True
        self._waiting: deque[tuple[bytes | None, list[Callable[[], None]]]] = deque()
        self._changes = Changes()

    def send(self, message: bytes) -> None:
        self.answer(message, [])

    def answer(self, message: bytes | None, then: list[Callable[[], None]]) -> None:
        if not self.has_reader:
            for callback in then:
                callback()
            return
        self._waiting.append((message, then))
        self._changes.touch()

    def hang_up(self) -> None:
        """End the stream, and with it the session."""
        self.has_reader = False
        self._changes.touch()

    async def read(self) -> AsyncGenerator[bytes, None]:
        """The messages, until the stream ends."""
        while self.has_reader:
            if not self._waiting:
                await self._changes.next()
                continue
            message, then = self._waiting.popleft()
            if message is not None:
                yield message
            for callback in then:
                callback()


class SseFace:
    """What is served at `/sse` and `/messages`."""

    def __init__(self, core: ServerCore) -> None:
        self._core = core
        self._streams: dict[str, SessionStream] = {}

    async def serve(self, http: Exchange) -> None:
        """Answer one request. Raises `Refusal`."""
        self._core.requests.append((http.method, http.headers))
        match http.method, http.path:
            case "GET", path if path == SSE_PATH:
                await self._get(http)
            case "POST", path if path == MESSAGES_PATH:
                await self._post(http)
            case _:
                self._core.probes += http.method == "POST"
                await http.respond(405, b"Method Not Allowed", "text/plain")

    async def _get(self, http: Exchange) -> None:
        self._core.gets += 1
        if not wire_headers.parse_accept(http.headers.get("accept")).stream:
            raise Refusal(406, "Not Acceptable: Client must accept text/event-stream")
        session_id = secrets.token_urlsafe(18)
        stream = self._streams[session_id] = SessionStream()
        self._core.scope.start(_hang_up_on_disconnect(http, stream), f"watch {session_id}")
        try:
            await http.start_stream({})
            await http.write(
                b"event: endpoint\ndata: %b?session_id=%b\n\n" % (MESSAGES_PATH.encode(), session_id.encode())
            )
            async with aclosing(stream.read()) as messages:
                async for message in messages:
                    await http.write(sse.format_event(message))
            await http.end_stream()
        finally:
            del self._streams[session_id]
            stream.hang_up()
            self._core.forget_session(session_id)

    async def _post(self, http: Exchange) -> None:
        (session_id,) = parse_qs(http.query).get("session_id", [""])
        stream = self._streams.get(session_id)
        if stream is None:
            raise Refusal(self._core.options.unknown_session, "Could not find session")
        if wire_headers.media_type(http.headers.get("content-type")) != wire_headers.JSON:
            raise Refusal(400, "Unsupported Media Type: Content-Type must be application/json")
        try:
            received = jsonrpc.decode_client(await http.body())
        except jsonrpc.BadMessage as bad:
            raise Refusal(400, bad.message, bad.code) from None
        for message in received if isinstance(received, list) else [received]:
            session = self._core.sessions.get(session_id)
            if session is not None:
                receive(self._core, session, message, stream, http.headers)
            elif isinstance(message, jsonrpc.ClientRequest) and message.method == "initialize":
                await self._initialize(message, session_id, stream)
            else:
                raise Refusal(400, "Not initialized")
        await http.respond(202, b"Accepted", "text/plain")

    async def _initialize(self, request: jsonrpc.ClientRequest, session_id: str, stream: SessionStream) -> None:
        session: Session = await self._core.open_session(request.params, session_id)
        session.push = stream
        self._core.record(session, "request", request.method, request.params).outcome = "executed"
        stream.send(jsonrpc.result(jsonrpc.id_bytes(request.id), jsonrpc.encode(initialize_result(session))))


async def _hang_up_on_disconnect(http: Exchange, stream: SessionStream) -> None:
    try:
        while (await http.receive())["type"] != "http.disconnect":
            pass
    finally:
        stream.hang_up()
