"""The HTTP below the scripted server: a request and its response, over ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.wire import headers as wire_headers
from holdfast.wire import jsonrpc

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Refusal(Exception):
    """An HTTP answer other than 200, with a JSON-RPC error that bears no id."""

    def __init__(self, status: int, sentence: str, code: int = -32000) -> None:
        super().__init__(sentence)
        self.status = status
        self.body = jsonrpc.error(b"null", jsonrpc.error_object(code, sentence))


@dataclass(slots=True)
class Exchange:
    """One HTTP request and the way to its response."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    receive: Receive
    send: Send

    async def body(self) -> bytes:
        """The whole body of the request."""
        parts: list[bytes] = []
        while True:
            message = await self.receive()
            parts.append(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return b"".join(parts)

    async def respond(
        self,
        status: int,
        body: bytes = b"",
        content_type: str = wire_headers.JSON,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a whole response."""
        fields = {"content-type": content_type} if body else {}
        fields |= {"content-length": str(len(body))} if status != 204 else {}
        await self._start(status, fields | dict(headers or {}))
        await self.send({"type": "http.response.body", "body": body})

    async def start_stream(self, headers: Mapping[str, str]) -> None:
        """Send the head of an event stream."""
        fields = {"content-type": wire_headers.EVENT_STREAM, "cache-control": "no-store"}
        await self._start(200, fields | dict(headers))

    async def write(self, chunk: bytes) -> None:
        """Send a part of the stream."""
        await self.send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end_stream(self) -> None:
        """End the stream."""
        await self.send({"type": "http.response.body"})

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": fields})
