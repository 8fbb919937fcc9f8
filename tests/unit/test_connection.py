"""What a client's connection writes, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from holdfast.downstream.connection import Connection
from holdfast.downstream.http import Message
from requirements import requirement
from rows import row

HEAD = b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n"


class Recorder(asyncio.Transport):
    """A transport that keeps what each call wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.wrote = asyncio.Event()
        self.is_closed = False
        self.has_ended = False
        """Nothing more will be written; what comes is still read."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writelines([data])

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.writes.append(b"".join(list_of_data))
        self.wrote.set()

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def write_eof(self) -> None:
        self.has_ended = True

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


Send = Callable[[Message], Awaitable[None]]


@asynccontextmanager
async def connected(
    answer: Callable[[Callable[[], Awaitable[Message]], Send], Awaitable[None]],
) -> AsyncGenerator[tuple[Connection, Recorder]]:
    """A connection to an application that answers each request so."""

    async def app(scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        await answer(receive, send)

    config: Any = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, date_header=False)
    config.load()
    state = ServerState()
    connection, transport = Connection(config, state, {}), Recorder()
    async with asyncio.timeout(10):
        connection.connection_made(transport)
        yield connection, transport
        for task in tuple(state.tasks):
            await task
        transport.close()
        connection.connection_lost(None)


def start(length: int | None = None) -> Message:
    headers = [] if length is None else [(b"content-length", b"%d" % length)]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def body(content: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def test_a_whole_answer_goes_out_in_one_write() -> None:
    async def answer(receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        await send(start(5))
        await send(body(b"whole"))

    async with connected(answer) as (connection, transport):
        for _ in range(2):
            transport.wrote.clear()
            connection.data_received(HEAD + b"\r\n{}")
            await transport.wrote.wait()
    assert transport.writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole"] * 2


async def test_the_head_of_a_stream_goes_out_with_its_first_piece_even_an_empty_one() -> None:
    go_on = asyncio.Event()

    async def answer(receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        await send(start())
        await send(body(b"", more=True))
        await go_on.wait()
        await send(body(b"one", more=True))
        await send(body(b"two", more=True))
        await send(body(b""))

    async with connected(answer) as (connection, transport):
        connection.data_received(HEAD + b"\r\n{}")
        await transport.wrote.wait()
        assert transport.writes == [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"]
        go_on.set()
    assert transport.writes[1:] == [b"3\r\none\r\n", b"3\r\ntwo\r\n", b"0\r\n\r\n"]


async def test_a_client_that_waits_for_leave_to_send_its_body_gets_it_before_the_answer() -> None:
    async def answer(receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        message = await receive()
        await send(start(2))
        await send(body(message["body"]))

    async with connected(answer) as (connection, transport):
        connection.data_received(HEAD + b"expect: 100-continue\r\n\r\n")
        await transport.wrote.wait()
        assert transport.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]
        connection.data_received(b"{}")
    assert transport.writes[1:] == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"]


async def test_an_answer_without_a_body_is_not_kept_back() -> None:
    async def answer(receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        await send(start(5))
        await send(body(b"whole"))

    async with connected(answer) as (connection, transport):
        connection.data_received(b"HEAD /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await transport.wrote.wait()
    assert transport.writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"]


@pytest.mark.parametrize("pieces", [[HEAD + b"\r\n", b"{}"], [HEAD + b"\r\n", b"{"], [b"\r\n"]])
async def test_a_connection_on_which_nothing_is_under_way_is_idle_whatever_came_last(pieces: list[bytes]) -> None:
    async def answer(receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        await send(start(2))
        await send(body(b"no"))

    async with connected(answer) as (connection, transport):
        for piece in pieces:
            connection.data_received(piece)
            if piece.startswith(HEAD):
                await transport.wrote.wait()
        connection.timeout_keep_alive = 0
        connection.timeout_keep_alive_handler()
        assert transport.is_closed or transport.has_ended


async def test_every_request_learns_that_the_client_has_left_not_the_last_alone() -> None:
    heard = asyncio.Event()

    async def answer(receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        heard.set()

    async with connected(answer) as (connection, _):
        connection.data_received((HEAD + b"\r\n{}") * 2)
        connection.connection_lost(None)
        await heard.wait()


async def test_a_head_that_waits_for_the_answer_before_it_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.downstream.connection.HEAD_TIMEOUT", 0)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def answer(receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        begun.set()
        await go_on.wait()
        await send(start(2))
        await send(body(b"{}"))

    async with connected(answer) as (connection, transport):
        connection.data_received((HEAD + b"\r\n{}") * 2 + HEAD)
        await begun.wait()
        late = asyncio.Event()
        asyncio.get_running_loop().call_later(0, late.set)  # after what HEAD_TIMEOUT set off
        await late.wait()
        assert not transport.is_closed
        go_on.set()


class SteppedLoop:
    """A loop's time, as a test says it."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> SimpleNamespace:
        return SimpleNamespace(cancel=lambda: None)


@row(29)
@requirement("exchange:refusals:rest")
async def test_empty_lines_begin_no_request_and_keep_no_connection() -> None:
    config: Any = uvicorn.Config(_unserved, log_config=None, timeout_keep_alive=75)
    config.load()
    loop: Any = SteppedLoop()
    connection, transport = Connection(config, ServerState(), {}, loop), Recorder()
    connection.connection_made(transport)
    for _ in range(3):
        assert not transport.is_closed
        loop.now += 25
        connection.data_received(b"\r\n")
    connection.timeout_keep_alive_handler()
    assert transport.is_closed
    assert transport.writes == []


async def _unserved(scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None: ...
