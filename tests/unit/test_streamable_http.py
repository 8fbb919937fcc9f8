from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from holdfast.tasks import TaskScope
from holdfast.testing.clock import ManualClock, settle
from holdfast.upstream.http1 import HttpClient
from holdfast.upstream.streamable_http import CLOSE_TIMEOUT, StreamableHttpLink
from holdfast.upstream.transport import Fault, FaultKind, Sent
from processes import free_port
from requirements import requirement
from unit.scripted_http import (
    Peer,
    RecordingReceiver,
    ScriptedServer,
    SeenRequest,
    chunk,
    chunked,
    plain,
    stream_head,
)
from unit.streamable_rig import (
    ACCEPTED,
    ANSWER_1,
    ANSWER_2,
    CALL,
    INITIALIZE,
    NO_GET,
    PROGRESS,
    REFUSAL,
    SESSION,
    WELCOME,
    answering,
    event,
    rig,
)

NO_UTF8 = b'{"jsonrpc":"2.0","id":2,"result":{"content":"\xff"}}'

# What is sent.


async def test_requests_bear_the_session_and_the_version_once_they_are_known() -> None:
    async with rig(answering(plain(ANSWER_2))) as r:
        await r.open()
        assert await r.call() == ANSWER_2
        first, second = r.server.requests
        common = {"authorization": "Bearer t0ken", "content-type": "application/json"}
        assert first.headers.items() >= common.items()
        assert first.headers["accept"] == "application/json, text/event-stream"
        assert not {"mcp-session-id", "mcp-protocol-version"} & set(first.headers)
        assert second.headers.items() >= {**common, "mcp-session-id": SESSION}.items()
        assert second.headers["mcp-protocol-version"] == "2025-11-25"
        assert (first.body, second.body) == (INITIALIZE, CALL)
        assert second.connection == 0


async def test_only_the_answer_to_the_first_request_names_the_session() -> None:
    other = plain(ANSWER_2, "200 OK", "application/json", "mcp-session-id: other")
    async with rig(answering(other, plain(b'{"jsonrpc":"2.0","id":3,"result":{}}'))) as r:
        await r.open(with_session=False)
        await r.call()
        await r.call(3)
        assert "mcp-session-id" not in r.server.requests[2].headers


async def test_a_refused_initialize_names_no_session() -> None:
    refusal = plain(REFUSAL, "400 Bad Request", "application/json", "mcp-session-id: worthless")
    async with rig(answering(refusal, ACCEPTED)) as r:
        await r.call(1, INITIALIZE)
        r.link.post(b"{}")
        await r.server.received(2)
        assert "mcp-session-id" not in r.server.requests[1].headers


async def test_a_session_id_that_is_not_visible_ascii_is_invalid() -> None:
    async with rig(answering(plain(ANSWER_1, "200 OK", "application/json", "mcp-session-id: a b"))) as r:
        outcome = await r.call(1, INITIALIZE)
        assert isinstance(outcome, Fault)
        assert outcome.kind is FaultKind.INVALID


@pytest.mark.parametrize("name", ["Mcp-Session-Id", "accept", "Host", "x\r\ny"])
async def test_headers_that_are_not_the_operators_are_refused(name: str) -> None:
    async with TaskScope() as scope:
        client = HttpClient("http://127.0.0.1:1", scope, ManualClock())
        with pytest.raises(ValueError, match="header"):
            StreamableHttpLink(client, "/", {name: "1"}, ManualClock(), wants_push=False)


async def test_requests_do_not_overtake_the_initialized_notification() -> None:
    taken = asyncio.Event()

    async def answer(request: SeenRequest, peer: Peer) -> None:
        if b"initialized" in request.body:
            await taken.wait()
            peer.write(ACCEPTED)
        else:
            peer.write(plain(ANSWER_2))

    async with rig(answer) as r:
        await r.open()
        r.link.post(b'{"method":"notifications/initialized"}')
        r.link.request(2, CALL)
        r.link.request(3, CALL).cancel("test")
        await r.server.received(2)
        await settle()
        assert len(r.server.requests) == 2
        taken.set()
        assert await r.receiver.outcome(2) == ANSWER_2
        assert len(r.server.requests) == 3


