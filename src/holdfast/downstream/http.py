"""One HTTP request and where its answer goes; `AsgiResponder` has ASGI below.

A `Responder` is written to by callbacks; `AsgiResponder.run` is the only coroutine on the way.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import unquote

from msgspec import Struct

from holdfast.clock import Bound, Clock, Timer
from holdfast.tasks import TaskScope

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
Abort: TypeAlias = Callable[[], None]

JOIN_LIMIT: Final = 64 * 1024
"""Bytes: bodies up to this go out in one piece; larger parts are not copied together."""
QUEUE_LIMIT: Final = 128 * 1024
"""Bytes of a stream that wait for a slow reader before what may be dropped is dropped; the sockets hold MiB before."""
QUEUE_LENGTH: Final = 256
STALL_TIMEOUT: Final = 30.0
"""Seconds without a byte taken before a stalled reader is given up."""
ABORT: Final = "dev.holdfast.abort"
"""The ASGI extension with which a server lets us drop a connection: closed, it would wait for the stalled reader."""
_PROCESS: Final = secrets.token_hex(3)
_numbers = itertools.count(1)
WATCH_AFTER: Final = 0.1
"""Seconds: an answer that comes sooner needs nobody to watch whether the client leaves."""


def next_request_id() -> str:
    """An id that no other request has."""
    return f"{_PROCESS}-{next(_numbers):x}"


class Head(Struct, frozen=True):
    """A request before its body, as it came; header names are in lower case."""

    method: str
    path: bytes
    """As it stands in the request, without the query."""
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]


def segments(path: str) -> list[str]:
    """The segments of a path, decoded; one that is no UTF-8 is none that we serve."""
    parts = path.strip("/").split("/")
    if "%" not in path:
        return parts
    try:
        return [unquote(part, errors="strict") for part in parts]
    except UnicodeDecodeError:
        return [""]  # names that differ must not become one


class Request(Struct):
    """What a client sent. Header names are in lower case; `accept` is joined where it is repeated.

    Of other repeated headers that are not refused the first counts.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
    query: str = ""
    id: str = ""
    """Names the request in the log and in the answer's `X-Request-Id`."""


class Responder(Protocol):
    """Where the answer to one HTTP request goes. Calls after its end are ignored."""

    on_gone: Callable[[], None] | None
    """Called once if the client leaves, or stalls too long, before the answer has ended."""
    on_drained: Callable[[], None] | None
    """Called when a reader that `is_slow` has caught up."""

    @property
    def is_gone(self) -> bool:
        """The client has left, or the answer has ended."""
        ...

    @property
    def is_slow(self) -> bool:
        """More waits to be read than should: drop what may be dropped."""
        ...

    def watch(self) -> None:
        """Notice from now on if the client leaves, which is else looked for once the answer takes long."""

    def answer(self, status: int, headers: Headers, parts: Iterable[bytes] = ()) -> None:
        """A whole answer."""

    def open(self, headers: Headers) -> None:
        """Begin a stream with status 200."""

    def write(self, chunk: bytes) -> None:
        """A piece of the stream."""

    def end(self) -> None:
        """End the stream."""


class HttpResponder(ABC):
    """What the answers to HTTP requests have in common, whatever they are written to."""

    on_gone: Callable[[], None] | None = None
    on_drained: Callable[[], None] | None = None
    on_begun: Callable[[int], None] | None = None
    """Called with the status once the answer begins."""
    _has_begun = False
    _is_over = False
    """Nothing more is written: the answer is whole, or the client has left."""

    def __init__(self) -> None:
        self.request_id = next_request_id()

    @property
    @abstractmethod
    def peer(self) -> str:
        """The address from which the request came; empty where that is not known."""

    @property
    def is_gone(self) -> bool:
        """See `Responder`."""
        return self._is_over

    @property
    @abstractmethod
    def is_slow(self) -> bool:
        """See `Responder`."""

    @abstractmethod
    def answer(self, status: int, headers: Headers, parts: Iterable[bytes] = ()) -> None:
        """See `Responder`."""

    @abstractmethod
    def open(self, headers: Headers) -> None:
        """See `Responder`."""

    @abstractmethod
    def write(self, chunk: bytes) -> None:
        """See `Responder`."""

    @abstractmethod
    def end(self) -> None:
        """See `Responder`."""

    def watch(self) -> None:  # noqa: B027 (where a client that leaves is noticed anyway, there is nothing to do)
        """See `Responder`."""

    def cut(self, refuse: Callable[[Responder], None]) -> None:
        """End the answer as it stands, or `refuse` where none has begun; to its owner the client has left."""
        if self._is_over:
            return
        gone, self.on_gone = self.on_gone, None
        if self._has_begun:
            self.end()
        else:
            refuse(self)
        if gone is not None:
            gone()

    def _forget(self) -> None:
        """Hold nothing of what the answer was made from: a connection holds its last answer until the next request."""
        self.on_gone = self.on_drained = self.on_begun = None

    def _begin(self, status: int) -> None:
        self._has_begun = True
        if self.on_begun is not None:
            self.on_begun(status)


