"""One request of a Streamable HTTP session: its POST, the streams that resume it, its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from http import HTTPStatus
from typing import Final, Protocol
from urllib.parse import urljoin, urlsplit

from msgspec import Raw

from holdfast.clock import Clock, Timer
from holdfast.upstream.http1 import HeaderBlock, HttpClient, HttpExchange, HttpFault, header_block
from holdfast.upstream.transport import Fault, FaultKind, Receiver
from holdfast.wire import jsonrpc
from holdfast.wire.headers import EVENT_STREAM, JSON, is_session_id, media_type
from holdfast.wire.sse import EventTooLarge, SseEvent, SseParser

RETRY: Final = 1.0
"""Before a resumption, where the server names no `retry`; the official SDKs' own."""

MIN_RETRY: Final = 0.1
"""A server that says 0 and closes every stream would make a busy loop of us."""

MAX_RETRY: Final = 30.0
"""A call's stream is resumed after this at the latest, whatever the server asks for."""

MAX_BARREN_RESUMPTIONS: Final = 5
"""Resumptions in a row that brought no event, before a request is given up."""

LINGER: Final = 5.0
"""How long a stream may stay open behind its answer before its connection is dropped."""

MAX_REFUSAL_BYTES: Final = 64 * 1024
"""Of the body of a refusal; a larger one is not looked at."""

_SESSION_HEADER: Final = "mcp-session-id"
_MAX_EVENT_ID: Final = 1024
_STREAM_HEADERS: Final = header_block([("accept", EVENT_STREAM)])
_POST_HEADERS: Final = header_block([("content-type", JSON), ("accept", f"{JSON}, {EVENT_STREAM}")])
_LINKS_OWN: Final = frozenset({"accept", "content-type", "last-event-id", "mcp-protocol-version", _SESSION_HEADER})


class Activity(Protocol):
    """Something of a session that runs until it ends or is dropped."""

    def drop(self) -> None:
        """End at once and report nothing more. Idempotent."""


