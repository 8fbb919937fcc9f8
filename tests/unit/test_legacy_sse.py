"""The HTTP+SSE link against a server whose every byte a test writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from holdfast.tasks import TaskScope
from holdfast.testing.clock import settle
from holdfast.upstream.http1 import HttpClient
from holdfast.upstream.legacy_sse import ENDPOINT_TIMEOUT, LegacySseLink
from holdfast.upstream.transport import Fault, FaultKind, Sent
from processes import free_port
from requirements import requirement
from unit.scripted_http import (
    Answer,
    Peer,
    RecordingReceiver,
    ScriptedServer,
    SeenRequest,
    WatchedClock,
    chunk,
    plain,
    scripted,
    stream_head,
)
from unit.streamable_rig import ACCEPTED, ANSWER_1, ANSWER_2, CALL, INITIALIZE, PROGRESS, REFUSAL

SECRET = "s3cr3t-session"
ENDPOINT = f"/messages?session_id={SECRET}"
CANCELLED = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}'
INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'


class Receiver(RecordingReceiver):
    """One whose session may be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[Fault] = []

    def lost(self, fault: Fault) -> None:
        self.losses.append(fault)
        self._note()


class Stream:
    """A server that gives out one event stream and takes messages at an endpoint."""

    def __init__(self, endpoint: str | None = ENDPOINT) -> None:
        self.endpoint = endpoint
        self.accept: bytes = ACCEPTED
        self.reader: Peer | None = None

    async def answer(self, request: SeenRequest, peer: Peer) -> None:
        if request.method == "POST":
            peer.write(self.accept)
            return
        self.reader = peer
        peer.write(stream_head())
        if self.endpoint is not None:
            self.say(f"event: endpoint\ndata: {self.endpoint}\n\n".encode())
        await peer.gone()

    def say(self, event: bytes) -> None:
        assert self.reader is not None
        self.reader.write(chunk(event))

    def message(self, message: bytes) -> None:
        self.say(b"event: message\ndata: %b\n\n" % message)

    def end(self) -> None:
        assert self.reader is not None
        self.reader.write(b"0\r\n\r\n")
        self.reader.close()


@dataclass
class Rig:
    server: ScriptedServer
    stream: Stream
    client: HttpClient
    clock: WatchedClock
    receiver: Receiver
    link: LegacySseLink

    async def open(self) -> None:
        self.link.request(1, INITIALIZE)
        await self.server.received(1, "POST")
        self.stream.message(ANSWER_1)
        await self.answered(ANSWER_1, 1)
        self.link.established("2024-11-05")
        self.link.post(INITIALIZED)
        await self.server.received(2, "POST")

    async def answered(self, message: bytes, request_id: int) -> None:
        await self.receiver.until(lambda: (message, None) in self.receiver.messages)
        self.link.answered_elsewhere(request_id)

    async def called(self, request_id: int = 2) -> Sent:
        """A request that the server has got."""
        count = len(self.server.seen("POST"))
        sent = self.link.request(request_id, CALL)
        await self.server.received(count + 1, "POST")
        return sent

    async def fault(self, request_id: int = 2) -> Fault:
        faults = self.receiver.faults
        await self.receiver.until(lambda: request_id in {number for number, _ in faults})
        fault = next(fault for number, fault in faults if number == request_id)
        for said in (fault.reason, *(loss.reason for loss in self.receiver.losses)):
            assert SECRET not in said
            assert "t0ken" not in said
        return fault

    async def lost(self) -> Fault:
        await self.receiver.until(lambda: self.receiver.losses)
        (loss,) = self.receiver.losses
        return loss


@asynccontextmanager
async def rig(stream: Stream | None = None, *, answer: Answer | None = None, limit: int = 65536) -> AsyncGenerator[Rig]:
    stream = stream or Stream()
    async with asyncio.timeout(60), scripted(answer or stream.answer) as server, TaskScope() as scope:
        clock = WatchedClock()
        client = HttpClient(server.url, scope, clock)
        receiver = Receiver()
        headers = {"Authorization": "Bearer t0ken-t0ken"}
        link = LegacySseLink(client, "/sse", headers, clock, max_message_bytes=limit)
        await link.start(receiver)
        try:
            yield Rig(server, stream, client, clock, receiver, link)
        finally:
            link.terminate()
            client.close()
            assert clock.manual.pending == 0, "a timer was left behind"


def answering(head: bytes) -> Answer:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        peer.write(head)

    return answer


