"""The way by callbacks and the way through ASGI are one gateway: whatever is sent, both answer alike."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from direct_rig import END, ThroughAsgi, post, ways
from holdfast.config import ClientSettings, GatewaySettings, key_digest
from holdfast.downstream.app import App, Kept
from holdfast.downstream.connection import Connection
from holdfast.downstream.dialects import Dialects
from holdfast.downstream.http import HttpResponder, Responder
from requirements import requirement
from rows import row

PING: Final = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
LIST: Final = b'{"jsonrpc":"2.0","id":2,"method":"tools/list"}'
COUNT: Final = b'{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"count","arguments":{}}}'


@requirement("http:direct:as-asgi")
async def test_what_is_usual_is_answered_alike_and_once() -> None:
    async with ways() as both:
        for request in (
            post(PING),
            post(LIST),
            post(COUNT),
            post(COUNT, b"accept: text/event-stream"),
            post(PING, path=b"/mcp/memory"),
            post(PING, path=b"/mcp/memory/chats/c"),
            post(PING, path=b"/mcp/nowhere"),
            post(PING, path=b"/mcp?x=1"),
            post(PING, b"authorization: Bearer k"),
            post(b"{"),
            post(b""),
            b"GET /mcp HTTP/1.1\r\nhost: localhost\r\n\r\n",
            b"DELETE /mcp HTTP/1.1\r\nhost: localhost\r\nmcp-session-id: none\r\n\r\n",
            b"PUT /mcp HTTP/1.1\r\nhost: localhost\r\n\r\n",
            b"HEAD /mcp HTTP/1.1\r\nhost: localhost\r\n\r\n",
            post(PING, version=b"HTTP/1.0"),
            post(PING, b"connection: close"),
            post(PING, b"host: evil.example").replace(b"host: localhost\r\n", b""),
            post(PING, b"origin: https://evil.example"),
            post(PING, b"expect: 100-continue"),
            post(PING, b"connection: upgrade", b"upgrade: h2c"),
        ):
            said = await both.check(request, END)
            assert said.count(b"HTTP/1.1 ") in {1, 2, 3}, request


@requirement("http:direct:as-asgi")
async def test_requests_that_come_together_are_answered_in_order() -> None:
    async with ways() as both:
        many = [post(COUNT.replace(b'"id":3', b'"id":%d' % number)) for number in range(10, 20)]
        said = await both.check(b"".join(many) + END)
        assert [int(found) for found in re.findall(rb'"id":(\d+)', said)] == list(range(10, 20))
        assert said.endswith(b"ok")
        said = await both.check(post(PING) + post(LIST) + post(COUNT) + post(PING, b"connection: close") + post(COUNT))
        assert said.count(b"HTTP/1.1 200") == 4, "nothing is answered after the last"


HOSTILE: Final = [
    post(PING, b"content-length: 40", b"transfer-encoding: chunked"),
    post(b"0\r\n\r\n" + post(PING), b"content-length: 4", b"transfer-encoding: chunked"),
    post(PING, b"content-length: 40", b"content-length: 41"),
    post(PING, b"content-length: 40", b"content-length: 40"),
    post(PING, b"content-length: +40"),
    post(PING, b"content-length: 4 0"),
    post(PING, b"content-length: 0x28"),
    post(PING, b"content-length: -1"),
    post(PING, b"content-length: 99999999999999999999"),
    post(b"28\r\n" + PING + b"\r\n0\r\n\r\n", b"transfer-encoding: chunked"),
    post(b"28;a=b\r\n" + PING + b"\r\n0\r\nx: y\r\n\r\n", b"transfer-encoding: chunked"),
    post(b"28\n" + PING + b"\n0\n\n", b"transfer-encoding: chunked"),
    post(b"g\r\n" + PING + b"\r\n0\r\n\r\n", b"transfer-encoding: chunked"),
    post(PING, b"transfer-encoding: xchunked"),
    post(PING, b"transfer-encoding: chunked, identity"),
    post(PING, b"transfer-encoding: identity", b"content-length: 40"),
    post(b"28\r\n" + PING + b"\r\n0\r\n\r\n", b"transfer-encoding:\tchunked"),
    post(b"28\r\n" + PING + b"\r\n0\r\n\r\n", b"transfer-encoding : chunked"),
    post(PING, b"content-length : 40"),
    post(PING, b" content-length: 3"),
    post(PING, b"x: a\r\n content-length: 3"),
    post(PING, b"x: a\x00b"),
    post(PING, b"x\x01: a"),
    post(PING, b"x: a\rb"),
    b"POST /mcp HTTP/1.1\nhost: localhost\ncontent-length: 40\n\n" + PING,
    b"POST http://localhost/mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 40\r\n\r\n" + PING,
    b"POST //mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 40\r\n\r\n" + PING,
    b"POST /mcp/%2e%2e/healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 40\r\n\r\n" + PING,
    b"POST /mcp\x00 HTTP/1.1\r\nhost: localhost\r\ncontent-length: 40\r\n\r\n" + PING,
    b"POST /mcp HTTP/2.0\r\nhost: localhost\r\ncontent-length: 40\r\n\r\n" + PING,
    b"POST /mcp HTTP/1.1 \r\nhost: localhost\r\ncontent-length: 40\r\n\r\n" + PING,
    b"post /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 40\r\n\r\n" + PING,
    b"POST /mcp HTTP/1.1\r\nhost: localhost\r\nhost: evil\r\ncontent-length: 40\r\n\r\n" + PING,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\r\n\r\n" + post(PING),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]


@requirement("http:direct:framing")
@row(20)
@pytest.mark.parametrize("hostile", HOSTILE)
async def test_what_is_hostile_to_framing_is_answered_alike(hostile: bytes) -> None:
    async with ways() as both:
        await both.check(hostile + END)
        await both.check(*(hostile[i : i + 1] for i in range(len(hostile))), END)


# A head that came before.


@contextmanager
def counted_repetitions(monkeypatch: pytest.MonkeyPatch) -> Generator[list[bytes]]:
    """The bodies of the requests whose heads were known."""
    bodies: list[bytes] = []
    genuine = App.take_again

    def take_again(self: App, kept: Kept, responder: HttpResponder, body: bytes) -> None:
        bodies.append(body)
        genuine(self, kept, responder, body)

    with monkeypatch.context() as patch:
        patch.setattr(App, "take_again", take_again)
        yield bodies


@requirement("http:direct:familiar")
async def test_a_head_that_came_before_is_known_however_long_its_body_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ways() as both:
        with counted_repetitions(monkeypatch) as known:
            bodies = [PING.replace(b"1,", b"%d," % number) for number in (1, 1, 20, 3_000_000, 1)]
            said = await both.check_known(*map(post, bodies), END)
            assert known == bodies[1:]
            assert [int(found) for found in re.findall(rb'"id":(\d+)', said)] == [1, 1, 20, 3_000_000, 1]
        with counted_repetitions(monkeypatch) as known:
            await both.check_known(*(post(PING, b"x-request-id: r%d" % number) for number in range(3)), END)
            await both.check_known(post(PING), post(PING, path=b"/mcp/memory"), post(PING, b"accept: text/html"), END)
            assert known == [], "what is another head is read anew"


@requirement("http:direct:familiar")
@row(20)
async def test_a_known_head_is_answered_alike_wherever_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    request = post(PING)
    async with ways() as both:
        with counted_repetitions(monkeypatch) as known:
            for cut in range(1, len(request)):
                await both.check_known(request, request[:cut], request[cut:], END)
            assert len(known) == len(PING), "a body that comes later, whole or in part, belongs to a known head"
            await both.check_known(request, *(request[i : i + 1] for i in range(len(request))), END)
            head = request[: -len(PING)]
            await both.check_known(request, head, *(PING[i : i + 1] for i in range(len(PING))), END)
            await both.check_known(request, head, PING + request, request + END)


@requirement("http:direct:framing")
@row(20)
@pytest.mark.parametrize(
    "length",
    [
        *(b"0", b"1", b"39", b"41", b"040", b"0000000000040", b"+40", b"-40", b"4 0", b"0x28", b"40, 40", b"", b"40 "),
        *(b"40\r\ncontent-length: 3", b"40\r\ntransfer-encoding: chunked"),
        *(b"4194305", b"99999999", b"99999999999999999999"),
    ],
)
async def test_a_known_head_with_another_length_is_framed_alike(length: bytes) -> None:
    """The same head but for the digits of its length, or what an attacker might write in their place."""
    request = post(PING)
    other = request.replace(b"content-length: 40", b"content-length: " + length)
    assert other != request
    async with ways() as both:
        await both.check_known(request, other + END, END)
        await both.check_known(request, request, other, request, END)
        await both.check_known(request, other[: -len(PING)], PING, END)


@requirement("http:direct:framing")
@row(20)
async def test_what_is_hostile_behind_a_known_head_is_answered_alike() -> None:
    async with ways() as both:
        for hostile in HOSTILE:
            await both.check_known(post(PING), post(PING), hostile + END)
            await both.check_known(post(PING), post(PING) + hostile, END)
            await both.check_known(post(PING), post(PING)[: -len(PING)], PING + hostile + END)


@requirement("http:direct:familiar")
async def test_a_known_head_is_read_anew_under_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ways() as both:
        wire = both.connect()
        with counted_repetitions(monkeypatch) as known:
            for _ in range(2):
                wire.connection.data_received(post(PING))
            assert known == [PING]
            both.gateway.reload(
                GatewaySettings(
                    servers=both.gateway.settings.servers,
                    clients=(ClientSettings(name="c", key_digests=(key_digest("k" * 20),)),),
                )
            )
            wire.connection.data_received(post(PING))
            assert known == [PING]
        assert re.findall(rb"HTTP/1.1 (\d+)", bytes(wire.said)) == [b"200", b"200", b"401"]
        wire.close()


@requirement("http:direct:familiar")
async def test_line_ends_between_known_heads_add_up_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.downstream.connection.MAX_HEAD_BYTES", 64)
    async with ways() as both:
        said = await both.check_known(*(piece for _ in range(100) for piece in (post(PING), b"\r\n")), END)
        assert said.count(b"HTTP/1.1 200") == 101


@requirement("http:direct:familiar")
async def test_the_rest_of_a_known_request_that_was_refused_is_bounded_and_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("holdfast.downstream.connection.MAX_REST_BYTES", 1000)
    async with ways() as both:
        wire = both.connect()
        for _ in range(2):
            wire.connection.data_received(post(PING))
        wire.connection.data_received(post(b"x" * 5000)[:-4990])
        both.gateway.reload(
            GatewaySettings(
                servers=both.gateway.settings.servers,
                clients=(ClientSettings(name="c", key_digests=(key_digest("k" * 20),)),),
            )
        )
        assert wire.said.endswith(b"}}"), "it was cut off"
        wire.connection.data_received(b"x" * 900)
        assert not wire.is_closing()
        wire.connection.data_received(b"x" * 900)
        await wire.closed.wait()
        assert wire.said.count(b"HTTP/1.1 401") == 1


@requirement("http:direct:as-asgi")
async def test_a_request_that_offers_another_protocol_is_answered_in_this_one() -> None:
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(COUNT), COUNT)
    async with ways() as both:
        plain = await both.check(post(LIST), post(COUNT), END)
        offering = post(LIST, *offer), post(chunked, *offer, b"transfer-encoding: chunked")
        assert await both.check(*offering, END) == plain
        assert await both.check(b"".join(offering) + END) == plain, "together"
        assert await both.check(*(each[i : i + 1] for each in offering for i in range(len(each))), END) == plain
        assert (await both.check(b"GET /healthz HTTP/1.1\r\n" + b"\r\n".join(offer) + b"\r\n\r\n", END)).count(
            b"ok"
        ) == 2
        said = await both.check(b"CONNECT localhost:1 HTTP/1.1\r\nhost: localhost\r\n\r\n" + END)
        assert b"HTTP/1.1 2" not in said


@requirement("http:direct:as-asgi")
async def test_a_request_behind_the_last_answer_is_not_run() -> None:
    async with ways() as both:
        wire, first = both.connect(), post(PING)
        wire.connection.data_received(first[:-1])
        wire.connection.shutdown()
        wire.connection.data_received(first[-1:] + post(COUNT))
        assert both.tasks == 0
        assert wire.said.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in wire.said
        await wire.closed.wait()


@requirement("http:direct:as-asgi")
@pytest.mark.parametrize("kind", [Connection, ThroughAsgi])
async def test_a_stream_that_fails_ends_as_a_stream(
    kind: type[Connection], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object, request: object, responder: Responder, *rest: object) -> None:
        responder.open(())
        responder.write(b"begun")
        raise RuntimeError

    monkeypatch.setattr(Dialects, "dispatch", fail)
    async with ways() as both:
        said = await both.said(kind, [post(LIST), END])
        first = said[: said.index(b"HTTP/1.1 ", 1)]
        assert first.startswith(b"HTTP/1.1 200 ")
        assert first.endswith(b"\r\n\r\n5\r\nbegun\r\n0\r\n\r\n")
        assert said.count(b"HTTP/1.1 ") == 2
    assert [record.message for record in caplog.records if record.name == "holdfast.http"] == ["a request failed"]


# Whatever else.

_METHODS = st.sampled_from([b"POST", b"POST", b"POST", b"GET", b"DELETE", b"OPTIONS", b"HEAD", b"PATCH"])
_PATHS = st.sampled_from(
    [
        b"/mcp",
        b"/mcp",
        b"/mcp/",
        b"/mcp/memory",
        b"/mcp/memory/chats/a%20b",
        b"/mcpx",
        b"/sse/x",
        b"/healthz",
        b"/?",
        b"*",
    ]
)
_HEADERS = st.lists(
    st.sampled_from(
        [
            b"accept: application/json",
            b"accept: text/event-stream, application/json",
            b"accept: text/html",
            b"content-type: application/json",
            b"content-type: text/plain",
            b"connection: keep-alive",
            b"connection: close",
            b"connection: Keep-Alive, X",
            b"mcp-session-id: none",
            b"mcp-protocol-version: 2025-06-18",
            b"mcp-protocol-version: 1999-01-01",
            b"origin: http://localhost",
            b"expect: 100-continue",
            b"expect: something",
            b"x-request-id: mine",
            b"x-long: " + b"y" * 5000,
            b"authorization: Bearer \xff",
        ]
    ),
    max_size=4,
)
_BODIES = st.one_of(
    st.sampled_from([PING, LIST, COUNT, b"", b"[]", b"[" + PING + b"]", b"{", b"\xff", b"null", b'{"id":1}' * 3]),
    st.binary(max_size=64),
)


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    method, path, body = draw(_METHODS), draw(_PATHS), draw(_BODIES)
    headers = draw(_HEADERS)
    if draw(st.booleans()):
        framed, framing = body, [b"content-length: %d" % len(body)]
    else:
        cut = draw(st.integers(0, len(body)))
        chunks = [part for part in (body[:cut], body[cut:]) if part]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in chunks) + b"0\r\n\r\n"
        framing = [b"transfer-encoding: chunked"]
    if method in {b"GET", b"DELETE", b"OPTIONS", b"HEAD"} and draw(st.booleans()):
        framed, framing = b"", []
    head = [method + b" " + path + b" HTTP/1.1", b"host: localhost", *framing, *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + framed


@requirement("http:direct:as-asgi")
@row(20)
async def test_generated_requests_are_answered_alike(figure: Any) -> None:
    async with ways() as both:
        loop = asyncio.get_running_loop()
        seen: list[tuple[list[bytes], int]] = []

        @settings(
            max_examples=300,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
            derandomize=True,
        )
        @given(st.lists(_requests(), min_size=1, max_size=4), st.integers(1, 200))
        def alike(requests: list[bytes], size: int) -> None:
            whole = b"".join([*requests, END])
            pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
            direct, asgi = asyncio.run_coroutine_threadsafe(both.answers(pieces), loop).result(60)
            assert direct == asgi
            # Each several times, so that its head is known, and then cut anywhere.
            pieces = [piece for each in requests for piece in (each, each, each[:size], each[size:])] + [END]
            asyncio.run_coroutine_threadsafe(both.check_known(*pieces), loop).result(60)
            seen.append((requests, direct.count(b"HTTP/1.1 ")))

        await asyncio.to_thread(alike)
        figure(
            f"{sum(len(requests) for requests, _ in seen):,} generated requests: answered alike by callbacks and ASGI"
        )
        assert sum(answers for _, answers in seen) > 300
