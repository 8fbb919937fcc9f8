"""Stands between a host and Holdfast: writes down what passes and how long it took, or hides the newer revision."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import Any, Final, Self

from holdfast.tasks import TaskScope
from holdfast.testing.listener import Listener

_REFUSAL: Final = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Initialize first."}}'


@dataclass(frozen=True)
class Passed:
    """One request and its answer."""

    verb: str
    method: str
    """Of the JSON-RPC message; empty where there is none."""
    status: int
    seconds: float
    """From the last byte of the request to the last of the answer."""


class Relay:
    """Listens within its block, and hands each request on by a connection of its own."""

    def __init__(self, port: int, *, is_old: bool = False) -> None:
        self.passed: list[Passed] = []
        self._target = port
        self._is_old = is_old
        """Whether it passes for a gateway that knows no revision without a handshake."""
        self._scope = TaskScope()
        self._listener = Listener(self._connect)

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        await self._listener.__aenter__()
        return self

    async def __aexit__(self, *ending: object) -> None:
        await self._listener.__aexit__(None, None, None)
        self._scope.cancel()
        await self._scope.__aexit__(None, None, None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.port}/mcp"

    def _connect(self) -> asyncio.BaseProtocol:
        reader = asyncio.StreamReader()
        return asyncio.StreamReaderProtocol(reader, self._accept)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._scope.start(self._serve(reader, writer), "relay a connection")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                fields = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines[1:])}
                body = await reader.readexactly(int(fields.get("content-length", "0")))
                message: Any = json.loads(body) if body else {}
                method: str = message.get("method", "")
                begun = time.monotonic()
                if self._is_old and method == "server/discover":
                    writer.write(
                        b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
                        b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_REFUSAL), _REFUSAL)
                    )
                    status = 400
                else:
                    status = await self._hand_on(lines, body, writer)
                self.passed.append(Passed(lines[0].split()[0], method, status, time.monotonic() - begun))
                return  # one request for each connection: where an answer ends needs no reading

    async def _hand_on(self, lines: list[str], body: bytes, writer: asyncio.StreamWriter) -> int:
        kept = [each for each in lines[1:] if each and not each.lower().startswith("connection:")]
        upstream, sender = await asyncio.open_connection("127.0.0.1", self._target)
        with contextlib.closing(sender):
            head = "\r\n".join([lines[0], *kept, "connection: close", "", ""])
            sender.write(head.encode("latin-1") + body)
            first = await upstream.readuntil(b"\r\n")
            writer.write(first)
            while chunk := await upstream.read(65536):
                writer.write(chunk)
                await writer.drain()
        return int(first.split()[1])