async def test_a_session_is_one_stream_and_a_post_for_each_message() -> None:
    async with rig() as r:
        await r.open()
        await r.called()
        r.stream.say(b": keep-alive\n\n")
        r.stream.message(PROGRESS)
        r.stream.message(ANSWER_2)
        await r.answered(ANSWER_2, 2)
        get, *posts = r.server.requests
        assert (get.method, get.target, get.headers["accept"]) == ("GET", "/sse", "text/event-stream")
        assert [post.body for post in posts] == [INITIALIZE, INITIALIZED, CALL]
        assert {post.target for post in posts} == {ENDPOINT}
        assert {request.headers["authorization"] for request in r.server.requests} == {"Bearer t0ken-t0ken"}
        assert r.receiver.messages == [(ANSWER_1, None), (PROGRESS, None), (ANSWER_2, None)]
        assert (r.receiver.pushes, r.receiver.faults) == ([True], [])


@requirement("upstream:legacy-sse:same-origin")
@pytest.mark.parametrize(
    ("named", "target"),
    [
        ("/messages/?id=1", "/messages/?id=1"),
        ("messages", "/messages"),
        ("?id=1", "/sse?id=1"),
        ("{url}/a/b?id=1", "/a/b?id=1"),
        ("//{peer}/x#y", "/x"),
    ],
)
async def test_the_endpoint_may_be_relative_or_absolute(named: str, target: str) -> None:
    stream = Stream(None)
    async with rig(stream) as r:
        r.link.request(1, INITIALIZE)
        await r.server.received(1, "GET")
        peer = r.server.url.removeprefix("http://")
        stream.say(f"event: endpoint\ndata: {named.format(url=r.server.url, peer=peer)}\n\n".encode())
        assert (await r.server.received(1, "POST")).target == target


@requirement("upstream:legacy-sse:same-origin")
@pytest.mark.parametrize(
    "named",
    [
        "https://127.0.0.1:1/messages?session_id=" + SECRET,
        "http://evil.example/messages",
        "//evil.example/messages",
        "http://127.0.0.1/messages",
        "http://[/messages",
        "/mess ages",
        "",
    ],
)
async def test_an_endpoint_elsewhere_is_refused_and_nothing_is_sent_there(named: str) -> None:
    async with rig(Stream(named)) as r:
        r.link.request(1, INITIALIZE)
        fault = await r.fault(1)
        assert fault.kind is FaultKind.INVALID
        assert "127.0.0.1" in fault.detail
        r.link.request(2, CALL)
        assert (await r.fault(2)).kind is FaultKind.INVALID
        assert r.server.seen("POST") == []


@requirement("upstream:legacy-sse:the-stream-is-the-session")
async def test_the_end_of_the_stream_is_the_end_of_the_session() -> None:
    async with rig() as r:
        await r.open()
        await r.called()
        r.stream.end()
        assert (await r.lost()).kind is FaultKind.GONE
        r.link.request(3, CALL)
        assert (await r.fault(3)).kind is FaultKind.NOT_SENT
        r.link.post(PROGRESS)
        assert len(r.server.seen("GET")) == 1


async def test_a_reset_is_the_end_of_the_session_too() -> None:
    async with rig() as r:
        await r.open()
        assert r.stream.reader is not None
        r.stream.reader.reset()
        assert (await r.lost()).kind is FaultKind.GONE


async def test_a_request_that_waits_for_its_turn_when_the_stream_ends_was_not_sent() -> None:
    async with rig() as r:
        r.link.request(1, INITIALIZE)
        await r.server.received(1, "POST")
        r.stream.message(ANSWER_1)
        await r.answered(ANSWER_1, 1)
        r.link.established("2024-11-05")
        r.stream.accept = b""  # nothing is said to `notifications/initialized`
        r.link.post(INITIALIZED)
        r.link.request(2, CALL)
        r.stream.end()
        assert (await r.fault()).kind is FaultKind.NOT_SENT
        await r.lost()


@requirement("upstream:legacy-sse:bounded")
async def test_an_answer_over_the_limit_fails_its_call_and_ends_the_session() -> None:
    async with rig(limit=4096) as r:
        await r.open()
        await r.called()
        r.stream.message(b'{"jsonrpc":"2.0","id":2,"result":{"x":"%b"}}' % (b"x" * 5000))
        fault = await r.fault()
        assert fault.kind is FaultKind.INVALID
        assert "larger than 4096 bytes" in fault.detail
        assert (await r.lost()).kind is FaultKind.GONE


@requirement("upstream:legacy-sse:bounded")
async def test_an_event_over_the_limit_blames_none_of_several_calls() -> None:
    async with rig(limit=4096) as r:
        await r.open()
        await r.called(2)
        await r.called(3)
        r.stream.message(b'{"jsonrpc":"2.0","id":2,"result":{"x":"%b"}}' % (b"x" * 5000))
        assert "larger than 4096 bytes" in (await r.lost()).detail
        assert r.receiver.faults == []  # the conversation fails them with the loss