async def test_requests_wait_five_seconds_at_most_for_the_initialized_notification() -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        if b"initialized" not in request.body:
            peer.write(plain(ANSWER_2))

    async with rig(answer) as r:
        await r.open()
        r.link.post(b'{"method":"notifications/initialized"}')
        r.link.request(2, CALL)
        r.clock.advance(5)
        assert await r.receiver.outcome(2) == ANSWER_2


# Answers.


@pytest.mark.parametrize("size", [1, 100_000])
async def test_a_json_answer_is_passed_on_byte_for_byte(size: int) -> None:
    body = b'{"jsonrpc": "2.0", "id": 2, "result": {"text": "%b"}}' % (b"x" * size)
    async with rig(answering(plain(body)), max_message_bytes=200_000) as r:
        await r.open()
        assert await r.call() == body
        assert r.receiver.messages[1:] == [(body, 2)]


async def test_an_event_stream_is_passed_on_event_by_event() -> None:
    stream = chunked(b": hello\n\n", event(b"", "1"), event(PROGRESS), b"event: ping\ndata: x\n\n" + event(ANSWER_2))
    async with rig(answering(stream)) as r:
        await r.open()
        for number in range(2):
            r.receiver.messages.clear()
            r.link.request(2, CALL)
            await r.receiver.until(lambda: len(r.receiver.messages) == 2)
            assert r.receiver.messages == [(PROGRESS, 2), (ANSWER_2, 2)]
            await settle()
            assert r.clock.manual.pending <= 1, number
        assert r.receiver.faults == []
        assert len(r.server.connections) == 1, "a stream that ended leaves its connection warm"


async def test_a_response_within_an_array_is_an_answer() -> None:
    both = b"[%b,%b]" % (PROGRESS, ANSWER_2)
    async with rig(answering(chunked(event(both)), plain(both))) as r:
        await r.open()
        assert await r.call() == both
        await settle()
        r.receiver.messages.clear()
        assert await r.call() == both
        assert r.receiver.faults == []


async def test_a_stream_left_open_behind_its_answer_is_dropped() -> None:
    gone = asyncio.Event()

    async def answer(request: SeenRequest, peer: Peer) -> None:
        peer.write(stream_head(), chunk(event(ANSWER_2)))
        await peer.gone()
        gone.set()

    async with rig(answer) as r:
        await r.open()
        await r.call()
        r.clock.advance(5)
        await gone.wait()
        assert r.receiver.faults == []


JSON_ANSWER = plain(ANSWER_2)
JSON_IN_CHUNKS = chunked(ANSWER_2, content_type="application/json")
STREAM_ANSWER = chunked(event(PROGRESS) + event(ANSWER_2))
STREAM_UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + event(ANSWER_2)
STREAM_WITH_LENGTH = plain(event(ANSWER_2), "200 OK", "text/event-stream")


@pytest.mark.parametrize(
    "whole",
    [
        JSON_ANSWER,
        JSON_IN_CHUNKS,
        STREAM_ANSWER,
        STREAM_UNTIL_CLOSE,
        STREAM_WITH_LENGTH,
    ],
    ids=["json", "json in chunks", "stream", "stream until close", "stream with length"],
)
async def test_an_answer_cut_at_any_byte_is_an_answer_or_a_cut(whole: bytes) -> None:
    size = 0

    async def answer(request: SeenRequest, peer: Peer) -> None:
        peer.write(whole[:size])
        peer.close()

    async with rig(answer) as r:
        await r.open()
        is_stream = b"event-stream" in whole
        answered_at = whole.index(ANSWER_2) + len(ANSWER_2) + 2 if is_stream else len(whole)
        for size in range(len(whole) + 1):
            r.receiver.messages.clear()
            r.receiver.faults.clear()
            r.link.request(2, CALL)
            await r.receiver.until(lambda: r.receiver.faults or (ANSWER_2, 2) in r.receiver.messages)
            await settle()
            if size >= answered_at:
                assert r.receiver.faults == [], size
            else:
                assert [fault.kind for _, fault in r.receiver.faults] == [FaultKind.CUT], size
                assert (ANSWER_2, 2) not in r.receiver.messages
        assert len(r.server.requests) == len(whole) + 2, "nothing is sent twice"


