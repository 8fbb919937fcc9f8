"""A client of the soak: it looks at every answer, and counts what it saw."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from bare_client import BareClient, Response

PATIENCE: Final = 40.0
"""Seconds within which everything that is asked for is answered, if only with an error."""
VERSION: Final = "2025-11-25"


class Tally:
    """What all clients saw."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        """Answers: `result`, or the code of the error."""
        self.surprises: Counter[str] = Counter()
        """What must not happen."""

    @property
    def answers(self) -> int:
        """How many calls were answered in all."""
        return self.outcomes.total()


class Peer:
    """One client at one of the gateway's paths; each request is a connection of its own."""

    def __init__(self, tally: Tally, port: int, path: str, **headers: str) -> None:
        self.http = BareClient(port)
        self.http.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.path = path
        self.will_answer = True
        """Whether a question is answered, or the client leaves instead."""
        self._tally = tally

    async def open(self, **capabilities: Any) -> None:
        """Initialize."""
        params = {
            "protocolVersion": VERSION,
            "capabilities": capabilities,
            "clientInfo": {"name": "soak", "version": "1"},
        }
        async with self._post(self.http.call("initialize", **params)) as response:
            self.http.headers["mcp-session-id"] = response.headers["mcp-session-id"]
            async for message in messages(response):
                self._count(message)
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def probe(self) -> None:
        """Ask as clients of 2026-07-28 do before they decide how to go on."""
        prefix = "io.modelcontextprotocol/"
        meta: dict[str, object] = {prefix + "protocolVersion": "2026-07-28", prefix + "clientCapabilities": {}}
        request = self.http.call("server/discover", _meta=meta)
        self.http.headers |= (said := {"mcp-protocol-version": "2026-07-28", "mcp-method": "server/discover"})
        try:
            async with self._post(request, 200) as response:
                await response.body()
        finally:
            for name in said:
                del self.http.headers[name]

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None]:
        """With the GET stream open, unless it is refused."""
        async with self.http.request("GET", None, self.path) as response:
            self._check("GET", response.status, 200)
            yield

    async def call(self, tool: str, *, progress: bool = False, chat: str | None = None, **arguments: Any) -> Any:
        """Call a tool; the result, or None where there is an error."""
        request = self.http.tool(tool, **arguments)
        meta = {"progressToken": "p"} if progress else {}
        if chat is not None:
            meta["dev.holdfast/chat"] = chat
        if meta:
            request["params"]["_meta"] = meta
        return await self.send(request)

    async def send(self, body: Any) -> Any:
        """Send a message, or several at once; the result of the last that has one."""
        result = None
        async with self._post(body) as response:
            async for message in messages(response):
                if "method" not in message:
                    result = self._count(message)
                elif "id" in message and not await self._answered(message):
                    return None
        return result

    async def leave_within(self, body: Any, seconds: float) -> None:
        """Send a message and drop the connection after `seconds`, unless the answer is there before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self.http.request("POST", body, self.path) as response:
                async for _ in messages(response):
                    pass

    async def delete(self) -> None:
        """End the session."""
        async with self.http.request("DELETE", None, self.path) as response:
            self._check("DELETE", response.status, 200, 202, 204)

    async def _answered(self, ask: Any) -> bool:
        """Answer a question of the server, or say that we leave."""
        if self.will_answer:
            result = {"action": "accept", "content": {"answer": "yes"}}
            async with self._post({"jsonrpc": "2.0", "id": ask["id"], "result": result}, 202):
                pass
        return self.will_answer

    @asynccontextmanager
    async def _post(self, body: Any, *expected: int) -> AsyncGenerator[Response]:
        async with asyncio.timeout(PATIENCE), self.http.request("POST", body, self.path) as response:
            self._check("POST", response.status, *(expected or (200, 202)))
            yield response

    def _check(self, verb: str, status: int, *expected: int) -> None:
        if status not in expected:
            self._tally.surprises[f"{verb} {self.path} was answered {status}"] += 1
            raise Surprised

    def _count(self, message: Any) -> Any:
        error = message.get("error")
        self._tally.outcomes["result" if error is None else str(error["code"])] += 1
        return message.get("result")


class Surprised(Exception):
    """A client saw what must not happen: it is counted, and the client does nothing more."""


async def messages(response: Response) -> AsyncGenerator[Any]:
    """The messages of a response, whatever its form."""
    kind = response.headers.get("content-type", "")
    if kind.startswith("text/event-stream"):
        while (event := await response.event()) is not None:
            if event.data:
                yield json.loads(event.data)
    elif kind.startswith("application/json"):
        body = await response.body()
        several: list[Any] = json.loads(body if body.startswith(b"[") else b"[" + body + b"]")
        for message in several:
            yield message
