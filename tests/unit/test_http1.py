from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme
import uvloop

from holdfast.tasks import TaskScope
from holdfast.testing.clock import ManualClock, settle
from holdfast.upstream.http1 import HeaderBlock, HttpClient, header_block
from holdfast.upstream.http1_response import MAX_HEAD_BYTES, ResponseReader
from processes import free_port
from unit.scripted_http import (
    Answer,
    Peer,
    RecordingSink,
    ScriptedServer,
    SeenRequest,
    chunk,
    chunked,
    plain,
    scripted,
    stream_head,
)

NONE = HeaderBlock(b"")
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
Loop = Callable[[], asyncio.AbstractEventLoop]


def run(loop: Loop, scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(bounded())


@asynccontextmanager
async def rig(answer: Answer) -> AsyncGenerator[tuple[ScriptedServer, HttpClient, ManualClock]]:
    async with scripted(answer) as server, TaskScope() as scope:
        clock = ManualClock()
        client = HttpClient(server.url, scope, clock)
        try:
            yield server, client, clock
        finally:
            client.close()


async def ask(client: HttpClient, body: bytes | None = b"{}", target: str = "/mcp") -> RecordingSink:
    sink = RecordingSink()
    client.request("POST" if body is not None else "GET", target, NONE, body, sink)
    async with asyncio.timeout(60):
        await sink.over.wait()
    return sink


def replying(*answers: bytes) -> Answer:
    """Answers in turn, the last one again and again."""
    left = list(answers)

    async def answer(request: SeenRequest, peer: Peer) -> None:
        peer.write(left.pop(0) if len(left) > 1 else left[0])

    return answer


# Requests and reuse.


@LOOPS
def test_warm_requests_share_one_connection_and_start_no_task(loop: Loop) -> None:
    async def scenario() -> None:
        async with scripted(replying(plain(b'{"ok":1}'))) as server, TaskScope() as scope:
            client = HttpClient(server.url, scope, ManualClock())
            for _ in range(5):
                sink = RecordingSink()
                client.request("POST", "/mcp?a=b", header_block([("X-One", "1")]), b'{"id":1}', sink)
                assert len(scope) == (0 if server.requests else 1)
                await sink.over.wait()
                assert (sink.status, sink.content, sink.ends) == (200, b'{"ok":1}', 1)
            assert {request.connection for request in server.requests} == {0}
            assert server.requests[-1].target == "/mcp?a=b"
            assert server.requests[-1].body == b'{"id":1}'
            assert server.requests[-1].headers == {
                "host": f"127.0.0.1:{server.port}",
                "accept-encoding": "identity",
                "x-one": "1",
                "content-length": "8",
            }
            client.close()

    run(loop, scenario())


async def test_requests_at_once_take_a_connection_each() -> None:
    waiting = asyncio.Barrier(3)

    async def answer(request: SeenRequest, peer: Peer) -> None:
        await waiting.wait()
        peer.write(plain(request.body))

    async with rig(answer) as (server, client, _):
        sinks = [RecordingSink() for _ in range(3)]
        for number, sink in enumerate(sinks):
            client.request("POST", "/", NONE, b"%d" % number, sink)
        async with asyncio.timeout(60):
            for number, sink in enumerate(sinks):
                await sink.over.wait()
                assert sink.content == b"%d" % number
        assert len(server.connections) == 3


@LOOPS
def test_a_body_of_megabytes_arrives_whole(loop: Loop) -> None:
    async def scenario() -> None:
        async def answer(request: SeenRequest, peer: Peer) -> None:
            peer.write(plain(request.body))

        async with rig(answer) as (_, client, _):
            body = bytes(range(256)) * 16_384
            assert (await ask(client, body)).content == body

    run(loop, scenario())


@pytest.mark.parametrize(
    "headers",
    [
        [("x", "a\r\nevil: 1")],
        [("x", "a\nb")],
        [("x", "a\0b")],
        [("x\r\ny", "a")],
        [("x y", "a")],
        [("", "a")],
        [("Content-Length", "5")],
        [("transfer-encoding", "chunked")],
        [("Host", "elsewhere")],
    ],
)
def test_headers_that_could_forge_a_request_are_refused_without_naming_their_value(
    headers: list[tuple[str, str]],
) -> None:
    with pytest.raises(ValueError, match="header") as caught:
        header_block(headers)
    assert "evil" not in str(caught.value)


async def test_a_target_that_could_forge_a_request_is_refused() -> None:
    async with rig(replying(plain(b""))) as (server, client, _):
        for target in ("/a b", "/a\r\nx: y", "http://elsewhere/", "", "/\u00e9"):
            with pytest.raises(ValueError, match="request"):
                client.request("GET", target, NONE, None, RecordingSink())
        assert server.connections == []


# Connections that end.


@LOOPS
def test_a_kept_connection_that_the_server_closed_costs_no_request(loop: Loop) -> None:
    """The loop is kept from seeing the FIN: only the probe can."""

    async def scenario() -> None:
        async with rig(replying(plain(b"1"))) as (server, client, clock):
            await ask(client)
            server.connections[0].close_unseen()
            clock.advance(1.0)
            sink = RecordingSink()
            client.request("POST", "/", NONE, b"{}", sink)
            await sink.over.wait()
            assert sink.ends == 1
            assert [request.connection for request in server.requests] == [0, 1]

    run(loop, scenario())


@pytest.mark.parametrize(
    ("head", "seconds", "reused"),
    [
        ("", 3.9, True),
        ("", 4.1, False),
        ("Keep-Alive: timeout=10, max=100", 8.9, True),
        ("Keep-Alive: timeout=10", 9.1, False),
        ("Keep-Alive: timeout=1", 0.0, False),
        ("Connection: close", 0.0, False),
    ],
)
async def test_a_connection_is_kept_for_as_long_as_the_server_allows(head: str, seconds: float, reused: bool) -> None:
    async with rig(replying(plain(b"1", "200 OK", "text/plain", head or "x: y"))) as (server, client, clock):
        await ask(client)
        clock.advance(seconds)
        await ask(client)
        assert len(server.connections) == (1 if reused else 2)


async def test_an_expired_connection_is_closed_without_a_request() -> None:
    async with rig(replying(plain(b"1"))) as (server, client, clock):
        await ask(client)
        clock.advance(5)
        async with asyncio.timeout(60):
            await server.dropped(0)
        assert "0 idle" in repr(client)
        assert clock.pending == 0


@pytest.mark.parametrize("excess", [b"x", plain(b""), plain(b"forged")])
async def test_bytes_behind_a_complete_answer_end_the_connection(excess: bytes) -> None:
    async with rig(replying(plain(b"1") + excess, plain(b"2"))) as (server, client, _):
        assert (await ask(client)).content == b"1"
        assert (await ask(client)).content == b"2"
        assert len(server.connections) == 2


async def test_an_expired_connection_is_not_reused_even_before_it_is_swept() -> None:
    both = asyncio.Barrier(2)

    async def answer(request: SeenRequest, peer: Peer) -> None:
        if request.connection < 2 and request.body:
            await both.wait()
        hint = "Keep-Alive: timeout=100" if request.connection == 0 else "x: y"
        await settle(1 + 9 * request.connection)  # the one with the long life is released first
        peer.write(plain(b"1", "200 OK", "text/plain", hint))

    async with rig(answer) as (server, client, clock):
        sinks = [RecordingSink(), RecordingSink()]
        for sink in sinks:
            client.request("POST", "/", NONE, b"{}", sink)
        async with asyncio.timeout(60):
            for sink in sinks:
                await sink.over.wait()
        clock.advance(50)
        assert "2 idle" in repr(client)
        await ask(client, None)
        assert server.requests[-1].connection == 0


async def test_an_answer_to_nothing_ends_the_connection() -> None:
    async with rig(replying(plain(b"1"))) as (server, client, _):
        await ask(client)
        server.connections[0].write(plain(b"unasked"))
        async with asyncio.timeout(60):
            await server.dropped(0)
        assert (await ask(client)).content == b"1"
        assert len(server.connections) == 2


async def test_a_refused_connection_says_that_nothing_was_sent() -> None:
    port = free_port()
    async with TaskScope() as scope:
        client = HttpClient(f"http://127.0.0.1:{port}/", scope, ManualClock())
        fault = (await ask(client)).fault
        assert (fault.is_sent, fault.has_answer) == (False, False)
        assert fault.detail == f"connection to 127.0.0.1:{port} refused"
        client = HttpClient(f"http://localhost:{port}/", scope, ManualClock())
        assert (await ask(client)).fault.detail == f"connection to localhost:{port} refused"


async def test_a_name_that_cannot_be_found_says_so() -> None:
    async with TaskScope() as scope:
        client = HttpClient("http://nobody.invalid/", scope, ManualClock())
        fault = (await ask(client)).fault
        assert not fault.is_sent
        assert "nobody.invalid:80" in fault.detail


@pytest.mark.parametrize("host", ["mcp..example", "a" * 64 + ".example"])
@LOOPS
def test_a_host_name_that_no_lookup_takes_fails_the_request(loop: Loop, host: str) -> None:
    async def scenario() -> None:
        async with TaskScope() as scope:
            client = HttpClient(f"http://{host}", scope, ManualClock())
            fault = (await ask(client)).fault
            assert not fault.is_sent
            assert fault.detail == f"the host name of {host}:80 was not found"
            client.close()

    run(loop, scenario())


async def test_a_request_to_a_closed_client_is_not_sent() -> None:
    async with rig(replying(plain(b"1"))) as (server, client, _):
        client.close()
        assert not (await ask(client)).fault.is_sent
        assert server.connections == []


async def test_closing_the_client_fails_what_runs() -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        await peer.gone()

    async with rig(answer) as (server, client, _):
        running, connecting = RecordingSink(), RecordingSink()
        client.request("POST", "/", NONE, b"{}", running)
        async with asyncio.timeout(60):
            await server.received(1)
        client.request("POST", "/", NONE, b"{}", connecting)
        client.close()
        assert running.fault.is_sent
        assert not connecting.fault.is_sent


async def test_the_end_of_the_scope_fails_a_request_that_waits_for_its_connection() -> None:
    sink = RecordingSink()
    async with scripted(replying(plain(b"1"))) as server, TaskScope() as scope:
        client = HttpClient(server.url, scope, ManualClock())
        client.request("POST", "/", NONE, b"{}", sink)
        await asyncio.sleep(0)
    assert not sink.fault.is_sent
    assert "closed" in repr(client)


async def test_the_end_of_the_scope_fails_a_request_whose_connecting_had_not_begun() -> None:
    sink = RecordingSink()
    async with TaskScope() as scope:
        client = HttpClient("http://127.0.0.1:1", scope, ManualClock())
        client.request("POST", "/", NONE, b"{}", sink)
    assert not sink.fault.is_sent
    assert "closed" in repr(client)


async def test_a_request_that_is_given_up_at_once_is_not_kept() -> None:
    async with rig(replying(plain(b"1"))) as (server, client, _):
        sink = RecordingSink()
        client.request("POST", "/", NONE, b"{}", sink).abort()
        kept = weakref.ref(sink)
        del sink
        await settle()
        gc.collect()
        assert kept() is None
        assert server.connections == []
        assert (await ask(client)).ends == 1


@pytest.mark.parametrize("when", ["connecting", "running", "over"])
async def test_an_aborted_exchange_is_heard_of_no_more(when: str) -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        if when == "over":
            peer.write(plain(b"1"))
        else:
            await peer.gone()

    async with rig(answer) as (server, client, _):
        sink = RecordingSink()
        exchange = client.request("POST", "/", NONE, b"{}", sink)
        async with asyncio.timeout(60):
            if when == "running":
                await server.received(1)
            if when == "over":
                await sink.over.wait()
        exchange.abort()
        exchange.abort()
        await settle()
        assert sink.faults == []
        assert sink.ends == (1 if when == "over" else 0)
        assert ("1 connections" if when == "over" else "0 connections") in repr(client)


# Answers.


ANSWERS = {
    "length": plain(b'{"jsonrpc":"2.0"}'),
    "chunks": chunked(b'{"jsonrpc"', b':"2.0"}'),
    "until close": b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"jsonrpc":"2.0"}',
}


