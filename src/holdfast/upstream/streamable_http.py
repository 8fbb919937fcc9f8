"""Streamable HTTP upstream: the bytes of one handshake-era session (2025-03-26 to 2025-11-25).

Every request is a POST of its own (`streamable_request.py`); pushes come over one GET.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum, auto
from typing import Final

from holdfast.clock import Clock, Timer, timeout
from holdfast.config import MAX_MESSAGE_BYTES
from holdfast.upstream.http1 import HttpClient, HttpExchange, HttpFault, header_block
from holdfast.upstream.http_posts import Posts
from holdfast.upstream.streamable_answer import resumable
from holdfast.upstream.streamable_request import RETRY, Request
from holdfast.upstream.streamable_session import HttpSession, Underway
from holdfast.upstream.transport import Fault, FaultKind, Receiver, Sent
from holdfast.wire.headers import EVENT_STREAM, media_type
from holdfast.wire.jsonrpc import is_too_long_an_array, is_utf8
from holdfast.wire.sse import EventTooLarge, SseParser

CLOSE_TIMEOUT: Final = 2.0
"""How long the DELETE at the end may take, once what was sent before has been taken."""

UNCLAIMED_TIMEOUT: Final = 30.0
"""How long the answer to an `initialize` that was given up is awaited, so that its session can be ended."""

PUSH_STABLE_AFTER: Final = 30.0
"""A push stream that lived shorter counts as a failure, however cleanly it ended."""

PUSH_BACKOFF: Final = 2.0
PUSH_BACKOFF_MAX: Final = 600.0
"""Doubling from the one to the other, each halved at most by jitter: ten GETs take ten minutes."""


_INITIALIZE: Final = header_block([("mcp-method", "initialize")])
"""Of the one request that a server may get which speaks 2026-07-28, where every request bears its method (SEP-2243)."""


class _State(Enum):
    OPEN = auto()
    ENDING = auto()
    """What was sent before is delivered; nothing more is taken."""
    OVER = auto()


_OPEN: Final = _State.OPEN
"""By this name: to find a member of an enum takes Python 3.11 as long as two calls."""


class StreamableHttpLink:
    """A `Link` over an `HttpClient` that all sessions of a server may share; it closes only what is its own.

    `target` is the endpoint's path and query, `configured` the operator's headers; both are
    checked here, with `ValueError`. `jitter` returns 0 to 1.
    """

    def __init__(
        self,
        client: HttpClient,
        target: str,
        configured: Mapping[str, str],
        clock: Clock,
        *,
        wants_push: bool,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._session = HttpSession(
            client, target, configured, clock=clock, max_message_bytes=max_message_bytes, jitter=jitter
        )
        self._wants_push = wants_push
        self._posts = Posts(self._session)
        self._state = _OPEN

    @property
    def may_be_legacy(self) -> bool:
        """`initialize` was refused as by a server that speaks only the transport of 2024-11-05, or no MCP."""
        return self._session.may_be_legacy

    @property
    def is_stateless(self) -> bool:
        """The server gave the session no id."""
        return self._session.id is None

    async def start(self, receiver: Receiver) -> None:
        self._session.receiver = receiver

    def request(self, request_id: int, message: bytes) -> Sent:
        session = self._session
        if session.first is None:
            request = Request(session, request_id, message, _INITIALIZE)
        else:
            request = Request(session, request_id, message)
        if self._state is not _OPEN:
            request.refuse("the session has ended")
            return request
        if session.first is None:
            session.first = request
        if self._posts.is_holding:
            session.requests[request_id] = request  # to be dropped with the session
            self._posts.follow(request.start)
        else:
            request.start()
        return request

    def post(self, message: bytes) -> None:
        if self._is_open:
            self._posts.send(message)

    def answered_elsewhere(self, request_id: int) -> None:
        request = self._session.requests.get(request_id)
        if request is not None:
            request.answered_elsewhere()

    def established(self, protocol_version: str) -> None:
        self._session.establish(protocol_version)
        if self._wants_push and self._is_open:
            _PushStream(self._session).start()

    async def close(self) -> None:
        """End the session at the server once it has taken what was sent, both within seconds.

        Never raises but `CancelledError`; cancelled, it drops everything at once.
        """
        if not self._is_open:
            return
        self._state = _State.ENDING
        first = self._session.first
        unclaimed = _Unclaimed(self._session, first) if first is not None and first.awaits_answer else None
        self._session.stop()
        try:
            await self._posts.finish()
            if unclaimed is not None:
                await self._wait_for(unclaimed.ended)
            elif self._session.id is not None and not self._is_over:
                ended = asyncio.Event()
                _Farewell(self._session, ended.set)
                await self._wait_for(ended)
        finally:
            self.terminate()

    def terminate(self) -> None:
        self._state = _State.OVER
        self._posts.stop()
        self._session.stop()

    @property
    def _is_open(self) -> bool:
        return self._state is _OPEN

    @property
    def _is_over(self) -> bool:
        return self._state is _State.OVER

    async def _wait_for(self, ended: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with timeout(self._session.clock, CLOSE_TIMEOUT):
                await ended.wait()


class _PushStream:
    """The GET stream of a session, opened again and again, but never often."""

    def __init__(self, session: HttpSession) -> None:
        self._session = session
        self._exchange: HttpExchange | None = None
        self._timer: Timer | None = None
        self._events: SseParser | None = None
        """Only while the stream is open."""
        self._opened_at = 0.0
        self._failures = 0
        self._retry: float | None = None
        self._last_event_id: str | None = None
        self._is_over = False
        session.activities[self] = None

    def start(self) -> None:
        session = self._session
        headers = session.stream_headers(self._last_event_id)
        self._exchange = session.client.request("GET", session.target, headers, None, self)

    def drop(self) -> None:
        self._is_over = True
        self._session.activities.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
        self._abort()

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        session = self._session
        if status == 200 and media_type(headers.get("content-type")) == EVENT_STREAM:
            self._events = SseParser(session.max_message_bytes)
            self._opened_at = session.clock.now()
            session.receiver.push_stream(True)
        elif status >= 500 or status in {408, 409, 429}:  # 409: the old stream is not known to be gone
            self._abort()
            self._ended(is_clean=False)
        else:
            self.drop()  # most often 405: this server has no pushes
            if session.is_refusal(status):
                detail = f"{session.answered(status)} to the opening of the push stream"
                session.receiver.suspected(Fault(FaultKind.REFUSED, detail))

    def body(self, chunk: bytes) -> None:
        if self._events is None:
            return
        try:
            events = self._events.feed(chunk)
        except EventTooLarge:
            self._abort()
            self._ended(is_clean=False)
            return
        if self._events.retry_ms is not None:
            self._retry = self._events.retry_ms / 1000
        for event in events:
            if self._is_over:
                return
            if event.id is not None:
                self._last_event_id = resumable(event.id)
            if not event.data or event.event != "message":
                continue
            if is_utf8(event.data) and not is_too_long_an_array(event.data):
                self._session.receiver.received(event.data, None)

    def end(self) -> None:
        self._exchange = None
        self._ended(is_clean=True)

    def failed(self, fault: HttpFault) -> None:  # noqa: ARG002 - whatever it was, it is tried again
        self._exchange = None
        self._ended(is_clean=False)

    def _ended(self, *, is_clean: bool) -> None:
        session = self._session
        was_open, self._events = self._events is not None, None
        if was_open and session.clock.now() - self._opened_at >= PUSH_STABLE_AFTER:
            self._failures = 0
        asked = min(RETRY if self._retry is None else self._retry, PUSH_BACKOFF_MAX)
        if is_clean and was_open and self._failures == 0:
            delay = asked * (1 + 0.25 * session.jitter())
        else:
            backoff = min(PUSH_BACKOFF * 2**self._failures, PUSH_BACKOFF_MAX)
            delay = max(backoff * (0.5 + 0.5 * session.jitter()), asked)
        self._failures = min(self._failures + 1, 32)
        self._timer = session.clock.call_later(delay, self.start)
        if was_open:
            session.receiver.push_stream(False)

    def _abort(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abort()


class _Unclaimed:
    """An `initialize` under way whose answer nobody waits for any more: the session that it begins is ended.

    It goes on behind the link, since a slow server may begin the session after that was closed.
    """

    def __init__(self, session: HttpSession, first: Underway) -> None:
        self.ended = asyncio.Event()
        self._session = session
        self._first = first
        first.outlive_session()
        session.on_begun = self._begun
        session.on_dropped = self._failed
        self._timer = session.clock.call_later(UNCLAIMED_TIMEOUT, self._give_up)

    def _begun(self) -> None:
        self._session.on_begun = self._session.on_dropped = None
        asyncio.get_running_loop().call_soon(self._first.drop)  # it is being told of its answer right now
        self._timer.cancel()
        if self._session.id is None:
            self.ended.set()
            return
        farewell = _Farewell(self._session, self._taken)
        self._session.activities.pop(farewell, None)  # the link may be closed before this is taken
        self._timer = self._session.clock.call_later(CLOSE_TIMEOUT, farewell.drop)

    def _taken(self) -> None:
        self._timer.cancel()
        self.ended.set()

    def _failed(self) -> None:
        """No session has begun."""
        self._session.on_begun = self._session.on_dropped = None
        self._timer.cancel()
        self.ended.set()

    def _give_up(self) -> None:
        self._first.drop()


class _Farewell:
    """The DELETE that ends a session; how the server takes it does not matter."""

    def __init__(self, session: HttpSession, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._session = session
        session.activities[self] = None
        self._exchange = session.client.request("DELETE", session.target, session.headers, None, self)

    def drop(self) -> None:
        self._session.activities.pop(self, None)
        self._exchange.abort()
        self._ended()

    def head(self, status: int, headers: Mapping[str, str]) -> None: ...

    def body(self, chunk: bytes) -> None: ...

    def end(self) -> None:
        self._ended()

    def failed(self, fault: HttpFault) -> None:  # noqa: ARG002 - the session will expire there
        self._ended()
