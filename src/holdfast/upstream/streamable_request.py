"""One request of a Streamable HTTP session: its POST, the streams that resume it, its answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Final, Protocol

from msgspec import Raw

from holdfast.clock import Clock, Timer
from holdfast.upstream.http1 import HeaderBlock, HttpClient, HttpExchange, HttpFault, RequestHead, header_block
from holdfast.upstream.http1_response import KnownHeads
from holdfast.upstream.quotation import QUOTED_BYTES, is_readable, phrase, quotation, secrets_in
from holdfast.upstream.streamable_answer import (
    answers,
    error_of,
    has_response,
    is_response,
    readable_path,
    refusal_kind,
    response_of,
    resumable,
    same_origin_target,
    single,
)
from holdfast.upstream.transport import Fault, FaultKind, Receiver
from holdfast.wire import jsonrpc
from holdfast.wire.headers import EVENT_STREAM, JSON, is_session_id, media_type
from holdfast.wire.sse import EventTooLarge, SseParser

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

FOREIGN_TIMEOUT: Final = 1.0
"""How long an answer that is no MCP is read, for what it says."""

_SESSION_HEADER: Final = "mcp-session-id"
_STREAM_HEADERS: Final = header_block([("accept", EVENT_STREAM)])
_POST_HEADERS: Final = header_block([("content-type", JSON), ("accept", f"{JSON}, {EVENT_STREAM}")])
_NO_HEADERS: Final = HeaderBlock(b"")
_LINKS_OWN: Final = frozenset(
    {
        *("accept", "content-type", "last-event-id", "mcp-method", "mcp-name", "mcp-protocol-version"),
        _SESSION_HEADER,
    }
)


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
        jitter: Callable[[], float] = random.random,
        is_stateless: bool = False,
    ) -> None:
        """`is_stateless`: there is no session id, and no stream that was cut can be resumed (2026-07-28)."""
        for name in configured:
            if name.lower() in _LINKS_OWN:
                raise ValueError(f"the header {name} is not free to be set")
        self.client = client
        self._target = target
        self.clock = clock
        self.max_message_bytes = max_message_bytes
        self.jitter = jitter
        self.is_stateless = is_stateless
        self.id: str | None = None
        self.first: Request | None = None
        """`initialize`: the only request whose answer may name the session or redirect."""
        self.activities: dict[Activity, None] = {}
        self.requests: dict[int, Request] = {}
        """The requests among them, by their ids."""
        self.on_begun: Callable[[], None] | None = None
        self.on_dropped: Callable[[], None] | None = None
        """Called once the answer to `initialize` has begun, and with it the session."""
        self.is_established = False
        self.heads = KnownHeads()
        self.plain_headers: Mapping[str, str] | None = None
        """Those of an answer that was one JSON message: what comes with the same ones is another."""
        self.may_be_legacy = False
        """`initialize` was refused as by a server that speaks only the transport of 2024-11-05, or no MCP."""
        self.receiver: Receiver
        """Whom everything is reported to, once the link is started."""
        self._configured = header_block(configured.items())
        self._secrets = secrets_in(target, configured.values())
        self._version = b""
        self._bear()

    @property
    def target(self) -> str:
        """The path and query where the server is found."""
        return self._target

    def move(self, target: str) -> None:
        """Go to `target` from now on."""
        self._target = target
        self._bear()

    def begin(self, session_id: str | None) -> None:
        """Bear from now on the id that came with the answer to `initialize`."""
        self.id = session_id
        self._bear()
        if self.on_begun is not None:
            self.on_begun()

    def establish(self, protocol_version: str) -> None:
        """Bear the version from now on."""
        self.is_established = True
        self._version = header_block([("mcp-protocol-version", protocol_version)])
        self._bear()

    def _bear(self) -> None:
        own = header_block([(_SESSION_HEADER, self.id)]) if self.id is not None else b""
        self.headers = HeaderBlock(self._configured + own + self._version)
        self.post_head = self.client.head("POST", self._target, HeaderBlock(_POST_HEADERS + self.headers))
        """Of every POST; what one bears beside it may be joined to it."""

    def stream_headers(self, last_event_id: str | None) -> HeaderBlock:
        """For a GET that opens a stream, or resumes one after `last_event_id`."""
        resume = header_block([("last-event-id", last_event_id)]) if last_event_id else b""
        return HeaderBlock(_STREAM_HEADERS + self.headers + resume)

    def is_refusal(self, status: int) -> bool:
        """Whether `status` may mean that the server no longer knows the session."""
        return self.id is not None and status in {400, 404}

    def quote(self, body: bytes) -> str:
        """What `body` says, for a sentence, without what is the operator's secret."""
        return quotation(body, self._secrets if self.id is None else {*self._secrets, self.id})

    def said(self, status: int, body: bytes, *, is_readable: bool) -> str:
        """What `body` says beyond `status`, as `quote` gives it."""
        text = self.quote(body) if is_readable else ""
        return "" if text.lower() in {"", phrase(status).lower()} else text

    def foreign(self, status: int, media: str) -> str:
        """A sentence about an answer that is none of MCP."""
        return f"{self.answered(status)} with {media[:80] or 'no content type'}, which is no MCP"

    def answered(self, status: int) -> str:
        """The beginning of a sentence about an answer."""
        return f"{self.client.peer} answered {status} {phrase(status)}".rstrip()

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
    FOREIGN = auto()
    """Accepted, but no MCP: read only to be quoted."""
    REDIRECT = auto()


