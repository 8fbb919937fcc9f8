"""Answers that are no MCP, or too large: told apart by what they say of the call, and never passed on as results."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

import pytest

from faults.odd_server import answering, odd_server, result_of, text
from faults.rig import answer_to, call, code_of, gateway_to, read, text_of, until
from holdfast.testing.proxy import FaultProxy
from holdfast.testing.server import ScriptedServer
from requirements import requirement
from rows import row
from unit.scripted_http import Peer, chunk, chunked, plain, stream_head

MIB: Final = 1 << 20
HTML: Final = b"<!DOCTYPE html><html><body><h1>Welcome to nginx</h1></body></html>"


class Bad(NamedTuple):
    """An answer, what an unsafe call becomes, and whether a read is sent again."""

    answer: bytes
    code: int
    repeats_reads: bool = False


def redirect(status: str, location: str) -> bytes:
    return plain(b"", status, "text/plain", f"location: {location}")


BAD: Final[dict[str, Bad]] = {
    "html": Bad(plain(HTML, content_type="text/html"), -31004),
    "no content type": Bad(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", -31004),
    "text": Bad(plain(b"hello", content_type="text/plain"), -31004),
    "broken json": Bad(plain(b'{"jsonrpc":"2.0","id":'), -31004),
    "json of another id": Bad(plain(b'{"jsonrpc":"2.0","id":999999,"result":{}}'), -31004),
    "json that is no json-rpc": Bad(plain(b'{"status":"ok"}'), -31004),
    "an empty object": Bad(plain(b"{}"), -31004),
    "nothing": Bad(plain(b""), -31004),
    "202": Bad(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n", -31004),
    "204": Bad(b"HTTP/1.1 204 No Content\r\n\r\n", -31004),
    "a stream of no json-rpc": Bad(chunked(b"data: hello\n\n"), -31004),
    "an empty stream": Bad(chunked(), -31002, repeats_reads=True),
    "compressed": Bad(plain(b"\x1f\x8b", "200 OK", "application/json", "content-encoding: gzip"), -31004),
    "no http": Bad(b"SSH-2.0-OpenSSH_9.2\r\n", -31004),
    "a redirect elsewhere": Bad(redirect("302 Found", "http://127.0.0.1:9/login?next=secret"), -31004),
    "a redirect to sign in": Bad(redirect("307 Temporary Redirect", "/login?next=secret"), -31004),
    "401": Bad(plain(b"", "401 Unauthorized", "text/plain", "www-authenticate: Bearer"), -31007),
    "403": Bad(plain(HTML, "403 Forbidden", "text/html"), -31007),
    "405": Bad(plain(HTML, "405 Method Not Allowed", "text/html"), -31004),
    "429": Bad(plain(b"slow down", "429 Too Many Requests", "text/plain", "retry-after: 1"), -31004),
    "500": Bad(plain(HTML, "500 Internal Server Error", "text/html"), -31002),
    "502": Bad(plain(HTML, "502 Bad Gateway", "text/html"), -31002, repeats_reads=True),
    "503": Bad(plain(b"", "503 Service Unavailable", "text/plain"), -31002, repeats_reads=True),
    "504": Bad(plain(HTML, "504 Gateway Timeout", "text/html"), -31002),
}
EACH: Final = pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())


@requirement("faults:answers:no-mcp-is-no-result")
@EACH
async def test_an_unsafe_call_that_is_answered_badly_is_told_so_once(bad: Bad) -> None:
    async with odd_server(answering(bad.answer)) as server, gateway_to(server.url) as rig:
        client = await rig.opened()
        assert text_of(await call(client, "count")) == "1"
        answer = await call(client, "odd")
        assert code_of(answer) == bad.code, answer
        told = answer["error"]
        assert set(told["data"]["holdfast"]) == {"delivery", "retryable", "upstream"}
        assert not told["data"]["holdfast"]["retryable"]
        assert "secret" not in json.dumps(told)
        assert "<" not in told["message"], "a sentence, not a page"
        assert told["message"].endswith(".")
        assert [m["params"]["name"] for m in server.methods("tools/call")] == ["count", "odd"], "sent once"
        assert text_of(await call(client, "count")) == "2", "the session goes on"


@EACH
async def test_a_read_that_is_answered_badly_is_repeated_only_where_that_may_help(bad: Bad) -> None:
    async with odd_server(answering(bad.answer)) as server, gateway_to(server.url) as rig:
        client = await rig.opened()
        assert text_of(await call(client, "count")) == "1"
        answer = await read(client)
        assert code_of(answer) == bad.code, answer
        # Malformed answers and other 5xx are repeated for reads too, by threats-and-faults F only for hinted tools.
        assert len(server.methods("resources/read")) == 1 + bad.repeats_reads
        assert text_of(await call(client, "count")) == "2"


@EACH
async def test_a_server_whose_handshake_is_answered_badly_is_not_available(bad: Bad) -> None:
    async def odd(message: dict[str, Any], peer: Peer) -> None:
        raise AssertionError(message)

    async with odd_server(odd) as server:
        server.greeting = bad.answer
        async with gateway_to(server.url) as rig:
            answer = await call(rig.client(), "count")
            assert code_of(answer) == (-31007 if bad.code == -31007 else -31001)
            assert "secret" not in json.dumps(answer)
            assert "<" not in answer["error"]["message"]
            server.greeting = None
            while code_of(await call(rig.client(), "count")) is not None:
                pass


@row(26)
@requirement("faults:answers:size-is-bounded")
@pytest.mark.parametrize("is_stream", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize(("size", "code"), [(15 * MIB, None), (20 * MIB, -31004)], ids=["15 MiB", "20 MiB"])
async def test_a_result_up_to_16_mib_passes_and_a_larger_one_is_refused(
    is_stream: bool,
    size: int,
    code: int | None,
) -> None:
    async def large(message: dict[str, Any], peer: Peer) -> None:
        body = result_of(message, text("x" * size))
        if not is_stream:
            peer.write(plain(body))
            return
        peer.write(stream_head())
        for start in range(0, len(body), MIB):
            peer.write(chunk((b"data: " if start == 0 else b"") + body[start : start + MIB]))
        peer.write(chunk(b"\n\n"), b"0\r\n\r\n")

    async with odd_server(large) as server, gateway_to(server.url) as rig:
        client = await rig.opened()
        assert text_of(await call(client, "count")) == "1"
        answer = await call(client, "odd")
        assert code_of(answer) == code
        if code is None:
            assert len(text_of(answer)) == size
        else:
            assert "larger than" in answer["error"]["message"]
        assert text_of(await call(client, "count")) == "2"


async def test_a_large_result_of_a_chunked_body_without_an_end_is_refused_at_the_limit() -> None:
    async def endless(message: dict[str, Any], peer: Peer) -> None:
        peer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(20):
            peer.write(chunk(b"[" * MIB))

    async with odd_server(endless) as server, gateway_to(server.url) as rig:
        client = await rig.opened()
        assert code_of(await call(client, "odd")) == -31004
        assert text_of(await call(client, "count")) == "1"


@requirement("faults:down:lists-stay")
async def test_lists_are_served_while_the_server_is_down() -> None:
    async with (
        ScriptedServer() as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        gateway_to(f"http://127.0.0.1:{proxy.port}/mcp") as rig,
    ):
        client = await rig.opened()
        before = await answer_to(client, client.call("tools/list"))
        assert before["result"]["tools"]
        proxy.refuse()
        proxy.drop_all()
        await until(lambda: not proxy.connections)
        for _ in range(20):
            after = await answer_to(client, client.call("tools/list"))
            assert after["result"] == before["result"]
        assert code_of(await call(client, "count")) == -31001
        newcomer = await rig.opened()
        assert (await answer_to(newcomer, newcomer.call("tools/list")))["result"] == before["result"]
        assert (await answer_to(rig.client(), newcomer.call("tools/list")))["result"] == before["result"]
