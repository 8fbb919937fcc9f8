"""A client of the HTTP+SSE transport of 2024-11-05 that knows only HTTP, as tests/rig.py's `Client` does."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

from bare_client import Response
from modern_client import Clients
from rig import INITIALIZED, Client, text_of

REVISION: Final = "2024-11-05"


class OldClient:
    """One open stream, and what was heard on it that was no answer."""

    def __init__(self, client: Client, stream: Response, endpoint: str) -> None:
        self.client = client
        self.stream = stream
        self.endpoint = endpoint
        self.heard: list[Any] = []

    @property
    def session_id(self) -> str:
        return self.endpoint.partition("?session=")[2]

    async def post(self, message: Any, **headers: str | None) -> int:
        """The status of a POST to the endpoint."""
        return await self.client.post(message, self.endpoint, **headers)

    async def message(self) -> Any:
        """The next message of the stream."""
        event = await self.stream.event()
        assert event is not None, "the stream ended"
        assert (event.event, event.id) == ("message", None)
        return json.loads(event.data)

    async def ask(self, request: Any) -> Any:
        """The answer to a request; what comes before it is `heard`."""
        assert await self.post(request) == 202
        return await self.answer_to(request)

    async def answer_to(self, request: Any) -> Any:
        """The answer to a request that was sent."""
        while True:
            message = await self.message()
            if "method" not in message and message.get("id") == request["id"]:
                return message
            self.heard.append(message)

    async def tool_text(self, name: str, **arguments: Any) -> str:
        """The text that a tool gives back."""
        return text_of(await self.ask(self.client.tool(name, **arguments)))

    async def initialize(self, version: str = REVISION, **capabilities: Any) -> Any:
        """The answer to `initialize`; the session is initialized then."""
        info = {"name": "old", "version": "1"}
        params = {"protocolVersion": version, "capabilities": capabilities, "clientInfo": info}
        answer = await self.ask(self.client.call("initialize", **params))
        assert await self.post(INITIALIZED) == 202
        return answer

    async def ended(self) -> None:
        """Return when the stream has ended."""
        while await self.stream.event() is not None:
            pass


@asynccontextmanager
async def streaming(running: Clients, path: str = "/sse/memory", **headers: str) -> AsyncGenerator[OldClient]:
    """A client whose stream is open, and that has said nothing yet."""
    client = running.client(**headers)
    async with client.request("GET", None, path, accept="text/event-stream") as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
        first = await stream.event()
        assert first is not None
        assert first.event == "endpoint"
        yield OldClient(client, stream, first.data.decode())


@asynccontextmanager
async def opened(running: Clients, path: str = "/sse/memory", **capabilities: Any) -> AsyncGenerator[OldClient]:
    """A client with an initialized session."""
    async with streaming(running, path) as client:
        await client.initialize(**capabilities)
        yield client
