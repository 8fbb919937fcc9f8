"""An HTTP/1.1 client for one origin, made of callbacks: a warm request needs no task and no await.

One request at a time per connection, never pipelined. A request is written at most once: the
one exception is a kept connection that was found dead before any byte was written to it.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterable
from typing import Final, NewType
from urllib.parse import urlsplit

from holdfast.clock import Clock, Timer
from holdfast.tasks import TaskScope
from holdfast.upstream.http1_connecting import connect, connect_problem, default_context
from holdfast.upstream.http1_connection import (
    Connection,
    Exchange,
    FamiliarSink,
    HttpExchange,
    HttpFault,
    ResponseSink,
)
from holdfast.upstream.http1_response import KnownHeads

__all__ = [
    "FamiliarSink",
    "HeaderBlock",
    "HttpClient",
    "HttpExchange",
    "HttpFault",
    "RequestHead",
    "ResponseSink",
    "header_block",
]

CONNECT_TIMEOUT: Final = 10.0
"""Name lookup, TCP and TLS together."""

PROBE_AFTER: Final = 0.2
"""A connection idle for longer is asked for a pending end before reuse; the loop saw to younger ones."""

SMALL_BODY_BYTES: Final = 16 * 1024
"""Up to here copying a body behind its head is cheaper than a second buffer."""

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
        self._idle: list[Connection] = []
        self._connections: set[Connection] = set()
        self._connecting: set[Exchange] = set()
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

    def send(self, head: RequestHead, body: bytes | None, sink: ResponseSink) -> HttpExchange:
        """Send a request. What becomes of it reaches `sink` after this returned.

        There is no time limit beyond connecting: `HttpExchange.abort` is the caller's.
        """
        exchange = Exchange(*_parts(head, body), sink)
        return exchange if self._reuse(exchange) else self._begin(exchange)

    def ask(self, head: RequestHead, body: bytes, sink: FamiliarSink, heads: KnownHeads) -> HttpExchange:
        """As `send`, where answers mostly begin with one of `heads`, those of earlier answers to such requests."""
        if len(body) <= SMALL_BODY_BYTES:
            exchange = Exchange(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body), None, sink, sink, heads)
        else:
            exchange = Exchange(*_parts(head, body), sink, sink, heads)
        return exchange if self._reuse(exchange) else self._begin(exchange)

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

    def _begin(self, exchange: Exchange) -> Exchange:
        """Start on a connection of its own."""
        if self._is_closed:
            fault = HttpFault(is_sent=False, has_answer=False, detail=f"the client of {self.peer} is closed")
            asyncio.get_running_loop().call_soon(exchange.fail, fault)
        else:
            self._connecting.add(exchange)
            exchange.connecting = task = self._scope.start(self._connect(exchange), f"connect {self.peer}")
            task.add_done_callback(lambda _: self._connected(exchange))
        return exchange

    def _reuse(self, exchange: Exchange) -> bool:
        """Start on an idle connection, the youngest first; False where none is fit."""
        idle = self._idle
        if not idle:
            return False
        now = self._clock.now()
        while idle:
            connection = idle.pop()
            is_old = now - connection.idle_since > PROBE_AFTER
            if is_old and (now >= connection.expires_at or connection.is_stale()):
                connection.drop()
            elif connection.begin(exchange):
                return True
        return False

    async def _connect(self, exchange: Exchange) -> None:
        detail = ""
        connection = Connection(self.peer, self._release, self._forget, is_tls=self.scheme == "https")
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
            detail = connect_problem(self.peer, error)
        finally:
            self._connecting.discard(exchange)
        if not detail and not connection.begin(exchange):
            detail = f"{self.peer} closed the connection as soon as it was open"
        if detail:
            self._discard(connection)
            exchange.fail(HttpFault(is_sent=False, has_answer=False, detail=detail))

    def _connected(self, exchange: Exchange) -> None:
        """See to an exchange whose `_connect` was cancelled before its first step."""
        if exchange in self._connecting:
            if not exchange.is_over:
                self.close()  # as `_connect` does: our scope is ending
            self._connecting.discard(exchange)

    async def _open(self, connection: Connection) -> None:
        context = (self._ssl_context or default_context()) if self.scheme == "https" else None
        await connect(connection, self.host, self.port, context, self._connect_timeout)

    def _release(self, connection: Connection, keep_for: float) -> None:
        """Keep the connection for another request, unless it is fit for none."""
        transport = connection.transport
        if keep_for <= 0 or self._is_closed or transport is None or transport.get_write_buffer_size():
            connection.drop()
            return
        if connection.is_paused:
            connection.resume()
        connection.idle_since = now = self._clock.now()
        connection.expires_at = now + keep_for
        self._idle.append(connection)
        if self._sweep_timer is None:
            self._sweep_timer = self._clock.call_later(keep_for, self._sweep)

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

    def _discard(self, connection: Connection) -> None:
        """Drop a connection that may never have been made, so that nobody would report its end."""
        self._connections.discard(connection)
        connection.drop()

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)


def _parts(head: RequestHead, body: bytes | None) -> tuple[bytes, bytes | None]:
    """What is written at once, and what is written behind it."""
    if body is None:
        return head + b"\r\n", None
    if len(body) <= SMALL_BODY_BYTES:
        return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body), None
    return b"%bcontent-length: %d\r\n\r\n" % (head, len(body)), body