@LOOPS
@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_cut_at_any_byte_fails_and_a_whole_one_ends(loop: Loop, kind: str, ending: str) -> None:
    whole = ANSWERS[kind]
    head_size = whole.index(b"\r\n\r\n") + 4

    async def scenario() -> None:
        size = 0

        async def answer(request: SeenRequest, peer: Peer) -> None:
            peer.write(whole[:size])
            await settle(3)
            if ending == "close":
                peer.close()
            else:
                peer.reset()

        async with rig(answer) as (server, client, _):
            for size in range(len(whole) + 1):
                sink = await ask(client)
                if ending == "close" and (size == len(whole) or (kind == "until close" and size >= head_size)):
                    assert sink.ends == 1
                    assert sink.content == (whole[head_size:size] if kind == "until close" else b'{"jsonrpc":"2.0"}')
                elif size < len(whole) or kind == "until close":
                    assert sink.fault.is_sent
                    assert sink.fault.has_answer == bool(sink.status)
                assert len(server.requests) == size + 1, "sent twice"

    run(loop, scenario())


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_is_read_alike_however_it_is_cut(kind: str) -> None:
    whole = ANSWERS[kind]
    for cut in range(len(whole)):
        reader = ResponseReader()
        assert reader.feed(whole[:cut]) is None
        assert reader.feed(whole[cut:]) is None
        assert b"".join(reader.chunks) == b'{"jsonrpc":"2.0"}'
        assert reader.is_complete == (kind != "until close")
        assert reader.ends_with_connection == (kind == "until close")


