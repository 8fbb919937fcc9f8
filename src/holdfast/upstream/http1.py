"""An HTTP/1.1 client for one origin, made of callbacks: a warm request needs no task and no await.

One request at a time per connection, never pipelined. A request is written at most once: the
one exception is a kept connection that was found dead before any byte was written to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import re
import select
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NewType, Protocol, cast
from urllib.parse import urlsplit

from msgspec import Struct

from holdfast.clock import Clock, Timer
from holdfast.tasks import TaskScope
from holdfast.upstream.http1_response import KnownHead, KnownHeads, ResponseReader

CONNECT_TIMEOUT: Final = 10.0
"""Name lookup, TCP and TLS together."""

PROBE_AFTER: Final = 0.2
"""A connection idle for longer is asked for a pending end before reuse; the loop saw to younger ones."""

SMALL_BODY_BYTES: Final = 16 * 1024
"""Up to here copying a body behind its head is cheaper than a second buffer."""

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

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_TARGET: Final = re.compile(r"/[\x21-\x7e]*")
_HOST: Final = re.compile(r"[A-Za-z0-9._:%\[\]-]+")
_CLIENTS_OWN: Final = frozenset(
    {
        "host",
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

HeaderBlock = NewType("HeaderBlock", bytes)
"""Headers that were checked and encoded, each with its line end; blocks may be joined with `+`."""

RequestHead = NewType("RequestHead", bytes)
"""A request's line and headers, from `HttpClient.head`; header blocks may be joined to it with `+`."""


def header_block(headers: Iterable[tuple[str, str]]) -> HeaderBlock:
    """Encode `headers` once for many requests.

    Raises `ValueError` for what could forge a second header or request, and for headers that
    the client itself writes. The text names the header, never its value.
    """
    lines: list[bytes] = []
    for name, value in headers:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is no header name")
        if name.lower() in _CLIENTS_OWN:
            raise ValueError(f"the header {name} is not free to be set")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of the header {name} holds a control character")
        lines.append(f"{name}: {value.strip()}\r\n".encode("utf-8", "surrogateescape"))
    return HeaderBlock(b"".join(lines))


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


class _Exchange(Struct, eq=False):
    parts: tuple[bytes, ...]
    """What is written."""
    sink: ResponseSink
    heads: KnownHeads | None = None
    connection: _Connection | None = None
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


