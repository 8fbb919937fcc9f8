"""The ASGI application: checks a request's head, names its caller, and picks the dialect."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import unquote, urlsplit

from holdfast.clock import Clock, timeout
from holdfast.config import MAX_REQUEST_BYTES, GatewaySettings
from holdfast.downstream.clients import ClientSession, ClientSessions
from holdfast.downstream.handshake import Handshake
from holdfast.downstream.http import ABORT, AsgiResponder, Message, Receive, Request, Responder, Send
from holdfast.downstream.post import Post, Target, check_name, read_post
from holdfast.downstream.refusal import Refusal, refuse, session_not_found
from holdfast.downstream.sessionless import Sessionless
from holdfast.identity.caller import Clients
from holdfast.servers.service import Service
from holdfast.tasks import TaskScope
from holdfast.wire import jsonrpc
from holdfast.wire.headers import host_name, is_loopback_name, parse_accept

logger = logging.getLogger("holdfast.http")

_SINGLE_HEADERS: Final = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
        b"last-event-id",
        b"mcp-protocol-version",
        b"mcp-session-id",
        b"origin",
    }
)
_ALLOW: Final = ((b"allow", b"GET, POST, DELETE"),)
_CLOSE: Final = ((b"connection", b"close"),)

BODY_TIMEOUT: Final = 30.0
"""Seconds for a request's body to arrive: who sends it drop by drop holds nothing for longer."""


class Disconnected(Exception):
    """The client left before its request was whole."""


