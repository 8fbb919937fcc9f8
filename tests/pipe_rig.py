"""A client that started the gateway, in the test's own event loop: its two pipes are queues."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from holdfast.clock import Clock, LoopClock
from holdfast.config import Limits
from holdfast.downstream.pipes import LineWriter
from holdfast.downstream.stdio import LOCAL, Stdio
from holdfast.gateway import Gateway
from holdfast.servers.service import Service

INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


class PipeClient:
    """Speaks lines to `Stdio`, and is the `Sink` of what it writes."""

    def __init__(
        self,
        gateway: Gateway,
        clock: Clock | None = None,
        request_bytes: int = 4 * 1024 * 1024,
        service: Service | None = None,
    ) -> None:
        """`service`: what the gateway serves; without it, all its servers."""
        self.writer = LineWriter()
        self.writer.connect(self)
        self.heard: list[Any] = []
        """What came before the answers that were waited for."""
        service = service or gateway.servers.whole(LOCAL)
        assert service is not None
        self.stdio = Stdio(service, self.writer, clock or LoopClock(), Limits(request_bytes=request_bytes))
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._last_id = 100

    def write(self, data: bytes) -> None:
        assert data.endswith(b"\n")
        assert data.count(b"\n") == 1
        self._lines.put_nowait(data)

    def send(self, *messages: Any) -> None:
        """Write each message as a line."""
        self.stdio.feed(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def request(self, method: str, **params: Any) -> int:
        """Send a request; returns its id."""
        self._last_id += 1
        self.send({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params})
        return self._last_id

    def notify(self, method: str, **params: Any) -> None:
        """Send a notification."""
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def reply(self, question: Any, **result: Any) -> None:
        """Answer a question of the server."""
        self.send({"jsonrpc": "2.0", "id": question["id"], "result": result})

    async def next(self) -> Any:
        """The next line."""
        return json.loads(await self._lines.get())

    async def answer(self, request_id: Any) -> Any:
        """The answer to a request; what comes before it is heard."""
        while True:
            message = await self.next()
            if "method" not in message and message["id"] == request_id:
                return message
            self.heard.append(message)

    async def until(self, method: str) -> Any:
        """The next request or notification of this method; what comes before it is heard."""
        while True:
            message = await self.next()
            if message.get("method") == method:
                return message
            self.heard.append(message)

    async def call(self, tool: str, **arguments: Any) -> str:
        """The text that a tool gives back."""
        text: str = (await self.answer(self.tool(tool, **arguments)))["result"]["content"][0]["text"]
        return text

    def tool(self, name: str, /, **arguments: Any) -> int:
        """Call a tool; returns the request's id."""
        return self.request("tools/call", name=name, arguments=arguments)

    async def initialize(self, version: str = "2025-11-25", **capabilities: Any) -> Any:
        """Begin as clients do; returns the introduction."""
        client = {"name": "test", "version": "1"}
        asked = self.request("initialize", protocolVersion=version, capabilities=capabilities, clientInfo=client)
        answer = await self.answer(asked)
        self.send(INITIALIZED)
        return answer["result"]

    @property
    def is_quiet(self) -> bool:
        """Whether every line was read."""
        return self._lines.empty()


@asynccontextmanager
async def pipe_client(gateway: Gateway, **options: Any) -> AsyncGenerator[PipeClient]:
    """A client whose process ends with the block."""
    client = PipeClient(gateway, **options)
    try:
        yield client
    finally:
        client.stdio.end()
