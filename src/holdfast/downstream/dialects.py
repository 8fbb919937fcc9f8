"""Every way in which a request that was let in may speak, and who answers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qs, quote

from holdfast import events
from holdfast.clock import Clock
from holdfast.config import GatewaySettings
from holdfast.downstream.brief import Lane
from holdfast.downstream.brief_modern import ModernLane
from holdfast.downstream.clients import ClientSession, ClientSessions
from holdfast.downstream.handshake import Handshake
from holdfast.downstream.http import Request, Responder, segments
from holdfast.downstream.legacy_sse import LegacySse, LiveStream
from holdfast.downstream.modern import Modern
from holdfast.downstream.post import Post, Target, Terms, not_modern_here, read_post
from holdfast.downstream.refusal import Refusal, session_not_found
from holdfast.downstream.sessionless import Sessionless
from holdfast.identity.caller import Identity
from holdfast.servers.directory import Directory
from holdfast.wire import jsonrpc
from holdfast.wire.headers import parse_accept

MESSAGES: Final = "messages"
"""Behind the path of a stream of 2024-11-05: where its client's messages go."""
_ALLOW: Final = ((b"allow", b"GET, POST, DELETE"),)


class Dialects:
    """The clients with a session of their own, those without, and those of 2026-07-28; each has its dialect."""

    def __init__(
        self,
        settings: GatewaySettings,
        directory: Directory,
        *,
        clock: Clock,
        emit: events.Emit,
        charge: Callable[[Identity, int], None],
    ) -> None:
        """`charge` counts requests beyond the first of one POST, and raises `Refusal` where they are too many."""
        self.sessions = ClientSessions(clock, settings.client_idle_timeout, settings.limits)
        drops = self.sessions.budget.drops
        self.modern = Modern(clock, settings.limits, drops, emit)
        self._directory = directory
        self._emit = emit
        self._charge = charge
        self._handshake = Handshake(self.sessions, clock)
        self._legacy_sse = LegacySse(self.sessions, clock)
        self._sessionless = Sessionless(clock, drops)

    def close(self) -> None:
        """End every client session, and what waits for a client without one."""
        self.modern.close()
        self.sessions.close()
        self._handshake.close()

    def lane(self, target: Target, terms: Terms, headers: Mapping[str, str]) -> Lane | ModernLane | None:
        """Where POSTs with this head lead from now on; None where each is looked at."""
        session_id = headers.get("mcp-session-id")
        if session_id is None:
            return self.modern.lane(target, terms, headers)
        client = self.sessions.find(session_id, target.identity.principal, target.service)
        if client is None or isinstance(client.push_stream, LiveStream):
            return None
        return self._handshake.lane(client, target, terms)

    def dispatch(self, request: Request, responder: Responder, target: Target, terms: Terms | None = None) -> None:
        """Hand a request whose head was checked to its dialect; `terms` as in `read_post`. Raises `Refusal`."""
        if target.is_legacy:
            self._dispatch_legacy(request, responder, target)
            return
        match request.method:
            case "POST":
                self._post(read_post(request, responder, target, terms), request)
            case "GET":
                if "mcp-session-id" not in request.headers:
                    raise Refusal(
                        405, "Without a session there is no stream to GET: POST a JSON-RPC message.", headers=_ALLOW
                    )
                accepts = parse_accept(request.headers.get("accept"))
                client = self._own_client(request, target)
                self._handshake.get(responder, accepts, client, request.headers.get("last-event-id"))
            case "DELETE":
                self._handshake.delete(responder, self._own_client(request, target))
            case _:
                raise Refusal(405, f"{request.method} is not served here.", headers=_ALLOW)

    def _dispatch_legacy(self, request: Request, responder: Responder, target: Target) -> None:
        match request.method, parse_qs(request.query).get("session"):
            case "GET", None:
                endpoint = "".join(f"/{quote(part, safe='')}" for part in (*segments(request.path), MESSAGES))
                self._legacy_sse.open(responder, request.headers.get("accept"), target, endpoint)
            case "POST", [session_id]:
                client = self._client(request, target, session_id)
                post = read_post(request, responder, target)
                if post.is_modern:
                    raise not_modern_here(post.messages[0])
                self._charge_array(post)
                self._legacy_sse.take(post, client)
            case "POST", _:
                self._legacy_sse.refuse_post(responder)
            case _:
                raise Refusal(405, f"{request.method} is not served here.", headers=((b"allow", b"GET, POST"),))

    def _charge_array(self, post: Post) -> None:
        if len(post.messages) > 1:
            self._charge(post.target.identity, len(post.messages) - 1)

    def _post(self, post: Post, request: Request) -> None:
        if post.is_array:
            self._charge_array(post)
        first = post.messages[0]
        if post.is_modern:
            self.modern.post(post, request.headers)
        elif isinstance(first, jsonrpc.ClientRequest) and first.method == "initialize" and not post.is_array:
            self._handshake.initialize(post, first)
        elif (session_id := request.headers.get("mcp-session-id")) is not None:
            self._handshake.post(post, self._client(request, post.target, session_id))
        else:
            self._sessionless.post(post)

    def _own_client(self, request: Request, target: Target) -> ClientSession:
        session_id = request.headers.get("mcp-session-id")
        if session_id is None:
            raise Refusal(400, "This needs a session: send its Mcp-Session-Id.")
        return self._client(request, target, session_id)

    def _client(self, request: Request, target: Target, session_id: str) -> ClientSession:
        client = self.sessions.find(session_id, target.identity.principal, target.service)
        if client is None and target.is_whole:
            client = self.sessions.find_begun_at_whole(session_id, target.identity.principal)
        if client is None or not (
            client.service is target.service or self._directory.serves(client.service, target.identity)
        ):
            owner, caller = self.sessions.owner_of(session_id), target.identity.principal
            if owner is not None and owner != caller:
                name = target.service.name
                self._emit(events.SessionIdMisused(name, caller.client, owner.client, request.id))
            raise session_not_found()
        if isinstance(client.push_stream, LiveStream) is not target.is_legacy:
            raise session_not_found()  # each transport has sessions of its own
        return client
