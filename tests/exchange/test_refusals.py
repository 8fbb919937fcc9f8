"""What is refused: clear text, a JSON-RPC error, nothing sent on, and the next request works."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from bare_client import Response
from holdfast.config import MAX_REQUEST_BYTES, ClientSettings, Trust, key_digest
from holdfast.downstream.body import BODY_TIMEOUT
from holdfast.downstream.connection import HEAD_TIMEOUT, LINGER_TIMEOUT, MAX_HEAD_BYTES, MAX_REST_BYTES
from holdfast.downstream.post import MAX_MESSAGES
from holdfast.testing.clock import ManualClock, settle
from requirements import requirement
from rig import Client, Rig, read_head, rig, text_of
from rows import row

KEYED = ClientSettings(name="host", key_digests=(key_digest("secret"),), trust=Trust(user="x-user"))
PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'


def http(body: bytes = PING, *fields: str, method: str = "POST", path: str = "/mcp", host: str = "localhost") -> bytes:
    """A request as bytes, with these header lines besides the necessary ones."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", *fields]
    if not any(field.startswith(("content-length", "transfer-encoding")) for field in fields):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def check_refusal(response: Response, status: int, code: int) -> str:
    """The sentence of a refusal that is as it should be."""
    assert response.status == status
    assert response.headers["content-type"] == "application/json"
    answer = await response.json()
    assert answer.keys() == {"jsonrpc", "id", "error"}
    assert answer["error"]["code"] == code
    sentence: str = answer["error"]["message"]
    assert sentence.endswith(".")
    assert "Traceback" not in sentence
    return sentence


@asynccontextmanager
async def untouched(**settings: Any) -> AsyncGenerator[tuple[Rig, Client]]:
    """A rig and a client with a session, which afterwards still works; nothing reached the server."""
    async with rig(**settings) as running:
        client = await running.connected("2025-11-25")
        yield running, client
        assert running.upstream.calls() == []
        assert [e.method for e in running.upstream.ledger if e.method not in LEARNING] == []
        assert await client.tool_text("count") == "1"
        assert await running.client().tool_text("count") == "1"


LEARNING = {
    "initialize",
    "notifications/initialized",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
}
MALFORMED: dict[str, tuple[bytes, int]] = {
    "no json": (b"{", -32700),
    "empty": (b"", -32700),
    "bad utf-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', -32700),
    "two values": (PING + PING, -32700),
    "no object": (b"7", -32600),
    "no version": (b'{"id":1,"method":"ping"}', -32600),
    "no method": (b'{"jsonrpc":"2.0","id":1}', -32600),
    "null id": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
    "list id": (b'{"jsonrpc":"2.0","id":[1],"method":"ping"}', -32600),
    "list params": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}', -32600),
    "bad meta": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":1}}', -32602),
    "too deep": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":' + b"[" * 200 + b"]" * 200 + b"}}", -32600),
    "huge integer": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":' + b"9" * 30 + b"}}", -32600),
    "result and error": (b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}', -32600),
}


@requirement("exchange:refusals:bodies")
async def test_malformed_bodies_are_answered_with_what_is_wrong() -> None:
    async with untouched() as (_, client):
        session = f"mcp-session-id: {client.headers['mcp-session-id']}"
        for name, (body, code) in MALFORMED.items():
            for fields in ((), (session,)):
                async with client.raw(http(body, "content-type: application/json", *fields)) as response:
                    assert await check_refusal(response, 400, code), name


@requirement("exchange:refusals:bodies")
async def test_the_id_of_a_refused_request_is_given_back_where_it_could_be_read() -> None:
    async with untouched() as (_, client):
        async with client.raw(http(b'{"jsonrpc":"2.0","id":"a","method":7}')) as response:
            assert (await response.json())["id"] == "a"
        async with client.raw(http(b"{")) as response:
            assert (await response.json())["id"] is None