class AsgiResponder(HttpResponder):
    """A `Responder` that is emptied by `run` into ASGI's `send`."""

    reader: asyncio.Task[object] | None = None
    """The task that reads the body, while it does."""
    on_read: Callable[[BaseException | None], None] | None = None
    """Called once a body that does not come at once is whole, or with what ended the reading."""
    _bound: Bound | None = None
    """Around `_keep_up`, which ends when the reader stalls."""
    _stall: Timer | None = None
    """Runs while the reader is behind, anew with each piece that it takes."""
    _whole: tuple[Message, Message] | None = None
    """The answer, where it is one and small."""
    _out: deque[Message] | None = None
    """Else what of it is not sent yet."""
    _size = 0
    _wake: asyncio.Future[None] | None = None
    _is_slow = False
    _watch_now: Callable[[], None] | None = None
    """Only while `_keep_up` runs."""
    _is_watched = False

    def __init__(self, clock: Clock, abort: Abort | None = None, client: Sequence[Any] | None = None) -> None:
        """`client` is what ASGI says of the other end: host and port."""
        super().__init__()
        self._client = client
        self._clock = clock
        self._abort = abort

    @property
    def peer(self) -> str:
        return self._client[0] if self._client else ""

    @property
    def is_slow(self) -> bool:
        return self._is_slow

    def watch(self) -> None:
        self._is_watched = True
        if self._watch_now is not None:
            self._watch_now()
        else:
            self._wake_up()

    def answer(self, status: int, headers: Headers, parts: Iterable[bytes] = ()) -> None:
        if self._is_over:
            return
        pieces = parts if isinstance(parts, (list, tuple)) else list(parts)
        size = len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
        if status != 204:  # RFC 9110, section 8.6
            headers = (*headers, (b"content-length", b"%d" % size))
        self._has_begun = True
        if self.on_begun is not None:
            self.on_begun(status)
        start = self._head(status, headers)
        if size > JOIN_LIMIT:
            self._push(start)
            for piece in pieces:
                self._push(_body(bytes(piece), more=True), len(piece))  # a part of the server's answer is none yet
            self._last()
            return
        whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._whole = start, {"type": "http.response.body", "body": whole, "more_body": False}
        self._is_over = True
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    def open(self, headers: Headers) -> None:
        if not self._is_over:
            self._begin(200)
            self._push(self._head(200, headers))
            self._push(_body(b"", more=True))  # a server may keep the head until there is a body

    def write(self, chunk: bytes) -> None:
        if not self._is_over:
            self._push(_body(chunk, more=True), len(chunk))

    def end(self) -> None:
        if not self._is_over:
            self._push(_body(b"", more=True))
            self._last()

    async def run(self, receive: Receive, send: Send, scope: TaskScope) -> None:
        """Send what is written until the answer ends, the client leaves, or it has stalled for too long.

        Whether the client leaves is noticed once `watch` was called.
        """
        try:
            if not self._has_begun and not self._is_over and not self._is_watched:
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake
            if self._whole is not None:
                start, body = self._whole
                await send(start)
                await send(body)
            else:
                await self._keep_up(receive, send, scope)
        except OSError:  # the bound's TimeoutError, or the connection is gone (ASGI HTTP 2.4)
            self._leave()
        except asyncio.CancelledError:
            self._leave()
            raise
        finally:
            self._forget()

    async def _keep_up(self, receive: Receive, send: Send, scope: TaskScope) -> None:
        """Send what is written, as it comes and as fast as it is taken."""
        watch: asyncio.Task[None] | None = None

        def start_watching() -> None:
            nonlocal watch
            if watch is None:
                watch = scope.start(self._watch(receive), "watch for a disconnect")

        self._watch_now = start_watching
        if self._is_watched:
            start_watching()
        self._bound = Bound()
        try:
            async with self._bound:
                while await self._drain(send):
                    self._wake = asyncio.get_running_loop().create_future()
                    await self._wake
        finally:
            self._watch_now = None
            self._stop_stall()
            if watch is not None:
                watch.cancel()

    async def _drain(self, send: Send) -> bool:
        """Send what waits; False once there will be no more."""
        if self._whole is not None:
            for message in self._whole:
                await send(message)
            return False
        while self._out:
            message = self._out.popleft()
            is_last = message["type"] == "http.response.body" and not message["more_body"]
            await send(message)
            size = len(message.get("body", b""))
            if size > JOIN_LIMIT and not is_last:
                await send(_body(b"", more=True))  # uvicorn waits for a piece to be taken at the next one only
            self._size -= size
            if is_last:
                return False
            if self._stall is not None:
                self._taken()
        return not self._is_over

    def _taken(self) -> None:
        """A reader that is behind took a piece."""
        self._stop_stall()
        if self._is_slow and self._size <= QUEUE_LIMIT // 2 and len(self._waiting) <= QUEUE_LENGTH // 2:
            self._is_slow = False
            if self.on_drained is not None:
                self.on_drained()
        if self._is_slow or self._size > JOIN_LIMIT:
            self._fall_behind()

    def _fall_behind(self) -> None:
        if self._size > QUEUE_LIMIT or len(self._waiting) > QUEUE_LENGTH:
            self._is_slow = True
        if self._stall is None:
            self._stall = self._clock.call_later(STALL_TIMEOUT, self._give_up)

    def _stop_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _give_up(self) -> None:
        """Nobody can wait for who takes nothing: not the stream's owner, not `run`, not the connection."""
        self._stall = None
        self._leave()
        if self._abort is not None:
            self._abort()
        if self._bound is not None:
            self._bound.end()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._out is not None:
            self._out.clear()
        self._wake_up()
        if self.on_gone is not None:
            self.on_gone()

    def _head(self, status: int, headers: Headers) -> Message:
        stamped = [*headers, (b"x-request-id", self.request_id.encode())]
        return {"type": "http.response.start", "status": status, "headers": stamped}

    @property
    def _waiting(self) -> deque[Message]:
        if self._out is None:
            self._out = deque()
        return self._out

    def _push(self, message: Message, size: int = 0) -> None:
        out = self._waiting
        out.append(message)
        self._size += size
        if self._size > JOIN_LIMIT or len(out) > QUEUE_LENGTH:
            self._fall_behind()
        self._wake_up()

    def _last(self) -> None:
        """What was written last is the last."""
        self._is_over = True
        self._waiting[-1]["more_body"] = False

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def _body(chunk: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": more}
