"""HTTP/1.1 written byte by byte: requests that may be nonsense, and whole answers read back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from holdfast.wire.sse import SseParser

PING: Final = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'


class Answer(NamedTuple):
    """A whole answer; of a stream that goes on, the head alone."""

    status: int
    headers: dict[str, str]
    body: bytes
    closes: bool
    """The gateway ends the connection behind it."""

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type") == "text/event-stream"

    def messages(self) -> list[Any]:
        """The JSON-RPC messages in it, those of an array each. Raises `ValueError` where it holds anything else."""
        if not self.body:
            return []
        texts = [self.body]
        if self.is_stream:
            texts = [event.data for event in SseParser(1 << 24).feed(self.body) if event.data]
        messages: list[Any] = []
        for text in texts:
            value = json.loads(text, parse_int=_number)
            messages += value if isinstance(value, list) else [value]
        return messages


def _number(digits: str) -> float:
    """A server's result passes untouched, and may hold integers that Python refuses to read."""
    return int(digits) if len(digits) < 1000 else float("inf")


class Closed(Exception):
    """The gateway closed the connection before the answer was whole."""


class RawConnection:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def end_writing(self) -> None:
        self._writer.write_eof()

    def close(self) -> None:
        self._writer.transport.abort()

    async def answer(self, method: str = "POST") -> Answer:
        """The next answer that is not interim, whole; of the stream that a GET opened, the head. Raises `Closed`."""
        try:
            while (answer := await self._answer(method)).status < 200:
                pass
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Closed from error
        return answer

    async def chunk(self) -> bytes:
        """The next chunk of the body. Raises `Closed` at its end."""
        try:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            content = (await self._reader.readexactly(size + 2))[:-2]
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Closed from error
        if not size:
            raise Closed
        return content

    async def until_closed(self) -> list[Answer]:
        """Every answer until the gateway closes the connection."""
        answers: list[Answer] = []
        try:
            while True:
                answers.append(await self.answer())
        except Closed:
            return answers

    async def _answer(self, method: str) -> Answer:
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
        status = int(lines[0].split(" ")[1])
        closes = headers.get("connection") == "close"
        body = b""
        if method == "HEAD":
            pass
        elif "content-length" in headers:
            body = await self._reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked" and not (method == "GET" and status == 200):
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                body += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readuntil(b"\r\n")
        elif closes:
            body = await self._reader.read()
        return Answer(status, headers, body, closes)


@asynccontextmanager
async def raw_connection(port: int) -> AsyncGenerator[RawConnection]:
    """A connection for the time of the block."""
    connection = RawConnection(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield connection
    finally:
        connection.close()


def post(
    body: bytes, fields: Iterable[tuple[str, str | bytes]] = (), *, method: str = "POST", path: str = "/mcp"
) -> bytes:
    """A request with these header lines besides those that it needs and does not name itself."""
    fields = list(fields)
    named = dict.fromkeys(name.lower() for name, _ in fields)
    needed = [
        ("host", "localhost"),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("content-length", str(len(body))),
    ]
    is_chunked = "transfer-encoding" in named
    lines = [f"{method} {path} HTTP/1.1".encode("latin-1")]
    for name, value in (*(n for n in needed if n[0] not in named), *fields):
        if not (is_chunked and name == "content-length"):
            lines.append(name.encode("latin-1") + b": " + (value if isinstance(value, bytes) else value.encode()))
    return b"\r\n".join([*lines, b"", b""]) + body