async def test_a_first_event_over_the_limit_is_none() -> None:
    async with rig(Stream("/" + "x" * 5000), limit=4096) as r:
        r.link.request(1, INITIALIZE)
        assert (await r.fault(1)).kind is FaultKind.INVALID


async def test_an_answer_that_is_no_utf_8_fails_its_call() -> None:
    async with rig() as r:
        await r.open()
        await r.called()
        r.stream.message(b'{"jsonrpc":"2.0","id":2,"result":{"x":"\xff"}}')
        assert (await r.fault()).kind is FaultKind.INVALID
        assert r.receiver.losses == []


async def test_a_stream_that_names_no_endpoint_is_given_up() -> None:
    stream = Stream(None)
    async with rig(stream) as r:
        r.link.request(1, INITIALIZE)
        await r.server.received(1, "GET")
        stream.message(PROGRESS)
        await r.clock.timer("_Stream._give_up", 1)
        r.clock.advance(ENDPOINT_TIMEOUT)
        fault = await r.fault(1)
        assert fault.kind is FaultKind.INVALID
        assert "named no endpoint" in fault.detail
        assert r.receiver.messages == []


async def test_a_stream_that_ends_before_the_endpoint_opens_no_session() -> None:
    stream = Stream(None)
    async with rig(stream) as r:
        r.link.request(1, INITIALIZE)
        await r.server.received(1, "GET")
        stream.end()
        assert (await r.fault(1)).kind is FaultKind.CUT
        assert r.receiver.losses == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("401 Unauthorized", FaultKind.UNAUTHORIZED),
        ("403 Forbidden", FaultKind.UNAUTHORIZED),
        ("404 Not Found", FaultKind.INVALID),
        ("405 Method Not Allowed", FaultKind.INVALID),
        ("500 Internal Server Error", FaultKind.FAILED),
        ("503 Service Unavailable", FaultKind.UNAVAILABLE),
        ("200 OK", FaultKind.INVALID),
    ],
)
async def test_what_a_refused_stream_means(status: str, kind: FaultKind) -> None:
    refusal = plain(b"<p>no t0ken-t0ken here</p>", status, "text/html")
    async with rig(answer=answering(refusal)) as r:
        r.link.request(1, INITIALIZE)
        fault = await r.fault(1)
        assert fault.kind is kind
        assert fault.detail.endswith("no *** here")
        assert not r.link.has_stream


async def test_a_server_that_cannot_be_reached_was_sent_nothing() -> None:
    async with asyncio.timeout(60), TaskScope() as scope:
        clock, receiver = WatchedClock(), Receiver()
        client = HttpClient(f"http://127.0.0.1:{free_port()}", scope, clock)
        link = LegacySseLink(client, "/sse", {}, clock)
        await link.start(receiver)
        link.request(1, INITIALIZE)
        outcome = await receiver.outcome(1)
        assert isinstance(outcome, Fault)
        assert outcome.kind is FaultKind.NOT_SENT
        client.close()


async def test_one_redirect_of_the_stream_is_followed_at_home() -> None:
    stream = Stream("messages")

    async def answer(request: SeenRequest, peer: Peer) -> None:
        if request.target == "/sse":
            peer.write(plain(b"", "307 Temporary Redirect", "text/plain", "location: /v1/sse/"))
        else:
            await stream.answer(request, peer)

    async with rig(stream, answer=answer) as r:
        r.link.request(1, INITIALIZE)
        assert (await r.server.received(1, "POST")).target == "/v1/sse/messages"


async def test_a_redirect_elsewhere_is_not_followed() -> None:
    away = plain(b"", "307 Temporary Redirect", "text/plain", f"location: http://evil.example/sse?id={SECRET}")
    async with rig(answer=answering(away)) as r:
        r.link.request(1, INITIALIZE)
        assert "points to 'http://evil.example/sse'" in (await r.fault(1)).detail


@requirement("upstream:legacy-sse:nothing-quoted-is-secret")
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("400 Bad Request", FaultKind.REFUSED),
        ("404 Not Found", FaultKind.REFUSED),
        ("401 Unauthorized", FaultKind.UNAUTHORIZED),
        ("413 Payload Too Large", FaultKind.INVALID),
        ("500 Internal Server Error", FaultKind.FAILED),
        ("502 Bad Gateway", FaultKind.UNAVAILABLE),
        ("307 Temporary Redirect", FaultKind.INVALID),
    ],
)
async def test_what_a_refused_message_means(status: str, kind: FaultKind) -> None:
    async with rig() as r:
        await r.open()
        r.stream.accept = plain(b"no session " + SECRET.encode(), status, "text/plain")
        r.link.request(2, CALL)
        fault = await r.fault()
        assert fault.kind is kind
        assert SECRET not in fault.remark
        assert fault.remark == "no session ***"


