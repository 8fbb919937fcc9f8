"""HTTP+SSE of revision 2024-11-05: one GET stream is the session, every message of ours is a POST.

The stream's first event names the endpoint to POST to; whatever the server says comes on the
stream. Nothing can be resumed: with the stream the session is gone.
<https://modelcontextprotocol.io/specification/2024-11-05/basic/transports#http-with-sse>
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from msgspec import Raw

from holdfast.clock import Clock, Timer
from holdfast.config import MAX_MESSAGE_BYTES
from holdfast.upstream.http1 import HttpClient, HttpExchange, HttpFault
from holdfast.upstream.http_posts import Posts
from holdfast.upstream.quotation import is_readable, secrets_in
from holdfast.upstream.streamable_answer import error_of, readable_path, refusal_kind, same_origin_target
from holdfast.upstream.streamable_request import LINGER
from holdfast.upstream.streamable_session import MAX_REFUSAL_BYTES, HttpSession
from holdfast.upstream.transport import Fault, FaultKind, Receiver, Sent
from holdfast.wire import jsonrpc
from holdfast.wire.headers import EVENT_STREAM, media_type
from holdfast.wire.lines import Oversized
from holdfast.wire.sse import EventTooLarge, SseEvent, SseParser

ENDPOINT_TIMEOUT: Final = 10.0
"""How long an open stream may keep us waiting for its first event; servers send it at once."""

MIN_ID_CHARS: Final = 16
"""A shorter part of the endpoint's path is a word."""

logger = logging.getLogger("holdfast.session")


class _State(Enum):
    OPENING = auto()
    """The endpoint is not known yet; requests wait for it."""
    OPEN = auto()
    ENDING = auto()
    """What was sent before is delivered; nothing more is taken."""
    OVER = auto()


class _Session(HttpSession):
    """Where messages go: to the URL of the stream until that has named the endpoint."""

    def found(self, endpoint: str) -> None:
        """Send messages to `endpoint`, which holds the session's id: mostly in its query, else in its path."""
        self.move(endpoint)
        segments = endpoint.partition("?")[0].split("/")
        self._secrets |= secrets_in(endpoint, (segment for segment in segments if len(segment) >= MIN_ID_CHARS))

    def is_refusal(self, status: int) -> bool:
        return self.is_established and status in {400, 404}