@pytest.mark.parametrize("with_session", [True, False], ids=["session", "no session"])
@pytest.mark.parametrize(
    ("answer", "kind_with", "kind_without"),
    [
        (plain(b"gone", "404 Not Found", "text/plain"), FaultKind.REFUSED, FaultKind.INVALID),
        (plain(REFUSAL, "400 Bad Request"), FaultKind.REFUSED, None),
        (plain(REFUSAL, "404 Not Found"), FaultKind.REFUSED, None),
        (plain(REFUSAL, "422 Unprocessable Content"), None, None),
        (plain(b"slow down", "429 Too Many Requests", "text/plain"), FaultKind.INVALID, FaultKind.INVALID),
        (plain(b"", "401 Unauthorized"), FaultKind.UNAUTHORIZED, FaultKind.UNAUTHORIZED),
        (plain(b"<html>", "403 Forbidden", "text/html"), FaultKind.UNAUTHORIZED, FaultKind.UNAUTHORIZED),
        (plain(b"", "502 Bad Gateway"), FaultKind.UNAVAILABLE, FaultKind.UNAVAILABLE),
        (plain(b"", "503 Service Unavailable"), FaultKind.UNAVAILABLE, FaultKind.UNAVAILABLE),
        (plain(b"<html>", "500 Internal Server Error", "text/html"), FaultKind.FAILED, FaultKind.FAILED),
        (plain(b"<html>", "200 OK", "text/html"), FaultKind.INVALID, FaultKind.INVALID),
        (plain(b"{broken", "200 OK"), FaultKind.INVALID, FaultKind.INVALID),
        (plain(b"null", "200 OK"), FaultKind.INVALID, FaultKind.INVALID),
        (plain(NO_UTF8), FaultKind.INVALID, FaultKind.INVALID),
        (chunked(event(NO_UTF8)), FaultKind.INVALID, FaultKind.INVALID),
        (plain(ANSWER_1, "200 OK"), FaultKind.INVALID, FaultKind.INVALID),
        (plain(ANSWER_2, "200 OK", "application/json", "content-encoding: gzip"), FaultKind.INVALID, FaultKind.INVALID),
        (plain(b"{" + b" " * 70_000 + ANSWER_2[1:]), FaultKind.INVALID, FaultKind.INVALID),
        (chunked(b"{" + b" " * 70_000, content_type="application/json"), FaultKind.INVALID, FaultKind.INVALID),
        (chunked(b"data: " + b" " * 70_000), FaultKind.INVALID, FaultKind.INVALID),
        (chunked(event(b"{broken")), FaultKind.INVALID, FaultKind.INVALID),
        (chunked(), FaultKind.CUT, FaultKind.CUT),
        (ACCEPTED, FaultKind.INVALID, FaultKind.INVALID),
        (b"HTTP/1.1 204 No Content\r\n\r\n", FaultKind.INVALID, FaultKind.INVALID),
        (plain(b"", "302 Found", "text/html", "location: /login?secret=t0ken"), FaultKind.INVALID, FaultKind.INVALID),
        (plain(b"", "307 Moved", "text/html", "location: /elsewhere"), FaultKind.INVALID, FaultKind.INVALID),
        (b"HTTP/9 nonsense\r\n\r\n", FaultKind.INVALID, FaultKind.INVALID),
    ],
)
async def test_what_is_no_answer_becomes_the_fault_that_says_what_may_be_repeated(
    answer: bytes, kind_with: FaultKind | None, kind_without: FaultKind | None, with_session: bool
) -> None:
    async with rig(answering(answer)) as r:
        await r.open(with_session=with_session)
        kind = kind_with if with_session else kind_without
        if kind is None:
            error = REFUSAL[REFUSAL.index(b'{"code"') : -1]
            assert await r.call() == b'{"jsonrpc":"2.0","id":2,"error":%b}' % error
            assert r.receiver.faults == []
        else:
            fault = await r.fault()
            assert fault.kind is kind
            assert f"127.0.0.1:{r.server.port}" in fault.detail
            has_error = kind is FaultKind.REFUSED and b"jsonrpc" in answer
            assert (fault.error is not None) == has_error
        await settle()
        assert r.receiver.calls == 2, "told once"
        assert len(r.server.requests) == 2


