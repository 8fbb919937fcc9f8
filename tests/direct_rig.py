"""A gateway whose connections are in memory, so that a test says and sees every byte, and each way into it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from holdfast.config import GatewaySettings, ServerSettings
from holdfast.downstream.app import Kept
from holdfast.downstream.connection import Connection
from holdfast.gateway import Gateway
from holdfast.testing.server import ScriptedServer
from holdfast.wire.familiar import HeadMemory
from rig import NAME

_OWN: Final = re.compile(rb"(?im)^(date|x-request-id|mcp-session-id): [^\r\n]*\r\n")
"""What no two answers have in common."""
END: Final = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


class ThroughAsgi(Connection):
    """As the connection is for an application that it does not know."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._app = None


class Parsing(Connection):
    """As the connection is while it knows no head: everything goes through the parser."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._heads = HeadMemory[Kept](lessons=0)


class Wire(asyncio.Transport):
    """A connection in memory: unlike one of TCP, it loses nothing that was said before it was closed."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.said = bytearray()
        self.reads = asyncio.Event()
        self.reads.set()
        self.closed = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said += data

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.said += data

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        if not self.closed.is_set():
            self.closed.set()
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def write_eof(self) -> None:
        self.close()  # as a client does that hears of nothing more

    def pause_reading(self) -> None:
        self.reads.clear()

    def resume_reading(self) -> None:
        self.reads.set()

    def get_write_buffer_size(self) -> int:
        return 0


class Ways:
    """The two ways into one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._state = ServerState()
        self._config: Any = Config(
            gateway.app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        self._config.load()

    def connect(self, kind: type[Connection] = Connection) -> Wire:
        """A connection that was just made."""
        connection = kind(self._config, self._state, {})
        wire = Wire(connection)
        connection.connection_made(wire)
        return wire

    @property
    def tasks(self) -> int:
        """Requests that ASGI's application answers."""
        return len(self._state.tasks)

    async def said(self, kind: type[Connection], pieces: list[bytes]) -> bytes:
        """Everything that is written until the connection is closed."""
        wire = self.connect(kind)
        connection = wire.connection
        async with asyncio.timeout(20):
            for piece in pieces:
                await wire.reads.wait()
                if wire.is_closing():
                    break
                connection.data_received(piece)
                await asyncio.sleep(0)
            await wire.closed.wait()
            if self._state.tasks:
                await asyncio.wait(self._state.tasks)
        return _OWN.sub(b"", bytes(wire.said))

    async def answers(self, pieces: list[bytes]) -> tuple[bytes, bytes]:
        """What each way says to the same bytes."""
        return await self.said(Connection, pieces), await self.said(ThroughAsgi, pieces)

    async def check(self, *pieces: bytes) -> bytes:
        """What both say, which must be the same."""
        direct, asgi = await self.answers(list(pieces))
        assert direct == asgi
        return direct

    async def check_known(self, *pieces: bytes) -> bytes:
        """What is said where heads are known and where they are not, which must be the same."""
        known, parsed = await self.said(Connection, list(pieces)), await self.said(Parsing, list(pieces))
        assert known == parsed
        return known


@asynccontextmanager
async def ways() -> AsyncGenerator[Ways]:
    async with asyncio.timeout(250), ScriptedServer() as upstream:
        whole = GatewaySettings(servers=(ServerSettings(name=NAME, url=upstream.url),))
        async with Gateway(whole) as gateway:
            yield Ways(gateway)


def post(body: bytes, *headers: bytes, path: bytes = b"/mcp", version: bytes = b"HTTP/1.1") -> bytes:
    length = (
        ()
        if any(h.lower().startswith((b"content-length", b"transfer-encoding")) for h in headers)
        else (b"content-length: %d" % len(body),)
    )
    lines = [b"POST " + path + b" " + version, b"host: localhost", *length, *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
