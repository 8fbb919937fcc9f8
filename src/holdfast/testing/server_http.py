"""The scripted server over Streamable HTTP: a plain ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from holdfast.testing.server_core import ServerCore, Session
from holdfast.testing.server_methods import initialize_result, receive
from holdfast.testing.server_sse import MESSAGES_PATH, SSE_PATH, SseFace
from holdfast.testing.server_streams import EventStream
from holdfast.testing.server_wire import Exchange, Message, Receive, Refusal, Send
from holdfast.wire import headers as wire_headers
from holdfast.wire import jsonrpc, revisions, sse

MCP_PATH: Final = "/mcp"

_ALREADY_CONNECTED: Final = b"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Error</title></head>
<body><pre>Error: Already connected to a transport. Call close() before connecting to a new transport.</pre></body>
</html>
"""


@dataclass(slots=True)
class HttpFace:
    """The ASGI application."""

    core: ServerCore
    _stream_numbers: count[int] = field(default_factory=lambda: count(1))
    _sse: SseFace = field(init=False)

    def __post_init__(self) -> None:
        self._sse = SseFace(self.core)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        http = Exchange(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers, receive, send)
        try:
            if self.core.options.sse and http.path in {SSE_PATH, MESSAGES_PATH}:
                await self._sse.serve(http)
            elif http.path == MCP_PATH and not self.core.options.sse:
                self._admit(http)
                await self._mcp(http)
            else:
                await self._control(http)
        except Refusal as refusal:
            await http.respond(refusal.status, refusal.body)
        except asyncio.CancelledError:
            # Only `ScriptedServer` cancels, having aborted the connection; uvicorn would log it as our error.
            return

    async def _control(self, http: Exchange) -> None:
        match http.method, http.path.strip("/").split("/"):
            case "GET", ["ledger"]:
                await http.respond(200, self.core.report())
            case "POST", ["ledger", "reset"]:
                self.core.reset_ledger()
                await http.respond(204)
            case "POST", ["gates", name]:
                self.core.open_gate(name)
                await http.respond(204)
            case _:
                raise Refusal(404, "There is nothing here but /mcp, /ledger, /ledger/reset and /gates/NAME.")

    def _admit(self, http: Exchange) -> None:
        self.core.requests.append((http.method, http.headers))
        origin = http.headers.get("origin")
        if origin is not None and not wire_headers.is_loopback_name(wire_headers.host_name(origin.partition("://")[2])):
            raise Refusal(403, "Forbidden origin")

    async def _mcp(self, http: Exchange) -> None:
        match http.method:
            case "POST":
                await self._post(http)
            case "GET" if self.core.options.get:
                await self._get(http)
            case "DELETE":
                self.core.deletes += 1
                self.core.forget_session(self._session(http).id)
                await http.respond(204)
            case _:
                allow = "GET, POST, DELETE" if self.core.options.get else "POST, DELETE"
                self.core.gets += http.method == "GET"
                self.core.changes.touch()
                await http.respond(405, Refusal(405, "Method Not Allowed").body, headers={"allow": allow})

    def _session(self, http: Exchange) -> Session:
        session_id = http.headers.get("mcp-session-id")
        if session_id is None:
            raise Refusal(400, "Bad Request: No valid session ID provided")
        session = self.core.sessions.get(session_id)
        if session is None:
            raise Refusal(self.core.options.unknown_session, "Session not found", -32001)
        version = http.headers.get("mcp-protocol-version", session.version)
        if version not in revisions.HANDSHAKE_REVISIONS:
            raise Refusal(400, f"Bad Request: Unsupported protocol version: {version}")
        return session

    async def _read(self, http: Exchange) -> jsonrpc.ClientMessage | list[jsonrpc.ClientMessage]:
        """The body of a POST."""
        accepts = wire_headers.parse_accept(http.headers.get("accept"))
        if not accepts.json or not accepts.stream:
            raise Refusal(406, "Not Acceptable: Client must accept both application/json and text/event-stream")
        if wire_headers.media_type(http.headers.get("content-type")) != wire_headers.JSON:
            raise Refusal(415, "Unsupported Media Type: Content-Type must be application/json")
        try:
            return jsonrpc.decode_client(await http.body())
        except jsonrpc.BadMessage as bad:
            raise Refusal(400, bad.message, bad.code) from None

    async def _post(self, http: Exchange) -> None:
        received = await self._read(http)
        if isinstance(received, jsonrpc.ClientRequest) and received.method == "initialize":
            await self._initialize(http, received)
            return
        session = self._session(http)
        if isinstance(received, list) and not revisions.allows_batches(session.version):
            raise Refusal(400, "Arrays were removed in 2025-06-18.", jsonrpc.INVALID_REQUEST)
        messages = received if isinstance(received, list) else [received]
        expected = sum(isinstance(message, jsonrpc.ClientRequest) for message in messages)
        stream = self._new_stream(session, expected)
        reader = stream.attach()
        for message in messages:
            receive(self.core, session, message, stream, http.headers)
        if not expected:
            await http.respond(202)
        elif self.core.options.json and not stream.resumable:
            await self._answer_json(http, stream, reader, is_array=isinstance(received, list))
        else:
            await self._answer_stream(http, stream, reader)

    async def _initialize(self, http: Exchange, request: jsonrpc.ClientRequest) -> None:
        if self.core.options.one_connection and (self.core.sessions or self.core.opening):
            await http.respond(500, _ALREADY_CONNECTED, "text/html; charset=utf-8")
            return
        session = await self.core.open_session(request.params)
        self.core.record(session, "request", request.method, request.params).outcome = "executed"
        answer = jsonrpc.result(jsonrpc.id_bytes(request.id), jsonrpc.encode(initialize_result(session)))
        headers = {"mcp-session-id": session.id}
        if self.core.options.json:
            await http.respond(200, answer, headers=headers)
            return
        stream = self._new_stream(session, expected=1)
        reader = stream.attach()
        stream.answer(answer, [])
        await self._answer_stream(http, stream, reader, headers=headers)

    def _new_stream(self, session: Session, expected: int | None) -> EventStream:
        resumable = self.core.options.prime and revisions.allows_priming(session.version) and expected != 0
        stream = EventStream(f"s{next(self._stream_numbers)}", expected=expected, resumable=resumable)
        if resumable:
            session.streams[stream.name] = stream
        return stream

    async def _get(self, http: Exchange) -> None:
        self.core.gets += 1
        if not wire_headers.parse_accept(http.headers.get("accept")).stream:
            raise Refusal(406, "Not Acceptable: Client must accept text/event-stream")
        session = self._session(http)
        last_id = http.headers.get("last-event-id")
        if last_id is not None:
            name, _, number = last_id.rpartition("-")
            stream = session.streams.get(name)
            if not isinstance(stream, EventStream) or not number.isdecimal():
                raise Refusal(400, "Bad Request: Last-Event-ID is not one of this session's")
            after = int(number)
        else:
            stream, after = self._new_stream(session, expected=None), 0
            if session.push is not None:
                session.push.hang_up()
            session.push = stream
        reader = stream.attach()
        self.core.changes.touch()
        await self._answer_stream(http, stream, reader, after=after)
        self.core.changes.touch()

    def _left(self, stream: EventStream) -> None:
        """The reader of `stream` has gone: that cancels nothing in this era."""

    async def _answer_stream(
        self,
        http: Exchange,
        stream: EventStream,
        reader: int,
        *,
        after: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Relay the stream as server-sent events until it ends or the client leaves."""
        self._detach_on_disconnect(http, stream, reader)
        try:
            await http.start_stream(headers or {})
            if stream.resumable:
                await http.write(sse.format_priming(f"{stream.name}-{after}".encode(), self.core.options.retry_ms))
            elif stream.is_push:
                await http.write(sse.COMMENT)
            async with aclosing(stream.read(reader, after)) as items:
                async for item in items:
                    event_id = f"{stream.name}-{item.number}".encode() if stream.resumable else None
                    await http.write(sse.format_event(item.message, event_id))
            await http.end_stream()
        finally:
            stream.detach(reader)

    async def _answer_json(self, http: Exchange, stream: EventStream, reader: int, *, is_array: bool) -> None:
        """Answer with a JSON body; where anything else comes before the answer, with a stream after all."""
        self._detach_on_disconnect(http, stream, reader)
        answers: list[bytes] = []
        async with aclosing(stream.read(reader)) as items:
            async for item in items:
                if not item.is_answer:
                    break
                answers.append(item.message)
        if answers and len(answers) == stream.sent and stream.is_ended:
            await http.respond(200, jsonrpc.array(answers) if is_array else answers[0])
            stream.detach(reader)
            return
        await self._answer_stream(http, stream, reader)

    def _detach_on_disconnect(self, http: Exchange, stream: EventStream, reader: int) -> None:
        async def watch() -> None:
            try:
                while (await http.receive())["type"] != "http.disconnect":
                    pass
            finally:
                stream.detach(reader)
                self._left(stream)

        self.core.scope.start(watch(), f"watch {stream.name}")
