"""An answer that comes by ASGI in two pieces, its head and its body, and goes to the kernel in one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_CONTINUE: Final = b"HTTP/1.1 100"


class OneAnswer(asyncio.Transport):
    """The transport as it is for one answer: its head waits for what comes after it (ASGI HTTP, Response Start).

    So a whole answer goes to the kernel, which is most of what it costs, once and not twice.
    """

    __slots__ = ("_close", "_head", "_is_in_body", "_transport")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self._close = close
        self._head = b""
        self._is_in_body = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_in_body:
            self._transport.write(data)
        elif self._head:
            self._is_in_body = True
            self._transport.writelines((self._head, data))
        elif data[:12] == _CONTINUE:
            self._transport.write(data)
        else:
            self._head = bytes(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._close()
