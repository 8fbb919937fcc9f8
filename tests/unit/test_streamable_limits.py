"""What a Streamable HTTP link holds open, for how long, and what it does once it is over."""

from __future__ import annotations

import asyncio
import json

import pytest

from holdfast.call import Call, Result
from holdfast.tasks import TaskScope
from holdfast.testing.clock import settle
from holdfast.upstream.handshake import HandshakeUpstream
from holdfast.upstream.http1 import HttpClient
from holdfast.upstream.http_posts import DELIVERY_TIMEOUT, MAX_POSTS
from holdfast.upstream.streamable_http import CLOSE_TIMEOUT, UNCLAIMED_TIMEOUT, StreamableHttpLink
from holdfast.upstream.transport import Fault, FaultKind
from requirements import requirement
from unit.recorded_upstream import RecordedExchange, RecordedListener
from unit.scripted_http import Peer, SeenRequest, WatchedClock, chunk, plain, scripted, stream_head
from unit.streamable_rig import (
    ACCEPTED,
    ANSWER_1,
    CALL,
    INITIALIZE,
    PROGRESS,
    SESSION,
    WELCOME,
    answering,
    event,
    rig,
)

CANCELLED = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}'

# Notifications and replies.


async def silent(request: SeenRequest, peer: Peer) -> None:
    await peer.gone()


async def test_a_notification_that_is_never_answered_gives_its_connection_back_after_thirty_seconds() -> None:
    async with rig(silent) as r:
        await r.open()
        r.link.post(b"{}")
        await r.server.received(2)
        r.clock.advance(29.9)
        await settle()
        assert not r.server.connections[0].has_ended
        r.clock.advance(0.1)
        await r.server.dropped(0)
        assert r.receiver.calls == 1, "nobody waits for it"


async def test_at_most_64_notifications_are_unanswered_at_once_and_the_oldest_makes_room() -> None:
    async with rig(silent) as r:
        await r.open()
        for count in range(MAX_POSTS):
            r.link.post(b"{}")
            await r.server.received(count + 2)
        assert len(r.server.connections) == MAX_POSTS
        assert not any(connection.has_ended for connection in r.server.connections)
        r.link.post(b"{}")
        await r.server.dropped(0)
        await r.server.received(MAX_POSTS + 2)
        assert sum(connection.has_ended for connection in r.server.connections) == 1


async def test_answered_notifications_take_nobody_s_place() -> None:
    async with rig(answering(ACCEPTED)) as r:
        await r.open()
        for count in range(2 * MAX_POSTS):
            r.link.post(b"{}")
            await r.server.received(count + 2)
            await settle()
        r.server.answer = silent
        r.link.post(b"{}")
        await r.server.received(2 * MAX_POSTS + 2)
        await settle()
        assert not r.server.connections[-1].has_ended


# Answers on another request's stream.


async def test_the_stream_of_a_request_that_was_answered_elsewhere_is_dropped_like_one_behind_its_answer() -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        peer.write(stream_head(), chunk(event(PROGRESS)))
        await peer.gone()

    async with rig(answer) as r:
        await r.open()
        r.link.request(2, CALL)
        await r.receiver.until(lambda: (PROGRESS, 2) in r.receiver.messages)
        r.link.answered_elsewhere(2)
        r.link.answered_elsewhere(2)
        r.clock.advance(4.9)
        await settle()
        assert not r.server.connections[0].has_ended
        r.clock.advance(0.1)
        await r.server.dropped(0)
        r.link.answered_elsewhere(2)
        assert r.receiver.faults == []


@pytest.mark.parametrize("has_id", [True, False])
async def test_a_request_that_was_answered_elsewhere_is_neither_resumed_nor_failed(has_id: bool) -> None:
    end = asyncio.Event()

    async def answer(request: SeenRequest, peer: Peer) -> None:
        peer.write(stream_head(), chunk(event(PROGRESS, "e1" if has_id else None)))
        await end.wait()
        peer.write(b"0\r\n\r\n")

    async with rig(answer) as r:
        await r.open()
        r.link.request(2, CALL)
        await r.receiver.until(lambda: (PROGRESS, 2) in r.receiver.messages)
        r.link.answered_elsewhere(2)
        end.set()
        while r.clock.manual.pending > 1:  # an idle connection has one
            await settle()
        r.clock.advance(60)
        await settle()
        assert r.server.seen("GET") == []
        assert (r.receiver.faults, r.receiver.suspensions) == ([], [])


async def test_a_request_that_was_answered_elsewhere_between_two_streams_is_not_resumed() -> None:
    async with rig(answering(stream_head() + chunk(event(b"", "e1")) + b"0\r\n\r\n")) as r:
        await r.open()
        r.link.request(2, CALL)
        await r.receiver.until(lambda: r.receiver.suspensions)
        r.link.answered_elsewhere(2)
        r.clock.advance(60)
        await settle()
        assert r.server.seen("GET") == []
        assert r.receiver.faults == []


