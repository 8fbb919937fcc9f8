"""Lines over standard input and output: whatever these are, read and written without holding up the loop."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Hashable
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, Protocol, cast

from holdfast.wire.lines import whole_line

QUEUE_LIMIT: Final = 1024 * 1024
"""Bytes that wait for a slow reader before what may be dropped is dropped, and no more is read."""
QUEUE_LENGTH: Final = 256
_COPY_BYTES: Final = 64 * 1024


class Sink(Protocol):
    """What takes bytes, and calls `pause_writing` of its protocol when it has taken more than it could pass on."""

    def write(self, data: bytes) -> None:
        """Take `data` whole."""


class LineWriter(asyncio.Protocol):
    """Messages to a reader who may be slow: what may be dropped is dropped, and nothing else.

    Questions and results are kept, however many: who stops reading what is asked of it while
    `is_slow` keeps their number small.
    """

    def __init__(self) -> None:
        self.on_slow: Callable[[], None] | None = None
        """Called when more waits than should."""
        self.on_drained: Callable[[], None] | None = None
        """Called when a reader that was slow has caught up."""
        self.on_gone: Callable[[], None] | None = None
        """Called once if nobody reads any more."""
        self.owing: dict[Hashable, Callable[[], None]] = {}
        """Who keeps something for a reader that is slow, and is called when it has caught up."""
        self.is_slow = False
        self.is_gone = False
        self.dropped = 0
        self._sink: Sink | None = None
        self._waiting: deque[bytes] = deque()
        self._signals: set[bytes] = set()
        """Those of `_waiting` of which one is as good as many."""
        self._size = 0
        self._is_paused = False
        self._flushed = asyncio.Event()
        self._flushed.set()

    def emit(self, message: bytes, *, droppable: bool) -> None:
        """Write a message, now or once the reader has caught up."""
        if self.is_gone:
            return
        if droppable and self.is_slow:
            self.dropped += 1
            return
        line = whole_line(message)
        self._waiting.append(line)
        self._size += len(line)
        self._write()

    def signal(self, message: bytes) -> None:
        """As `emit`, for what says nothing new while it waits to be read already, and then must not be lost."""
        line = whole_line(message)
        if not self.is_gone and line not in self._signals:
            self._signals.add(line)
            self.emit(message, droppable=False)

    async def flush(self) -> None:
        """Return once everything is written, or nobody reads it any more."""
        await self._flushed.wait()

    def connect(self, sink: Sink) -> None:
        """Write to `sink` from now on."""
        self._sink = sink
        self._write()

    def _write(self) -> None:
        while self._waiting and not self._is_paused and self._sink is not None:
            line = self._waiting.popleft()
            self._size -= len(line)
            self._signals.discard(line)
            self._sink.write(line)
        if self._waiting or self._is_paused:
            self._flushed.clear()
        else:
            self._flushed.set()
        if not self.is_slow and (self._size > QUEUE_LIMIT or len(self._waiting) > QUEUE_LENGTH):
            self.is_slow = True
            if self.on_slow is not None:
                self.on_slow()
        elif self.is_slow and self._size <= QUEUE_LIMIT // 2 and len(self._waiting) <= QUEUE_LENGTH // 2:
            self.is_slow = False
            if self.on_drained is not None:
                self.on_drained()
            for catch_up in list(self.owing.values()):
                catch_up()

    # What the transport reports.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        pipe = cast("asyncio.WriteTransport", transport)
        pipe.set_write_buffer_limits(high=0)  # what waits, waits here, where it is counted
        self.connect(pipe)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._write()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # whatever became of the reader, there is none
        if self.is_gone:
            return
        self.is_gone = True
        self._waiting.clear()
        self._signals.clear()
        self._size = 0
        self._flushed.set()
        if self.on_gone is not None:
            self.on_gone()


class Reader(Protocol):
    """Who takes what is read."""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""

    def end_of_input(self) -> None:
        """There will be no more."""


class Intake(asyncio.Protocol):
    """Standard input, passed on to a `Reader` unless it is paused."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._transport: asyncio.ReadTransport | None = None
        self._is_paused = False

    def pause(self) -> None:
        """Read no more for now."""
        self._is_paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self._is_paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.ReadTransport", transport)
        if self._is_paused:
            self._transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # an input that fails has ended
        self._reader.end_of_input()


class _File:
    """A `Sink` that never makes its writer wait: a file, or /dev/null."""

    def __init__(self, descriptor: int, writer: LineWriter) -> None:
        self._descriptor = descriptor
        self._writer = writer

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            self._writer.connection_lost(error)


@asynccontextmanager
async def written_to(descriptor: int, writer: LineWriter) -> AsyncGenerator[None]:
    """Let `writer` write to `descriptor` within the block; leaving drops what it has not written."""
    if not _can_be_awaited(descriptor):
        writer.connect(_File(descriptor, writer))
        yield
        return
    with _as_it_was(descriptor):
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_write_pipe(lambda: writer, os.fdopen(os.dup(descriptor), "wb", 0))
        try:
            yield
        finally:
            if not writer.is_gone:  # asyncio fails on what it has closed already
                transport.abort()


@asynccontextmanager
async def read_from(descriptor: int, reader: Reader) -> AsyncGenerator[Intake]:
    """Feed `reader` what `descriptor` yields within the block."""
    intake = Intake(reader)
    with _as_it_was(descriptor):
        source = os.dup(descriptor) if _can_be_awaited(descriptor) else _copied(descriptor)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: intake, os.fdopen(source, "rb", 0))
        try:
            yield intake
        finally:
            transport.close()


def _can_be_awaited(descriptor: int) -> bool:
    """Whether the loop can wait for it: epoll knows no files, nor /dev/null."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


@contextmanager
def _as_it_was(descriptor: int) -> Generator[None]:
    """Leave it as blocking as it was: others may have the same terminal."""
    was_blocking = os.get_blocking(descriptor)
    try:
        yield
    finally:
        with suppress(OSError):
            os.set_blocking(descriptor, was_blocking)


def _copied(descriptor: int) -> int:
    """The near end of a pipe through which a file comes, as fast as it is read."""
    near, far = os.pipe()

    def copy() -> None:
        with suppress(OSError):
            while chunk := os.read(descriptor, _COPY_BYTES):
                view = memoryview(chunk)
                while view:
                    view = view[os.write(far, view) :]
        os.close(far)

    threading.Thread(target=copy, name="read a file", daemon=True).start()
    return near