class Request:
    """One request under way: the `Sent` of its conversation and the sink of its HTTP exchanges.

    Its session's receiver gets what comes on its streams, and `failed` where no answer does.
    """

    _exchange: HttpExchange | None = None
    _timer: Timer | None = None
    _bears_session = False
    _reading = _Reading.NOTHING
    _status = 0
    _media = ""
    _answer_headers: Mapping[str, str] = {}
    _size = 0
    _events: SseParser | None = None
    _last_event_id: str | None = None
    _retry = RETRY
    _barren = 0
    _is_resuming = False
    _is_redirected = False
    _is_paused = False
    _has_unreadable = False
    _is_answered = False
    _is_over = False

    def __init__(
        self, session: HttpSession, request_id: int, message: bytes, headers: HeaderBlock = _NO_HEADERS
    ) -> None:
        """`headers` are the request's own, beside those of its session."""
        self._session = session
        self._request_id = request_id
        self._message = message
        self._headers = headers
        self._body: list[bytes] = []
        session.activities[self] = None
        session.requests[request_id] = self

    def start(self) -> None:
        """Send the POST; nothing where the request was cancelled meanwhile."""
        session = self._session
        if not self._is_over:
            self._bears_session = session.id is not None
            head = RequestHead(session.post_head + self._headers) if self._headers else session.post_head
            self._exchange = exchange = session.client.send(head, self._message, self, session.heads)
            if self._is_redirected:
                self._status = self._size = 0
                self._body.clear()
            if self._is_paused:
                exchange.pause()

    @property
    def awaits_answer(self) -> bool:
        """The server has it, or some of it, and has not begun to answer."""
        return self._status == 0 and self._exchange is not None and self._exchange.is_sent

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

    def refuse(self, detail: str) -> None:
        """Report the request as one that is not sent."""
        self._fail(FaultKind.NOT_SENT, detail)

    def answered_elsewhere(self) -> None:
        """Treat the request as answered: its stream may end in good order, but soon."""
        if self._exchange is None:
            self.drop()  # not sent, or to be resumed
        elif not self._is_answered:
            self._linger()

    def drop(self) -> None:
        """End at once; the receiver hears nothing more of this request."""
        self._is_over = True
        session = self._session
        session.activities.pop(self, None)
        if session.requests.get(self._request_id) is self:
            del session.requests[self._request_id]
        if self._timer is not None:
            self._timer.cancel()
        if self._exchange is not None:
            self._exchange.abort()
        if session.on_dropped is not None and session.first is self:
            session.on_dropped()

    def _run(self, exchange: HttpExchange) -> None:
        self._size = 0
        self._body.clear()
        self._exchange = exchange
        if self._is_paused:
            exchange.pause()

    def _arm(self, delay: float, callback: Callable[[], None]) -> None:
        """Run `callback` after `delay` seconds, instead of what was to be run before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._session.clock.call_later(delay, callback)

    def _linger(self) -> None:
        self._is_answered = True
        self._arm(LINGER, self.drop)

    def _fail(self, kind: FaultKind, detail: str, error: Raw | None = None, said: str = "") -> None:
        """Report that no answer comes; `said` is the server's own account of it.

        It may speak of anybody's call and is for the operator alone, but not while the session
        opens: nobody was served on it, and whoever started the gateway needs to read it.
        """
        if self._is_over:
            return
        session = self._session
        self.drop()
        if self._is_answered:
            return
        if said and session.first is self and not session.is_established:
            detail, said = f"{detail}: {said}", ""
        session.receiver.failed(self._request_id, Fault(kind, detail, error, said))

    # The HTTP client's side.

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self._status = status
        self._answer_headers = headers
        if headers is self._session.plain_headers and not self._is_resuming:
            self._reading = _Reading.MESSAGE
            return
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
        reading = self._reading
        if reading is _Reading.EVENTS:
            self._read_events(chunk)
            return
        self._size += len(chunk)
        if reading is _Reading.MESSAGE:
            self._body.append(chunk)
            if self._size > self._session.max_message_bytes:
                self._fail_too_large()
            return
        if reading is _Reading.REFUSAL or reading is _Reading.FOREIGN:
            self._body.append(chunk)
        if self._size > (QUOTED_BYTES if reading is _Reading.FOREIGN else MAX_REFUSAL_BYTES):
            self._abort()
            self.end()

    def end(self) -> None:
        self._exchange = None
        if self._reading is _Reading.MESSAGE:
            self._message_ended(self._body[0] if len(self._body) == 1 else b"".join(self._body))
            return
        match self._reading:
            case _Reading.EVENTS:
                self._stream_ended(f"{self._session.client.peer} ended the stream without an answer")
            case _Reading.REFUSAL:
                self._refused(b"".join(self._body))
            case _Reading.FOREIGN:
                self._quote_foreign()
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
            case _Reading.FOREIGN:
                self._quote_foreign()
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
        if session.first is self and session.id is None and not session.is_stateless:
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
            elif session.first is not self and self._status == 200:
                session.plain_headers = headers
        elif self._media == EVENT_STREAM:
            self._reading = _Reading.EVENTS
            self._events = SseParser(session.max_message_bytes)
        elif self._media or self._status == 200:
            self._reading = _Reading.FOREIGN
            if self._is_answered:
                self.drop()
            else:
                self._arm(FOREIGN_TIMEOUT, self._quote_foreign)

    def _quote_foreign(self) -> None:
        self._fail(FaultKind.INVALID, self._foreign, said=self._quoted(b"".join(self._body)))

    @property
    def _foreign(self) -> str:
        return self._session.foreign(self._status, self._media)

    def _quoted(self, body: bytes) -> str:
        """What `body` says beyond its status."""
        return self._session.said(self._status, body, is_readable=is_readable(self._answer_headers))

    def _fail_too_large(self) -> None:
        limit = self._session.max_message_bytes
        self._fail(FaultKind.INVALID, f"a message of {self._session.client.peer} is larger than {limit} bytes")

    def _message_ended(self, body: bytes) -> None:
        session, request_id = self._session, self._request_id
        envelope = response_of(body, request_id)
        if envelope is not None:
            self._is_answered = True
            self.drop()
            session.receiver.received(body, request_id, envelope)
            return
        if not has_response(body, request_id):
            error = error_of(body)
            if error is None:
                detail = f"{session.client.peer} answered with a body that is not the JSON-RPC response to the request"
                self._fail(FaultKind.INVALID, detail, said=self._quoted(body))
                return
            body = jsonrpc.error(b"%d" % request_id, error)
        self._is_answered = True
        self.drop()
        session.receiver.received(body, request_id)

    def _redirected(self, location: str) -> None:
        session = self._session
        target = same_origin_target(session.client, session.target, location)
        if self._status in {307, 308} and session.first is self and not self._is_redirected and target is not None:
            self._is_redirected = True
            session.move(target)
            self._reading = _Reading.REDIRECT
        else:
            path = readable_path(location)
            self._fail(FaultKind.INVALID, f"{session.answered(self._status)} and points to {path}: is the URL right?")

    def _refused(self, body: bytes) -> None:
        status, detail = self._status, self._session.answered(self._status)
        error = error_of(body) if len(body) <= MAX_REFUSAL_BYTES else None
        said = self._quoted(body if error is None else jsonrpc.error_message(error).encode(errors="replace"))
        kind = refusal_kind(status)
        if kind is not None:
            self._fail(kind, detail, error, said)
        elif self._bears_session and status in {400, 404}:
            self._fail(FaultKind.REFUSED, f"{detail} to a request of the session", error, said)
        elif error is not None:
            self._is_answered = True
            self.drop()
            self._session.receiver.received(jsonrpc.error(b"%d" % self._request_id, error), self._request_id)
        else:
            self._session.may_be_legacy = self._session.first is self and status in {400, 404, 405}
            self._fail(FaultKind.INVALID, self._foreign, said=said)

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
            self._barren = 0
            if event.id is not None and not self._session.is_stateless:
                self._last_event_id = resumable(event.id)
            if event.data and event.event == "message":
                self._read(event.data)

    def _read(self, message: bytes) -> None:
        request_id = self._request_id
        try:
            envelope = single(message)
            if envelope is None:
                is_answer = is_response(message, request_id)
            else:
                is_answer = envelope.method is None and answers(envelope, request_id)
        except ValueError:
            self._has_unreadable = True
            return
        if is_answer and not self._is_answered:
            self._linger()
        elif envelope is not None and envelope.method is None:
            envelope = None  # the answer to another request
        self._session.receiver.received(message, request_id, envelope)

    def _stream_ended(self, detail: str) -> None:
        if self._is_answered or self._last_event_id is not None:
            self._suspend(detail)
        elif self._has_unreadable:
            peer = self._session.client.peer
            self._fail(FaultKind.INVALID, f"{peer} sent events that are no JSON-RPC, and no answer")
        else:
            self._fail(FaultKind.CUT, detail)

    def _suspend(self, detail: str) -> None:
        """Wait, then resume; `detail` says why the stream ended, in case this was the last time."""
        if self._is_answered:
            self.drop()
            return
        if self._barren >= MAX_BARREN_RESUMPTIONS:
            self._fail(FaultKind.CUT, f"{detail}; {self._barren} resumptions in a row brought nothing")
            return
        self._is_resuming = True
        session = self._session
        delay = min(max(self._retry, MIN_RETRY) * 2**self._barren, MAX_RETRY) * (1 + 0.2 * session.jitter())
        self._arm(delay, self._resume_stream)
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
