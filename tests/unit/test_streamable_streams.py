from __future__ import annotations

import asyncio

import pytest

from holdfast.testing.clock import settle
from holdfast.upstream.transport import Fault, FaultKind
from rows import Figure, row
from unit.scripted_http import (
    Peer,
    SeenRequest,
    chunk,
    chunked,
    plain,
    stream_head,
)
from unit.streamable_rig import (
    ACCEPTED,
    ANSWER_2,
    CALL,
    NO_GET,
    PROGRESS,
    SESSION,
    answering,
    event,
    rig,
)

# Resumption.


@pytest.mark.parametrize("ending", ["end", "close", "reset"])
async def test_a_stream_with_an_event_id_is_resumed_after_the_servers_retry(ending: str) -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        if request.method == "GET":
            peer.write(chunked(event(ANSWER_2, "e8")))
            return
        peer.write(stream_head(), chunk(b"retry: 2500\n" + event(b"", "e7")))
        await settle()
        if ending == "end":
            peer.write(b"0\r\n\r\n")
        elif ending == "close":
            peer.close()
        else:
            peer.reset()

    async with rig(answer) as r:
        await r.open()
        r.link.request(2, CALL)
        await r.receiver.until(lambda: r.receiver.suspensions)
        r.clock.advance(2.49)
        await settle()
        assert r.server.seen("GET") == []
        r.clock.advance(0.02)
        assert await r.receiver.outcome(2) == ANSWER_2
        resumption = r.server.seen("GET")[0]
        assert resumption.headers["last-event-id"] == "e7"
        assert resumption.headers["mcp-session-id"] == SESSION
        assert resumption.headers["accept"] == "text/event-stream"
        assert r.receiver.suspensions == [2]
        await settle()
        assert r.receiver.faults == []


async def test_only_an_event_that_was_whole_moves_the_place_to_resume_from() -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        if request.method == "GET":
            peer.write(chunked(event(ANSWER_2)))
        else:
            peer.write(stream_head(), chunk(event(PROGRESS, "whole") + b"id: half\ndata: {}\n"))
            peer.close()

    async with rig(answer) as r:
        await r.open()
        r.link.request(2, CALL)
        await r.receiver.until(lambda: r.receiver.suspensions)
        r.clock.advance(1.0)
        assert (await r.server.received(1, "GET")).headers["last-event-id"] == "whole"


@pytest.mark.parametrize("event_id", ["", "a\x01b", "x" * 1025])
async def test_an_event_id_that_fits_into_no_header_resumes_nothing(event_id: str) -> None:
    async with rig(answering(chunked(event(b"", event_id)))) as r:
        await r.open()
        assert (await r.fault()).kind is FaultKind.CUT


async def test_a_stream_is_resumed_for_as_long_as_it_brings_events() -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        count = len(r.server.seen("GET"))
        peer.write(chunked(event(ANSWER_2 if count == 20 else b"", f"e{count}")))

    async with rig(answer) as r:
        await r.open()
        r.link.request(2, CALL)
        for count in range(1, 21):
            r.clock.advance(await r.clock.timer("Request._resume_stream", count))
            request = await r.server.received(count, "GET")
            assert request.headers["last-event-id"] == f"e{count - 1}"
        await r.receiver.until(lambda: (ANSWER_2, 2) in r.receiver.messages)


@pytest.mark.parametrize("barren", [chunked(), plain(b"", "503 Service Unavailable"), plain(b"", "409 Conflict"), b""])
async def test_five_resumptions_in_a_row_without_an_event_are_the_last(barren: bytes) -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        if request.method == "POST":
            peer.write(chunked(event(b"", "e1")))
        else:
            peer.write(barren)
            peer.close()

    async with rig(answer) as r:
        await r.open()
        r.link.request(2, CALL)
        await r.receiver.until(lambda: r.receiver.suspensions)
        for count in range(1, 6):
            delay = await r.clock.timer("Request._resume_stream", count)
            assert delay == 2 ** (count - 1)
            r.clock.advance(delay)
            await r.server.received(count, "GET")
        assert (await r.receiver.outcome(2)).__class__ is Fault
        assert r.receiver.faults[0][1].kind is FaultKind.CUT
        assert "5 resumptions" in r.receiver.faults[0][1].detail
        assert r.receiver.suspensions == [2]