@row(26)
@requirement("exchange:refusals:size")
@pytest.mark.parametrize("is_chunked", [True, False], ids=["chunked", "content-length"])
async def test_a_body_beyond_the_limit_is_refused_and_the_answer_can_be_read(*, is_chunked: bool) -> None:
    size = MAX_REQUEST_BYTES + 1
    body = b" " * size
    chunked = http(b"%x\r\n%b\r\n0\r\n\r\n" % (size, body), "transfer-encoding: chunked")
    request = chunked if is_chunked else http(body)
    async with untouched() as (running, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(request)
        await writer.drain()  # as most clients: the whole request first, and only then the answer
        refused = await read_head(reader)
        await check_refusal(refused, 413, -32600)
        assert refused.headers["connection"] == "close"
        assert await reader.read() == b""
        writer.close()


@requirement("exchange:refusals:size")
async def test_a_body_of_just_the_limit_passes() -> None:
    async with rig() as running:
        client = running.client()
        body = PING + b" " * (MAX_REQUEST_BYTES - len(PING))
        async with client.raw(http(body)) as response:
            assert (await response.json())["result"] == {}


@requirement("exchange:refusals:headers")
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (["content-type: text/plain"], 415),
        (["content-type: application/x-www-form-urlencoded"], 415),
        (["accept: text/html"], 406),
        (["accept: application/json;q=0"], 406),
        (["mcp-protocol-version: 2023-01-01"], 400),
        (["mcp-protocol-version: 2027-01-01"], 400),
        (["mcp-protocol-version: nonsense"], 400),
        (["origin: https://evil.example"], 403),
        (["origin: null"], 403),
        (["origin: http://localhost.evil.example"], 403),
        (["origin: http://localhost@evil.example"], 403),
        (["origin: http://127.0.0.1", "origin: https://evil.example"], 400),
        (["mcp-session-id: a", "mcp-session-id: b"], 400),
        (["mcp-protocol-version: 2025-06-18", "mcp-protocol-version: 2025-11-25"], 400),
        (["content-type: application/json", "content-type: text/plain"], 400),
        (["authorization: Bearer a", "authorization: Bearer b"], 400),
        (["mcp-session-id: made-up"], 404),
        (["mcp-session-id:"], 404),
    ],
)
async def test_headers_that_do_not_fit_are_refused(fields: list[str], status: int) -> None:
    async with untouched() as (_, client), client.raw(http(PING, *fields)) as response:
        await check_refusal(response, status, -32001 if status == 404 else -32600)


@requirement("exchange:refusals:rebinding")
@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::2]", "a b", "localhost:x", "@"]
)
async def test_names_that_are_not_this_machine_are_not_served(host: str) -> None:
    async with untouched() as (_, client), client.raw(http(host=host)) as response:
        if response.status == 421:
            await check_refusal(response, 421, -32600)
        else:
            assert response.status == 400  # the HTTP parser has seen to it already


@requirement("exchange:refusals:rebinding")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8790", "[::1]:1", "LOCALHOST", "known.example:1"])
async def test_names_of_this_machine_and_allowed_ones_are_served(host: str) -> None:
    allowed = {"allowed_hosts": ("known.example",), "allowed_origins": ("https://pages.example",)}
    async with rig(gateway=allowed) as running:
        client = running.client()
        for origin in ("http://localhost:3000", "https://pages.example"):
            async with client.raw(http(PING, f"origin: {origin}", host=host)) as response:
                assert response.status == 200


@row(11)
@requirement("exchange:refusals:keys")
async def test_a_missing_or_wrong_key_is_refused_before_anything_else_is_said() -> None:
    async with rig(clients=(KEYED,)) as running:
        client = running.client()
        wrong = ("", "authorization: Bearer wrong", "authorization: Basic secret", "authorization: secret")
        for field in (*wrong, "authorization: Bearer", "x-key: secret", "authorization: Bearer secret, x"):
            for method, path in (("POST", "/mcp"), ("GET", "/mcp"), ("DELETE", "/mcp"), ("GET", "/no/such")):
                fields = [field] if field else []
                async with client.raw(http(PING, *fields, method=method, path=path)) as response:
                    await check_refusal(response, 401, -32600)
                    assert response.headers["www-authenticate"] == "Bearer"
        async with client.raw(http(b"{", "authorization: Bearer wrong")) as response:
            assert response.status == 401
        async with client.raw(http(PING, "authorization: Bearer secret")) as response:
            assert response.status == 200


@requirement("exchange:refusals:keys")
async def test_a_trusted_header_must_not_come_twice() -> None:
    async with rig(clients=(KEYED,)) as running:
        fields = ("authorization: Bearer secret", "x-user: ann", "x-user: bob")
        async with running.client().raw(http(PING, *fields)) as response:
            await check_refusal(response, 400, -32600)