class HttpSession:
    """What all exchanges of one MCP session share: where they go, what they bear, whom they report to."""

    def __init__(
        self,
        client: HttpClient,
        target: str,
        configured: Mapping[str, str],
        *,
        clock: Clock,
        max_message_bytes: int,
        jitter: Callable[[], float],
    ) -> None:
        for name in configured:
            if name.lower() in _LINKS_OWN:
                raise ValueError(f"the header {name} is not free to be set")
        self.client = client
        self.target = target
        self.clock = clock
        self.max_message_bytes = max_message_bytes
        self.jitter = jitter
        self.id: str | None = None
        self.first: Request | None = None
        """`initialize`: the only request whose answer may name the session or redirect."""
        self.activities: dict[Activity, None] = {}
        self._receiver: Receiver | None = None
        self._configured = header_block(configured.items())
        self._version = b""
        self._bear()

    @property
    def receiver(self) -> Receiver:
        """Whom everything is reported to."""
        if self._receiver is None:
            raise RuntimeError("the link was not started")
        return self._receiver

    @receiver.setter
    def receiver(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def begin(self, session_id: str | None) -> None:
        """Bear from now on the id that came with the answer to `initialize`."""
        self.id = session_id
        self._bear()

    def establish(self, protocol_version: str) -> None:
        """Bear the version from now on."""
        self._version = header_block([("mcp-protocol-version", protocol_version)])
        self._bear()

    def _bear(self) -> None:
        own = header_block([(_SESSION_HEADER, self.id)]) if self.id is not None else b""
        self.headers = HeaderBlock(self._configured + own + self._version)
        self.post_headers = HeaderBlock(_POST_HEADERS + self.headers)

    def stream_headers(self, last_event_id: str | None) -> HeaderBlock:
        """For a GET that opens a stream, or resumes one after `last_event_id`."""
        resume = header_block([("last-event-id", last_event_id)]) if last_event_id else b""
        return HeaderBlock(_STREAM_HEADERS + self.headers + resume)

    def is_refusal(self, status: int) -> bool:
        """Whether `status` may mean that the server no longer knows the session."""
        return self.id is not None and status in {400, 404}

    def answered(self, status: int) -> str:
        """The beginning of a sentence about an answer."""
        return f"{self.client.peer} answered {status} {_phrase(status)}".rstrip()

    def stop(self) -> None:
        """Drop everything that runs."""
        while self.activities:
            activity, _ = self.activities.popitem()
            activity.drop()


class _Reading(Enum):
    """What the body of the present answer is taken for."""

    NOTHING = auto()
    MESSAGE = auto()
    EVENTS = auto()
    REFUSAL = auto()
    REDIRECT = auto()


class Request:
    """One request under way: the `Sent` of its conversation and the sink of its HTTP exchanges.

    Its session's receiver gets what comes on its streams, and `failed` where no answer does.
    """

    def __init__(self, session: HttpSession, request_id: int, message: bytes) -> None:
        self._session = session
        self._request_id = request_id
        self._message = message
        self._exchange: HttpExchange | None = None
        self._timer: Timer | None = None
        self._bears_session = False
        self._reading = _Reading.NOTHING
        self._status = 0
        self._media = ""
        self._body: list[bytes] = []
        self._size = 0
        self._events: SseParser | None = None
        self._last_event_id: str | None = None
        self._retry = RETRY
        self._barren = 0
        self._is_resuming = False
        self._is_redirected = False
        self._is_paused = False
        self._has_unreadable = False
        self._is_answered = False
        self._is_over = False
        session.activities[self] = None

    def start(self) -> None:
        """Send the POST; nothing where the request was cancelled meanwhile."""
        session = self._session
        if not self._is_over:
            self._bears_session = session.id is not None
            self._run(session.client.request("POST", session.target, session.post_headers, self._message, self))

    def cancel(self, reason: str) -> None:  # noqa: ARG002 - the conversation tells the server why
        self.drop()

    def pause(self) -> None:
        self._is_paused = True
        if self._exchange is not None:
            self._exchange.pause()

    def resume(self) -> None:
        self._is_paused = False
        if self._exchange is not None:
            self._exchange.resume()

    def drop(self) -> None:
        """End at once; the receiver hears nothing more of this request."""
        self._is_over = True
        self._session.activities.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
        if self._exchange is not None:
            self._exchange.abort()

    def _run(self, exchange: HttpExchange) -> None:
        self._size = 0
        self._body.clear()
        self._exchange = exchange
        if self._is_paused:
            exchange.pause()

    def _fail(self, kind: FaultKind, detail: str, error: Raw | None = None) -> None:
        if not self._is_over:
            self.drop()
            if not self._is_answered:
                self._session.receiver.failed(self._request_id, Fault(kind, detail, error))

    # The HTTP client's side.

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self._status = status
        self._media = media_type(headers.get("content-type"))
        self._reading = _Reading.NOTHING
        if self._is_resuming:
            self._resumed()
        elif 200 <= status < 300:
            self._accepted(headers)
        elif 300 <= status < 400:
            self._redirected(headers.get("location", ""))
        else:
            self._reading = _Reading.REFUSAL

    def body(self, chunk: bytes) -> None:
        if self._reading is _Reading.EVENTS:
            self._read_events(chunk)
            return
        self._size += len(chunk)
        if self._reading is _Reading.MESSAGE:
            self._body.append(chunk)
            if self._size > self._session.max_message_bytes:
                self._fail_too_large()
        elif self._size > MAX_REFUSAL_BYTES:
            self._abort()
            self._body.clear()
            self.end()
        elif self._reading is _Reading.REFUSAL:
            self._body.append(chunk)

    def end(self) -> None:
        self._exchange = None
        match self._reading:
            case _Reading.EVENTS:
                self._stream_ended(f"{self._session.client.peer} ended the stream without an answer")
            case _Reading.MESSAGE:
                self._message_ended(b"".join(self._body))
            case _Reading.REFUSAL:
                self._refused(b"".join(self._body))
            case _Reading.REDIRECT:
                self.start()
            case _Reading.NOTHING:
                self._fail(FaultKind.INVALID, f"{self._session.answered(self._status)} to a request")

    def failed(self, fault: HttpFault) -> None:
        self._exchange = None
        if not fault.has_answer:
            self._unanswered(fault)
            return
        match self._reading:
            case _Reading.EVENTS:
                self._stream_ended(fault.detail)
            case _Reading.REFUSAL:
                self._refused(b"")
            case _Reading.REDIRECT:
                self.start()
            case _:
                self._fail(FaultKind.INVALID if fault.is_malformed else FaultKind.CUT, fault.detail)

    def _unanswered(self, fault: HttpFault) -> None:
        if self._is_resuming:
            self._suspend(fault.detail)
        elif not fault.is_sent:
            if self._session.first is self:
                self._session.first = None
            self._fail(FaultKind.NOT_SENT, fault.detail)
        else:
            self._fail(FaultKind.INVALID if fault.is_malformed else FaultKind.CUT, fault.detail)

    # One body, or none.

    def _accepted(self, headers: Mapping[str, str]) -> None:
        session = self._session
        if session.first is self and session.id is None:
            session_id = headers.get(_SESSION_HEADER)
            if session_id is not None and not is_session_id(session_id):
                self._fail(FaultKind.INVALID, f"{session.client.peer} gave a session id that is not visible ASCII")
                return
            session.begin(session_id)
        coding = headers.get("content-encoding", "identity").lower()
        if coding != "identity":
            self._fail(FaultKind.INVALID, f"{session.client.peer} compressed its answer, which nobody asked for")
        elif self._media == JSON:
            self._reading = _Reading.MESSAGE
            if int(headers.get("content-length", "0")) > session.max_message_bytes:
                self._fail_too_large()
        elif self._media == EVENT_STREAM:
            self._reading = _Reading.EVENTS
            self._events = SseParser(session.max_message_bytes)
        elif self._media or self._status == 200:
            what = self._media[:80] or "no content type"
            self._fail(FaultKind.INVALID, f"{session.answered(self._status)} with {what}, which is no MCP")

    def _fail_too_large(self) -> None:
        limit = self._session.max_message_bytes
        self._fail(FaultKind.INVALID, f"a message of {self._session.client.peer} is larger than {limit} bytes")

    def _message_ended(self, body: bytes) -> None:
        session, request_id = self._session, self._request_id
        if not _has_response(body, request_id):
            error = _error_of(body)
            if error is None:
                what = "a body that is not the JSON-RPC response to the request"
                self._fail(FaultKind.INVALID, f"{session.client.peer} answered with {what}")
                return
            body = jsonrpc.error(b"%d" % request_id, error)
        self._is_answered = True
        self.drop()
        session.receiver.received(body, request_id)

    def _redirected(self, location: str) -> None:
        session = self._session
        target = _same_origin_target(session.client, session.target, location)
        if self._status in {307, 308} and session.first is self and not self._is_redirected and target is not None:
            self._is_redirected = True
            session.target = target
            self._reading = _Reading.REDIRECT
        else:
            path = _path(location)
            self._fail(FaultKind.INVALID, f"{session.answered(self._status)} and points to {path}: is the URL right?")

    def _refused(self, body: bytes) -> None:
        status, error, detail = self._status, _error_of(body), self._session.answered(self._status)
        if status in {401, 403}:
            self._fail(FaultKind.UNAUTHORIZED, detail, error)
        elif status in {502, 503}:
            self._fail(FaultKind.UNAVAILABLE, detail, error)
        elif status >= 500:
            self._fail(FaultKind.FAILED, detail, error)
        elif self._bears_session and status in {400, 404}:
            self._fail(FaultKind.REFUSED, f"{detail} to a request of the session", error)
        elif error is not None:
            self._is_answered = True
            self.drop()
            self._session.receiver.received(jsonrpc.error(b"%d" % self._request_id, error), self._request_id)
        else:
            self._fail(FaultKind.INVALID, f"{detail} with {self._media[:80] or 'no content type'}, which is no MCP")

    # Streams.

    def _read_events(self, chunk: bytes) -> None:
        parser = self._events
        if parser is None:
            return
        try:
            events = parser.feed(chunk)
        except EventTooLarge:
            self._fail_too_large()
            return
        if parser.retry_ms is not None:
            self._retry = parser.retry_ms / 1000
        for event in events:
            if self._is_over:
                return
            self._read(event)

    def _read(self, event: SseEvent) -> None:
        self._barren = 0
        if event.id is not None:
            self._last_event_id = resumable(event.id)
        if event.event != "message" or not event.data:
            return
        try:
            is_response = _is_response(event.data, self._request_id)
        except ValueError:
            self._has_unreadable = True
            return
        if is_response and not self._is_answered:
            self._is_answered = True
            self._timer = self._session.clock.call_later(LINGER, self.drop)
        self._session.receiver.received(event.data, self._request_id)

    def _stream_ended(self, detail: str) -> None:
        if self._is_answered:
            self.drop()
        elif self._last_event_id is not None:
            self._suspend(detail)
        elif self._has_unreadable:
            peer = self._session.client.peer
            self._fail(FaultKind.INVALID, f"{peer} sent events that are no JSON-RPC, and no answer")
        else:
            self._fail(FaultKind.CUT, detail)

    def _suspend(self, detail: str) -> None:
        """Wait, then resume; `detail` says why the stream ended, in case this was the last time."""
        if self._barren >= MAX_BARREN_RESUMPTIONS:
            self._fail(FaultKind.CUT, f"{detail}; {self._barren} resumptions in a row brought nothing")
            return
        self._is_resuming = True
        session = self._session
        delay = min(max(self._retry, MIN_RETRY) * 2**self._barren, MAX_RETRY) * (1 + 0.2 * session.jitter())
        self._timer = session.clock.call_later(delay, self._resume_stream)
        if self._barren == 0:
            session.receiver.suspended(self._request_id)

    def _resume_stream(self) -> None:
        session = self._session
        self._barren += 1
        headers = session.stream_headers(self._last_event_id)
        self._run(session.client.request("GET", session.target, headers, None, self))

    def _resumed(self) -> None:
        """Judge the answer to a resumption; whatever it is, the request itself was delivered."""
        session, status = self._session, self._status
        detail = f"{session.answered(status)} to the resumption of a stream"
        if status == 200 and self._media == EVENT_STREAM:
            self._reading = _Reading.EVENTS
            self._events = SseParser(session.max_message_bytes)
        elif status >= 500 or status in {409, 429}:  # 409: the server has not noticed that the old stream is gone
            self._abort()
            self._suspend(detail)
        else:
            if session.is_refusal(status):
                session.receiver.suspected(Fault(FaultKind.REFUSED, detail))
            self._fail(FaultKind.CUT, detail)

    def _abort(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abort()


def resumable(event_id: str) -> str | None:
    """`event_id` where a stream can be resumed after it: it must fit into a header."""
    return event_id if event_id.isprintable() and 0 < len(event_id) <= _MAX_EVENT_ID else None


def _is_response(message: bytes, request_id: int) -> bool:
    """Whether `message` is, or as an array holds, the response to the request. Raises `ValueError`."""
    if message[:64].lstrip()[:1] == b"[":
        return any(_responds(part, request_id) for part in jsonrpc.decode_array(message))
    return _responds(message, request_id)


def _responds(message: bytes | Raw, request_id: int) -> bool:
    envelope = jsonrpc.decode_server(message)
    if envelope.method is not None:
        return False
    own_id = envelope.own_id
    return own_id == request_id or (own_id is None and bytes(envelope.id) in {b"", b"null"} and bool(envelope.error))


def _has_response(body: bytes, request_id: int) -> bool:
    try:
        return _is_response(body, request_id)
    except ValueError:
        return False


def _error_of(body: bytes) -> Raw | None:
    """The `error` object where `body` is a JSON-RPC refusal; its id is not asked for, many servers cannot tell it."""
    try:
        envelope = jsonrpc.decode_server(body)
    except ValueError:
        return None
    if envelope.method is not None or not envelope.error or bytes(envelope.error)[:1] != b"{":
        return None
    return envelope.error.copy()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _same_origin_target(client: HttpClient, target: str, location: str) -> str | None:
    try:
        url = urlsplit(urljoin(f"{client.scheme}://{client.peer}{target}", location))
        port = url.port or (443 if url.scheme == "https" else 80)
    except ValueError:
        return None
    if not location or (url.scheme, url.hostname, port) != (client.scheme, client.host, client.port):
        return None
    path = url.path or "/"
    new = f"{path}?{url.query}" if url.query else path
    return new if new.isascii() and new.isprintable() and " " not in new else None


def _path(location: str) -> str:
    """The path alone: a query may hold secrets."""
    try:
        path = urlsplit(location).path
    except ValueError:
        path = ""
    return repr(path[:200]) if path else "nowhere"
