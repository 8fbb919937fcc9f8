"""The scripted server of 2026-07-28 over HTTP and over stdio."""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.testing.server_core import Outlet, RpcFailure, ServerCore, Session
from holdfast.testing.server_http import HttpFace
from holdfast.testing.server_modern import STATUSES, Subscription, close_subscription, receive, stop
from holdfast.testing.server_streams import EventStream
from holdfast.testing.server_wire import Exchange, Refusal
from holdfast.wire import jsonrpc
from holdfast.wire.revisions import MODERN, MODERN_VERSION_KEY


@dataclass(slots=True)
class ModernHttpFace(HttpFace):
    """The ASGI application: every POST is a request of its own, and closing its stream cancels it."""

    _serving: dict[EventStream, Session] = field(default_factory=dict[EventStream, Session])

    async def _mcp(self, http: Exchange) -> None:
        if self.core.options.era == "both" and http.headers.get("mcp-protocol-version") != MODERN:
            await super(ModernHttpFace, self)._mcp(http)  # `slots` makes another class of this one
            return
        if http.method != "POST":
            self.core.gets += http.method == "GET"
            raise Refusal(405, "Method Not Allowed")
        message = await self._read(http)
        if isinstance(message, jsonrpc.ClientNotification):
            await http.respond(202)
            return
        if not isinstance(message, jsonrpc.ClientRequest):
            raise Refusal(400, "A body is one request.", jsonrpc.INVALID_REQUEST)
        is_listen = message.method == "subscriptions/listen"
        stream = EventStream(message.method, expected=None if is_listen else 1, resumable=False)
        reader = stream.attach()
        try:
            session = receive(self.core, message, stream, http.headers)
        except RpcFailure as failure:
            error = jsonrpc.error_object(failure.code, failure.message, failure.data)
            status = STATUSES.get(failure.code, 400)
            await http.respond(status, jsonrpc.error(jsonrpc.id_bytes(message.id), error))
            return
        self._serving[stream] = session
        try:
            if self.core.options.json and not is_listen:
                await self._answer_json(http, stream, reader, is_array=False)
            else:
                await self._answer_stream(http, stream, reader)
        finally:
            self._left(stream)

    def _left(self, stream: EventStream) -> None:
        session = self._serving.pop(stream, None)
        if session is not None:
            stop(session)
            close_subscription(self.core, session)


def is_modern(core: ServerCore, line: bytes) -> bool:
    """Whether a message over stdio is of this revision; to a server of both, until somebody has initialized."""
    if core.options.era != "both":
        return core.options.era == "modern"
    return MODERN_VERSION_KEY.encode() in line or (not core.initializes and b'"initialize"' not in line)


def take_line(core: ServerCore, line: bytes, pipe: Outlet, running: dict[bytes, Session]) -> None:
    """Take a message that came over stdio; `running` are the requests that may be cancelled, by id."""
    try:
        message = jsonrpc.decode_client(line)
    except jsonrpc.BadMessage as bad:
        pipe.send(jsonrpc.error(jsonrpc.id_bytes(bad.request_id), jsonrpc.error_object(bad.code, bad.message)))
        return
    if isinstance(message, jsonrpc.ClientNotification) and message.method == "notifications/cancelled":
        session = running.pop(jsonrpc.encode(message.params.get("requestId")), None)
        if session is not None:
            stop(session)
            close_subscription(core, session)
    if not isinstance(message, jsonrpc.ClientRequest):
        return
    key = jsonrpc.id_bytes(message.id)
    for done in [
        key for key, session in running.items() if not session.calls and not isinstance(session, Subscription)
    ]:
        del running[done]
    try:
        running[key] = receive(core, message, pipe, None)
    except RpcFailure as failure:
        error = jsonrpc.error_object(failure.code, failure.message, failure.data)
        pipe.send(jsonrpc.error(key, error))