@requirement("exchange:refusals:paths")
async def test_unknown_paths_and_methods_are_refused() -> None:
    async with untouched() as (running, client):
        for path in ("/", "/mcp/other", "/mcp/memory/x", "/mcp/memory/chats", "/sse/other", "/MCP", "/mcp%2Fmemory"):
            async with client.request("POST", client.call("ping"), path) as response:
                sentence = await check_refusal(response, 404, -32600)
                assert "/mcp/memory" in sentence
        bare = running.client()
        for method in ("PUT", "PATCH", "OPTIONS", "GET"):
            async with bare.request(method, accept="text/event-stream") as response:
                await check_refusal(response, 405, -32600)
                assert response.headers["allow"] == "GET, POST, DELETE"
        async with bare.request("DELETE") as response:
            await check_refusal(response, 400, -32600)
        async with client.request("GET", accept="application/json") as response:
            await check_refusal(response, 406, -32600)


@row(25)
@requirement("exchange:refusals:duplicates")
async def test_a_second_request_with_a_running_id_is_refused_and_the_first_goes_on() -> None:
    async with rig() as running:
        client = await running.connected()
        call = client.tool("slow", gate="g")
        async with asyncio.TaskGroup() as group:
            first = group.create_task(client.ask(call))
            await running.upstream.entered("g")
            async with client.request("POST", {**client.tool("count"), "id": call["id"]}) as response:
                await check_refusal(response, 409, -32600)
            assert text_of(await client.ask({**client.tool("count"), "id": str(call["id"])})) == "1"
            other = await running.connected()
            assert text_of(await other.ask({**other.tool("count"), "id": call["id"]})) == "1"
            running.upstream.open_gate("g")
            assert text_of(await first) == "done"
        assert text_of(await client.ask({**client.tool("count"), "id": call["id"]})) == "2"


@pytest.mark.parametrize("has_session", [True, False], ids=["session", "no session"])
async def test_an_array_of_very_many_messages_is_refused_whole(*, has_session: bool) -> None:
    async with rig() as running:
        client = await running.connected("2025-03-26") if has_session else running.client()
        array = [{"jsonrpc": "2.0", "id": number, "method": "ping"} for number in range(MAX_MESSAGES + 1)]
        async with client.request("POST", array) as response:
            assert "1001 messages" in await check_refusal(response, 413, -32600)
        assert len(await client.ask(array[1:])) == MAX_MESSAGES


@row(25)
@requirement("exchange:refusals:duplicates")
async def test_an_array_with_one_id_twice_is_refused_whole() -> None:
    async with rig() as running:
        client = await running.connected("2025-03-26")
        call = client.tool("count")
        async with client.request("POST", [call, client.call("ping"), call]) as response:
            await check_refusal(response, 409, -32600)
        assert await client.tool_text("count") == "1"