class LegacySseLink:
    """A `Link` over an `HttpClient` that all sessions of a server may share; it closes only what is its own.

    As with a stdio server, the end of the stream is `lost`, and fails what runs with `GONE`.
    `target` and `configured` as for `StreamableHttpLink`.
    """

    is_stateless = False

    def __init__(
        self,
        client: HttpClient,
        target: str,
        configured: Mapping[str, str],
        clock: Clock,
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._session = _Session(client, target, configured, clock=clock, max_message_bytes=max_message_bytes)
        self._posts = Posts(self._session)
        self._requests: dict[int, _Request] = {}
        """Those not answered yet."""
        self._state = _State.OPENING
        self._stream = _Stream(self, self._session)
        self._fault = Fault(FaultKind.NOT_SENT, "the session has ended")
        """What requests fail with once it is over."""

    @property
    def has_stream(self) -> bool:
        """Whether the server answered the GET with an event stream."""
        return self._stream.is_open

    async def start(self, receiver: Receiver) -> None:
        self._session.receiver = receiver
        self._stream.start()

    def request(self, request_id: int, message: bytes) -> Sent:
        request = _Request(self._session, self._requests, request_id, message)
        match self._state:
            case _State.OPENING:
                pass
            case _State.OPEN:
                self._posts.follow(request.start)
            case _State.ENDING | _State.OVER:
                request.fail(self._fault)
        return request

    def post(self, message: bytes) -> None:
        if self._state is _State.OPEN:
            self._posts.send(message)

    def answered_elsewhere(self, request_id: int) -> None:
        request = self._requests.pop(request_id, None)
        if request is not None:
            request.answered()

    def established(self, protocol_version: str) -> None:
        self._session.establish(protocol_version)
        if self._state is _State.OPEN:
            self._session.receiver.push_stream(True)

    async def close(self) -> None:
        """Leave the stream, which is all that ends a session of this kind, once the server has taken what was sent.

        Never raises but `CancelledError`; cancelled, it leaves at once.
        """
        try:
            if self._state is _State.OPEN:
                self._state = _State.ENDING
                for request in list(self._requests.values()):
                    request.drop()
                await self._posts.finish()
        finally:
            self._stop()

    def terminate(self) -> None:
        self._stop()

    # What the stream reports.

    def found(self, endpoint: str) -> None:
        """The server named the endpoint: what waits for it goes there."""
        self._session.found(endpoint)
        self._state = _State.OPEN
        for request in list(self._requests.values()):
            request.start()

    def refused(self, fault: Fault) -> None:
        """There is no session to be had."""
        self._fault = fault
        requests = list(self._requests.values())
        self._stop()
        for request in requests:
            request.fail(fault)

    def ended(self, fault: Fault) -> None:
        """The stream ended, and with it the session."""
        receiver, requests = self._session.receiver, list(self._requests.values())
        was_open = self._state is _State.OPEN
        self._stop()
        if not was_open:
            return
        for request in requests:
            if not request.is_begun:
                request.fail(Fault(FaultKind.NOT_SENT, fault.detail))
        receiver.lost(fault)

    def overflowed(self) -> None:
        """A message was too large to read, and so is all that follows."""
        session = self._session
        detail = f"a message of {session.client.peer} is larger than {session.max_message_bytes} bytes"
        if len(self._requests) == 1:
            ((request_id, request),) = self._requests.items()
            request.drop()
            session.receiver.failed(request_id, Fault(FaultKind.INVALID, detail))
        self.ended(Fault(FaultKind.GONE, detail))

    def received(self, message: bytes) -> None:
        """A message of the server."""
        if self._state is not _State.OPEN:
            return
        receiver, peer = self._session.receiver, self._session.client.peer
        if jsonrpc.is_utf8(message) and not jsonrpc.is_too_long_an_array(message):
            receiver.received(message, None)
            return
        answered = Oversized.of(message).answered_id
        logger.warning("%s sent an event that cannot be read: it was skipped", peer)
        if answered is not None:
            receiver.failed(answered, Fault(FaultKind.INVALID, f"{peer} sent an answer that is no UTF-8"))

    def _stop(self) -> None:
        self._state = _State.OVER
        self._posts.stop()
        self._requests.clear()
        self._session.stop()


class _Refusal:
    """An answer that refuses a request, while its body is read."""

    def __init__(self, session: HttpSession, status: int, headers: Mapping[str, str]) -> None:
        self._session = session
        self._status = status
        self._media = media_type(headers.get("content-type"))
        self._is_readable = is_readable(headers)
        self._location = headers.get("location", "")
        self._body: list[bytes] = []
        self._size = 0

    def is_enough(self, chunk: bytes) -> bool:
        """Take the next part of the body; True where no more of it is wanted."""
        self._body.append(chunk)
        self._size += len(chunk)
        return self._size > MAX_REFUSAL_BYTES

    @property
    def fault(self) -> Fault:
        """What became of the request."""
        session, status, body = self._session, self._status, b"".join(self._body)
        error = error_of(body) if self._size <= MAX_REFUSAL_BYTES else None
        text = body if error is None else jsonrpc.error_message(error).encode(errors="replace")
        said = session.said(status, text, is_readable=self._is_readable)
        kind, detail = refusal_kind(status), session.answered(status)
        if kind is None and 300 <= status < 400:
            kind, detail = FaultKind.INVALID, f"{detail} and points to {readable_path(self._location)}"
        elif kind is None and session.is_refusal(status):
            kind, detail = FaultKind.REFUSED, f"{detail} to a request of the session"
        elif kind is None:
            kind, detail = FaultKind.INVALID, session.foreign(status, self._media)
        if said and not session.is_established:
            return Fault(kind, f"{detail}: {said}", error)
        return Fault(kind, detail, error, said)


class _Stream:
    """The GET that is the session."""

    def __init__(self, link: LegacySseLink, session: HttpSession) -> None:
        self.is_open = False
        self._link = link
        self._session = session
        self._target = session.target
        self._exchange: HttpExchange | None = None
        self._timer: Timer | None = None
        self._events: SseParser | None = None
        self._refusal: _Refusal | None = None
        self._has_endpoint = False
        self._is_redirected = False
        self._is_over = False
        session.activities[self] = None

    def start(self) -> None:
        session = self._session
        headers = session.stream_headers(None)
        self._exchange = session.client.request("GET", self._target, headers, None, self)

    def drop(self) -> None:
        self._is_over = True
        self._session.activities.pop(self, None)
        self._stop_waiting()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abort()

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        session = self._session
        is_stream = status == 200 and media_type(headers.get("content-type")) == EVENT_STREAM
        if is_stream and headers.get("content-encoding", "identity").lower() == "identity":
            self.is_open = True
            self._events = SseParser(session.max_message_bytes)
            self._timer = session.clock.call_later(ENDPOINT_TIMEOUT, self._give_up)
            return
        target = same_origin_target(session.client, self._target, headers.get("location", ""))
        if status in {301, 302, 303, 307, 308} and target is not None and not self._is_redirected:
            self._is_redirected = True
            self._target = target
            exchange, self._exchange = self._exchange, None
            if exchange is not None:
                exchange.abort()
            self.start()
            return
        self._refusal = _Refusal(session, status, headers)

    def body(self, chunk: bytes) -> None:
        if self._refusal is not None:
            if self._refusal.is_enough(chunk):
                self._refuse(self._refusal.fault)
            return
        if self._events is None:
            return
        try:
            events = self._events.feed(chunk)
        except EventTooLarge:
            self._overflow()
            return
        for event in events:
            if self._is_over:
                return
            self._take(event)

    def end(self) -> None:
        self._ended(f"{self._session.client.peer} ended its event stream")

    def failed(self, fault: HttpFault) -> None:
        if fault.has_answer:
            self._ended(fault.detail)
        elif not fault.is_sent:
            self._refuse(Fault(FaultKind.NOT_SENT, fault.detail))
        else:
            self._refuse(Fault(FaultKind.INVALID if fault.is_malformed else FaultKind.CUT, fault.detail))

    def _ended(self, detail: str) -> None:
        self._exchange = None
        if self._refusal is not None:
            self._refuse(self._refusal.fault)
        elif not self._has_endpoint:
            self._refuse(Fault(FaultKind.CUT, f"{detail} before it named the endpoint for messages"))
        else:
            self._link.ended(Fault(FaultKind.GONE, detail))

    def _refuse(self, fault: Fault) -> None:
        self.drop()
        self._link.refused(fault)

    def _overflow(self) -> None:
        if self._has_endpoint:
            self._link.overflowed()
        else:
            self._refuse(Fault(FaultKind.INVALID, f"the first event of {self._session.client.peer} is too large"))

    def _give_up(self) -> None:
        what = f"{self._session.client.peer} opened an event stream and named no endpoint for messages"
        self._refuse(Fault(FaultKind.INVALID, f"{what} within {ENDPOINT_TIMEOUT:g} s"))

    def _take(self, event: SseEvent) -> None:
        if event.event == "message" and event.data and self._has_endpoint:
            self._link.received(event.data)
        elif event.event == "endpoint" and not self._has_endpoint:
            self._find(event.data.decode(errors="replace").strip())

    def _find(self, uri: str) -> None:
        endpoint = same_origin_target(self._session.client, self._target, uri)
        if endpoint is None:
            what = f"{self._session.client.peer} wants messages at an endpoint of another origin"
            self._refuse(Fault(FaultKind.INVALID, f"{what} than its stream's, and gets none there"))
            return
        self._has_endpoint = True
        self._stop_waiting()
        self._link.found(endpoint)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Request:
    """One request: the POST that carries it. Its answer comes on the stream."""

    def __init__(self, session: HttpSession, requests: dict[int, _Request], request_id: int, message: bytes) -> None:
        self.is_begun = False
        """It was given to the HTTP client."""
        self._session = session
        self._requests = requests
        self._request_id = request_id
        self._message = message
        self._exchange: HttpExchange | None = None
        self._timer: Timer | None = None
        self._refusal: _Refusal | None = None
        self._is_accepted = False
        self._is_over = False
        self._size = 0
        requests[request_id] = self
        session.activities[self] = None

    def start(self) -> None:
        """Send the POST; nothing where the request was cancelled meanwhile."""
        session = self._session
        if not self._is_over and not self.is_begun:
            self.is_begun = True
            self._exchange = session.client.send(session.post_head, self._message, self)

    def cancel(self, reason: str) -> None:  # noqa: ARG002 - the conversation tells the server why
        self.drop()

    def pause(self) -> None:
        """Do nothing: all answers of the session share one stream."""

    def resume(self) -> None:
        """Do nothing."""

    def answered(self) -> None:
        """The answer came: the POST may end in good order, but soon."""
        if self._exchange is None:
            self.drop()
        else:
            self._is_accepted = True
            self._timer = self._session.clock.call_later(LINGER, self.drop)

    def drop(self) -> None:
        """End at once; the receiver hears nothing more of this request."""
        self._is_over = True
        self._session.activities.pop(self, None)
        if self._requests.get(self._request_id) is self:
            del self._requests[self._request_id]
        if self._timer is not None:
            self._timer.cancel()
        self._leave()

    def fail(self, fault: Fault) -> None:
        """Report that no answer comes."""
        self.drop()
        self._session.receiver.failed(self._request_id, fault)

    # The HTTP client's side.

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        if not 200 <= status < 300:
            self._refusal = _Refusal(self._session, status, headers)
            return
        self._is_accepted = True
        if media_type(headers.get("content-type")) == EVENT_STREAM:
            self._leave()  # it may never end

    def body(self, chunk: bytes) -> None:
        if self._refusal is not None:
            if self._refusal.is_enough(chunk):
                self._leave()
                self._ended()
            return
        self._size += len(chunk)
        if self._size > MAX_REFUSAL_BYTES:
            self._leave()

    def end(self) -> None:
        self._exchange = None
        self._ended()

    def failed(self, fault: HttpFault) -> None:
        self._exchange = None
        if self._is_accepted or self._refusal is not None:
            self._ended()
        elif not fault.is_sent:
            self.fail(Fault(FaultKind.NOT_SENT, fault.detail))
        else:
            self.fail(Fault(FaultKind.INVALID if fault.is_malformed else FaultKind.CUT, fault.detail))

    def _ended(self) -> None:
        """The POST was answered in full."""
        if self._timer is not None:
            self.drop()  # the request was answered before
        elif self._refusal is not None:
            self._refused(self._refusal.fault)

    def _refused(self, fault: Fault) -> None:
        if fault.error is None or fault.kind is not FaultKind.INVALID:
            self.fail(fault)
            return
        receiver, error = self._session.receiver, Raw(jsonrpc.error(b"%d" % self._request_id, fault.error))
        self.drop()
        receiver.received(bytes(error), None)

    def _leave(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abort()
