"""One request of a Streamable HTTP session: its POST, the streams that resume it, its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from msgspec import Raw, Struct

from holdfast.clock import Timer
from holdfast.upstream.http1 import HeaderBlock, HttpExchange, HttpFault, RequestHead
from holdfast.upstream.http1_response import KnownHead
from holdfast.upstream.quotation import QUOTED_BYTES, is_readable
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
from holdfast.upstream.streamable_session import MAX_REFUSAL_BYTES, SESSION_HEADER, HttpSession
from holdfast.upstream.transport import Fault, FaultKind
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

FOREIGN_TIMEOUT: Final = 1.0
"""How long an answer that is no MCP is read, for what it says."""

_NO_HEADERS: Final = HeaderBlock(b"")
_NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})


class _Reading(Enum):
    """What the body of the present answer is taken for."""

    NOTHING = auto()
    MESSAGE = auto()
    EVENTS = auto()
    REFUSAL = auto()
    FOREIGN = auto()
    """Accepted, but no MCP: read only to be quoted."""
    REDIRECT = auto()


_NOTHING, _MESSAGE, _EVENTS, _REFUSAL, _FOREIGN, _REDIRECT = _Reading
"""By these names: to find a member of an enum takes Python 3.11 as long as two calls."""


class Request(Struct, eq=False):
    """One request under way: the `Sent` of its conversation and the sink of its HTTP exchanges.

    Its session's receiver gets what comes on its streams, and `failed` where no answer does. It is
    a struct because one is made for each call: a class with as many attributes takes thrice as long.
    """

    _session: HttpSession
    _request_id: int
    _message: bytes
    _headers: HeaderBlock = _NO_HEADERS
    """The request's own, beside those of its session."""
    _exchange: HttpExchange | None = None
    _timer: Timer | None = None
    _bears_session: bool = False
    _reading: _Reading = _NOTHING
    _status: int = 0
    _media: str = ""
    _answer_headers: Mapping[str, str] = _NO_FIELDS
    _body: list[bytes] | None = None
    """What came of it so far, where it is read as one."""
    _size: int = 0
    _events: SseParser | None = None
    _last_event_id: str | None = None
    _retry: float = RETRY
    _barren: int = 0
    _is_resuming: bool = False
    _is_redirected: bool = False
    _is_paused: bool = False
    _has_unreadable: bool = False
    _is_answered: bool = False
    _is_over: bool = False

    def start(self) -> None:
        """Send the POST; nothing where the request was cancelled meanwhile."""
        session = self._session
        if self._is_over:
            return
        session.requests[self._request_id] = self
        self._status = 0
        self._bears_session = session.id is not None
        head = RequestHead(session.post_head + self._headers) if self._headers else session.post_head
        self._exchange = session.client.ask(head, self._message, self, session.heads)
        if self._is_paused:
            self._exchange.pause()

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

    def outlive_session(self) -> None:
        """Run on when the session is stopped."""
        if self._session.requests.get(self._request_id) is self:
            del self._session.requests[self._request_id]

    def drop(self) -> None:
        """End at once; the receiver hears nothing more of this request."""
        self._is_over = True
        session = self._session
        self.outlive_session()
        if self._timer is not None:
            self._timer.cancel()
        exchange, self._exchange = self._exchange, None  # each holds the other
        if exchange is not None:
            exchange.abort()
        if session.on_dropped is not None and session.first is self:
            session.on_dropped()

    def _run(self, exchange: HttpExchange) -> None:
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

    def whole(self, head: KnownHead, body: bytes) -> None:
        session, request_id = self._session, self._request_id
        if head.headers is session.plain_headers and session.first is not self:
            envelope = jsonrpc.decode_result(body, request_id)
            if envelope is not None:
                self._exchange = None
                self._is_answered = self._is_over = True
                session.requests.pop(request_id, None)
                if self._timer is not None:
                    self._timer.cancel()
                session.receiver.received(body, request_id, envelope)
                return
        self.head(head.status, head.headers)
        if self._is_under_way:
            self.body(body)
        if self._is_under_way:
            self.end()

    @property
    def _is_under_way(self) -> bool:
        """There is an exchange whose answer is of interest."""
        return self._exchange is not None and not self._is_over

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self._status = status
        self._answer_headers = headers
        self._body = []
        self._size = 0
        if headers is self._session.plain_headers and not self._is_resuming:
            self._reading = _MESSAGE
            return
        self._media = media_type(headers.get("content-type"))
        self._reading = _NOTHING
        if self._is_resuming:
            self._resumed()
        elif 200 <= status < 300:
            self._accepted(headers)
        elif 300 <= status < 400:
            self._redirected(headers.get("location", ""))
        else:
            self._reading = _REFUSAL

    def body(self, chunk: bytes) -> None:
        reading = self._reading
        if reading is _EVENTS:
            self._read_events(chunk)
            return
        self._size += len(chunk)
        if self._body is not None and reading is not _NOTHING:
            self._body.append(chunk)
        if reading is _MESSAGE:
            if self._size > self._session.max_message_bytes:
                self._fail_too_large()
        elif self._size > (QUOTED_BYTES if reading is _FOREIGN else MAX_REFUSAL_BYTES):
            self._abort()
            self.end()

    def end(self) -> None:
        self._exchange = None
        reading = self._reading
        if reading is _MESSAGE:
            self._message_ended(self._joined)
        elif reading is _EVENTS:
            self._stream_ended(f"{self._session.client.peer} ended the stream without an answer")
        elif reading is _REFUSAL:
            self._refused(self._joined)
        elif reading is _FOREIGN:
            self._quote_foreign()
        elif reading is _REDIRECT:
            self.start()
        else:
            self._fail(FaultKind.INVALID, f"{self._session.answered(self._status)} to a request")

    def failed(self, fault: HttpFault) -> None:
        self._exchange = None
        if not fault.has_answer:
            self._unanswered(fault)
            return
        reading = self._reading
        if reading is _EVENTS:
            self._stream_ended(fault.detail)
        elif reading is _REFUSAL:
            self._refused(b"")
        elif reading is _FOREIGN:
            self._quote_foreign()
        elif reading is _REDIRECT:
            self.start()
        else:
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
            session_id = headers.get(SESSION_HEADER)
            if session_id is not None and not is_session_id(session_id):
                self._fail(FaultKind.INVALID, f"{session.client.peer} gave a session id that is not visible ASCII")
                return
            session.begin(session_id)
        coding = headers.get("content-encoding", "identity").lower()
        if coding != "identity":
            self._fail(FaultKind.INVALID, f"{session.client.peer} compressed its answer, which nobody asked for")
        elif self._media == JSON:
            self._reading = _MESSAGE
            if int(headers.get("content-length", "0")) > session.max_message_bytes:
                self._fail_too_large()
            elif session.first is not self and self._status == 200:
                session.plain_headers = headers
        elif self._media == EVENT_STREAM:
            self._reading = _EVENTS
            self._events = SseParser(session.max_message_bytes)
        elif self._media or self._status == 200:
            self._reading = _FOREIGN
            if self._is_answered:
                self.drop()
            else:
                self._arm(FOREIGN_TIMEOUT, self._quote_foreign)

    @property
    def _joined(self) -> bytes:
        body = self._body or ()
        return body[0] if len(body) == 1 else b"".join(body)

    def _quote_foreign(self) -> None:
        self._fail(FaultKind.INVALID, self._foreign, said=self._quoted(self._joined))

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
            self._reading = _REDIRECT
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
            self._reading = _EVENTS
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
