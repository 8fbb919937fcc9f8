"""A TCP proxy on loopback that breaks connections on demand, between a client and a server."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Final, Self

from holdfast.clock import Clock, LoopClock
from holdfast.tasks import TaskScope
from holdfast.testing.clock import settle
from holdfast.testing.listener import Listener
from holdfast.testing.server_core import Changes

_CHUNK_BYTES: Final = 64 * 1024
_LINGER_NOT: Final = struct.pack("ii", 1, 0)
_SO_ATTACH_FILTER: Final = 26
_DROP_ALL: Final = struct.pack("HBBI", 0x06, 0, 0, 0)
"""A filter of one instruction: return 0, take no byte of any packet."""


class Direction(Enum):
    """Which way bytes flow."""

    TO_SERVER = auto()
    TO_CLIENT = auto()


@dataclass(slots=True)
class _Faults:
    """What befalls the bytes of one direction, on all connections."""

    is_stalled: bool = False
    slice_bytes: int | None = None
    delay: float = 0.0
    cut_after: int | None = None
    reset: bool = True
    passed: int = 0


class ProxiedConnection:
    """One connection of a client and, once made, the one to the server behind it."""

    def __init__(self, client: asyncio.StreamWriter, changes: Changes) -> None:
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.passed: dict[Direction, int] = dict.fromkeys(Direction, 0)
        """Bytes that went through."""
        self._changes = changes

    def drop(self, *, reset: bool = True) -> None:
        """Close both sides at once: with RST, or with FIN."""
        for writer in (self.client, self.server):
            if writer is not None:
                _drop(writer, reset=reset)
        self._changes.touch()


@dataclass(eq=False)
class FaultProxy:
    """Listens on a free port of loopback and relays to `upstream_host`:`upstream_port`.

    Every fault may be set and lifted at any time and concerns all connections, open and to
    come. Leaving aborts all connections. `delay` counts in the seconds of `clock`.
    """

    upstream_host: str
    upstream_port: int
    clock: Clock | None = None
    port: int = field(default=0, init=False)
    accepted: int = field(default=0, init=False)
    """Connections accepted so far."""
    connections: list[ProxiedConnection] = field(default_factory=list[ProxiedConnection], init=False)
    """Connections that are open now, oldest first."""

    def __post_init__(self) -> None:
        self._faults = {direction: _Faults() for direction in Direction}
        self._changes = Changes()
        self._scope = TaskScope()
        self._listener: Listener | None = None
        self._listeners = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        await self._listeners.aclose()
        self.drop_all()
        await self._scope.__aexit__(kind, error, trace)

    def refuse(self) -> None:
        """Refuse new connections; open ones go on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def accept(self) -> None:
        """Accept connections, on the same port as before."""
        if self._listener is None:
            self._listener = await self._listeners.enter_async_context(Listener(self._protocol, port=self.port))
            self.port = self._listener.port

    def stall(self, *directions: Direction) -> None:
        """Read nothing more of these directions (none named: of both), as a frozen peer or a dead link would."""
        for direction in directions or Direction:
            self._faults[direction].is_stalled = True

    def flow(self, *directions: Direction) -> None:
        """End a stall, and send on what was held."""
        for direction in directions or Direction:
            self._faults[direction].is_stalled = False
        self._changes.touch()

    def cut_after(self, direction: Direction, count: int, *, reset: bool = True) -> None:
        """After `count` more bytes of this direction, drop the connection that carried the last of them, once.

        With `reset` both sides see RST; without, the reader of that direction sees its end (a
        half-close) and the rest of the direction is lost. 0 cuts before the next byte.
        """
        faults = self._faults[direction]
        faults.cut_after, faults.reset = count, reset

    def slice(self, count: int | None) -> None:
        """Send on at most `count` bytes at a time, both ways; None ends that."""
        for faults in self._faults.values():
            faults.slice_bytes = count

    def delay(self, seconds: float, *directions: Direction) -> None:
        """Hold each chunk for `seconds` before it is sent on; 0 ends that."""
        for direction in directions or Direction:
            self._faults[direction].delay = seconds

    def drop_all(self, *, reset: bool = True) -> None:
        """Close every open connection at once: with RST, or with FIN."""
        for connection in list(self.connections):
            connection.drop(reset=reset)

    def vanish(self) -> None:
        """Acknowledge nothing more on the open connections, as a peer whose power failed; new ones work. Linux only."""
        for connection in self.connections:
            _vanish(connection.client)

    def passed(self, direction: Direction) -> int:
        """Bytes of that direction that went through, over all connections there ever were."""
        return self._faults[direction].passed

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Return once `predicate` holds; it is asked after each chunk, connection and cut."""
        await self._changes.until(predicate)

    async def connected(self, count: int = 1) -> None:
        """Return once `count` connections in all were accepted."""
        await self.until(lambda: self.accepted >= count)

    async def disconnected(self) -> None:
        """Return once no connection is open."""
        await self.until(lambda: not self.connections)

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._accepted)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._listener is None:
            _drop(writer, reset=True)
            return
        connection = ProxiedConnection(writer, self._changes)
        self.connections.append(connection)
        self.accepted += 1
        self._changes.touch()
        self._scope.start(self._serve(connection, reader), "proxied connection")

    async def _serve(self, connection: ProxiedConnection, from_client: asyncio.StreamReader) -> None:
        try:
            from_server, connection.server = await asyncio.open_connection(self.upstream_host, self.upstream_port)
            for writer in (connection.client, connection.server):
                writer.transport.set_write_buffer_limits(0)  # so that `drain` means: the kernel has it
            async with asyncio.TaskGroup() as both:
                both.create_task(self._relay(connection, Direction.TO_SERVER, from_client, connection.server))
                both.create_task(self._relay(connection, Direction.TO_CLIENT, from_server, connection.client))
        except OSError:
            connection.drop()
        finally:
            connection.drop(reset=False)
            self.connections.remove(connection)
            self._changes.touch()

    async def _relay(
        self,
        connection: ProxiedConnection,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        faults = self._faults[direction]
        try:
            while True:
                await self._changes.until(lambda: not faults.is_stalled or writer.is_closing())
                chunk = await reader.read(faults.slice_bytes or _CHUNK_BYTES)
                await self._changes.until(lambda: not faults.is_stalled or writer.is_closing())
                if faults.delay > 0:
                    await (self.clock or LoopClock()).sleep(faults.delay)
                if writer.is_closing():
                    return
                if not chunk:
                    writer.write_eof()
                    return
                if not await self._pass(connection, direction, chunk, writer):
                    return
        except OSError:
            connection.drop()

    async def _pass(
        self, connection: ProxiedConnection, direction: Direction, chunk: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        """Send on what of `chunk` comes before a cut; False after the cut."""
        faults = self._faults[direction]
        is_cut = faults.cut_after is not None and faults.cut_after <= len(chunk)
        if faults.cut_after is not None:
            chunk = chunk[: faults.cut_after]
            faults.cut_after = None if is_cut else faults.cut_after - len(chunk)
        writer.write(chunk)
        await writer.drain()
        faults.passed += len(chunk)
        connection.passed[direction] += len(chunk)
        if is_cut:
            if faults.reset:
                await _arrived(writer)
                connection.drop()
            elif not writer.is_closing():
                writer.write_eof()
        self._changes.touch()
        return not is_cut


def _vanish(writer: asyncio.StreamWriter) -> None:
    """Have the kernel drop what comes on this connection before TCP sees it."""
    program = ctypes.create_string_buffer(_DROP_ALL)
    filter_ = struct.pack("HP", 1, ctypes.addressof(program))
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)


async def _arrived(writer: asyncio.StreamWriter) -> None:
    """Return once the peer's kernel has what was written: an RST may overtake it, and then destroys it."""
    descriptor = writer.get_extra_info("socket").fileno()
    while not writer.is_closing() and _unacknowledged(descriptor):
        await settle(1)


def _unacknowledged(descriptor: int) -> int:
    """Bytes that the peer's kernel has not acknowledged; 0 where ours does not tell."""
    try:
        return int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def _drop(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset and not writer.transport.is_closing():
        # A duplicate, since uvloop's own socket object has no setsockopt; the option is the connection's.
        descriptor = os.dup(writer.get_extra_info("socket").fileno())
        with contextlib.suppress(OSError), socket.socket(fileno=descriptor) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()
