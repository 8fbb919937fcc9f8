"""The operator's API: health checks, metrics, and what there is of servers, sessions and events."""

from __future__ import annotations

import heapq
import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import Final, Protocol
from urllib.parse import parse_qs, unquote

import msgspec

from holdfast import __version__
from holdfast.clock import Clock
from holdfast.config import GatewaySettings, key_digest
from holdfast.dashboard.stream import EventStream, resume_at
from holdfast.downstream.http import Headers, Request, Responder
from holdfast.downstream.refusal import Refusal
from holdfast.events import Denial
from holdfast.observe.feed import EventFeed
from holdfast.observe.metrics import CONTENT_TYPE
from holdfast.views import SESSION_STATES, ServerView, SessionView
from holdfast.wire.headers import bearer_token, host_name, is_loopback_name

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 10_000
MAX_STREAMS: Final = 64
"""Readers of events at once; each may keep a mebibyte waiting."""

_OWN: Final[Headers] = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_JSON: Final[Headers] = ((b"content-type", b"application/json"), *_OWN)
_TEXT: Final[Headers] = ((b"content-type", b"text/plain; charset=utf-8"), *_OWN)
_METRICS: Final[Headers] = ((b"content-type", CONTENT_TYPE.encode()), *_OWN)
_STREAM: Final[Headers] = ((b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no"), *_OWN)

_PATHS: Final = "GET /healthz, /readyz, /metrics, /api/servers, /api/sessions and /api/events, DELETE /api/sessions/ID"
_OPEN: Final = (["healthz"], ["readyz"])
_FORWARDED: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})
_CHALLENGE: Final[Headers] = ((b"www-authenticate", b'Bearer realm="operator"'),)
_FILTERS: Final = ("server", "client", "state")
_MAX_PARAMETERS: Final = 100


class Operations(Protocol):
    """The running gateway as its operator sees it; everything is answered at once."""

    @property
    def is_ready(self) -> bool:
        """Every server that is opened at start was tried once."""
        ...

    @property
    def is_draining(self) -> bool:
        """The gateway is about to end."""
        ...

    @property
    def client_sessions(self) -> int:
        """How many sessions clients have with the gateway."""
        ...

    @property
    def feed(self) -> EventFeed:
        """What happens."""
        ...

    def servers(self) -> Sequence[ServerView]:
        """The configured servers, in the order of the settings."""
        ...

    def sessions(self) -> Sequence[SessionView]:
        """All sessions with servers."""
        ...

    def close_session(self, session_id: str, /) -> bool:
        """Begin to end a session, with the calls that run in it; False if there is none of that id."""
        ...

    def metrics(self) -> bytes:
        """All metrics, in the text format of Prometheus."""
        ...