@pytest.mark.parametrize(("answer", "suspicions"), [(NO_GET, 0), (plain(b"", "404 Not Found"), 1), (ACCEPTED, 0)])
async def test_a_refused_resumption_never_says_that_the_request_was_not_executed(
    answer: bytes, suspicions: int
) -> None:
    async with rig(answering(chunked(event(b"", "e1")), answer)) as r:
        await r.open()
        r.link.request(2, CALL)
        await r.receiver.until(lambda: r.receiver.suspensions)
        r.clock.advance(1.0)
        fault = await r.receiver.outcome(2)
        assert isinstance(fault, Fault)
        assert fault.kind is FaultKind.CUT
        assert len(r.receiver.suspicions) == suspicions


# Pushes.


async def test_pushes_come_over_the_get_stream() -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        assert request.headers["mcp-session-id"] == SESSION
        assert request.headers["mcp-protocol-version"] == "2025-11-25"
        peer.write(stream_head(), chunk(event(PROGRESS, "p1") + event(b"")))
        await peer.gone()

    async with rig(answer, wants_push=True) as r:
        await r.open()
        await r.receiver.until(lambda: len(r.receiver.messages) == 2)
        assert r.receiver.messages[1] == (PROGRESS, None)
        assert r.receiver.pushes == [True]


async def test_no_stream_is_asked_for_where_none_is_wanted() -> None:
    async with rig(answering(ACCEPTED)) as r:
        await r.open()
        await settle()
        assert r.server.seen("GET") == []


@pytest.mark.parametrize(
    ("answer", "suspicions"),
    [
        (NO_GET, 0),
        (plain(b"", "401 Unauthorized"), 0),
        (plain(b"{}", "200 OK"), 0),
        (plain(b"", "400 Bad Request"), 1),
        (plain(b"", "404 Not Found"), 1),
    ],
)
async def test_a_server_without_pushes_is_not_asked_again(answer: bytes, suspicions: int) -> None:
    async with rig(answering(answer), wants_push=True) as r:
        await r.open()
        await r.server.received(1, "GET")
        await r.receiver.until(lambda: len(r.receiver.suspicions) == suspicions)
        await settle()
        r.clock.advance(10_000)
        await settle()
        assert len(r.server.seen("GET")) == 1
        assert r.receiver.pushes == []


async def test_a_push_stream_that_lived_long_is_reopened_where_it_ended() -> None:
    ends = asyncio.Queue[None]()

    async def answer(request: SeenRequest, peer: Peer) -> None:
        peer.write(stream_head(), chunk(b"retry: 700\n" + event(PROGRESS, f"p{len(r.server.seen('GET'))}")))
        await ends.get()
        peer.write(b"0\r\n\r\n")

    async with rig(answer, wants_push=True) as r:
        await r.open()
        for count in range(1, 4):
            while len(r.receiver.messages) <= count:
                await settle()
            r.clock.advance(31)
            ends.put_nowait(None)
            delay = await r.clock.timer("_PushStream.start", count)
            assert delay == 0.7
            r.clock.advance(delay)
            assert (await r.server.received(count + 1, "GET")).headers["last-event-id"] == f"p{count}"


@row(37)
@pytest.mark.parametrize("flap", ["clean", "cut", "error"])
async def test_a_flapping_server_sees_ten_gets_in_ten_minutes_at_most(flap: str, figure: Figure) -> None:
    """The jitter of the rig is the shortest possible."""

    async def answer(request: SeenRequest, peer: Peer) -> None:
        if flap == "clean":
            peer.write(chunked(b"retry: 0\n\n"))
        elif flap == "error":
            peer.write(plain(b"", "500 Oops"))
        else:
            peer.write(stream_head())
            peer.close()

    async with rig(answer, wants_push=True) as r:
        await r.open()
        end, count = r.clock.now() + 600, 1
        while r.clock.now() + (delay := await r.clock.timer("_PushStream.start", count)) <= end:
            r.clock.advance(delay)
            count += 1
        assert len(r.server.seen("GET")) == count
        assert 8 <= count <= 10
        figure(f"push streams that end at once: {count} GETs in 10 minutes")
        assert r.receiver.pushes == ([] if flap == "error" else [True, False] * count)