async def test_interim_answers_are_skipped() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    async with rig(replying(early + plain(b"1"))) as (server, client, _):
        sink = await ask(client)
        assert (sink.status, sink.content) == (200, b"1")
        assert "link" not in sink.headers
        await ask(client)
        assert len(server.connections) == 1


async def test_an_answer_without_a_body_leaves_the_connection_warm() -> None:
    async with rig(replying(b"HTTP/1.1 204 No Content\r\n\r\n")) as (server, client, _):
        for _ in range(2):
            assert (await ask(client)).ends == 1
        assert len(server.connections) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 2 * MAX_HEAD_BYTES,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"x" * 2 * MAX_HEAD_BYTES,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: " + b"b" * 2 * MAX_HEAD_BYTES,
        b"HTTP/1.1 100 Continue\r\na: b\r\n\r\n" * 101,
    ],
)
async def test_what_is_no_http_within_limits_is_malformed(answer: bytes) -> None:
    async with rig(replying(answer)) as (_, client, _):
        fault = (await ask(client)).fault
        assert fault.is_malformed
        assert fault.is_sent
        assert "cannot be read" in fault.detail


async def test_headers_come_in_lower_case_and_joined() -> None:
    async with rig(replying(plain(b"", "200 OK", "a/b", "X-A: 1", "x-a: 2"))) as (_, client, _):
        assert (await ask(client)).headers["x-a"] == "1, 2"


