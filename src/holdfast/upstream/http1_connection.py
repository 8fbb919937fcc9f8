"""One HTTP/1.1 connection to a server, the request that runs on it, and who takes the answer."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, cast

from msgspec import Struct

from holdfast.upstream.http1_connecting import reason
from holdfast.upstream.http1_response import KnownHead, KnownHeads, ResponseReader

# A peer that vanished is noticed within 10 s: probes after 4, 6 and 8 s, given up at 8.
_SOCKET_OPTIONS: Final = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 4),  # Linux
    (socket.IPPROTO_TCP, "TCP_KEEPALIVE", 4),  # macOS
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 2),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 2),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 8000),  # milliseconds; Linux
)


@dataclass(frozen=True, slots=True)
class HttpFault:
    """Why a request has no whole answer. `detail` is a sentence without headers or bodies."""

    is_sent: bool
    """False: provably no byte of the request was written."""
    has_answer: bool
    """The head of the answer was given to the sink before."""
    detail: str
    is_malformed: bool = False
    """Something came, but it is not HTTP/1.1 within our limits."""


class ResponseSink(Protocol):
    """Takes one answer: `head`, any number of `body`, then `end`; or `failed` at any point.

    Never called from within `HttpClient.request`, nor after `HttpExchange.abort`. Interim (1xx)
    answers are skipped.
    """

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """The status and headers; names in lower case, repeated ones joined by a comma."""

    def body(self, chunk: bytes) -> None:
        """The next part of the body, not empty."""

    def end(self) -> None:
        """The answer is complete."""

    def failed(self, fault: HttpFault) -> None:
        """There will be no more of it."""


class FamiliarSink(ResponseSink, Protocol):
    """Takes an answer like those before it whole."""

    def whole(self, head: KnownHead, body: bytes) -> None:
        """An answer whose head came before, in place of `head`, `body` and `end`; the body is not empty."""


class HttpExchange(Protocol):
    """One request under way."""

    @property
    def is_sent(self) -> bool:
        """Some of the request was written, and its answer is awaited."""
        ...

    def abort(self) -> None:
        """Drop the exchange with its connection; the sink is not called again. Idempotent."""

    def pause(self) -> None:
        """Stop reading; at most what was already received still reaches the sink."""

    def resume(self) -> None:
        """Read on."""


class Exchange(Struct, eq=False):
    """An `HttpExchange`: on its connection, or on its way to one."""

    request: bytes
    """What is written."""
    rest: bytes | None
    """What is written behind it: a body that is too large to be copied."""
    sink: ResponseSink
    familiar: FamiliarSink | None = None
    """The sink, where it takes whole answers that begin with one of `heads`."""
    heads: KnownHeads | None = None
    connection: Connection | None = None
    connecting: asyncio.Task[None] | None = None
    is_over: bool = False
    is_paused: bool = False

    @property
    def is_sent(self) -> bool:
        return self.connection is not None and not self.is_over

    def abort(self) -> None:
        self.is_over = True
        if self.connection is not None:
            self.connection.drop()
        elif self.connecting is not None:
            self.connecting.cancel()

    def pause(self) -> None:
        self.is_paused = True
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        self.is_paused = False
        if self.connection is not None:
            self.connection.resume()

    def fail(self, fault: HttpFault) -> None:
        if not self.is_over:
            self.is_over = True
            self.connection = None
            self.sink.failed(fault)


class Connection(asyncio.Protocol):
    """One TCP or TLS connection: idle, or busy with one exchange."""

    def __init__(
        self,
        peer: str,
        released: Callable[[Connection, float], None],
        lost: Callable[[Connection], None],
        *,
        is_tls: bool,
    ) -> None:
        """`released` is told for how many seconds it may be kept after the answer that it has just read."""
        self.idle_since = 0.0
        self.expires_at = 0.0
        """Both are instants of the client's clock, and mean something while idle."""
        self.transport: asyncio.Transport | None = None
        self.is_paused = False
        self._peer = peer
        self._released = released
        self._lost = lost
        self._is_tls = is_tls
        self._fd = -1
        self._reader = ResponseReader()
        self._has_read = False
        """The reader has been given some of the present answer."""
        self._exchange: Exchange | None = None
        self._known: KnownHead | None = None
        """The head of the present answer, where that is gathered until it is whole."""
        self._gathered: list[bytes | memoryview] = []
        self._missing = 0
        """Bytes of it that are still to come."""

    def begin(self, exchange: Exchange) -> bool:
        """Write the request. False where the connection is dead and took no byte of it."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        if self._has_read:
            self._has_read = False
            self._reader.begin()
        self._exchange = exchange
        exchange.connection = self
        if exchange.is_paused:
            self.pause()
        if exchange.rest is None:
            transport.write(exchange.request)
        else:
            transport.writelines((exchange.request, exchange.rest))
        if transport.is_closing() and not self._is_tls:
            # The first send of an empty buffer failed: nothing reached the socket. A TLS transport
            # may have sent records before the one that failed.
            self._exchange = exchange.connection = None
            return False
        return True

    def is_stale(self) -> bool:
        """Whether the idle connection has ended, or something arrived that nobody asked for."""
        if self.transport is None or self.transport.is_closing():
            return True
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        return bool(poller.poll(0))

    def drop(self) -> None:
        """Close at once; an exchange on it hears nothing of it."""
        if self._exchange is not None:
            self._exchange.connection = None
            self._exchange = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.abort()

    def fail(self, detail: str, *, is_malformed: bool = False) -> None:
        """Close at once; an exchange on it fails."""
        exchange, has_head = self._exchange, self._reader.has_head
        self.drop()
        if exchange is not None:
            exchange.fail(HttpFault(is_sent=True, has_answer=has_head, detail=detail, is_malformed=is_malformed))

    def pause(self) -> None:
        """Stop reading from the socket."""
        if not self.is_paused and self.transport is not None and not self.transport.is_closing():
            self.is_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.is_paused and self.transport is not None and not self.transport.is_closing():
            self.is_paused = False
            self.transport.resume_reading()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        raw: socket.socket = transport.get_extra_info("socket")
        self._fd = raw.fileno()
        for level, name, value in _SOCKET_OPTIONS:
            option = getattr(socket, name, None)
            if option is not None:
                with contextlib.suppress(OSError):  # the peer may have left already
                    raw.setsockopt(level, option, value)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self.drop()  # an answer to nothing
            return
        heads, familiar = exchange.heads, exchange.familiar
        if heads is None or familiar is None or self._has_read:
            self._read(exchange, data)
        elif self._missing:
            self._gather(exchange, familiar, data)
        elif (found := heads.recall(data)) is None:
            self._read(exchange, data)
        else:
            known, start, length = found
            missing = start + length - len(data)
            if missing < 0 or not 0 < length <= heads.max_body_bytes:
                self._read(exchange, data)
            elif missing:
                self._known, self._missing = known, missing
                self._gathered.append(memoryview(data)[start:])
            else:
                self._exchange = exchange.connection = None
                exchange.is_over = True
                self._released(self, known.keep_for)
                familiar.whole(known, data[start:])

    def _gather(self, exchange: Exchange, familiar: FamiliarSink, data: bytes) -> None:
        """Take more of an answer whose head came before, and pass it on when it is whole."""
        known, missing = self._known, self._missing
        has_excess = len(data) > missing
        self._gathered.append(memoryview(data)[:missing] if has_excess else data)
        self._missing = max(0, missing - len(data))
        if self._missing or known is None:
            return
        body = b"".join(self._gathered)
        self._known = None
        self._gathered.clear()
        self._exchange = exchange.connection = None
        exchange.is_over = True
        self._released(self, 0.0 if has_excess else known.keep_for)
        familiar.whole(known, body)

    def _read(self, exchange: Exchange, data: bytes) -> None:
        """Let the parser read on."""
        reader = self._reader
        problem = reader.feed(data)
        if not self._has_read:
            self._has_read = True
            if exchange.heads is not None and problem is None:
                exchange.heads.learn(data, reader)
        self._pass_on(exchange, reader)
        if exchange.is_over:
            return
        if reader.is_complete:
            self._complete(exchange, 0.0 if reader.has_excess else reader.keep_for)
        elif problem is not None:
            self.fail(f"the answer of {self._peer} cannot be read: {problem}", is_malformed=True)

    def _pass_on(self, exchange: Exchange, reader: ResponseReader) -> None:
        """Give the sink what has been read of the answer."""
        head, reader.news = reader.news, None
        if head is not None:
            exchange.sink.head(*head)
        if reader.chunks:
            chunks, reader.chunks = reader.chunks, []
            for chunk in chunks:
                if exchange.is_over:
                    return
                exchange.sink.body(chunk)

    def eof_received(self) -> None:
        self._ended(f"{self._peer} closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self._ended(f"the connection to {self._peer} was closed")
        else:
            self.fail(f"the connection to {self._peer} was lost ({reason(exc)})")
        self._lost(self)

    def _ended(self, detail: str) -> None:
        exchange, reader = self._exchange, self._reader
        if exchange is not None and reader.has_head and reader.ends_with_connection:
            self._complete(exchange, 0.0)
        else:
            self.fail(detail)

    def _complete(self, exchange: Exchange, keep_for: float) -> None:
        self._exchange = exchange.connection = None
        exchange.is_over = True
        self._released(self, keep_for)
        exchange.sink.end()
