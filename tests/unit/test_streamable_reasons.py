"""What people are told of an answer that is no MCP: the server's own words, in short and without secrets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import OpenFailed
from holdfast.testing.clock import settle
from holdfast.upstream.handshake import HandshakeUpstream
from holdfast.upstream.quotation import QUOTED_BYTES, quotation
from holdfast.upstream.transport import Fault, FaultKind
from unit.recorded_upstream import RecordedListener
from unit.scripted_http import Peer, SeenRequest, plain
from unit.streamable_rig import INITIALIZE, SESSION, answering, rig

EXPRESS = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Error</title>
<style>pre { color: red }</style>
</head>
<body>
<pre>Error: Already connected to a transport. Call close() before<br> &nbsp; &nbsp;at Server.connect (/app/x.js)</pre>
</body>
</html>
"""
EXPRESS_SAYS = "Error: Already connected to a transport. Call close() before at Server.connect ("
JSON_ERROR = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"Already connected to a transport"}}'


@pytest.mark.parametrize(
    ("body", "quoted"),
    [
        (b"", ""),
        (b"  Bad\r\n\tGateway  ", "Bad Gateway"),
        (b"<html><head><title>502</title></head><body><h1>502 Bad Gateway</h1><hr>nginx", "502 Bad Gateway nginx"),
        (EXPRESS, EXPRESS_SAYS),
        (b"<html><head><title>Only a title</title></head><body></body></html>", "Only a title"),
        (b"<html><head><title>Cut</title><style>body {" + b"x" * 9000, "Cut"),
        (b"<script>alert(1)</script>a &lt;b&gt; &amp; c<", "a & c<"),
        (b"1 < 2 > 1", "1 < 2 > 1"),
        (b"a\x1b\x00\x7f\xe2\x80\xaeb\xff", "ab\N{REPLACEMENT CHARACTER}"),
        (b"the key hunter2-hunter2 is wrong", "the key *** is wrong"),
        (b"x" * 77 + b" hunter2-hunter2", "x" * 77 + " **"),
        (b"x" * 200, "x" * 80),
        (b"<p " + b"." * (QUOTED_BYTES - 12) + b">hunter2-hunter2", ""),
    ],
)
def test_a_quotation_is_short_and_plain_and_holds_no_secret(body: bytes, quoted: str) -> None:
    assert quotation(body, {"hunter2-hunter2", "hunter2"}) == quoted


@given(st.lists(st.sampled_from(["<", ">", "<a", "</head>", "<head>", "&lt;", "<script>", " ", "b", "\x1b"])))
def test_no_tag_survives_in_a_quotation(parts: list[str]) -> None:
    text = quotation("".join(parts).encode(), ())
    assert text.isprintable()
    assert "<a>" not in text
    assert "<script>" not in text


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (
            plain(EXPRESS, "500 Internal Server Error", "text/html; charset=utf-8"),
            FaultKind.FAILED,
            f" answered 500 Internal Server Error: {EXPRESS_SAYS}",
        ),
        (
            plain(JSON_ERROR, "500 Internal Server Error"),
            FaultKind.FAILED,
            " answered 500 Internal Server Error: Already connected to a transport",
        ),
        (
            plain(b"Internal Server Error", "500 Internal Server Error", "text/plain"),
            FaultKind.FAILED,
            " answered 500 Internal Server Error",
        ),
        (
            plain(b"Welcome to nginx!", "200 OK", "text/plain"),
            FaultKind.INVALID,
            " answered 200 OK with text/plain, which is no MCP: Welcome to nginx!",
        ),
        (
            plain(b'{"detail":"Not Found"}', "404 Not Found"),
            FaultKind.INVALID,
            ' answered 404 Not Found with application/json, which is no MCP: {"detail":"Not Found"}',
        ),
        (
            plain(b"\x89PNG\r\n", "200 OK", "image/png"),
            FaultKind.INVALID,
            " answered 200 OK with image/png, which is no MCP",
        ),
        (
            plain(b"you sent Bearer t0ken", "401 Unauthorized", "text/plain"),
            FaultKind.UNAUTHORIZED,
            " answered 401 Unauthorized: you sent ***",
        ),
        (
            plain(b"no upstream " + b"x" * 70_000, "502 Bad Gateway", "text/plain"),
            FaultKind.UNAVAILABLE,
            " answered 502 Bad Gateway: no upstream",
        ),
    ],
)
async def test_why_a_session_cannot_be_opened_is_said_in_the_servers_words(
    answer: bytes, kind: FaultKind, said: str
) -> None:
    async with rig(answering(answer)) as r:
        fault = await r.call(1, INITIALIZE)
        assert isinstance(fault, Fault)
        assert (fault.kind, fault.detail, fault.remark) == (kind, f"127.0.0.1:{r.server.port}{said}", "")


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (plain(b"<p>for Alice: %b", "500 Internal Server Error", "text/html"), "500 Internal Server Error"),
        (plain(b"<p>for Alice: %b", "404 Not Found", "text/html"), "404 Not Found to a request of the session"),
        (plain(b"<p>for Alice: %b", "429 Too Many Requests", "text/html"), "text/html, which is no MCP"),
        (plain(b"<p>for Alice: %b", "200 OK", "text/html"), "text/html, which is no MCP"),
        (plain(b"<p>for Alice: %b"), "that is not the JSON-RPC response to the request"),
    ],
)
async def test_once_people_are_served_the_servers_words_are_for_the_operator_alone(answer: bytes, detail: str) -> None:
    async with rig(answering(answer.replace(b"%b", b"**"))) as r:
        await r.open()
        fault = await r.fault()
        assert fault.detail.endswith(detail)
        assert fault.remark == "for Alice: **"


async def test_the_session_id_is_never_quoted() -> None:
    async with rig(answering(plain(b"unknown session %b" % SESSION.encode(), "404 Not Found", "text/plain"))) as r:
        await r.open()
        assert (await r.fault()).remark == "unknown session ***"


@pytest.mark.parametrize("cut", [False, True])
async def test_an_answer_that_is_no_mcp_is_read_for_a_second_at_most(cut: bool) -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        peer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 99\r\n\r\nHello")
        if cut:
            peer.close()
        else:
            await peer.gone()

    async with rig(answer) as r:
        r.link.request(1, INITIALIZE)
        if not cut:
            assert await r.clock.timer("Request._quote_foreign", 1) == 1.0
            await settle()
            r.clock.advance(1.0)
        fault = await r.receiver.outcome(1)
        assert isinstance(fault, Fault)
        assert fault.kind is FaultKind.INVALID
        assert "200 OK with text/plain, which is no MCP" in fault.detail
        await r.server.dropped(0)


async def test_an_answer_that_is_no_mcp_and_has_no_end_is_not_read_to_it() -> None:
    async def answer(request: SeenRequest, peer: Peer) -> None:
        peer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n" + b"la " * 5000)
        await peer.gone()

    async with rig(answer) as r:
        fault = await r.call(1, INITIALIZE)
        assert isinstance(fault, Fault)
        assert fault.detail.endswith("which is no MCP: " + "la " * 26 + "la")
        await r.server.dropped(0)


async def test_opening_fails_with_the_servers_words() -> None:
    async with rig(answering(plain(EXPRESS, "500 Internal Server Error", "text/html"))) as r:
        upstream = HandshakeUpstream(r.link, RecordedListener(), {})
        with pytest.raises(OpenFailed, match="answered 500 Internal Server Error: Error: Already connected"):
            await upstream.open()