@requirement("upstream:legacy-sse:nothing-quoted-is-secret")
async def test_an_id_in_the_endpoints_path_is_not_quoted_either() -> None:
    session_id = "0123456789abcdef-0123"
    async with rig(Stream(f"/messages/{session_id}")) as r:
        await r.open()
        r.stream.accept = plain(b"messages for " + session_id.encode(), "500 Internal Server Error", "text/plain")
        r.link.request(2, CALL)
        assert (await r.fault()).remark == "messages for ***"


async def test_a_refusal_that_is_json_rpc_is_the_answer_or_comes_with_the_suspicion() -> None:
    async with rig() as r:
        await r.open()
        r.stream.accept = plain(REFUSAL, "422 Unprocessable Content")
        r.link.request(2, CALL)
        await r.receiver.until(lambda: len(r.receiver.messages) == 2)
        assert b'"id":2' in r.receiver.messages[1][0]
        r.stream.accept = plain(REFUSAL, "404 Not Found")
        r.link.request(3, CALL)
        assert (await r.fault(3)).error is not None


async def test_a_notification_that_is_refused_makes_the_session_suspect() -> None:
    async with rig() as r:
        await r.open()
        r.stream.accept = plain(b"", "404 Not Found", "text/plain")
        r.link.post(PROGRESS)
        await r.receiver.until(lambda: r.receiver.suspicions)
        assert r.receiver.suspicions[0].kind is FaultKind.REFUSED


async def test_a_message_whose_connection_dies_unanswered_is_cut() -> None:
    async with rig() as r:
        await r.open()

        async def reset(request: SeenRequest, peer: Peer) -> None:
            peer.reset()

        r.server.answer = reset
        r.link.request(2, CALL)
        assert (await r.fault()).kind is FaultKind.CUT
        assert r.receiver.losses == []


async def test_an_answer_may_overtake_the_acceptance_of_its_message() -> None:
    async with rig() as r:
        await r.open()
        r.stream.accept = b""
        await r.called()
        r.stream.message(ANSWER_2)
        await r.answered(ANSWER_2, 2)
        await r.clock.timer("_Request.drop", 1)
        r.clock.advance(5)
        await r.server.dropped(r.server.requests[-1].connection)
        assert r.receiver.faults == []


async def test_a_cancelled_request_hears_nothing_more() -> None:
    async with rig() as r:
        await r.open()
        sent = await r.called()
        sent.pause()
        sent.resume()
        sent.cancel("enough")
        r.stream.end()
        await r.lost()
        assert r.receiver.faults == []


async def test_closing_leaves_the_stream() -> None:
    async with rig() as r:
        await r.open()
        await r.called()
        await r.link.close()
        await r.server.dropped(r.server.requests[0].connection)
        assert (r.receiver.losses, r.receiver.faults) == ([], [])


@requirement("upstream:close:delivers")
async def test_closing_leaves_the_stream_only_when_a_cancellation_has_arrived() -> None:
    may_take = asyncio.Event()
    stream = Stream()

    async def answer(request: SeenRequest, peer: Peer) -> None:
        if request.body == CANCELLED:
            await may_take.wait()
        await stream.answer(request, peer)

    async with rig(stream, answer=answer) as r, TaskScope() as scope:
        await r.open()
        sent = await r.called()
        sent.cancel("enough")
        r.link.post(CANCELLED)
        closing = scope.start(r.link.close(), "close")
        await r.server.received(4, "POST")
        r.stream.message(ANSWER_2)
        await settle()
        assert not r.server.connections[0].has_ended
        may_take.set()
        await closing
        await r.server.dropped(0)
        assert (ANSWER_2, None) not in r.receiver.messages, "nobody waits for it any more"


async def test_a_stream_that_ends_while_it_is_being_left_is_no_loss() -> None:
    stream = Stream()

    async def answer(request: SeenRequest, peer: Peer) -> None:
        if request.body == CANCELLED:
            stream.end()
        else:
            await stream.answer(request, peer)

    async with rig(stream, answer=answer) as r:
        await r.open()
        r.link.post(CANCELLED)
        await r.link.close()
        assert (r.receiver.losses, r.receiver.faults) == ([], [])