async def test_calls_whose_answers_cross_keep_no_connection() -> None:
    """As supergateway does."""
    calls: list[tuple[int, Peer]] = []

    async def answer(request: SeenRequest, peer: Peer) -> None:
        if b'"initialize"' in request.body:
            hello = b'{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"1"}}'
            peer.write(plain(b'{"jsonrpc":"2.0","id":1,"result":%b}' % hello))
        elif b'"tools/call"' in request.body:
            peer.write(stream_head())
            calls.append((json.loads(request.body)["id"], peer))
            if len(calls) == 2:
                for (number, _), (_, other) in zip(calls, reversed(calls), strict=True):
                    other.write(chunk(event(b'{"jsonrpc":"2.0","id":%d,"result":{"n":%d}}' % (number, number))))
            await peer.gone()
        else:
            peer.write(ACCEPTED)

    async with asyncio.timeout(60), scripted(answer) as server, TaskScope() as scope:
        clock = WatchedClock()
        client = HttpClient(server.url, scope, clock)
        link = StreamableHttpLink(client, "/mcp", {}, clock, wants_push=False)
        upstream = HandshakeUpstream(link, RecordedListener(), {})
        await upstream.open()
        exchanges = [RecordedExchange(), RecordedExchange()]
        for exchange in exchanges:
            upstream.send(Call("tools/call", {}), exchange)
        for number, exchange in enumerate(exchanges, 2):
            outcome = await exchange.ended()
            assert isinstance(outcome, Result)
            assert bytes(outcome.raw) == b'{"n":%d}' % number
        await clock.timer("Request.drop", 2)
        clock.advance(5)
        for request in server.requests[-2:]:
            await server.dropped(request.connection)
        upstream.terminate()
        client.close()


# The end.


@pytest.mark.parametrize("end", ["close", "terminate"])
async def test_a_request_on_a_session_that_has_ended_is_not_sent_and_says_so(end: str) -> None:
    async with rig(answering(ACCEPTED)) as r:
        await r.open()
        if end == "close":
            await r.link.close()
        else:
            r.link.terminate()
        count = len(r.server.requests)
        r.link.request(2, CALL)
        assert await r.receiver.outcome(2) == Fault(FaultKind.NOT_SENT, "the session has ended")
        await settle()
        assert r.receiver.faults == [(2, Fault(FaultKind.NOT_SENT, "the session has ended"))]
        assert len(r.server.requests) == count


async def test_closing_while_the_answer_to_initialize_still_comes_ends_the_session_at_the_server() -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        if request.method == "DELETE":
            peer.write(ACCEPTED)
        else:
            peer.write(stream_head(f"mcp-session-id: {SESSION}"), chunk(event(PROGRESS) + b"data: {"))
            await peer.gone()

    async with rig(answer) as r:
        r.link.request(1, INITIALIZE)
        assert await r.receiver.outcome(1) == PROGRESS
        await r.link.close()
        assert r.server.seen("DELETE")[0].headers["mcp-session-id"] == SESSION
        await r.server.dropped(0)
        r.link.established("2025-11-25")
        r.link.post(b"{}")
        await settle()
        assert len(r.server.requests) == 2
        assert r.receiver.calls == 1


async def test_closing_after_the_answer_to_initialize_and_before_it_was_judged_ends_the_session_too() -> None:
    async with rig(answering(WELCOME, ACCEPTED)) as r:
        assert await r.call(1, INITIALIZE) == ANSWER_1
        await r.link.close()
        assert r.server.seen("DELETE")[0].headers["mcp-session-id"] == SESSION


@requirement("http-upstream:an-opening-given-up-is-ended")
async def test_a_server_that_never_names_a_session_is_waited_for_in_vain_and_not_for_ever() -> None:
    async with rig(silent) as r, TaskScope() as scope:
        r.link.request(1, INITIALIZE)
        await r.server.received(1)
        closing = scope.start(r.link.close(), "close")
        await settle()
        r.clock.advance(CLOSE_TIMEOUT)
        await closing
        r.clock.advance(UNCLAIMED_TIMEOUT - CLOSE_TIMEOUT)
        await r.server.dropped(0)
        assert len(r.server.requests) == 1
        assert r.receiver.calls == 0


class Reluctant:
    """A server that takes notifications once it may."""

    def __init__(self) -> None:
        self.may_take = asyncio.Event()

    async def answer(self, request: SeenRequest, peer: Peer) -> None:
        if request.method == "POST":
            await self.may_take.wait()
        peer.write(ACCEPTED)


@requirement("upstream:close:delivers")
async def test_the_end_of_a_session_does_not_overtake_a_cancellation() -> None:
    """Guards a loss met with `holdfast call` through a gateway: 4 of 40 cancellations never arrived."""
    server = Reluctant()
    async with rig(server.answer) as r, TaskScope() as scope:
        await r.open()
        r.link.post(CANCELLED)
        closing = scope.start(r.link.close(), "close")
        assert (await r.server.received(2)).body == CANCELLED
        await settle()
        r.link.post(CANCELLED)
        assert len(r.server.requests) == 2, "nothing more is taken, and the session is not over yet"
        server.may_take.set()
        await closing
        assert [request.method for request in r.server.requests[1:]] == ["POST", "DELETE"]


async def test_a_server_that_takes_no_messages_holds_up_the_end_for_a_moment_only() -> None:
    server = Reluctant()
    async with rig(server.answer) as r, TaskScope() as scope:
        await r.open()
        r.link.post(CANCELLED)
        closing = scope.start(r.link.close(), "close")
        await r.server.received(2)
        r.clock.advance(DELIVERY_TIMEOUT)
        await closing
        assert [request.method for request in r.server.requests[1:]] == ["POST", "DELETE"]


@pytest.mark.parametrize("end", ["terminate", "cancellation"])
async def test_an_end_at_once_waits_for_no_delivery_and_bids_no_farewell(end: str) -> None:
    server = Reluctant()
    async with rig(server.answer) as r, TaskScope() as scope:
        await r.open()
        r.link.post(CANCELLED)
        closing = scope.start(r.link.close(), "close")
        await r.server.received(2)
        if end == "terminate":
            r.link.terminate()
        else:
            closing.cancel()
        await asyncio.wait([closing])
        server.may_take.set()
        await r.server.dropped(r.server.requests[1].connection)
        assert r.server.seen("DELETE") == []
