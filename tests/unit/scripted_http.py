"""A raw HTTP server on loopback whose every byte a test writes, and recorders for what the client makes of it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from holdfast.clock import Timer
from holdfast.testing.clock import ManualClock
from holdfast.testing.listener import Listener
from holdfast.upstream.http1 import HttpFault
from holdfast.upstream.transport import Fault
from holdfast.wire.jsonrpc import ServerMessage


@dataclass
class SeenRequest:
    """One request as the server read it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int
    """Numbered from 0, in the order in which they were accepted."""


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.is_closed = False
        self.has_ended = False

    def write(self, *parts: bytes) -> None:
        self._writer.write(b"".join(parts))

    def close(self) -> None:
        """Send what was written, then FIN."""
        self.is_closed = True
        self._writer.close()

    def reset(self) -> None:
        """Lose the connection: RST."""
        self.is_closed = True
        raw: socket.socket = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._writer.transport.abort()

    def close_unseen(self) -> None:
        """Send FIN in this very moment, before the client's event loop can run."""
        self.is_closed = True
        raw: socket.socket = self._writer.get_extra_info("socket")
        with socket.socket(fileno=os.dup(raw.fileno())) as twin:
            twin.shutdown(socket.SHUT_WR)

    async def gone(self) -> None:
        """Return when the client has closed the connection."""
        try:
            while await self._reader.read(65536):
                pass
        except OSError:
            pass


Answer = Callable[[SeenRequest, Peer], Awaitable[None]]


class ScriptedServer:
    """Reads requests, and leaves the answers to the test."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[SeenRequest] = []
        self.connections: list[Peer] = []
        self.port = 0
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def seen(self, method: str) -> list[SeenRequest]:
        return [request for request in self.requests if request.method == method]

    async def received(self, count: int, method: str | None = None) -> SeenRequest:
        """Wait for the `count`th request (of a method)."""

        def enough() -> bool:
            return len(self.seen(method) if method else self.requests) >= count

        async with self._changed:
            await self._changed.wait_for(enough)
        return (self.seen(method) if method else self.requests)[count - 1]

    async def dropped(self, connection: int) -> None:
        """Wait until a connection has ended on this side too."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.connections[connection].has_ended)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer)
        number = len(self.connections)
        self.connections.append(peer)
        try:
            while not peer.is_closed:
                request = await _read_request(reader, number)
                self.requests.append(request)
                async with self._changed:
                    self._changed.notify_all()
                await self.answer(request, peer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        except asyncio.CancelledError:
            pass  # asyncio would report it as an error of the connection's callback
        finally:
            writer.transport.abort()
            peer.has_ended = True
            self._tasks.discard(task)
            async with self._changed:
                self._changed.notify_all()

    async def stop(self) -> None:
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _read_request(reader: asyncio.StreamReader, connection: int) -> SeenRequest:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        assert name.lower() not in headers, f"{name} twice"
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return SeenRequest(method, target, headers, body, connection)


@asynccontextmanager
async def scripted(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncGenerator[ScriptedServer]:
    """A server for the time of the block."""
    script = ScriptedServer(answer)

    def protocol() -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), script.accept)

    try:
        async with Listener(protocol, tls=tls) as listener:
            script.port = listener.port
            yield script
    finally:
        await script.stop()


def plain(body: bytes, status: str = "200 OK", content_type: str = "application/json", *extra: str) -> bytes:
    """An answer with a length."""
    lines = [f"HTTP/1.1 {status}", f"content-type: {content_type}", f"content-length: {len(body)}", *extra]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*chunks: bytes, content_type: str = "text/event-stream", extra: tuple[str, ...] = ()) -> bytes:
    """A whole answer in chunks."""
    lines = ["HTTP/1.1 200 OK", f"content-type: {content_type}", "transfer-encoding: chunked", *extra]
    return "\r\n".join([*lines, "", ""]).encode() + b"".join(map(chunk, chunks)) + b"0\r\n\r\n"


def chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


def stream_head(*extra: str) -> bytes:
    """The head of an event stream that goes on."""
    lines = ["HTTP/1.1 200 OK", "content-type: text/event-stream", "transfer-encoding: chunked", *extra]
    return "\r\n".join([*lines, "", ""]).encode()


@dataclass
class RecordingSink:
    """A `ResponseSink` that keeps all it is told."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    chunks: list[bytes] = field(default_factory=list[bytes])
    faults: list[HttpFault] = field(default_factory=list[HttpFault])
    ends: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    progressed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def content(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def fault(self) -> HttpFault:
        assert self.ends == 0
        assert len(self.faults) == 1
        return self.faults[0]

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        assert not self.status, "two heads"
        self.status, self.headers = status, headers

    def body(self, chunk: bytes) -> None:
        assert self.status
        assert chunk
        self.chunks.append(chunk)
        self.progressed.set()

    def end(self) -> None:
        self.ends += 1
        self._finish()

    def failed(self, fault: HttpFault) -> None:
        self.faults.append(fault)
        self._finish()

    def _finish(self) -> None:
        assert self.ends + len(self.faults) == 1, "ended twice"
        self.over.set()


class WatchedClock:
    """A `ManualClock` that tells what was set on it."""

    def __init__(self) -> None:
        self.manual = ManualClock()
        self._set: list[tuple[str, float]] = []
        self._changed = asyncio.Event()

    def now(self) -> float:
        return self.manual.now()

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        self._set.append((getattr(callback, "__qualname__", ""), delay))
        self._changed.set()
        return self.manual.call_later(delay, callback)

    async def sleep(self, delay: float) -> None:
        await self.manual.sleep(delay)

    def advance(self, seconds: float) -> None:
        self.manual.advance(seconds)

    async def timer(self, name: str, count: int) -> float:
        """Wait until callbacks of this name were set `count` times; the delay of that one."""
        while len(delays := [delay for set_name, delay in self._set if set_name == name]) < count:
            self._changed.clear()
            await self._changed.wait()
        return delays[count - 1]


class RecordingReceiver:
    """A `Receiver` that keeps all it is told, in order."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, int | None]] = []
        self.faults: list[tuple[int, Fault]] = []
        self.suspensions: list[int] = []
        self.pushes: list[bool] = []
        self.suspicions: list[Fault] = []
        self.calls = 0
        self.on_call: Callable[[], None] | None = None
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def outcome(self, request_id: int) -> bytes | Fault:
        """The fault or the first message of a request."""
        faults, messages = self.faults, self.messages
        await self.until(lambda: request_id in {number for number, _ in faults} | {number for _, number in messages})
        for number, fault in faults:
            if number == request_id:
                return fault
        return next(message for message, number in messages if number == request_id)

    def received(self, message: bytes, request_id: int | None, envelope: ServerMessage | None = None) -> None:
        self.messages.append((message, request_id))
        self._note()

    def failed(self, request_id: int, fault: Fault) -> None:
        self.faults.append((request_id, fault))
        self._note()

    def suspended(self, request_id: int) -> None:
        self.suspensions.append(request_id)
        self._note()

    def push_stream(self, is_up: bool) -> None:
        self.pushes.append(is_up)
        self._note()

    def suspected(self, fault: Fault) -> None:
        self.suspicions.append(fault)
        self._note()

    def lost(self, fault: Fault) -> None:
        raise AssertionError("an HTTP session cannot be lost by its link")

    def _note(self) -> None:
        self.calls += 1
        self._changed.set()
        if self.on_call is not None:
            self.on_call()
