"""The answer to one HTTP request, written to its connection's transport by callbacks: no task, and mostly one write."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from holdfast.downstream.http import QUEUE_LENGTH, QUEUE_LIMIT, Headers, HttpResponder, next_request_id

JOIN_LIMIT: Final = 64 * 1024
"""Bytes: bodies up to this go out in one piece with the head; larger ones are not copied."""
_LAST_CHUNK: Final = b"0\r\n\r\n"
_KNOWN: Final = 64
"""Beginnings of heads that are kept; those that bear an id come once."""


class _Beginnings:
    """How heads begin: what they all say changes once a second, and most say the same beyond that."""

    def __init__(self) -> None:
        self._defaults: Headers = ()
        self._known: dict[tuple[int, tuple[tuple[bytes, bytes], ...]], tuple[bytes, bool]] = {}
        self._status = 0
        self._headers: Headers = ()
        self._last = (b"", False)
        """What was asked for last, and what that was."""

    def of(self, defaults: Headers, status: int, headers: Headers) -> tuple[bytes, bool]:
        """The status line, `defaults` and `headers`, and whether the connection ends with the answer.

        The same sequence of `defaults` says the same.
        """
        if headers is self._headers and defaults is self._defaults and status == self._status:
            return self._last
        if defaults is not self._defaults or len(self._known) > _KNOWN:
            self._defaults = defaults
            self._known.clear()
            self._status = 0  # what was asked for last began otherwise
        which = (status, tuple(headers))
        beginning = self._known.get(which)
        if beginning is None:
            lines = (b"%b: %b\r\n" % field for field in (*defaults, *headers))
            whole = b"".join((STATUS_LINE[status], *lines))
            self._known[which] = beginning = (whole, (b"connection", b"close") in headers)
        if isinstance(headers, tuple):  # which nobody changes
            self._status, self._headers, self._last = status, headers, beginning
        return beginning


class _Nobody:
    """What uvicorn wakes where ASGI waits."""

    def set(self) -> None: ...


_beginnings: Final = _Beginnings()


class Wire(Protocol):
    """The connection, as an answer uses it."""

    @property
    def transport(self) -> asyncio.Transport:
        """Where the answer goes."""
        ...

    @property
    def default_headers(self) -> Headers:
        """What every answer says, such as the time."""
        ...

    @property
    def is_paused(self) -> bool:
        """The transport has taken more than the reader has."""
        ...

    def answered(self, answer: DirectResponder) -> None:
        """The answer is whole, and with the transport."""


class DirectResponder(HttpResponder):
    """A `Responder` that writes at once, or when the reader has caught up.

    To uvicorn's protocol it is what stands where an ASGI request and its response would.
    """

    message_event: Final = _Nobody()
    response_complete = False
    """The transport has all of it, so that another request may be answered."""
    disconnected = False
    _out: deque[bytes] | None = None
    """What waits for the reader, or for the end of this turn of the loop."""
    _size = 0
    _is_slow = False
    _flushing: asyncio.Handle | None = None

    def __init__(self, wire: Wire, *, keep_alive: bool, on_over: Callable[[HttpResponder], None]) -> None:
        """`on_over` is called once, when the answer is whole or the client has left."""
        self.request_id = next_request_id()
        self.keep_alive = keep_alive
        self._wire = wire
        self._on_over = on_over

    @property
    def peer(self) -> str:
        address: tuple[str, int] | str | None = self._wire.transport.get_extra_info("peername")
        return address[0] if isinstance(address, tuple) else ""

    @property
    def is_slow(self) -> bool:
        return self._is_slow

    def answer(self, status: int, headers: Headers, parts: Iterable[bytes] = ()) -> None:
        if self._is_over:
            return
        pieces: tuple[bytes, ...] = tuple(parts)  # which a tuple is already
        size = 0
        for piece in pieces:
            size += len(piece)
        wire = self._wire
        beginning, closes = _beginnings.of(wire.default_headers, status, headers)
        if closes or not self.keep_alive or status == 204:
            framing = b"" if status == 204 else b"content-length: %d\r\n" % size  # RFC 9110, section 8.6
            head = self._head(status, headers, framing)
        else:
            head = b"%bcontent-length: %d\r\nx-request-id: %b\r\n\r\n" % (beginning, size, self.request_id.encode())
        self._has_begun = True
        if self.on_begun is not None:
            self.on_begun(status)
        whole = (b"".join((head, *pieces)),) if size <= JOIN_LIMIT else (head, *map(bytes, pieces))
        if self._out or wire.is_paused:
            for piece in whole:
                self._put(piece)
            self._last()
            return
        self._is_over = True
        if len(whole) == 1:
            wire.transport.write(whole[0])
        else:
            wire.transport.writelines(whole)
        self._complete()

    def open(self, headers: Headers) -> None:
        if not self._is_over:
            self._put(self._head(200, headers, last=b"transfer-encoding: chunked\r\n"))
            self._begin(200)
            self._flush_soon()

    def write(self, chunk: bytes) -> None:
        if self._is_over or not chunk:  # an empty chunk would be the last (RFC 9112, section 7.1)
            return
        piece = b"%x\r\n%b\r\n" % (len(chunk), chunk)
        out = self._waiting if self._out is None else self._out
        out.append(piece)
        self._size = size = self._size + len(piece)
        if size > QUEUE_LIMIT or len(out) > QUEUE_LENGTH:
            if not self._wire.is_paused:
                self.flush()  # much was said in one turn, which makes nobody slow
                return
            self._is_slow = True
        if self._flushing is None:
            self._flush_soon()

    def end(self) -> None:
        if not self._is_over:
            self._waiting.append(_LAST_CHUNK)
            self._size += len(_LAST_CHUNK)
            self._is_over = True
            self.flush()

    # What the connection tells.

    def flush(self) -> None:
        """Hand to the transport what waits, as far as the reader keeps up."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        transport, waiting = self._wire.transport, self._waiting
        if waiting and self._size <= JOIN_LIMIT and not self._wire.is_paused:
            whole = b"".join(waiting)
            waiting.clear()
            self._size = 0
            transport.write(whole)
        while waiting and not self._wire.is_paused:
            pieces: list[bytes] = []
            size = 0
            while waiting and size <= JOIN_LIMIT:
                size += len(waiting[0])
                pieces.append(waiting.popleft())
            self._size -= size
            if len(pieces) == 1:
                transport.write(pieces[0])
            else:
                transport.writelines(pieces)
        if waiting:
            return
        if self._is_over:
            self._complete()
        elif self._is_slow and not self._wire.is_paused:
            self._is_slow = False
            if self.on_drained is not None:
                self.on_drained()

    def leave(self) -> None:
        """The client has left, or takes nothing."""
        if self.response_complete:
            return
        was_over, self._is_over = self._is_over, True
        self.disconnected = self.response_complete = True
        self._out = None
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        self._on_over(self)
        gone = self.on_gone
        self._forget()
        if not was_over and gone is not None:
            gone()

    # Inside.

    def _head(self, status: int, headers: Headers, framing: bytes = b"", last: bytes = b"") -> bytes:
        beginning, closes = _beginnings.of(self._wire.default_headers, status, headers)
        if closes:
            self.keep_alive = False
        elif not self.keep_alive:
            last = b"connection: close\r\n%b" % last
        return b"%b%bx-request-id: %b\r\n%b\r\n" % (beginning, framing, self.request_id.encode(), last)

    @property
    def _waiting(self) -> deque[bytes]:
        if self._out is None:
            self._out = deque()  # most answers are one piece, which waits for nothing
        return self._out

    def _put(self, piece: bytes) -> None:
        self._waiting.append(piece)
        self._size += len(piece)

    def _last(self) -> None:
        """What was written last is the last."""
        self._is_over = True
        self.flush()

    def _flush_soon(self) -> None:
        """At the end of this turn of the loop, so that what is said in one turn is one write."""
        if self._flushing is None and not self._wire.is_paused:
            self._flushing = asyncio.get_running_loop().call_soon(self.flush)

    def _complete(self) -> None:
        self.response_complete = True
        self._on_over(self)
        self._forget()
        self._wire.answered(self)