async def test_a_refusal_without_an_end_is_not_read_to_it() -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        peer.write(b"HTTP/1.1 500 Oops\r\n\r\n" + b"x" * 100_000)
        await peer.gone()

    async with rig(answer) as r:
        await r.open()
        assert (await r.fault()).kind is FaultKind.FAILED


async def test_a_refused_connection_is_not_sent_and_initialize_may_come_again() -> None:
    port = free_port()
    async with TaskScope() as scope:
        clock = ManualClock()
        receiver = RecordingReceiver()
        client = HttpClient(f"http://127.0.0.1:{port}", scope, clock)
        link = StreamableHttpLink(client, "/mcp", {}, clock, wants_push=False)
        await link.start(receiver)
        async with asyncio.timeout(60):
            link.request(1, INITIALIZE)
            fault = await receiver.outcome(1)
            assert fault == Fault(FaultKind.NOT_SENT, f"connection to 127.0.0.1:{port} refused")
        server = ScriptedServer(answering(WELCOME))
        listener = await asyncio.start_server(server.accept, "127.0.0.1", port)
        async with asyncio.timeout(60):
            link.request(2, INITIALIZE)
            await receiver.until(lambda: len(receiver.faults) == 2)  # the script answers with id 1
            link.request(3, CALL)
            assert (await server.received(2)).headers["mcp-session-id"] == SESSION
        link.terminate()
        client.close()
        listener.close()
        await server.stop()


# Redirects.


@pytest.mark.parametrize("location", ["/mcp/?a=b", "http://127.0.0.1:{port}/mcp/?a=b"])
async def test_the_first_request_follows_a_redirect_within_the_origin_and_later_ones_go_there_directly(
    location: str,
) -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        if request.target == "/mcp":
            where = location.format(port=r.server.port)
            peer.write(plain(b"", "307 Temporary Redirect", "text/plain", f"location: {where}"))
        else:
            peer.write(WELCOME if request.body == INITIALIZE else plain(ANSWER_2))

    async with rig(answer) as r:
        assert await r.call(1, INITIALIZE) == ANSWER_1
        assert await r.call() == ANSWER_2
        assert [request.target for request in r.server.requests] == ["/mcp", "/mcp/?a=b", "/mcp/?a=b"]
        assert [request.body for request in r.server.requests] == [INITIALIZE, INITIALIZE, CALL]


@pytest.mark.parametrize(
    "location", ["http://127.0.0.2/mcp", "https://127.0.0.1/mcp", "//elsewhere/mcp", "http://[", "", "/mcp\x80"]
)
async def test_credentials_follow_no_redirect_to_elsewhere(location: str) -> None:
    async with rig(answering(plain(b"", "308 Permanent Redirect", "text/plain", f"location: {location}"))) as r:
        outcome = await r.call(1, INITIALIZE)
        assert isinstance(outcome, Fault)
        assert outcome.kind is FaultKind.INVALID
        assert len(r.server.requests) == 1


async def test_a_redirect_to_itself_is_followed_once() -> None:
    async with rig(answering(plain(b"", "307 Temporary Redirect", "text/plain", "location: /mcp"))) as r:
        outcome = await r.call(1, INITIALIZE)
        assert isinstance(outcome, Fault)
        assert "'/mcp'" in outcome.detail
        assert len(r.server.requests) == 2


# The caller's side of a request.