class App:
    """Serves `/mcp`, `/mcp/SERVER` and `/mcp/SERVER/chats/CHAT`. Its parts are owned by the gateway."""

    def __init__(
        self, settings: GatewaySettings, servers: Mapping[str, Service], *, scope: TaskScope, clock: Clock
    ) -> None:
        self.sessions = ClientSessions(clock, settings.client_idle_timeout)
        self._servers = servers
        self._scope = scope
        self._clock = clock
        self._clients = Clients(settings.clients)
        self._handshake = Handshake(self.sessions, clock)
        self._sessionless = Sessionless(clock)
        self._is_loopback = settings.is_loopback
        self._hosts = frozenset(map(host_name, (*settings.allowed_hosts, settings.host))) - {""}
        self._single_headers = _SINGLE_HEADERS | {
            name.encode()
            for client in settings.clients
            for name in (client.trust.user, client.trust.chat)
            if name is not None
        }
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.allowed_origins)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope: an HTTP request, or the server's lifespan, which the gateway does not need."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        extensions: Message = scope.get("extensions") or {}
        responder = AsgiResponder(self._clock, extensions[ABORT]["abort"] if ABORT in extensions else None)
        try:
            request = self._read_head(scope)
            target = self._target(request)
            if request.method == "POST":
                request.body = await self._read_body(receive, request.headers)
            self.dispatch(request, responder, target)
        except Refusal as refusal:
            refuse(responder, refusal)
        except Disconnected:
            return
        except Exception:
            logger.exception("a request failed")
            refuse(responder, Refusal(500, "The gateway failed; its log says why.", code=-32603))
        await responder.run(receive, send, self._scope)

    async def _read_body(self, receive: Receive, headers: Mapping[str, str]) -> bytes:
        try:
            async with timeout(self._clock, BODY_TIMEOUT):
                return await _receive_body(receive, headers)
        except TimeoutError:
            raise Refusal(408, f"The body did not arrive within {BODY_TIMEOUT:g} s.", headers=_CLOSE) from None

    def dispatch(self, request: Request, responder: Responder, target: Target) -> None:
        """Hand a request whose head was checked to its dialect. Raises `Refusal`."""
        match request.method:
            case "POST":
                self._post(read_post(request, responder, target), request)
            case "GET":
                if "mcp-session-id" not in request.headers:
                    raise Refusal(
                        405, "Without a session there is no stream to GET: POST a JSON-RPC message.", headers=_ALLOW
                    )
                accepts = parse_accept(request.headers.get("accept"))
                client = self._client(request, target)
                self._handshake.get(responder, accepts, client, request.headers.get("last-event-id"))
            case "DELETE":
                self._handshake.delete(responder, self._client(request, target))
            case _:
                raise Refusal(405, f"{request.method} is not served here.", headers=_ALLOW)

    def _post(self, post: Post, request: Request) -> None:
        first = post.messages[0]
        if isinstance(first, jsonrpc.ClientRequest) and first.method == "initialize" and not post.is_array:
            self._handshake.initialize(post, first)
        elif "mcp-session-id" in request.headers:
            self._handshake.post(post, self._client(request, post.target))
        else:
            self._sessionless.post(post)

    def _client(self, request: Request, target: Target) -> ClientSession:
        session_id = request.headers.get("mcp-session-id")
        if session_id is None:
            raise Refusal(400, "This needs a session: send its Mcp-Session-Id.")
        client = self.sessions.find(session_id, target.identity.principal, target.service)
        if client is None:
            raise session_not_found()
        return client

    def _read_head(self, scope: Message) -> Request:
        """The request without its body, from an address that belongs here. Raises `Refusal`."""
        raw: Sequence[tuple[bytes, bytes]] = scope["headers"]
        headers: dict[str, str] = {}
        for name, value in raw:
            key = name.decode("latin-1")
            if key not in headers:
                headers[key] = value.decode("latin-1").strip()
            elif name in self._single_headers:
                raise Refusal(400, f"The header {key} came twice.")
            elif name == b"accept":
                headers[key] += "," + value.decode("latin-1")
        self._check_address(headers)
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        return Request(scope["method"], path.partition(b"?")[0].decode("latin-1"), headers)

    def _check_address(self, headers: Mapping[str, str]) -> None:
        """Against DNS rebinding: a page on the web must not reach a gateway on this machine."""
        host = host_name(headers.get("host", ""))
        if host not in self._hosts and not is_loopback_name(host):
            raise Refusal(421, "This gateway does not serve that host: allow the name with --allow-host.")
        origin = headers.get("origin")
        if origin is None or origin.lower() in self._origins:
            return
        if not (self._is_loopback and is_loopback_name(host_name(urlsplit(origin).netloc))):
            raise Refusal(403, "Pages of that origin may not call this gateway.")

    def _target(self, request: Request) -> Target:
        """The server that the path names, and the caller. Raises `Refusal`."""
        identity = self._clients.identify(request.headers)
        if identity is None:
            what = "This key is not known here" if "authorization" in request.headers else "A key is needed"
            raise Refusal(
                401, f"{what}: send one as Authorization: Bearer KEY.", headers=((b"www-authenticate", b"Bearer"),)
            )
        check_name(identity.principal.user or "", "user")
        check_name(identity.chat or "", "chat")
        try:
            parts = [unquote(part, errors="strict") for part in request.path.strip("/").split("/")]
        except UnicodeDecodeError:
            parts = []  # names that differ must not become one
        match parts:
            case ["mcp"] if len(self._servers) == 1:
                return Target(next(iter(self._servers.values())), identity, None)
            case ["mcp", name] if name in self._servers:
                return Target(self._servers[name], identity, None)
            case ["mcp", name, "chats", chat] if name in self._servers and chat:
                check_name(chat, "chat")
                return Target(self._servers[name], identity, chat)
            case _:
                whole = ("/mcp",) if len(self._servers) == 1 else ()
                served = ", ".join((*whole, *(f"/mcp/{name}" for name in self._servers)))
                raise Refusal(404, f"There is nothing at this path; served are {served}.")


async def _receive_body(receive: Receive, headers: Mapping[str, str]) -> bytes:
    """The whole body. Raises `Refusal` over the limit, `Disconnected` if it never becomes whole."""
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise Refusal(400, "The Content-Length is no number.")
    if int(length) > MAX_REQUEST_BYTES:
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > MAX_REQUEST_BYTES:
            raise _too_large()
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large() -> Refusal:
    """The connection stays: closed with unread bytes it would be reset, and the refusal lost with it."""
    return Refusal(413, f"The body is larger than {MAX_REQUEST_BYTES} bytes.")
