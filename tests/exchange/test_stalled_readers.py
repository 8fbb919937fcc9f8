"""Clients that stop reading are given up, and their connections closed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from msgspec import Raw

from holdfast.downstream.http import QUEUE_LENGTH, QUEUE_LIMIT, STALL_TIMEOUT, AsgiResponder, Message
from holdfast.tasks import TaskScope
from holdfast.testing.clock import ManualClock, settle
from requirements import requirement
from rig import rig

RECEIVE_BUFFER = 4096


class Reader:
    """An ASGI server whose client takes so many messages and no more."""

    def __init__(self, taken: int) -> None:
        self.clock = ManualClock()
        self.aborts = 0
        self.gone = 0
        self.sent = 0
        self._left = asyncio.Semaphore(taken)
        self.responder = AsgiResponder(self.clock, self._abort)
        self.responder.on_gone = self._on_gone
        self.run: asyncio.Task[None]

    def take(self) -> None:
        """Take one message more."""
        self._left.release()

    async def send(self, message: Message) -> None:
        await self._left.acquire()
        self.sent += 1

    async def receive(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    def _abort(self) -> None:
        self.aborts += 1

    def _on_gone(self) -> None:
        self.gone += 1


@asynccontextmanager
async def reading(taken: int) -> AsyncGenerator[Reader]:
    """A reader of a stream that has begun; leaving checks that no timer is left."""
    async with asyncio.timeout(60), TaskScope() as scope:
        reader = Reader(taken)
        reader.responder.open(())
        reader.run = scope.start(reader.responder.run(reader.receive, reader.send, scope), "run")
        await settle()
        yield reader
        reader.run.cancel()
        await settle()
        assert reader.clock.pending == 0


@requirement("faults:slow:given-up")
async def test_a_reader_that_stalls_before_anything_waits_is_given_up_once_it_is_slow() -> None:
    async with reading(taken=3) as reader:
        for _ in range(QUEUE_LENGTH + 10):
            reader.responder.write(b"small")
            await settle(2)
        assert reader.responder.is_slow
        await reader.clock.advance_settled(STALL_TIMEOUT - 1)
        assert not reader.responder.is_gone
        await reader.clock.advance_settled(2)
        assert reader.responder.is_gone
        assert reader.run.done()
        assert (reader.gone, reader.aborts, reader.sent) == (1, 1, 3)


@requirement("faults:slow:given-up")
async def test_a_reader_that_takes_a_piece_from_time_to_time_is_kept() -> None:
    async with reading(taken=1) as reader:
        for _ in range(QUEUE_LENGTH + 10):
            reader.responder.write(b"small")
        for _ in range(20):
            await reader.clock.advance_settled(STALL_TIMEOUT - 1)
            reader.take()
            await settle()
        assert not reader.responder.is_gone
        assert reader.sent == 21
        await reader.clock.advance_settled(STALL_TIMEOUT)
        assert reader.run.done()
        assert reader.gone == 1


@requirement("faults:slow:given-up")
async def test_a_reader_that_has_caught_up_may_be_silent_for_as_long_as_it_likes() -> None:
    async with reading(taken=2) as reader:
        drained: list[bool] = []
        reader.responder.on_drained = lambda: drained.append(True)
        reader.responder.write(b"x" * (QUEUE_LIMIT + 1))
        assert reader.responder.is_slow
        reader.take()
        await settle()
        assert drained == [], "a server hands a piece on at once, and waits for it to be taken at the next"
        reader.take()
        await settle()
        assert drained == [True]
        await reader.clock.advance_settled(10 * STALL_TIMEOUT)
        assert not reader.responder.is_gone
        reader.responder.end()
        reader.take()
        await settle()
        assert reader.run.done()
        assert (reader.gone, reader.aborts) == (0, 0)


@requirement("faults:slow:given-up")
async def test_whoever_stalls_amid_an_answer_that_is_whole_is_dropped_without_a_word_to_its_owner() -> None:
    async with asyncio.timeout(60), TaskScope() as scope:
        reader = Reader(taken=1)
        reader.responder.answer(200, (), [b"x" * 100_000] * 3)
        run = scope.start(reader.responder.run(reader.receive, reader.send, scope), "run")
        await reader.clock.advance_settled(STALL_TIMEOUT)
        assert run.done()
        assert (reader.gone, reader.aborts) == (0, 1)
        assert reader.clock.pending == 0


@requirement("faults:slow:given-up")
async def test_a_push_stream_that_is_not_read_ends_and_its_connection_is_closed() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running:
        client = await running.connected()
        client.close()
        session = running.session_of(client)
        await running.until(lambda: not running.connections)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", running.port))
            head = f"host: localhost\r\naccept: text/event-stream\r\nmcp-session-id: {session.id}"
            await loop.sock_sendall(sock, f"GET /mcp HTTP/1.1\r\n{head}\r\n\r\n".encode())
            await running.until(lambda: session.push_stream.is_read)
            while not session.push_stream.is_slow:
                session.push("test/event", Raw(b'{"text":"%b"}' % (b"x" * 1000)))
                await settle(1)
            await running.passing(STALL_TIMEOUT - 1)
            assert session.push_stream.is_read
            await running.passing(2)
            assert not session.push_stream.is_read
            assert not session.is_busy
            await running.until(lambda: not running.connections)