class Api:
    """Answers the requests for `downstream.app.PAGES`; owns the event streams.

    Whoever hands a request over has checked its `Origin` and, but for the health checks, its
    `Host`. Whoever made it calls `drain` before the HTTP server stops.
    """

    def __init__(self, operations: Operations, settings: GatewaySettings, clock: Clock) -> None:
        self._settings = settings
        self._operations = operations
        self._clock = clock
        self._streams: set[EventStream] = set()
        self._run = secrets.token_hex(4)
        """Part of events' ids, whose numbers begin anew with each gateway."""

    def dispatch(self, request: Request, responder: Responder) -> Refusal | None:
        """Answer a request; returns with what it was refused, if it was.

        HEAD is answered as GET: it is the HTTP server that leaves the body out.
        """
        try:
            self._route(request, responder)
        except Refusal as refusal:
            # As in a JSON-RPC error, so that programs read these and the gateway's other refusals alike.
            body = msgspec.json.encode({"error": {"message": refusal.message}})
            responder.answer(refusal.status, (*_JSON, *refusal.headers), (body,))
            return refusal
        return None

    def apply(self, settings: GatewaySettings) -> None:
        """Decide by new settings from now on; readers of events who were let in by another key are sent away."""
        if settings.operator_key_digest != self._settings.operator_key_digest:
            self.drain()
        self._settings = settings

    def drain(self) -> None:
        """End the event streams, so that the HTTP server can stop."""
        for stream in list(self._streams):
            stream.end()

    def _route(self, request: Request, responder: Responder) -> None:
        parts = request.path.strip("/").split("/")
        if parts not in _OPEN:
            self._check_access(request.headers)
        match parts:
            case ["healthz"]:
                _check_method(request, "GET", "HEAD")
                responder.answer(200, _TEXT, (b"ok",))
            case ["readyz"]:
                _check_method(request, "GET", "HEAD")
                status = self._status()
                _answer_json(responder, {"status": status}, 200 if status == "ready" else 503)
            case ["metrics"]:
                _check_method(request, "GET", "HEAD")
                responder.answer(200, _METRICS, (self._operations.metrics(),))
            case ["api", "servers"]:
                _check_method(request, "GET", "HEAD")
                _answer_json(responder, self._servers())
            case ["api", "sessions"]:
                _check_method(request, "GET", "HEAD")
                _answer_json(responder, self._sessions(_parse_query(request.query, (*_FILTERS, "limit"))))
            case ["api", "sessions", session_id] if session_id:
                _check_method(request, "DELETE")
                self._close_session(responder, session_id)
            case ["api", "events"]:
                _check_method(request, "GET", "HEAD")
                self._stream(request, responder, _parse_query(request.query, ("recent",)))
            case _:
                raise Refusal(404, f"There is nothing at this path; there are {_PATHS}.")

    def _check_access(self, headers: Mapping[str, str]) -> None:
        digest = self._settings.operator_key_digest
        if digest is not None:
            token = bearer_token(headers.get("authorization"))
            if token is None:
                what, denial = "The operator's key is needed", Denial.NO_KEY
            elif not hmac.compare_digest(key_digest(token), digest):
                what, denial = "This is not the operator's key", Denial.UNKNOWN_KEY
            else:
                return
            raise Refusal(401, f"{what}: send it as Authorization: Bearer KEY.", headers=_CHALLENGE, denial=denial)
        if not self._settings.is_loopback:
            words = "The gateway can be reached from other machines, so this needs a key: set operator_key."
            raise Refusal(403, words, denial=Denial.NO_OPERATOR_KEY)
        if _FORWARDED & headers.keys() or not is_loopback_name(host_name(headers.get("host", ""))):
            words = "This came through a proxy, and so from anywhere: set operator_key."
            raise Refusal(403, words, denial=Denial.NO_OPERATOR_KEY)

    def _status(self) -> str:
        if self._operations.is_draining:
            return "draining"
        return "ready" if self._operations.is_ready else "starting"

    def _servers(self) -> dict[str, object]:
        return {
            "version": __version__,
            "status": self._status(),
            "client_sessions": self._operations.client_sessions,
            "servers": self._operations.servers(),
        }

    def _sessions(self, query: Mapping[str, list[str]]) -> dict[str, object]:
        limit = _count(query, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        for state in query.get("state", ()):
            if state not in SESSION_STATES:
                raise Refusal(400, f"There is no such state; there are {', '.join(SESSION_STATES)}.")
        wanted = [(name, frozenset(query[name])) for name in _FILTERS if name in query]
        found = [
            view
            for view in self._operations.sessions()
            if all((getattr(view, name) or "") in values for name, values in wanted)
        ]
        shown = heapq.nsmallest(limit, found, key=lambda view: (-view.calls, view.idle, view.id))
        return {"total": len(found), "sessions": shown}

    def _close_session(self, responder: Responder, session_id: str) -> None:
        if not self._operations.close_session(unquote(session_id)):
            raise Refusal(404, "There is no session of this id; GET /api/sessions lists them.")
        responder.answer(204, _OWN)

    def _stream(self, request: Request, responder: Responder, query: Mapping[str, list[str]]) -> None:
        wanted = _count(query, "recent", 0, MAX_LIMIT)
        if request.method == "HEAD":
            responder.open(_STREAM)
            responder.end()
            return
        if len(self._streams) >= MAX_STREAMS:
            raise Refusal(503, f"There are {MAX_STREAMS} readers of events already: try again later.")
        last_id = request.headers.get("last-event-id")
        resumed_at = resume_at(last_id, self._run)
        if last_id is not None and resumed_at is None:
            wanted = MAX_LIMIT  # it has read another gateway's events, or the one's before a restart
        stream = EventStream(
            responder,
            _STREAM,
            self._operations.feed,
            self._clock,
            run=self._run,
            resumed_at=resumed_at,
            recent=wanted,
            ended=self._streams.discard,
        )
        self._streams.add(stream)


def _check_method(request: Request, *allowed: str) -> None:
    if request.method not in allowed:
        methods = ", ".join(allowed)
        raise Refusal(405, f"Here you can {methods}.", headers=((b"allow", methods.encode()),))


def _parse_query(query: str, known: Sequence[str]) -> dict[str, list[str]]:
    """What each parameter was given as. Raises `Refusal` for one that means nothing here."""
    try:
        fields = parse_qs(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise Refusal(400, "The query has too many parameters.") from None
    for name in fields:
        if name not in known:
            raise Refusal(400, f"There is no such parameter here; there are {', '.join(known)}.")
    return fields


def _count(query: Mapping[str, list[str]], name: str, default: int, most: int) -> int:
    if name not in query:
        return default
    (value,) = query[name][-1:]
    if not value.isascii() or not value.isdigit() or len(value) > 9 or int(value) > most:
        raise Refusal(400, f"{name} is a number from 0 to {most}.")
    return int(value)


def _answer_json(responder: Responder, value: object, status: int = 200) -> None:
    responder.answer(status, _JSON, (msgspec.json.encode(value),))
