"""The ASGI application: finds out whom a request is for and who sent it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import ceil
from typing import Final, Protocol

from msgspec import Struct, structs

from holdfast import events
from holdfast.clock import Clock
from holdfast.config import GatewaySettings
from holdfast.downstream.body import Disconnected, check_length, lasting, receive_body
from holdfast.downstream.brief import Lane
from holdfast.downstream.brief_modern import ModernLane
from holdfast.downstream.denials import Denials
from holdfast.downstream.dialects import MESSAGES, Dialects
from holdfast.downstream.entrance import Entrance, given_request_id, unknown_key
from holdfast.downstream.http import (
    ABORT,
    AsgiResponder,
    Head,
    HttpResponder,
    Message,
    Receive,
    Request,
    Responder,
    Send,
    segments,
)
from holdfast.downstream.post import Target, Terms, check_name, read_terms
from holdfast.downstream.recurring import HeadKey, RecurringHeads
from holdfast.downstream.refusal import Refusal, refuse
from holdfast.downstream.warmth import Warmth
from holdfast.identity.caller import Identity
from holdfast.identity.rates import Rates
from holdfast.identity.tokens import TokensInUse
from holdfast.servers.directory import Directory
from holdfast.servers.service import Service
from holdfast.tasks import TaskScope

logger = logging.getLogger("holdfast.http")

PAGES: Final = {"healthz": "health", "readyz": "health", "metrics": "metrics", "api": "api"}
"""The first segments of paths beside MCP, and the routes that metrics name."""

_WARM: Final = ["api", "warm"]
"""A client's, unlike the rest of the API."""


class Admitted(Struct):
    """A request whose head may pass."""

    request: Request
    parts: list[str]
    """The segments of its path."""
    identity: Identity
    target: Target | None
    """None for what is no MCP."""
    entrance: Entrance
    """By which it was let in."""
    begun: Callable[[int], None]
    """Told the status of its answer."""
    terms: Terms | None = None
    """Of a POST whose head came before."""


class Kept(Struct):
    """What was found out of a POST to MCP by its head alone, and holds if that comes again."""

    admitted: Admitted
    target: Target
    terms: Terms
    is_bounded: bool
    """How often such a request may come is bounded."""
    entrance: Entrance
    """By which alone it may come again."""
    lane: Lane | ModernLane | None = None
    """What it led to when it came last, where that is a client session or a call of 2026-07-28."""


class Pages(Protocol):
    """What is served beside MCP: health, metrics and the operator's API."""

    def dispatch(self, request: Request, responder: Responder) -> Refusal | None:
        """Answer a request to one of `PAGES`; returns with what it was refused, if it was."""


