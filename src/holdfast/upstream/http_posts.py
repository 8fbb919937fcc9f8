"""The notifications and replies of a session over HTTP: each is a POST that the server only accepts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from holdfast.clock import Timer, timeout
from holdfast.upstream.http1 import HttpExchange, HttpFault
from holdfast.upstream.streamable_session import MAX_REFUSAL_BYTES, HttpSession
from holdfast.upstream.transport import Fault, FaultKind
from holdfast.wire.headers import EVENT_STREAM, media_type

INITIALIZED_TIMEOUT: Final = 5.0
"""How long requests wait for the server to take `notifications/initialized`."""

POST_TIMEOUT: Final = 30.0
"""How long the server may take to accept a notification or reply; nobody waits, but a connection is taken."""

DELIVERY_TIMEOUT: Final = 1.5
"""How long the end of a session waits for the server to take what was sent before."""

MAX_POSTS: Final = 64
"""Notifications and replies of one session that may be unanswered at once."""


class Posts:
    """Those of one session, and the requests that wait until the first of them was taken."""

    def __init__(self, session: HttpSession) -> None:
        self._session = session
        self._posts: dict[_Post, None] = {}
        """Those not answered yet, the oldest first."""
        self._emptied = asyncio.Event()
        """Set when the last of them has ended."""
        self._has_posted = False
        self.is_holding = False
        """Requests wait for the first message to be taken."""
        self._held: list[Callable[[], None]] = []
        self._hold_timer: Timer | None = None

    def send(self, message: bytes) -> None:
        """Send a message; beyond `MAX_POSTS` the oldest is given up."""
        if len(self._posts) >= MAX_POSTS:
            next(iter(self._posts)).give_up()
        post = _Post(self._session, message, self._leave)
        self._posts[post] = None
        self._emptied.clear()
        if not self._has_posted:
            # The first is `notifications/initialized`. Servers refuse requests that overtake it,
            # and it has its own connection.
            self._has_posted = True
            self.is_holding = True
            self._hold_timer = self._session.clock.call_later(INITIALIZED_TIMEOUT, self._let_go)
            post.when_ended(self._let_go)
        post.start()

    def follow(self, start: Callable[[], None]) -> None:
        """Start a request that must not overtake the first message: at once, or when that was taken."""
        if self.is_holding:
            self._held.append(start)
        else:
            start()

    async def finish(self) -> None:
        """Return when the server has taken everything, or does not within `DELIVERY_TIMEOUT` seconds.

        A cancellation that the end of the session overtakes is lost, and the server works on. Requests
        that wait are not started. `stop` ends this; so does cancellation, which drops the rest.
        """
        self._forget_held()
        try:
            if self._posts:
                with suppress(TimeoutError):
                    async with timeout(self._session.clock, DELIVERY_TIMEOUT):
                        await self._emptied.wait()
        finally:
            self.stop()

    def stop(self) -> None:
        """Drop everything; what waits is not started."""
        self._forget_held()
        for post in list(self._posts):
            post.drop()

    def _leave(self, post: _Post) -> None:
        self._posts.pop(post, None)
        if not self._posts:
            self._emptied.set()

    def _forget_held(self) -> None:
        self._held.clear()
        if self._hold_timer is not None:
            self._hold_timer.cancel()

    def _let_go(self) -> None:
        self.is_holding = False
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        held, self._held = self._held, []
        for start in held:
            start()


class _Post:
    """A notification or reply; `left` is called when it is answered or given up."""

    def __init__(self, session: HttpSession, message: bytes, left: Callable[[_Post], None]) -> None:
        self._session = session
        self._message = message
        self._left = left
        self._timer: Timer | None = None
        self._exchange: HttpExchange | None = None
        self._when_ended: Callable[[], None] | None = None
        self._is_repeated = False
        self._size = 0

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Run `callback` when the server has taken the message, or never will."""
        self._when_ended = callback

    def start(self) -> None:
        self._timer = self._session.clock.call_later(POST_TIMEOUT, self.give_up)
        self._send()

    def give_up(self) -> None:
        """End at once, answered or not."""
        callback = self._when_ended
        self.drop()
        if callback is not None:
            callback()

    def drop(self) -> None:
        """As `give_up`, and tell nobody."""
        self._left(self)
        self._when_ended = None
        if self._timer is not None:
            self._timer.cancel()
        if self._exchange is not None:
            self._exchange.abort()

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        session = self._session
        if session.is_refusal(status):
            detail = f"{session.answered(status)} to a message of the session"
            session.receiver.suspected(Fault(FaultKind.REFUSED, detail))
        if media_type(headers.get("content-type")) == EVENT_STREAM:
            self.give_up()  # a stream behind a notification may never end

    def body(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > MAX_REFUSAL_BYTES:
            self.give_up()

    def end(self) -> None:
        self._exchange = None
        self.give_up()

    def failed(self, fault: HttpFault) -> None:
        self._exchange = None
        if fault.is_sent or self._is_repeated:
            self.give_up()
        else:
            self._is_repeated = True
            self._send()

    def _send(self) -> None:
        session = self._session
        self._exchange = session.client.send(session.post_head, self._message, self)
