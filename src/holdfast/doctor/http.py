"""Raw requests over HTTP, and sessions of Streamable HTTP made of them.

The transports of the gateway mend what they meet; here it is the answers themselves that count.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from msgspec import Raw

from holdfast.clock import Clock, timeout
from holdfast.doctor.conversation import INITIALIZE, Patience, modern_params
from holdfast.doctor.reply import SESSION_HEADER, Reply, Taking
from holdfast.tasks import TaskScope
from holdfast.upstream.http1 import HttpClient, RequestHead, header_block
from holdfast.upstream.quotation import secrets_in
from holdfast.upstream.streamable_answer import same_origin_target
from holdfast.wire import jsonrpc
from holdfast.wire.headers import EVENT_STREAM, JSON
from holdfast.wire.jsonrpc import ServerMessage
from holdfast.wire.mirrored import request_headers
from holdfast.wire.revisions import HANDSHAKE_REVISIONS, LATEST, MODERN

_POST: Final = {"content-type": JSON, "accept": f"{JSON}, {EVENT_STREAM}"}
_GET: Final = {"accept": EVENT_STREAM}
_LAST_BYTES: Final = 0.5
"""Seconds between an answer and the end of its stream, after which the connection is dropped."""

NOT_ENDED: Final = frozenset({405, 501})
"""How a server answers DELETE that does not know it."""
_VERSION_HEADER: Final = "mcp-protocol-version"


class Wire:
    """Sends requests to one URL, and remembers every session id that the server gave away.

    Raises `ValueError` for a URL or header that cannot be sent.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], scope: TaskScope, clock: Clock, patience: Patience
    ) -> None:
        self._url = url
        self._scope = scope
        self.clock = clock
        self.patience = patience
        self.configured = dict(headers)
        parts = urlsplit(url)
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.moved_to = ""
        """Path and query to which the server redirected."""
        self._secrets = secrets_in(self.target, headers.values())
        self.ids = itertools.count(1)
        self.open_ids: dict[str, str] = {}
        """Sessions that were not ended yet, each with its revision."""
        self.left_behind = 0
        """Sessions that would not be ended."""
        self.limits: list[Reply] = []
        """Answers that told of a limit, in order."""
        self.is_turned_away = False
        """One of the answers was 429."""
        self.client = self._connect()
        header_block(headers.items())

    def _connect(self) -> HttpClient:
        return HttpClient(self._url, self._scope, self.clock)

    def reconnect(self) -> None:
        """Drop every connection."""
        self.client.close()
        self.client = self._connect()

    def follow(self, reply: Reply) -> bool:
        """Send everything from now on where `reply` points to, once, and only on the same origin."""
        found = same_origin_target(self.client, self.target, reply.location) if reply.location else None
        if found is None or self.moved_to:
            return False
        self.target = self.moved_to = found
        return True

    async def post(
        self, message: bytes, request_id: int | None, headers: Mapping[str, str], *, within: float, host: str = ""
    ) -> Reply:
        """POST a message, and return its answer, or the head of it where `request_id` is None."""
        return await self.send("POST", {**_POST, **headers}, message, request_id, within=within, host=host)

    async def send(
        self,
        method: Literal["GET", "POST", "DELETE"],
        headers: Mapping[str, str],
        body: bytes | None,
        request_id: int | None,
        *,
        within: float,
        host: str = "",
    ) -> Reply:
        """Send a request with the configured headers and these; `host` stands for the URL's own."""
        names = {name.lower() for name in headers}
        kept = {name: value for name, value in self.configured.items() if name.lower() not in names}
        head = self.client.head(method, self.target, header_block({**kept, **headers}.items()))
        if host:
            line, _, rest = bytes(head).split(b"\r\n", 2)
            head = RequestHead(b"\r\n".join((line, b"host: " + host.encode(), rest)))
        taking = Taking(request_id, self._secrets, lambda envelope: self._heard(envelope, headers))
        reply = taking.reply
        begun = self.clock.now()
        exchange = self.client.send(head, body, taking)
        try:
            if not await self._is_there(taking.done, within):
                reply.kind, reply.words = "nothing", f"no answer within {within:.2g} s"
            reply.seconds = self.clock.now() - begun
            if reply.kind != "nothing" and request_id is not None:
                await self._is_there(taking.ended, _LAST_BYTES)
        finally:
            exchange.abort()  # what has ended keeps its connection
            self._remember(reply)
        return reply

    async def _is_there(self, future: asyncio.Future[None], within: float) -> bool:
        try:
            async with timeout(self.clock, within):
                await future
        except TimeoutError:
            return False
        return True

    def _remember(self, reply: Reply) -> None:
        if reply.session_id is not None:
            self.open_ids.setdefault(reply.session_id, LATEST)
        if reply.limit is not None:
            self.limits.append(reply)
        self.is_turned_away |= reply.status == 429

    def _heard(self, envelope: ServerMessage, headers: Mapping[str, str]) -> None:
        """Answer what the server asks, so that it does not wait; nobody is there to be asked."""
        if envelope.id and SESSION_HEADER in headers:
            self._scope.start(self._refuse(refusal(envelope), headers), "answer a question")

    async def _refuse(self, message: bytes, headers: Mapping[str, str]) -> None:
        await self.post(message, None, headers, within=self.patience.answer)

    async def end(self, session_id: str) -> Reply:
        """DELETE the session."""
        headers = {SESSION_HEADER: session_id, _VERSION_HEADER: self.open_ids.pop(session_id, LATEST)}
        reply = await self.send("DELETE", headers, None, 0, within=self.patience.answer)
        self.left_behind += reply.status in NOT_ENDED or reply.kind == "nothing"
        return reply


