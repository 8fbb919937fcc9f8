"""One client's TCP connection: uvicorn's, with bounds that it lacks."""

from __future__ import annotations

import asyncio
from typing import Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from holdfast.wire import jsonrpc

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a request before its body, and of what follows the body: common servers take 8 to 64 KiB."""
HEAD_TIMEOUT: Final = 10.0
"""Seconds from the first byte of a head to its last."""

_CONTINUE: Final = b"HTTP/1.1 100"
_PHRASES: Final = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class _OneAnswer(asyncio.Transport):
    """The transport as it is for one answer: its head waits for what comes after it (ASGI HTTP, Response Start).

    So a whole answer goes to the kernel, which is most of what it costs, once and not twice.
    """

    __slots__ = ("_head", "_is_in_body", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._is_in_body = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_in_body:
            self._transport.write(data)
        elif self._head:
            self._is_in_body = True
            self._transport.writelines((self._head, data))
        elif data[:12] == _CONTINUE:
            self._transport.write(data)
        else:
            self._head = bytes(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()


class Connection(HttpToolsProtocol):
    """A connection that the application may drop: the extension that `holdfast.downstream.http` names.

    Heads are bounded in bytes and in time, before anybody knows who sends them.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self._is_in_head = False
        self._has_got_on = False
        """A head, a body or a piece of one came to its end with what was read last."""
        self._pending = 0
        """Bytes that were read since."""
        self._head_timer: asyncio.TimerHandle | None = None
        # As after an answer: who connects and says nothing is not waited for without end.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._has_got_on = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._pending = 0 if self._has_got_on else self._pending + len(data)
        if self._pending > MAX_HEAD_BYTES:
            self._refuse(431, f"The head of the request is larger than {MAX_HEAD_BYTES} bytes.")
        elif self._is_in_head and self._head_timer is None:
            self._head_timer = self.loop.call_later(
                HEAD_TIMEOUT, self._refuse, 408, f"The head of the request did not arrive within {HEAD_TIMEOUT:g} s."
            )

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's sentence, which is always the same)
        self._refuse(400, "This is no HTTP request.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self.scope["extensions"] = {"dev.holdfast.abort": {"abort": self.transport.abort}}

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._has_got_on = True
        self._stop_head_timer()
        super().on_headers_complete()
        self.cycle.transport = _OneAnswer(self.transport)

    def on_body(self, body: bytes) -> None:
        self._has_got_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._has_got_on = True
        super().on_message_complete()

    def _refuse(self, status: int, message: str) -> None:
        """Answer, where no other answer is under way, and close."""
        self._stop_head_timer()
        if self.transport.is_closing():
            return
        if not self.cycle or self.cycle.response_complete:
            error = jsonrpc.error_object(jsonrpc.INVALID_REQUEST, message)
            body = jsonrpc.error(jsonrpc.id_bytes(None), error)
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (status, _PHRASES[status], len(body), body)
            )
        self.transport.close()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