async def test_a_cancelled_request_is_dropped_and_heard_of_no_more() -> None:
    gone = asyncio.Event()

    async def answer(request: SeenRequest, peer: Peer) -> None:
        peer.write(stream_head(), chunk(event(PROGRESS) + event(PROGRESS)))
        await peer.gone()
        gone.set()

    async with rig(answer) as r:
        await r.open()
        sent: list[Sent] = []
        calls = r.receiver.calls
        r.receiver.on_call = lambda: sent[0].cancel("enough")
        sent.append(r.link.request(2, CALL))
        await gone.wait()
        await settle()
        assert r.receiver.calls == calls + 1, "the second event came with the first"


async def test_a_request_cancelled_between_streams_is_not_resumed() -> None:
    async with rig(answering(chunked(event(b"", "e1")))) as r:
        await r.open()
        sent = r.link.request(2, CALL)
        await r.receiver.until(lambda: r.receiver.suspensions)
        sent.cancel("enough")
        r.clock.advance(60)
        await settle()
        assert r.server.seen("GET") == []


async def test_a_paused_request_is_not_read_and_siblings_are() -> None:
    go_on = asyncio.Event()

    async def answer(request: SeenRequest, peer: Peer) -> None:
        if b'"id":2' not in request.body:
            peer.write(plain(b'{"jsonrpc":"2.0","id":3,"result":{}}'))
            return
        peer.write(stream_head(), chunk(event(PROGRESS)))
        await go_on.wait()
        peer.write(chunk(event(ANSWER_2)), b"0\r\n\r\n")

    async with rig(answer) as r:
        await r.open()
        sent = r.link.request(2, CALL)
        await r.receiver.until(lambda: len(r.receiver.messages) == 2)
        sent.pause()
        go_on.set()
        await r.call(3, b'{"id":3}')
        await settle()
        assert (ANSWER_2, 2) not in r.receiver.messages
        sent.resume()
        await r.receiver.until(lambda: (ANSWER_2, 2) in r.receiver.messages)


async def test_after_terminate_nothing_is_heard_and_nothing_sent() -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        if request.method == "GET":
            peer.write(stream_head(), chunk(event(PROGRESS)))
        await peer.gone()

    async with rig(answer, wants_push=True) as r:
        await r.open()
        r.link.request(2, CALL)
        r.link.post(b"{}")
        r.link.request(3, CALL)
        await r.receiver.until(lambda: len(r.receiver.messages) == 2)
        await r.server.received(4)
        calls = r.receiver.calls
        r.link.terminate()
        r.link.terminate()
        for number in range(3):
            await r.server.dropped(number)
        r.link.post(b"{}")
        r.clock.advance(1000)
        await r.link.close()
        await settle()
        assert r.receiver.calls == calls
        assert len(r.server.requests) == 4


# Notifications and replies.


async def test_a_notification_is_silent_unless_the_session_is_refused() -> None:
    answers = [ACCEPTED, plain(b"{}"), plain(b"", "500 Oops"), plain(b"", "403 Forbidden"), plain(b"", "404 Not Found")]
    async with rig(answering(*answers)) as r:
        await r.open()
        for count in range(2, 7):
            assert r.receiver.suspicions == []
            r.link.post(b"{}")
            await r.server.received(count)
            await settle()
        await r.receiver.until(lambda: r.receiver.suspicions)
        assert r.receiver.suspicions[0].kind is FaultKind.REFUSED
        assert r.receiver.calls == 2


async def test_a_notification_that_was_not_sent_is_tried_once_more() -> None:
    tried: list[str] = []

    class CountingScope(TaskScope):
        def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
            tried.append(name)
            return super().start(work, name)

    async with asyncio.timeout(60), CountingScope() as scope:
        clock = ManualClock()
        client = HttpClient(f"http://127.0.0.1:{free_port()}", scope, clock)
        link = StreamableHttpLink(client, "/", {}, clock, wants_push=False)
        await link.start(RecordingReceiver())
        link.post(b"{}")
        while clock.pending:  # requests are held while it is tried
            await settle()
        assert len(tried) == 2
        link.terminate()


# The end.


