"""A listening socket that loses none of the connections that it accepts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from holdfast.tasks import TaskScope

_BACKLOG: Final = 1024


class Listener:
    """Accepts connections within its block, or until `close`; leaving it drops those that are not made yet.

    Stands in for `asyncio.Server`, which makes a connection of an accepted socket in a later turn of
    the loop and, where the server was closed in between, fails (`Server._attach`): the peer stays
    connected to nobody until the garbage collector finds the socket, and warns.

    A connection that was made belongs to its protocol. Entering raises `OSError` where the port is taken.
    """

    def __init__(
        self,
        protocol: Callable[[], asyncio.BaseProtocol],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.host = host
        self.port = port
        """0 takes any free one, which stands here from then on."""
        self._protocol = protocol
        self._tls = tls
        self._connecting = TaskScope()
        self._socket: socket.socket | None = None

    async def __aenter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listening = socket.create_server((self.host, self.port), family=family, backlog=_BACKLOG)
        listening.setblocking(False)
        self.port = listening.getsockname()[1]
        await self._connecting.__aenter__()
        self._socket = listening
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        await self._connecting.__aexit__(kind, error, trace)

    def close(self) -> None:
        """Refuse connections from now on; what was accepted still becomes a connection. Idempotent."""
        listening, self._socket = self._socket, None
        if listening is not None:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                self._start(listening.accept()[0])

    def _start(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio's, where it knows the protocol
        task = self._connecting.start(self._connect(accepted), "connect an accepted socket")
        # A task cancelled before its first step never hands the socket on.
        task.add_done_callback(lambda ended: accepted.close() if ended.cancelled() else None)

    async def _connect(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError):  # of the TLS handshake: the transport is closed
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, accepted, ssl=self._tls)
