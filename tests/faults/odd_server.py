"""An MCP server over bare sockets, whose answer to one tool or read is whatever a test writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from unit.scripted_http import Peer, ScriptedServer, SeenRequest, plain, scripted

Odd = Callable[[dict[str, Any], Peer], Awaitable[None]]

ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
NO_GET = b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n"
NO_SESSION = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
"""As servers answer a GET that have a stream for each session."""


class OddServer:
    """Answers `initialize`, `ping`, the list of tools and the tool `count`; `odd` writes all other answers."""

    def __init__(self) -> None:
        self.odd: Odd
        self.to_get = NO_GET
        self.tools: tuple[str, ...] = ("count",)
        """What it lists."""
        self.greeting: bytes | None = None
        """What `initialize` is answered with, instead of a result."""
        self.received: list[dict[str, Any]] = []
        self.http: ScriptedServer
        self._counters: Counter[str] = Counter()
        self._sessions = 0

    @property
    def url(self) -> str:
        return f"{self.http.url}/mcp"

    def methods(self, method: str) -> list[dict[str, Any]]:
        """The messages of this method, in order."""
        return [message for message in self.received if message["method"] == method]

    async def answer(self, request: SeenRequest, peer: Peer) -> None:
        if request.method != "POST":
            peer.write(self.to_get if request.method == "GET" else ACCEPTED)
            return
        message: dict[str, Any] = json.loads(request.body)
        self.received.append(message)
        if "id" not in message:
            peer.write(ACCEPTED)
            return
        extra: tuple[str, ...] = ()
        match message["method"], message.get("params", {}).get("name"):
            case "initialize", _ if self.greeting is not None:
                peer.write(self.greeting)
                return
            case "initialize", _:
                self._sessions += 1
                extra = (f"mcp-session-id: odd-{self._sessions}",)
                result: dict[str, Any] = {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {"tools": {}, "resources": {}},
                    "serverInfo": {"name": "odd", "version": "1"},
                }
            case "ping", _:
                result = {}
            case "tools/list", _:
                result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in self.tools]}
            case "tools/call", "count":
                self._counters[request.headers["mcp-session-id"]] += 1
                result = text(str(self._counters[request.headers["mcp-session-id"]]))
            case _:
                await self.odd(message, peer)
                return
        peer.write(plain(result_of(message, result), "200 OK", "application/json", *extra))


def text(content: str) -> dict[str, Any]:
    """A tool's result."""
    return {"content": [{"type": "text", "text": content}]}


def result_of(message: dict[str, Any], result: dict[str, Any]) -> bytes:
    """The JSON-RPC answer to `message`."""
    return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()


def answering(*parts: bytes) -> Odd:
    """Write `parts`, whatever is asked."""

    async def odd(message: dict[str, Any], peer: Peer) -> None:
        peer.write(*parts)

    return odd


@asynccontextmanager
async def odd_server(odd: Odd) -> AsyncGenerator[OddServer]:
    """Such a server for the time of the block."""
    server = OddServer()
    server.odd = odd
    async with scripted(server.answer) as server.http:
        yield server
