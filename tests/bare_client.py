"""A client that knows HTTP and nothing of MCP but the headers it is given."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from holdfast.wire.sse import SseEvent, SseParser

BOTH = "application/json, text/event-stream"


class Response:
    """An HTTP response, read as far as one wants."""

    def __init__(self, status: int, headers: dict[str, str], reader: asyncio.StreamReader) -> None:
        self.status = status
        self.headers = headers
        self._reader = reader
        self._parser = SseParser(16_000_000)
        self._events: list[SseEvent] = []
        self.is_whole = self.headers.get("content-length") == "0" or status in {204, 304}
        """All of it was read."""

    async def chunk(self) -> bytes:
        line = await self._reader.readline()
        if not line:
            raise asyncio.IncompleteReadError(b"", None)
        size = int(line, 16)
        chunk = await self._reader.readexactly(size)
        await self._reader.readline()
        self.is_whole = not chunk
        return chunk

    async def body(self) -> bytes:
        body = await self._reader.readexactly(int(self.headers.get("content-length", "0")))
        self.is_whole = "content-length" in self.headers
        return body

    async def json(self) -> Any:
        return json.loads(await self.body())

    async def event(self) -> SseEvent | None:
        while not self._events:
            if not (chunk := await self.chunk()):
                return None
            self._events += self._parser.feed(chunk)
        return self._events.pop(0)

    async def message(self) -> Any:
        event = await self.event()
        return None if event is None else json.loads(event.data)


class BareClient:
    """Each request is a connection of its own, or one is kept as clients do. `headers` go with every request."""

    keeps_connection = False
    """Whoever sets it calls `close`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.headers: dict[str, str] = {}
        self.next_id = 0
        self._kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    @asynccontextmanager
    async def request(
        self, method: str, body: Any = None, path: str = "/mcp", **headers: str | None
    ) -> AsyncGenerator[Response, None]:
        reader, writer = await self._connection()
        sent = b"" if body is None else json.dumps(body).encode()
        fields: dict[str, str | None] = {"host": "localhost", "accept": BOTH, "content-length": str(len(sent))}
        fields |= {"content-type": "application/json"} if sent else {}
        fields |= self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value)]
        writer.write("\r\n".join([*lines, "", ""]).encode() + sent)
        try:
            status = int((await reader.readuntil(b"\r\n")).split()[1])
            received: dict[str, str] = {}
            while line := (await reader.readuntil(b"\r\n")).strip():
                name, _, value = line.decode().partition(":")
                received[name.lower()] = value.strip()
            response = Response(status, received, reader)
            yield response
        except BaseException:
            writer.close()
            raise
        if self.keeps_connection and response.is_whole and received.get("connection") != "close" and not self._kept:
            self._kept.append((reader, writer))
        else:
            writer.close()

    def close(self) -> None:
        """Close the connection that is kept, and keep none any more."""
        self.keeps_connection = False
        while self._kept:
            self._kept.pop()[1].close()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._kept:
            reader, writer = self._kept.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self.port)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.next_id += 1
        return {"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params}

    def tool(self, name: str, **arguments: Any) -> dict[str, Any]:
        return self.call("tools/call", name=name, arguments=arguments)

    async def open(self, version: str = "2025-11-25", **capabilities: Any) -> dict[str, Any]:
        params = {
            "protocolVersion": version,
            "capabilities": capabilities,
            "clientInfo": {"name": "raw", "version": "1"},
        }
        async with self.request("POST", self.call("initialize", **params)) as response:
            assert response.status == 200
            self.headers["mcp-session-id"] = response.headers["mcp-session-id"]
            is_json = response.headers["content-type"] == "application/json"
            answer = await response.json() if is_json else (await self._last(response))
        async with self.request("POST", {"jsonrpc": "2.0", "method": "notifications/initialized"}) as response:
            assert response.status == 202
        result: dict[str, Any] = answer["result"]
        return result

    async def answer(self, body: Any) -> Any:
        async with self.request("POST", body) as response:
            assert response.status == 200
            if response.headers["content-type"] == "application/json":
                return await response.json()
            return await self._last(response)

    async def status(self, method: str, body: Any = None, **headers: str | None) -> int:
        async with self.request(method, body, "/mcp", **headers) as response:
            return response.status

    async def _last(self, response: Response) -> Any:
        last = None
        while (event := await response.event()) is not None:
            last = json.loads(event.data) if event.data else last
        return last