class App:
    """Serves `/mcp`, `/mcp/SERVER`, `/mcp/SERVER/chats/CHAT`, and `/sse` in the same way.

    Its parts are owned by the gateway.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        directory: Directory,
        *,
        pages: Pages,
        scope: TaskScope,
        clock: Clock,
        emit: events.Emit,
    ) -> None:
        self._dialects = Dialects(settings, directory, clock=clock, emit=emit, charge=self._charge)
        self.sessions = self._dialects.sessions
        self.drops = self.sessions.budget.drops
        self.modern = self._dialects.modern
        self._directory = directory
        self._pages = pages
        self._scope = scope
        self.clock = clock
        self._emit = emit
        self._warmth = Warmth(directory, clock)
        self.tokens = TokensInUse(clock, settings.client_idle_timeout)
        self.entrance = Entrance(settings, self.tokens)
        """Changes with the settings: what one has let in, the next may not."""
        self._denials = Denials(clock, emit)
        self._rates = Rates(settings.limits, clock)
        self.request_bytes = settings.limits.request_bytes
        self.open_requests: dict[HttpResponder, Identity] = {}
        """Who sent each request that is not answered yet."""
        self._heads = RecurringHeads[Kept](clock)
        self._lasting = lasting(clock)
        """The requests that came through ASGI."""

    def reconfigure(self, settings: GatewaySettings) -> None:
        """Let in by these settings from now on; who would not be let in again is cut off."""
        self.tokens.idle_timeout = settings.client_idle_timeout
        self.entrance = Entrance(settings, self.tokens)
        self._heads.forget()
        self._rates.reconfigure(settings.limits)
        self.request_bytes = settings.limits.request_bytes
        self.sessions.reconfigure(settings.client_idle_timeout, settings.limits)
        for responder, identity in list(self.open_requests.items()):
            if not self.entrance.admits(identity):
                responder.cut(lambda each: refuse(each, unknown_key()))
        self.modern.reconfigure(settings.limits, self.entrance.admits)

    def send_away(self) -> None:
        """End the streams on which clients only listen."""
        self.sessions.send_away()
        self.modern.listeners.send_away()

    def close(self) -> None:
        """End every client session, and what waits for a client without one."""
        self._dialects.close()
        self._heads.forget()
        self._lasting.close()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope: an HTTP request, or the server's lifespan, which the gateway does not need."""
        if scope["type"] != "http":
            await _live(scope, receive, send)
            return
        extensions: Message | None = scope.get("extensions")
        abort = extensions[ABORT]["abort"] if extensions and ABORT in extensions else None
        responder = AsgiResponder(self.clock, abort, scope.get("client"))
        key = self._heads.key(scope, self.request_bytes)
        kept = None if key is None else self._heads.recall(key, self.entrance)
        self._lasting.add(responder)
        try:
            if kept is None:
                await self._take_whole(self._admit(scope, key, responder), receive, responder)
            elif self.admit_again(kept, responder):
                body = await receive_body(receive, responder, self.request_bytes)
                if body is not None:
                    self.take_again(kept, responder, body)
            await responder.run(receive, send, self._scope)
        except Disconnected:
            return
        finally:
            self._lasting.discard(responder)
            self.forget(responder)

    async def _take_whole(self, admitted: Admitted | None, receive: Receive, responder: AsgiResponder) -> None:
        """Read the body, too. Raises `Disconnected`."""
        if admitted is None:
            return
        request = admitted.request
        body = await receive_body(receive, responder, self.request_bytes) if request.method == "POST" else b""
        if body is not None:
            request.body = body
            self.take(admitted, responder)

    def _admit(self, scope: Message, key: HeadKey | None, responder: HttpResponder) -> Admitted | None:
        """As `admit`; a head that comes again and again is known from then on."""
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        head = Head(scope["method"], path.partition(b"?")[0], scope.get("query_string", b""), scope["headers"])
        admitted = self.admit(head, responder)
        if admitted is not None and key is not None and self._heads.is_worth_keeping(key):
            kept = self.kept(admitted)
            if kept is not None:
                self._heads.keep(key, kept)
        return admitted

    def forget(self, responder: HttpResponder) -> None:
        """The answer of `responder` is over."""
        identity = self.open_requests.pop(responder, None)
        if identity is not None and identity.token is not None:
            self.tokens.leave(identity.token)

    def admit(self, head: Head, responder: HttpResponder) -> Admitted | None:
        """What `take` is to be given once the body is whole; None where the head has its answer.

        Until that answer is over, the request is one of `open_requests`.
        """
        route, method = "other", head.method

        def begun(status: int) -> None:
            self._emit(events.RequestEnded(route, method, status))

        responder.on_begun = begun
        entrance = self.entrance
        try:
            request = entrance.read_head(head)
            request.id = responder.request_id = given_request_id(request.headers) or responder.request_id
            parts = segments(request.path)
            route = PAGES.get(parts[0], "mcp")
            if route != "health":
                entrance.check_address(request.headers)
            if route != "mcp" and parts != _WARM:
                refusal = self._pages.dispatch(request, responder)
                if refusal is not None:
                    self._note(refusal, route, responder)
                return None
            identity = entrance.identify(request.headers)
            self._charge(identity, 1)
            target = None if parts == _WARM else self._target(request, parts, identity)
            if method == "POST":
                check_length(request.headers, self.request_bytes)
        except Exception as error:  # noqa: BLE001 (said and logged there)
            self._refuse(responder, error, route)
            return None
        self.open_requests[responder] = identity
        if identity.token is not None:
            self.tokens.enter(identity.token)
        return Admitted(request, parts, identity, target, entrance, begun)

    def kept(self, admitted: Admitted) -> Kept | None:
        """What is to be known of a request should its head come again; None where that says nothing of the next."""
        request, target = admitted.request, admitted.target
        if admitted.identity.token is not None:  # which may expire before the next
            return None
        if request.method != "POST" or target is None or target.is_legacy or "x-request-id" in request.headers:
            return None
        try:
            terms = read_terms(request.headers)
        except Refusal:
            return None
        bare = structs.replace(admitted, request=structs.replace(request, body=b""))
        return Kept(bare, target, terms, self._rates.bounds(admitted.identity.principal), admitted.entrance)

    def admit_again(self, kept: Kept, responder: HttpResponder) -> bool:
        """As `admit`, for a head of which `kept` is known, where the same entrance would let it in.

        `take_again` is to be given the body; False where the head has its answer.
        """
        before = kept.admitted
        responder.on_begun = before.begun
        if kept.is_bounded:
            try:
                self._charge(before.identity, 1)
            except Refusal as refusal:
                refuse(responder, refusal)
                return False
        self.open_requests[responder] = before.identity
        return True

    def take_again(self, kept: Kept, responder: HttpResponder, body: bytes) -> None:
        """As `take`, for a request that was admitted by `admit_again`."""
        lane = kept.lane
        try:
            if lane is not None and self.entrance is kept.entrance and lane.take(responder, body):
                return
        except Exception as error:  # noqa: BLE001 (said and logged there)
            self._refuse(responder, error)
            return
        name, before = responder.request_id, kept.admitted
        head = before.request
        request = Request(head.method, head.path, head.headers, body, head.query, name)
        target = kept.target.again(name)
        again = Admitted(request, before.parts, before.identity, target, before.entrance, before.begun, kept.terms)
        self.take(again, responder)
        kept.lane = self._dialects.lane(kept.target, kept.terms, before.request.headers)

    def take(self, admitted: Admitted, responder: HttpResponder) -> None:
        """See to it that a whole request gets an answer."""
        request, identity, target = admitted.request, admitted.identity, admitted.target
        try:
            if self.entrance is not admitted.entrance:  # new settings came with the body: the path may lead elsewhere
                identity = self.entrance.identify(request.headers)
                target = None if target is None else self._target(request, admitted.parts, identity)
            if target is None:
                self._warmth.post(request, responder, identity)
            else:
                self._dialects.dispatch(request, responder, target, admitted.terms)
        except Exception as error:  # noqa: BLE001 (said and logged there)
            self._refuse(responder, error)

    def _refuse(self, responder: HttpResponder, error: Exception, route: str = "mcp") -> None:
        if isinstance(error, Refusal):
            self._note(error, route, responder)
            refuse(responder, error)
        else:
            logger.error("a request failed", exc_info=error)
            failed = Refusal(500, "The gateway failed; its log says why.", code=-32603)
            responder.cut(lambda each: refuse(each, failed))  # a stream may have been opened

    def _note(self, refusal: Refusal, route: str, responder: HttpResponder) -> None:
        """Tell the operator of who was not let in."""
        if (kind := refusal.denial) is not None:
            name, status, reason = responder.request_id, refusal.status, refusal.message
            self._denials.take(events.RequestDenied(route, responder.peer, kind, status, reason, request=name))

    def _target(self, request: Request, parts: list[str], identity: Identity) -> Target:
        """The service that the path names for a caller. Raises `Refusal`."""
        service: Service | None = None
        chat: str | None = None
        is_legacy, path = parts[0] == "sse", parts[1:]
        if is_legacy and request.method == "POST" and path[-1:] == [MESSAGES]:
            path.pop()
        match path if is_legacy or parts[0] == "mcp" else None:
            case []:
                service = self._directory.whole(identity)
            case [name]:
                service = self._directory.one(name, identity)
            case [name, "chats", named] if named:
                service, chat = self._directory.one(name, identity), named
                check_name(chat, "chat")
            case _:
                pass
        if service is None:
            served = ", ".join(("/mcp", *(f"/mcp/{name}" for name in self._directory.visible(identity))))
            raise Refusal(404, f"There is nothing at this path; served are {served}.")
        passes, headers = service.passes, request.headers
        passed = tuple((name, headers[name]) for name in sorted(passes) if name in headers) if passes else ()
        return Target(service, identity, chat, passed, is_whole=path == [], is_legacy=is_legacy, request=request.id)

    def _charge(self, identity: Identity, count: int) -> None:
        wait = self._rates.take(identity.principal, count)
        if wait:
            after = max(1, ceil(wait))
            headers = ((b"retry-after", b"%d" % after),)
            raise Refusal(429, f"These are too many requests at once: go on in {after} s.", headers=headers)


async def _live(scope: Message, receive: Receive, send: Send) -> None:
    """What there is to be said of the server's lifespan."""
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