async def test_closing_ends_the_session_at_the_server() -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        if request.method == "DELETE":
            peer.write(NO_GET)
        else:
            await peer.gone()

    async with rig(answer, wants_push=True) as r:
        await r.open()
        r.link.request(2, CALL)
        await r.server.received(3)
        await r.link.close()
        farewell = r.server.seen("DELETE")[0]
        assert farewell.headers["mcp-session-id"] == SESSION
        assert farewell.headers["authorization"] == "Bearer t0ken"
        assert farewell.target == "/mcp"
        await r.link.close()
        assert len(r.server.seen("DELETE")) == 1
        assert r.receiver.faults == []


async def test_closing_without_a_session_asks_nothing_of_the_server() -> None:
    async with rig(answering(ACCEPTED)) as r:
        await r.open(with_session=False)
        await r.link.close()
        assert len(r.server.requests) == 1


async def test_terminate_ends_a_close_that_waits_for_the_server() -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        await peer.gone()

    async with rig(answer) as r, TaskScope() as scope:
        await r.open()
        closing = scope.start(r.link.close(), "close")
        await r.server.received(1, "DELETE")
        r.link.terminate()
        await closing
        await r.server.dropped(0)


async def test_a_server_that_does_not_answer_the_delete_holds_nobody_up() -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        await peer.gone()

    async with rig(answer) as r, TaskScope() as scope:
        await r.open()
        closing = scope.start(r.link.close(), "close")
        await r.server.received(1, "DELETE")
        r.clock.advance(CLOSE_TIMEOUT)
        await closing
        await r.server.dropped(0)


class SlowStart:
    """A server whose answer to `initialize` takes until the test says."""

    def __init__(self, answer: bytes = WELCOME) -> None:
        self.goes_on = asyncio.Event()
        self._answer = answer

    async def __call__(self, request: SeenRequest, peer: Peer) -> None:
        if request.method == "DELETE":
            peer.write(ACCEPTED)
        else:
            await self.goes_on.wait()
            peer.write(self._answer)


@requirement("http-upstream:an-opening-given-up-is-ended")
async def test_the_session_of_an_opening_that_was_given_up_is_ended_once_the_server_names_it() -> None:
    server = SlowStart()
    async with rig(server) as r, TaskScope() as scope:
        r.link.request(1, INITIALIZE)
        await r.server.received(1)
        closing = scope.start(r.link.close(), "close")
        await settle()
        assert not closing.done()
        server.goes_on.set()
        await closing
        assert [each.headers["mcp-session-id"] for each in r.server.seen("DELETE")] == [SESSION]
        assert r.receiver.faults == []


@requirement("http-upstream:an-opening-given-up-is-ended")
async def test_a_slow_server_holds_up_no_close_and_its_session_is_ended_behind_it() -> None:
    server = SlowStart()
    async with rig(server) as r, TaskScope() as scope:
        r.link.request(1, INITIALIZE)
        await r.server.received(1)
        closing = scope.start(r.link.close(), "close")
        await settle()
        r.clock.advance(CLOSE_TIMEOUT)
        await closing
        assert r.server.seen("DELETE") == []
        server.goes_on.set()
        farewell = await r.server.received(1, "DELETE")
        assert farewell.headers["mcp-session-id"] == SESSION


@requirement("http-upstream:an-opening-given-up-is-ended")
async def test_an_opening_that_fails_after_it_was_given_up_is_waited_for_no_longer() -> None:
    server = SlowStart(plain(b"no", "500 Internal Server Error", "text/plain"))
    async with rig(server) as r, TaskScope() as scope:
        r.link.request(1, INITIALIZE)
        await r.server.received(1)
        closing = scope.start(r.link.close(), "close")
        await settle()
        assert not closing.done()
        server.goes_on.set()
        await closing
        assert r.server.seen("DELETE") == []


@requirement("http-upstream:an-opening-given-up-is-ended")
async def test_where_an_opening_that_was_given_up_began_no_session_there_is_none_to_end() -> None:
    server = SlowStart(plain(ANSWER_1))
    async with rig(server) as r, TaskScope() as scope:
        r.link.request(1, INITIALIZE)
        await r.server.received(1)
        closing = scope.start(r.link.close(), "close")
        server.goes_on.set()
        await closing
        assert len(r.server.requests) == 1
