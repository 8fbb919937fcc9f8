"""Answers that are written to a connection's transport by callbacks, and connections that nobody reads."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from holdfast.downstream.app import App
from holdfast.downstream.connection import Connection
from holdfast.downstream.direct import JOIN_LIMIT, DirectResponder
from holdfast.downstream.http import (
    QUEUE_LENGTH,
    QUEUE_LIMIT,
    STALL_TIMEOUT,
    Headers,
    HttpResponder,
    Message,
    Receive,
    Send,
)
from holdfast.testing.clock import ManualClock
from requirements import requirement
from rows import row

JSON: Headers = ((b"content-type", b"application/json"),)


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.pieces: list[list[bytes]] = []
        self.unread = 0
        self.is_closed = False
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writelines([data])

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.pieces.append(pieces := [bytes(data) for data in list_of_data])
        self.writes.append(b"".join(pieces))

    def is_closing(self) -> bool:
        return self.is_closed or self.is_aborted

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True

    def get_write_buffer_size(self) -> int:
        return self.unread

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Wire:
    """A connection of which the test says whether its reader keeps up."""

    def __init__(self) -> None:
        self.own = Transport()
        self.default_headers: Headers = ((b"date", b"now"),)
        self.is_paused = False
        self.whole: list[DirectResponder] = []
        self.over: list[HttpResponder] = []
        self.heard: list[str] = []
        self.responder = DirectResponder(self, keep_alive=True, on_over=self.over.append)
        self.responder.request_id = "r"
        self.responder.on_gone = lambda: self.heard.append("gone")
        self.responder.on_drained = lambda: self.heard.append("drained")

    @property
    def transport(self) -> asyncio.Transport:
        return self.own

    def answered(self, answer: DirectResponder) -> None:
        self.whole.append(answer)


@requirement("http:direct:one-write")
async def test_an_answer_is_one_write_and_a_large_one_is_not_copied_together() -> None:
    wire = Wire()
    wire.responder.answer(200, JSON, (b"{", b"}"))
    assert wire.own.writes == [
        (
            b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-type: application/json\r\n"
            b"content-length: 2\r\nx-request-id: r\r\n\r\n{}"
        )
    ]
    assert (wire.whole, wire.over) == ([wire.responder], [wire.responder])
    assert wire.responder.response_complete
    wire.responder.answer(200, JSON, (b"more",))
    assert len(wire.own.writes) == 1
    large = Wire()
    large.responder.answer(200, JSON, (b"x" * JOIN_LIMIT, b"y" * JOIN_LIMIT))
    assert len(large.own.writes) == 1
    assert large.own.pieces[0][1:] == [b"x" * JOIN_LIMIT, b"y" * JOIN_LIMIT]


@requirement("http:direct:one-write")
async def test_an_answer_says_the_time_of_the_moment_whatever_was_answered_before() -> None:
    earlier, now = ((b"date", b"earlier"),), ((b"date", b"now"),)
    for defaults, headers in ((earlier, JSON), (now, list(JSON)), (now, JSON)):
        wire = Wire()
        wire.default_headers = defaults
        wire.responder.answer(200, headers, (b"{}",))
        assert wire.own.writes[0].startswith(b"HTTP/1.1 200 OK\r\ndate: %b\r\n" % defaults[0][1])


@requirement("http:direct:one-write")
async def test_what_is_said_in_one_turn_of_the_loop_is_one_write_of_one_chunk_each() -> None:
    wire = Wire()
    wire.responder.open(JSON)
    wire.responder.write(b"one")
    wire.responder.write(b"")
    wire.responder.write(b"two")
    assert wire.own.writes == []
    await asyncio.sleep(0)
    (said,) = wire.own.writes
    assert said.endswith(b"transfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n")
    wire.responder.write(b"three")
    wire.responder.end()
    assert wire.own.writes[1:] == [b"5\r\nthree\r\n0\r\n\r\n"], "the end waits for no turn"
    wire.responder.write(b"late")
    assert len(wire.own.writes) == 2


@requirement("http:direct:slow-readers")
@row(38)
async def test_what_a_slow_reader_is_to_get_waits_in_order_and_its_writer_knows() -> None:
    wire = Wire()
    wire.responder.open(JSON)
    await asyncio.sleep(0)
    wire.is_paused = True
    for number in range(QUEUE_LENGTH + 1):
        assert not wire.responder.is_slow
        wire.responder.write(b"%d" % number)
    assert wire.responder.is_slow
    assert len(wire.own.writes) == 1
    wire.is_paused = False
    wire.responder.flush()
    assert not wire.responder.is_slow
    assert wire.heard == ["drained"]
    said = b"".join(wire.own.writes).split(b"\r\n\r\n", 1)[1]
    assert said.split(b"\r\n")[1::2] == [b"%d" % number for number in range(QUEUE_LENGTH + 1)]
    wire.is_paused = True
    wire.responder.write(b"x" * (QUEUE_LIMIT + 1))
    assert wire.responder.is_slow


@requirement("http:direct:slow-readers")
@row(38)
async def test_who_is_told_much_in_one_turn_of_the_loop_is_not_slow() -> None:
    wire = Wire()
    wire.responder.open(JSON)
    for number in range(QUEUE_LENGTH * 3):
        wire.responder.write(b"%d" % number)
        assert not wire.responder.is_slow
    wire.responder.write(b"x" * (QUEUE_LIMIT + 1))
    assert not wire.responder.is_slow
    wire.responder.end()
    said = b"".join(wire.own.writes).split(b"\r\n\r\n", 1)[1]
    assert said.split(b"\r\n")[1 : QUEUE_LENGTH * 6 : 2] == [b"%d" % number for number in range(QUEUE_LENGTH * 3)]
    assert wire.heard == []


class Large:
    """What a call holds."""

    def hear(self, *what: object) -> None: ...


@requirement("http:direct:slow-readers")
@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_connection_without_a_request_keeps_nothing_of_its_last_answer(*, is_answered: bool) -> None:
    wire, large = Wire(), Large()
    responder, known = wire.responder, weakref.ref(large)
    responder.on_gone = responder.on_drained = responder.on_begun = large.hear
    del large
    if is_answered:
        responder.answer(200, JSON, (b"{}",))
    else:
        responder.leave()
    assert known() is None


@requirement("http:direct:slow-readers")
async def test_an_answer_is_over_once_its_reader_has_room_for_the_rest() -> None:
    wire = Wire()
    wire.is_paused = True
    wire.responder.answer(200, JSON, (b"{}",))
    assert wire.responder.is_gone, "nothing more can be written"
    assert (wire.own.writes, wire.over, wire.responder.response_complete) == ([], [], False)
    wire.is_paused = False
    wire.responder.flush()
    assert wire.responder.response_complete
    assert len(wire.over) == 1


@requirement("http:direct:slow-readers")
async def test_who_leaves_is_told_of_once_and_written_to_no_more() -> None:
    wire = Wire()
    wire.responder.open(JSON)
    wire.responder.leave()
    wire.responder.leave()
    wire.responder.write(b"late")
    wire.responder.end()
    await asyncio.sleep(0)
    assert (wire.heard, wire.own.writes, len(wire.over)) == (["gone"], [], 1)
    after = Wire()
    after.responder.answer(202, ())
    after.responder.leave()
    assert (after.heard, len(after.over)) == ([], 1)


async def _unserved(scope: Message, receive: Receive, send: Send) -> None: ...


class Amid(Connection):
    """A connection amid an answer that is written directly."""

    def begin(self, clock: ManualClock) -> DirectResponder:
        self._app = cast("App", SimpleNamespace(clock=clock))
        self._direct = responder = DirectResponder(self, keep_alive=True, on_over=lambda _: None)
        responder.open(JSON)
        return responder


def stalling(clock: ManualClock) -> tuple[Connection, Transport, DirectResponder]:
    """A connection amid an answer."""
    config: Any = Config(_unserved, log_config=None, access_log=False)
    config.load()
    connection, transport = Amid(config, ServerState(), {}), Transport()
    connection.connection_made(transport)
    return connection, transport, connection.begin(clock)


@requirement("http:direct:slow-readers")
@row(38)
@pytest.mark.parametrize("is_read", [True, False])
async def test_a_reader_that_takes_nothing_is_given_up_and_one_that_takes_little_is_not(*, is_read: bool) -> None:
    clock = ManualClock()
    connection, transport, responder = stalling(clock)
    heard: list[str] = []
    responder.on_gone = lambda: heard.append("gone")
    transport.unread = 100_000
    connection.pause_writing()
    for _ in range(3):
        await clock.advance_settled(STALL_TIMEOUT - 1)
        assert not transport.is_aborted
        transport.unread -= 10 if is_read else 0
        await clock.advance_settled(1)
        if not is_read:
            break
    assert transport.is_aborted is not is_read
    assert heard == ([] if is_read else ["gone"])
    connection.resume_writing()
    await clock.advance_settled(STALL_TIMEOUT * 2)
    assert transport.is_aborted is not is_read
    connection.connection_lost(None)
    assert clock.pending == 0


@requirement("http:direct:slow-readers")
@row(38)
@pytest.mark.parametrize("is_read", [True, False])
async def test_a_closed_connection_waits_for_who_reads_and_for_nobody_else(*, is_read: bool) -> None:
    clock = ManualClock()
    connection, transport, responder = stalling(clock)
    transport.unread = 100  # too little for the transport to say that it waits
    responder.keep_alive = False
    responder.end()
    assert transport.is_closing()
    assert not transport.is_aborted
    transport.unread -= 10 if is_read else 0
    await clock.advance_settled(STALL_TIMEOUT)
    assert transport.is_aborted is not is_read
    connection.connection_lost(None)
    assert clock.pending == 0