class _Connection(asyncio.Protocol):
    """One TCP or TLS connection: idle, or busy with one exchange."""

    def __init__(
        self,
        peer: str,
        released: Callable[[_Connection], None],
        lost: Callable[[_Connection], None],
        *,
        is_tls: bool,
    ) -> None:
        self.idle_since = 0.0
        self.expires_at = 0.0
        """Both are instants of the client's clock, and mean something while idle."""
        self.keep_for = 0.0
        """Seconds for which it may be kept after the answer that it has just read."""
        self._peer = peer
        self._released = released
        self._lost = lost
        self._is_tls = is_tls
        self._transport: asyncio.Transport | None = None
        self._fd = -1
        self._reader = ResponseReader()
        self._has_read = False
        """The reader has been given some of the present answer."""
        self._exchange: _Exchange | None = None
        self._is_paused = False

    def begin(self, exchange: _Exchange) -> bool:
        """Write the request. False where the connection is dead and took no byte of it."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if self._has_read:
            self._has_read = False
            self._reader.begin()
        self._exchange = exchange
        exchange.connection = self
        if exchange.is_paused:
            self.pause()
        if len(exchange.parts) == 1:
            transport.write(exchange.parts[0])
        else:
            transport.writelines(exchange.parts)
        if transport.is_closing() and not self._is_tls:
            # The first send of an empty buffer failed: nothing reached the socket. A TLS transport
            # may have sent records before the one that failed.
            self._exchange = exchange.connection = None
            return False
        return True

    def is_stale(self) -> bool:
        """Whether the idle connection has ended, or something arrived that nobody asked for."""
        if self._transport is None or self._transport.is_closing():
            return True
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        return bool(poller.poll(0))

    def drop(self) -> None:
        """Close at once; an exchange on it hears nothing of it."""
        if self._exchange is not None:
            self._exchange.connection = None
            self._exchange = None
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()

    def fail(self, detail: str, *, is_malformed: bool = False) -> None:
        """Close at once; an exchange on it fails."""
        exchange, has_head = self._exchange, self._reader.has_head
        self.drop()
        if exchange is not None:
            exchange.fail(HttpFault(is_sent=True, has_answer=has_head, detail=detail, is_malformed=is_malformed))

    def pause(self) -> None:
        """Stop reading from the socket."""
        if not self._is_paused and self._transport is not None and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._is_paused and self._transport is not None and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        raw: socket.socket = transport.get_extra_info("socket")
        self._fd = raw.fileno()
        for level, name, value in _SOCKET_OPTIONS:
            option = getattr(socket, name, None)
            if option is not None:
                with contextlib.suppress(OSError):  # the peer may have left already
                    raw.setsockopt(level, option, value)

    def data_received(self, data: bytes) -> None:
        exchange, reader = self._exchange, self._reader
        if exchange is None:
            self.drop()  # an answer to nothing
            return
        heads = None if self._has_read else exchange.heads
        if heads is not None and (found := heads.find(data)) is not None:
            known, start = found
            self._read_known(exchange, known, data[start:])
            return
        self._has_read = True
        problem = reader.feed(data)
        self._pass_on(exchange, reader)
        if exchange.is_over:
            return
        if reader.is_complete:
            if heads is not None:
                heads.learn(data, reader)
            self._complete(exchange, 0.0 if reader.has_excess else reader.keep_for)
        elif problem is not None:
            self.fail(f"the answer of {self._peer} cannot be read: {problem}", is_malformed=True)

    def _read_known(self, exchange: _Exchange, known: KnownHead, body: bytes) -> None:
        """Take a whole answer whose head came before."""
        exchange.sink.head(known.status, known.headers)
        if not exchange.is_over:
            exchange.sink.body(body)
            if not exchange.is_over:
                self._complete(exchange, known.keep_for)

    def _pass_on(self, exchange: _Exchange, reader: ResponseReader) -> None:
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
            self.fail(f"the connection to {self._peer} was lost ({_reason(exc)})")
        self._lost(self)

    def _ended(self, detail: str) -> None:
        exchange, reader = self._exchange, self._reader
        if exchange is not None and reader.has_head and reader.ends_with_connection:
            self._complete(exchange, 0.0)
        else:
            self.fail(detail)

    def _complete(self, exchange: _Exchange, keep_for: float) -> None:
        self._exchange = exchange.connection = None
        exchange.is_over = True
        transport = self._transport
        if transport is not None:
            if keep_for > 0 and not transport.get_write_buffer_size():
                if self._is_paused:
                    self.resume()
                self.keep_for = keep_for
                self._released(self)
            else:
                transport.abort()
        exchange.sink.end()


class HttpClient:
    """Sends requests to one origin over as many connections as are needed at once, and keeps idle ones.

    Connecting runs in `scope`, which must outlive the client's use; whoever made the client
    calls `close`. The bound on how many requests run at once is the caller's.

    Raises `ValueError` where `url` is no http or https URL.
    """

    def __init__(
        self,
        url: str,
        scope: TaskScope,
        clock: Clock,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or not _HOST.fullmatch(parts.hostname):
            raise ValueError("the server's URL is no http:// or https:// URL")
        self.scheme = parts.scheme
        self.host = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        name = f"[{self.host}]" if ":" in self.host else self.host
        self.peer = f"{name}:{self.port}"
        """The server as people read it in sentences."""
        self._host_header = (name if parts.port is None else self.peer).encode()
        self._scope = scope
        self._clock = clock
        self._connect_timeout = connect_timeout
        self._ssl_context = ssl_context
        self._idle: list[_Connection] = []
        self._connections: set[_Connection] = set()
        self._connecting: set[_Exchange] = set()
        self._sweep_timer: Timer | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._connections)} connections, {len(self._idle)} idle"
        return f"<HttpClient {self.scheme}://{self.peer}, {state}>"

    def head(self, method: str, target: str, headers: HeaderBlock) -> RequestHead:
        """The head of any number of requests; `target` is path and query.

        Raises `ValueError` for a method or target that could not stand in a request line.
        """
        if not _TARGET.fullmatch(target) or method not in {"GET", "POST", "DELETE"}:
            raise ValueError(f"{method} with this target is no request that can be sent")
        line = b"%b %b HTTP/1.1\r\n" % (method.encode(), target.encode())
        return RequestHead(b"%bhost: %b\r\naccept-encoding: identity\r\n%b" % (line, self._host_header, headers))

    def request(
        self, method: str, target: str, headers: HeaderBlock, body: bytes | None, sink: ResponseSink
    ) -> HttpExchange:
        """As `send`, with a head for this once. Raises `ValueError` as `head` does."""
        return self.send(self.head(method, target, headers), body, sink)

    def send(
        self, head: RequestHead, body: bytes | None, sink: ResponseSink, heads: KnownHeads | None = None
    ) -> HttpExchange:
        """Send a request. What becomes of it reaches `sink` after this returned.

        `heads` are those of earlier answers to requests like this one, if any. There is no time limit
        beyond connecting: `HttpExchange.abort` is the caller's.
        """
        exchange = _Exchange(_parts(head, body), sink, heads)
        if self._is_closed:
            fault = HttpFault(is_sent=False, has_answer=False, detail=f"the client of {self.peer} is closed")
            asyncio.get_running_loop().call_soon(exchange.fail, fault)
        elif not self._reuse(exchange):
            self._connecting.add(exchange)
            exchange.connecting = self._scope.start(self._connect(exchange), f"connect {self.peer}")
        return exchange

    def close(self) -> None:
        """Close every connection at once; what runs on them fails. Idempotent."""
        self._is_closed = True
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        self._idle.clear()
        fault = HttpFault(is_sent=False, has_answer=False, detail=f"the client of {self.peer} was closed")
        for exchange in list(self._connecting):
            if exchange.connecting is not None:
                exchange.connecting.cancel()
            exchange.fail(fault)
        for connection in list(self._connections):
            connection.fail(f"the connection to {self.peer} was closed by us")

    def _reuse(self, exchange: _Exchange) -> bool:
        """Start on an idle connection, the youngest first; False where none is fit."""
        now = self._clock.now()
        while self._idle:
            connection = self._idle.pop()
            is_old = now - connection.idle_since > PROBE_AFTER
            if is_old and (now >= connection.expires_at or connection.is_stale()):
                connection.drop()
            elif connection.begin(exchange):
                return True
        return False

    async def _connect(self, exchange: _Exchange) -> None:
        detail = ""
        connection = _Connection(self.peer, self._release, self._forget, is_tls=self.scheme == "https")
        self._connections.add(connection)
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._open(connection)
        except asyncio.CancelledError:
            self._discard(connection)
            if not exchange.is_over:
                self.close()  # our scope is ending: nothing may be started in it any more
            raise
        except TimeoutError:
            detail = f"no connection to {self.peer} within {self._connect_timeout:g} s"
        except OSError as error:
            detail = _connect_problem(self.peer, error)
        finally:
            self._connecting.discard(exchange)
        if not detail and not connection.begin(exchange):
            detail = f"{self.peer} closed the connection as soon as it was open"
        if detail:
            self._discard(connection)
            exchange.fail(HttpFault(is_sent=False, has_answer=False, detail=detail))

    async def _open(self, connection: _Connection) -> None:
        """Connect to the first address that takes us, none of them using up the others' time."""
        loop = asyncio.get_running_loop()
        context = (self._ssl_context or _default_context()) if self.scheme == "https" else None
        addresses = await _addresses(loop, self.host, self.port)
        for left in range(len(addresses), 0, -1):
            try:
                async with asyncio.timeout(self._connect_timeout / len(addresses)):
                    await loop.create_connection(
                        lambda: connection,
                        addresses[-left],
                        self.port,
                        ssl=context,
                        server_hostname=self.host if context else None,
                    )
            except OSError:  # TimeoutError is one
                if left == 1:
                    raise
            else:
                return

    def _release(self, connection: _Connection) -> None:
        if self._is_closed:
            connection.drop()
            return
        now = self._clock.now()
        connection.idle_since = now
        connection.expires_at = now + connection.keep_for
        self._idle.append(connection)
        if self._sweep_timer is None:
            self._sweep_timer = self._clock.call_later(connection.keep_for, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for too long. One timer for all, so that the warm path sets none."""
        self._sweep_timer = None
        now = self._clock.now()
        idle, self._idle = self._idle, []
        for connection in idle:
            if now >= connection.expires_at:
                connection.drop()
            else:
                self._idle.append(connection)
        if self._idle:
            delay = min(connection.expires_at for connection in self._idle) - now
            self._sweep_timer = self._clock.call_later(delay, self._sweep)

    def _discard(self, connection: _Connection) -> None:
        """Drop a connection that may never have been made, so that nobody would report its end."""
        self._connections.discard(connection)
        connection.drop()

    def _forget(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)


def _parts(head: RequestHead, body: bytes | None) -> tuple[bytes, ...]:
    if body is None:
        return (head + b"\r\n",)
    if len(body) <= SMALL_BODY_BYTES:
        return (b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body),)
    return b"%bcontent-length: %d\r\n\r\n" % (head, len(body)), body


@functools.cache
def _default_context() -> ssl.SSLContext:
    """One for the process: building it takes about 20 ms."""
    return ssl.create_default_context()


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[str]:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    return [host]


def _connect_problem(peer: str, error: OSError) -> str:
    match error:
        case ConnectionRefusedError():
            return f"connection to {peer} refused"
        case socket.gaierror():
            return f"the host name of {peer} was not found"
        case ssl.SSLCertVerificationError():
            return f"the TLS certificate of {peer} is not accepted: {error.verify_message}"
        case ssl.SSLError():
            return f"the TLS handshake with {peer} failed ({error.reason or 'cut off'})"
        case _:
            return f"connection to {peer} failed ({_reason(error)})"


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    return text or type(error).__name__