@requirement("exchange:refusals:duplicates")
async def test_a_session_is_initialized_once() -> None:
    async with rig() as running:
        client = await running.connected()
        hello = client.call("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={})
        async with client.request("POST", [hello], accept=None) as response:
            assert response.status == 400
        before = client.headers["mcp-session-id"]
        async with client.request("POST", hello) as response:
            assert response.status == 200
            assert response.headers["mcp-session-id"] != before
        for bad in ({}, {"protocolVersion": 1}, {"protocolVersion": None}):
            async with client.request("POST", client.call("initialize", **bad)) as response:
                await check_refusal(response, 400, -32602)


@requirement("exchange:refusals:connection")
async def test_a_connection_goes_on_after_a_refusal() -> None:
    async with rig(clients=(KEYED,)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(http(b" " * 100_000) + http(PING, "authorization: Bearer secret"))
        refused = await read_head(reader)
        assert refused.status == 401
        await refused.body()
        assert json.loads(await (await read_head(reader)).body())["result"] == {}
        writer.close()


@requirement("exchange:refusals:connection")
async def test_a_client_that_leaves_amid_its_body_leaves_nothing() -> None:
    async with untouched() as (running, client):
        for fields in ((), (f"mcp-session-id: {client.headers['mcp-session-id']}",)):
            _, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(http(b'{"jsonrpc"', "content-length: 100", *fields))
            await writer.drain()
            writer.close()
            await writer.wait_closed()


@row(29)
@requirement("exchange:refusals:size")
async def test_a_body_that_never_comes_whole_is_given_up() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(http(b'{"jsonrpc"', "content-length: 100"))
        await running.until(lambda: clock.pending > 0)
        for _ in range(3):
            writer.write(b" ")
            await running.passing(11)
        await check_refusal(await read_head(reader), 408, -32600)
        assert await reader.read() == b""
        writer.close()


HEAD: Final = b"POST /mcp HTTP/1.1\r\nhost: localhost\r\nx-long: "


@row(26)
@requirement("exchange:refusals:size")
async def test_a_head_without_end_is_refused_and_the_connection_closed() -> None:
    async with rig() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(http(PING))
        assert json.loads(await (await read_head(reader)).body())["result"] == {}
        writer.write(HEAD + b"a" * (MAX_HEAD_BYTES - len(HEAD)))
        await writer.drain()
        writer.write(b"a")
        await check_refusal(await read_head(reader), 431, -32600)
        assert await reader.read() == b""
        writer.close()


@row(26)
@requirement("exchange:refusals:size")
async def test_what_follows_a_body_is_bounded_as_well() -> None:
    async with untouched() as (running, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(http(b"%x\r\n%b\r\n0\r\nx-trailer: " % (len(PING), PING), "transfer-encoding: chunked"))
        written = 0
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"a" * 1000)
                written += 1000
                await writer.drain()
                await asyncio.sleep(0)
        assert written < 32 << 20  # what the buffers between take, and not what 30 seconds for a body do
        writer.close()


@row(29)
@requirement("exchange:refusals:size")
async def test_a_head_that_does_not_come_whole_is_given_up() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running:
        await running.until(lambda: not running.connections)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        before = clock.pending
        writer.write(HEAD)
        await running.until(lambda: clock.pending > before)
        for _ in range(3):
            await running.passing(HEAD_TIMEOUT / 3 - 0.01)
            writer.write(b"a")
        await settle()
        assert len(running.connections) == 1
        await running.passing(0.04)
        await check_refusal(await read_head(reader), 408, -32600)
        assert await reader.read() == b""
        writer.close()


@row(26)
@requirement("exchange:refusals:rest")
async def test_who_sends_far_too_long_a_head_first_can_still_read_that_it_is() -> None:
    async with rig() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(HEAD + b"a" * (8 << 20))
        await writer.drain()
        await check_refusal(await read_head(reader), 431, -32600)
        assert await reader.read() == b""
        writer.close()


@row(29)
@requirement("exchange:refusals:rest")
async def test_the_body_of_a_request_that_was_refused_has_its_time_and_no_more() -> None:
    clock = ManualClock()
    async with rig(clock=clock, clients=(KEYED,)) as running:
        await running.until(lambda: not running.connections)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(http(b" ", "content-length: 100"))
        refused = await read_head(reader)
        assert (refused.status, refused.headers.get("connection")) == (401, None)
        await refused.body()
        for _ in range(3):
            writer.write(b" ")
            await running.passing(BODY_TIMEOUT / 3 - 0.01)
        assert not reader.at_eof()
        await running.passing(0.04)
        assert await reader.read() == b""
        assert len(running.connections) == 1, "whoever is still sending is heard for a moment"
        await running.passing(LINGER_TIMEOUT)
        await running.until(lambda: not running.connections)
        writer.close()


async def write_without_end(writer: asyncio.StreamWriter, piece: bytes) -> None:
    while True:
        writer.write(piece)
        await writer.drain()


@row(26, 29)
@requirement("exchange:refusals:rest")
@pytest.mark.parametrize("has_key", [True, False])
async def test_a_body_without_end_is_refused_and_then_dropped_for_a_moment_only(*, has_key: bool) -> None:
    clock = ManualClock()
    fields = ("authorization: Bearer secret",) if has_key else ()
    piece = b"%x\r\n%b\r\n" % (1 << 20, b" " * (1 << 20))
    async with rig(clock=clock, clients=(KEYED,)) as running:
        await running.until(lambda: not running.connections)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(http(b"", *fields, "transfer-encoding: chunked"))
        for _ in range((MAX_REQUEST_BYTES + MAX_REST_BYTES) // len(piece) + 20):
            writer.write(piece)
            await writer.drain()
        refused = await read_head(reader)
        assert refused.status == (413 if has_key else 401)
        await refused.body()
        assert await reader.read() == b""
        for _ in range(20):
            writer.write(piece)
            await writer.drain()
        assert len(running.connections) == 1
        await running.passing(LINGER_TIMEOUT)
        with pytest.raises(ConnectionError):
            await write_without_end(writer, piece)
        assert not running.connections
        writer.close()


@requirement("exchange:refusals:bodies")
async def test_what_is_no_http_is_refused_as_json_like_everything_else() -> None:
    async with rig() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"nonsense\r\n\r\n")
        await check_refusal(await read_head(reader), 400, -32600)
        assert await reader.read() == b""
        writer.close()
