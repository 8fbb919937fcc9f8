"""Pipes to a process that is about to be started, as transports of our own.

Those of the loops' subprocess transports hand what they read on in a later turn, through calls that
a message need not pay for. uvloop's are sockets besides, which cost the kernel twice as much.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress


class _End:
    """Our end of a pipe, as both loops take it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._file = os.fstat(descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        """Close it unless that was done: uvloop calls this when it has, and the number may be another's by then."""
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._descriptor), self._file):
                os.close(self._descriptor)


async def pipe_to_child(protocol: asyncio.BaseProtocol) -> tuple[asyncio.WriteTransport, int]:
    """Where we write, and the descriptor that the child reads, which the caller closes. Raises `OSError`.

    Cancelled, it leaves nothing open.
    """
    theirs, ours = os.pipe()
    end = _End(ours)
    try:
        transport, _ = await asyncio.get_running_loop().connect_write_pipe(lambda: protocol, end)
    except BaseException:
        end.close()
        os.close(theirs)
        raise
    return transport, theirs


async def pipe_from_child(protocol: asyncio.Protocol) -> tuple[asyncio.ReadTransport, int]:
    """Where we read, from `resume_reading` on, and the descriptor that the child writes. The rest as above."""
    ours, theirs = os.pipe()
    end = _End(ours)
    try:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, end)
    except BaseException:
        end.close()
        os.close(theirs)
        raise
    transport.pause_reading()
    return transport, theirs