def refusal(question: ServerMessage) -> bytes:
    """The answer to a request of the server."""
    if question.method == "ping":
        return jsonrpc.result(bytes(question.id), b"{}")
    error = jsonrpc.error_object(jsonrpc.METHOD_NOT_FOUND, f"{question.method} is not offered here.")
    return jsonrpc.error(bytes(question.id), error)


class HttpConversation:
    """What both eras have in common: each request is a POST."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def _told(self, method: str, params: Mapping[str, Any] | None) -> tuple[Mapping[str, Any] | None, dict[str, str]]:
        """Params and headers as they go with a request."""
        raise NotImplementedError

    async def ask(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        within: float | None = None,
        headers: Mapping[str, str] | None = None,
        host: str = "",
    ) -> Reply:
        number = next(self._wire.ids)
        whole, own = self._told(method, params)
        limit = within or self._wire.patience.answer
        message = jsonrpc.request(number, method, whole)
        return await self._wire.post(message, number, {**own, **(headers or {})}, within=limit, host=host)

    async def end(self) -> Reply:
        return Reply(words="there is nothing to end")

    async def reconnect(self) -> bool:
        self._wire.reconnect()
        return True


class Session(HttpConversation):
    """A session of Streamable HTTP, with an id or without."""

    def __init__(self, wire: Wire, session_id: str | None, revision: str) -> None:
        super().__init__(wire)
        self.id = session_id
        self.headers = {_VERSION_HEADER: revision}
        if session_id is not None:
            self.headers[SESSION_HEADER] = session_id
            wire.open_ids[session_id] = revision

    def _told(self, method: str, params: Mapping[str, Any] | None) -> tuple[Mapping[str, Any] | None, dict[str, str]]:
        del method
        return params, self.headers

    async def stream(self, last_event_id: str | None = None) -> Reply:
        """GET the stream, or take one up after an event; the stream is left at once."""
        resume = {} if last_event_id is None else {"last-event-id": last_event_id}
        headers = {**self.headers, **_GET, **resume}
        return await self._wire.send("GET", headers, None, None, within=self._wire.patience.answer)

    async def end(self) -> Reply:
        if self.id is None or self.id not in self._wire.open_ids:
            return await super().end()
        return await self._wire.end(self.id)


class ModernRequests(HttpConversation):
    """Requests of 2026-07-28, each for itself."""

    def _told(self, method: str, params: Mapping[str, Any] | None) -> tuple[Mapping[str, Any] | None, dict[str, str]]:
        whole = modern_params(params or {})
        return whole, {_VERSION_HEADER: MODERN, **dict(request_headers(method, whole))}


class HttpOpener:
    """Opens sessions of Streamable HTTP."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    async def open(self) -> tuple[Reply, Session | None]:
        wire = self.wire
        begun = wire.clock.now()
        reply = await self._initialize()
        if wire.follow(reply):
            reply = await self._initialize()
        revision = revision_of(reply.result)
        if revision is None:
            return reply, None
        session = Session(wire, reply.session_id, revision)
        initialized = jsonrpc.notification("notifications/initialized")
        await wire.post(initialized, None, session.headers, within=wire.patience.answer)
        reply.seconds = wire.clock.now() - begun
        return reply, session

    async def _initialize(self) -> Reply:
        number = next(self.wire.ids)
        message = jsonrpc.request(number, "initialize", INITIALIZE)
        return await self.wire.post(message, number, {"mcp-method": "initialize"}, within=self.wire.patience.opening)

    async def discover(self) -> tuple[Reply, ModernRequests]:
        requests = ModernRequests(self.wire)
        return await requests.ask("server/discover"), requests

    async def without_id(self) -> Reply:
        """Ask for the tools outside of any session."""
        return await Session(self.wire, None, LATEST).ask("tools/list", {})


def revision_of(result: Raw | None) -> str | None:
    """The revision that an answer to `initialize` negotiates; None where it is no such answer."""
    fields = {} if result is None else jsonrpc.decode_fields(result)
    version = jsonrpc.decode_value(fields.get("protocolVersion", b"null"))
    return version if isinstance(version, str) and version in HANDSHAKE_REVISIONS else None
