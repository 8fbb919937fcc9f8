"""Answers whose heads came before: taken whole, and exactly as the parser would have read them."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Mapping
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.upstream.http1 import HttpFault
from holdfast.upstream.http1_connection import Connection, Exchange
from holdfast.upstream.http1_response import KnownHead, KnownHeads
from holdfast.upstream.streamable_answer import response_of
from holdfast.upstream.streamable_request import FOREIGN_TIMEOUT
from holdfast.upstream.transport import Fault
from holdfast.wire.jsonrpc import decode_result
from requirements import requirement
from unit.scripted_http import Peer, ScriptedServer, SeenRequest, plain
from unit.streamable_rig import CALL, PROGRESS, answering, event, rig

SESSION: Final = "mcp-session-id: s"


class Wire(asyncio.Transport):
    """A transport that keeps what is written to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.socket = socket.socket()
        self.is_closed = False
        self.is_read = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket if name == "socket" else default

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def is_closing(self) -> bool:
        return self.is_closed

    def abort(self) -> None:
        self.is_closed = True
        self.socket.close()

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


class Sink:
    """Notes what an answer was, whichever way it came."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.content = b""
        self.ends = 0
        self.wholes = 0
        self.faults: list[HttpFault] = []

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = {name: value for name, value in headers.items() if name != "content-length"}

    def body(self, chunk: bytes) -> None:
        assert chunk
        self.content += chunk

    def end(self) -> None:
        self.ends += 1

    def whole(self, head: KnownHead, body: bytes) -> None:
        self.wholes += 1
        self.head(head.status, head.headers)
        self.body(body)
        self.end()

    def failed(self, fault: HttpFault) -> None:
        self.faults.append(fault)


class Line:
    """A connection on which an answer with the usual head has come before, if it may know it again."""

    def __init__(self, heads: KnownHeads | None) -> None:
        self.kept: list[float] = []
        self.wire = Wire()
        self.connection = Connection("peer", lambda _, keep_for: self.kept.append(keep_for), self._lost, is_tls=False)
        self.connection.connection_made(self.wire)
        self.heads = heads
        first, _ = self.ask()
        self.connection.data_received(plain(b'{"first":1}', "200 OK", "application/json", SESSION))
        assert first.ends == 1
        self.kept.clear()

    def _lost(self, connection: Connection) -> None: ...

    def ask(self) -> tuple[Sink, Exchange]:
        sink = Sink()
        exchange = Exchange(b"", None, sink, None if self.heads is None else sink, self.heads)
        assert self.connection.begin(exchange)
        return sink, exchange

    def heard(self, sink: Sink) -> tuple[object, ...]:
        """All that anybody can tell of the answer."""
        faults = [(fault.is_sent, fault.is_malformed) for fault in sink.faults]
        if sink.ends == 0:
            return faults, self.kept, self.wire.is_closed
        return sink.status, sink.headers, sink.content, sink.ends, faults, self.kept, self.wire.is_closed


def outcome(answer: bytes, cuts: list[int], heads: KnownHeads | None, ending: str) -> tuple[tuple[object, ...], int]:
    line = Line(heads)
    sink, exchange = line.ask()
    places = sorted({0, len(answer), *(cut % (len(answer) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        if not line.kept and not line.wire.is_closed:
            line.connection.data_received(answer[start:end])
    if ending == "aborted":
        exchange.abort()
    elif ending == "reset":
        line.connection.connection_lost(ConnectionResetError())
    elif ending == "closed":
        line.connection.eof_received()
    heard = line.heard(sink)
    line.wire.abort()
    return heard, sink.wholes


BODIES = st.binary(max_size=60)
ENDINGS = st.sampled_from(["open", "aborted", "reset", "closed"])


@requirement("upstream:http:familiar")
@given(BODIES, st.binary(max_size=5), st.lists(st.integers(0, 400), max_size=4), st.integers(0, 40), ENDINGS)
def test_an_answer_is_heard_alike_whether_its_head_came_before_or_not(
    body: bytes, excess: bytes, cuts: list[int], missing: int, ending: str
) -> None:
    answer = plain(body, "200 OK", "application/json", SESSION) + excess
    answer = answer[: len(answer) - missing]
    heard, wholes = outcome(answer, cuts, KnownHeads(), ending)
    parsed, _ = outcome(answer, cuts, None, ending)
    assert heard == parsed
    if body and not cuts and not excess and not missing:
        assert wholes == 1


@given(st.lists(st.integers(0, 400), max_size=4), st.integers(1, 50))
def test_a_known_answer_over_the_limit_is_given_on_as_it_comes(cuts: list[int], limit: int) -> None:
    answer = plain(b"x" * 50, "200 OK", "application/json", SESSION)
    heard, wholes = outcome(answer, cuts, KnownHeads(limit), "open")
    assert heard == outcome(answer, cuts, None, "open")[0]
    assert limit == 50 or wholes == 0


@requirement("upstream:http:familiar")
def test_an_answer_of_which_head_and_body_come_one_after_the_other_is_taken_whole() -> None:
    line = Line(KnownHeads())
    answer = plain(b"{}" * 50, "200 OK", "application/json", SESSION)
    at = answer.index(b"\r\n\r\n") + 4
    for _ in range(3):
        sink, _ = line.ask()
        for part in (answer[:at], answer[at : at + 30], answer[at + 30 :]):
            assert sink.ends == 0
            line.connection.data_received(part)
        assert (sink.wholes, sink.content) == (1, b"{}" * 50)
    assert line.kept == [4.0] * 3
    line.wire.abort()


def test_a_head_is_learned_though_its_body_is_still_to_come() -> None:
    line = Line(KnownHeads())
    other = plain(b"{}", "200 OK", "application/json", "mcp-session-id: t")
    for wholes in (0, 1):
        sink, _ = line.ask()
        line.connection.data_received(other[:-2])
        line.connection.data_received(other[-2:])
        assert (sink.wholes, sink.content) == (wholes, b"{}")
    line.wire.abort()


def test_an_answer_being_gathered_can_be_paused_and_leaves_a_connection_that_is_read() -> None:
    line = Line(KnownHeads())
    answer = plain(b"{}", "200 OK", "application/json", SESSION)
    sink, exchange = line.ask()
    line.connection.data_received(answer[:-1])
    exchange.pause()
    assert not line.wire.is_read
    exchange.resume()
    assert line.wire.is_read
    line.connection.data_received(answer[-1:])
    assert sink.wholes == 1
    line.wire.abort()


def test_a_connection_that_is_lost_amid_an_answer_fails_it_once() -> None:
    line = Line(KnownHeads())
    sink, _ = line.ask()
    line.connection.data_received(plain(b"{}", "200 OK", "application/json", SESSION)[:-1])
    line.connection.eof_received()
    line.connection.connection_lost(None)
    assert [(fault.is_sent, fault.has_answer) for fault in sink.faults] == [(True, False)], "nothing was told of it"
    assert sink.ends == 0


@requirement("upstream:http:familiar")
async def test_events_of_a_known_length_are_read_as_they_come() -> None:
    go_on = asyncio.Event()

    async def answer(request: SeenRequest, peer: Peer) -> None:
        stream = plain(event(PROGRESS) + event(request.body), content_type="text/event-stream")
        at = stream.index(event(request.body))
        peer.write(stream[:at])
        await go_on.wait()
        peer.write(stream[at:])

    async with rig(answer) as r:
        await r.open()
        for number in (7, 8, 9):
            go_on.clear()
            assert await r.call(number, b'{"jsonrpc":"2.0","id":%d,"result":{}}' % number) == PROGRESS
            go_on.set()
            await r.receiver.until(lambda: r.receiver.messages[-1][0] != PROGRESS)


async def test_a_known_head_of_what_is_no_mcp_is_refused_before_its_body_is_whole() -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        peer.write(plain(b"<p>Welcome", content_type="text/html")[:-3])
        await peer.gone()

    async with rig(answer) as r:
        await r.open()
        for count, number in enumerate((7, 8), 1):
            r.link.request(number, CALL)
            async with asyncio.timeout(10):
                await r.clock.timer("Request._quote_foreign", count)
            r.clock.advance(FOREIGN_TIMEOUT)
            outcome = await r.receiver.outcome(number)
            assert isinstance(outcome, Fault)
            assert "text/html, which is no MCP" in outcome.detail


# What the messages are.

ODD = [
    b'{"jsonrpc":"2.0","id":2,"error":{"code":-1,"message":"no"}}',
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"no"}}',
    b'{"jsonrpc":"2.0","error":{"code":-1,"message":"no"}}',
    b'{"jsonrpc":"2.0","id":2,"error":{"code":"x"}}',
    b'{"jsonrpc":"2.0","id":2,"error":{"code":-1,"message":"no"},"result":{}}',
    b'{"jsonrpc":"2.0","id":2,"result":[]}',
    b'{"jsonrpc":"2.0","id":2,"result":null}',
    b'{"jsonrpc":"2.0","id":2,"result":"x"}',
    b'{"jsonrpc":"2.0","id":2}',
    b'{"jsonrpc":"2.0","id":"2","result":{}}',
    b'{"jsonrpc":"2.0","id":2.0,"result":{}}',
    b'{"jsonrpc":"2.0","id":3,"result":{}}',
    b'{"jsonrpc":"2.0","id":2,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":2,"method":"ping","result":{}}',
    b'{"jsonrpc":"2.0","id":2,"result":{}',
    b'{"jsonrpc":"2.0","id":2,"result":{}}}',
    b'{"jsonrpc":"2.0","id":2,"result":{"a":"\xff"}}',
    b'{"jsonrpc":"2.0","id":2,"result":{"a":"\xc3\xa4"}}',
    b'{"jsonrpc":"2.0","id":2,"result":{"a":"\\ud800"}}',
    b'{"jsonrpc":"2.0","id":2,"result":{"a":"\n"}}',
    b' {"jsonrpc":"2.0", "result":{ }, "id" : 2} ',
    b'[{"jsonrpc":"2.0","id":2,"result":{}}]',
    b'[{"jsonrpc":"2.0","id":3,"result":{}}]',
    b'{"jsonrpc":"2.0","id":2,"result":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}}",
    b'{"jsonrpc":"2.0","id":2,"result":{"a":"' + b"x" * 65_536 + b'"}}',
    b"null",
    b"<html>",
]


@requirement("upstream:http:familiar")
@pytest.mark.parametrize("message", ODD, ids=range(len(ODD)))
async def test_an_odd_message_behind_a_known_head_is_what_it_is_behind_a_new_one(message: bytes) -> None:
    async with rig(answering(plain(message))) as r:
        await r.open()
        new = told(await r.call(), r.server)
    usual = [b'{"jsonrpc":"2.0","id":%d,"result":{}}' % number for number in (7, 8, 9)]
    async with rig(answering(*map(plain, usual), plain(message))) as r:
        await r.open()
        for number, answer in enumerate(usual, 7):
            assert await r.call(number) == answer
        assert told(await r.call(), r.server) == new


def told(outcome: bytes | Fault, server: ScriptedServer) -> str:
    return repr(outcome).replace(f":{server.port}", "")


@given(
    st.sampled_from([b"2", b"2.0", b'"2"', b"null", b"3", b"02", b"[2]"]),
    st.sampled_from([b"{}", b"[]", b"null", b'{"a":1}', b" {}", b'{"a"}', b'{"a":"\xc3\xa4"}', b'{"a":"\xff"}']),
    st.sampled_from([b"", b',"error":{"code":1,"message":"m"}', b',"error":null', b',"method":"m"', b',"id":2']),
    st.sampled_from([b"", b" ", b"}", b"\n"]),
)
def test_a_plain_result_is_what_any_reader_takes_for_the_response(
    own_id: bytes, result: bytes, more: bytes, end: bytes
) -> None:
    message = b'{"jsonrpc":"2.0","id":%b,"result":%b%b}%b' % (own_id, result, more, end)
    envelope = decode_result(message, 2)
    if envelope is not None:
        assert envelope == response_of(message, 2)
        assert envelope.result
        assert not envelope.error