async def test_an_early_answer_to_a_body_still_being_written_ends_the_connection() -> None:
    async def answer(request: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request.readuntil(b"\r\n\r\n")
        writer.write(plain(b"too large", "413 Content Too Large"))
        await writer.drain()
        await asyncio.Event().wait()

    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await answer(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with TaskScope() as scope:
        client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", scope, ManualClock())
        sink = await ask(client, b"x" * 32 * 1024 * 1024)
        assert sink.status == 413
        assert "0 idle" in repr(client)
        client.close()
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


# Reading on and off.


@LOOPS
def test_a_paused_exchange_is_not_read_until_resumed(loop: Loop) -> None:
    async def scenario() -> None:
        go_on = asyncio.Event()

        async def answer(request: SeenRequest, peer: Peer) -> None:
            peer.write(stream_head(), chunk(b"first"))
            await go_on.wait()
            peer.write(chunk(b"second"), b"0\r\n\r\n")

        async with rig(answer) as (server, client, _):
            sink = RecordingSink()
            exchange = client.request("POST", "/", NONE, b"{}", sink)
            await sink.progressed.wait()
            exchange.pause()
            go_on.set()
            other = await ask(client)
            assert other.ends == 1
            assert sink.content == b"first"
            exchange.resume()
            await sink.over.wait()
            assert sink.content == b"firstsecond"
            await ask(client)
            assert len(server.connections) == 2

    run(loop, scenario())


async def test_an_exchange_paused_before_it_connected_is_not_read() -> None:
    async with rig(replying(plain(b"1"))) as (server, client, _):
        sink = RecordingSink()
        exchange = client.request("POST", "/", NONE, b"{}", sink)
        exchange.pause()
        async with asyncio.timeout(60):
            await server.received(1)
            await ask(client)
            assert not sink.over.is_set()
            exchange.resume()
            await sink.over.wait()


async def test_an_exchange_that_ended_paused_leaves_a_connection_that_is_read() -> None:
    class Pausing(RecordingSink):
        def head(self, status: int, headers: Mapping[str, str]) -> None:
            super().head(status, headers)
            exchange.pause()

    async with rig(replying(plain(b"1"))) as (server, client, _):
        sink = Pausing()
        exchange = client.request("POST", "/", NONE, b"{}", sink)
        async with asyncio.timeout(60):
            await sink.over.wait()
        assert (await ask(client)).content == b"1"
        assert len(server.connections) == 1


# TLS.


@LOOPS
def test_https_reuses_its_connection_and_refuses_an_unknown_authority(loop: Loop) -> None:
    async def scenario() -> None:
        authority: Any = trustme.CA()  # its annotations name a library that is not installed
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(own)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        async with scripted(replying(plain(b"1")), own) as server, TaskScope() as scope:
            url = f"https://localhost:{server.port}"
            clock = ManualClock()
            client = HttpClient(url, scope, clock, ssl_context=trusting)
            for _ in range(3):
                assert (await ask(client)).content == b"1"
                await settle()
                clock.advance(1.0)
            assert len(server.connections) == 1
            client.close()

            suspicious = HttpClient(url, scope, ManualClock())
            fault = (await ask(suspicious)).fault
            assert not fault.is_sent
            assert "certificate" in fault.detail
            suspicious.close()

    run(loop, scenario())


async def test_tls_to_a_server_that_speaks_none_is_not_sent() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with TaskScope() as scope:
        client = HttpClient(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", scope, ManualClock())
        assert not (await ask(client)).fault.is_sent
        client.close()
    server.close()


async def test_a_connection_that_does_not_come_about_in_time_is_not_sent() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with TaskScope() as scope:
        client = HttpClient(f"https://127.0.0.1:{port}", scope, ManualClock(), connect_timeout=0.05)
        fault = (await ask(client)).fault
        assert not fault.is_sent
        assert fault.detail == f"no connection to 127.0.0.1:{port} within 0.05 s"
        client.close()
    server.close()
    await settle()
