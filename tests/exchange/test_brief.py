"""The usual request of a client session has a short way; what turns out to be more than usual goes on as ever."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

import pytest

from direct_rig import Parsing, Ways, Wire, post, ways
from holdfast.config import ClientSettings, GatewaySettings, ServerSettings, key_digest
from holdfast.downstream.answer import SILENCE
from holdfast.downstream.brief import BriefCaller, Lane
from holdfast.downstream.connection import Connection
from holdfast.downstream.http import HttpResponder
from holdfast.servers.server import Server
from holdfast.testing.clock import ManualClock, settle
from requirements import requirement
from rig import NAME, Client, Rig, next_message, read_all, rig, text_of
from rows import row

INITIALIZE: Final = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
    b'"capabilities":{},"clientInfo":{"name":"c","version":"1"}}}'
)
CALLS: Final = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"count","arguments":{}}}',
    b'{"jsonrpc":"2.0","id":"1","method":"tools/call","params":{"name":"count","arguments":{}}}',
    b' {"params":{"name":"count"},"method":"tools/call","id":2.5,"jsonrpc":"2.0"}\n',
    b'{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"nothing","arguments":{}}}',
    b'{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"count","_meta":{"dev.holdfast/chat":"c"}}}',
    b'{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"count","_meta":{"dev.holdfast/chat":5}}}',
    b'{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"count","_meta":{"own":1,"progressToken":"t"}}}',
    b'{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"count","_meta":[]}}',
    b'{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"progress","_meta":{"progressToken":7}}}',
    b'{"jsonrpc":"2.0","id":5,"method":"tools/list","params":{}}',
    b'{"jsonrpc":"2.0","id":5,"method":"tools/list"}',
    b'{"jsonrpc":"2.0","id":6,"method":"ping","params":{}}',
    b'{"jsonrpc":"2.0","id":7,"method":"logging/setLevel","params":{"level":"error"}}',
    b'{"jsonrpc":"2.0","id":8,"method":"no/such","params":{}}',
    b'{"jsonrpc":"2.0","id":8,"method":"","params":{}}',
    b'{"jsonrpc":"2.0","id":8,"method":"server/discover","params":{}}',
    b'{"jsonrpc":"2.0","id":null,"method":"tools/call","params":{"name":"count"}}',
    b'{"jsonrpc":"2.0","id":true,"method":"tools/call","params":{"name":"count"}}',
    b'{"jsonrpc":"1.0","id":9,"method":"tools/call","params":{"name":"count"}}',
    b'{"jsonrpc":"2.0","id":9,"id":10,"method":"tools/call","params":{"name":"count"}}',
    b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"count"},"result":{}}',
    b'{"jsonrpc":"2.0","id":11,"method":"tools/call","params":{"name":"count","n":%b}}' % (b"9" * 30),
    b'{"jsonrpc":"2.0","id":12,"method":"tools/call","params":{"name":"count","n":%b}}' % (b"[" * 140 + b"]" * 140),
    b'{"jsonrpc":"2.0","id":13,"result":{}}',
    b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}',
    b'[{"jsonrpc":"2.0","id":14,"method":"tools/list"}]',
    b"nonsense",
    b"\xff",
    INITIALIZE,
)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Generator[list[bytes]]:
    """The bodies that went the short way."""
    taken: list[bytes] = []
    genuine = Lane.take

    def take(self: Lane, responder: HttpResponder, body: bytes) -> bool:
        is_taken = genuine(self, responder, body)
        if is_taken:
            taken.append(body)
        return is_taken

    with monkeypatch.context() as patch:
        patch.setattr(Lane, "take", take)
        yield taken


@asynccontextmanager
async def conversing(both: Ways, kind: type[Connection]) -> AsyncGenerator[Callable[[bytes], Any]]:
    """A client with a session on one connection, which sends a body and returns the whole answer."""
    wire = both.connect(kind)

    async def said(body: bytes, *headers: bytes) -> bytes:
        wire.said.clear()
        wire.connection.data_received(post(body, b"accept: application/json, text/event-stream", *headers))
        async with asyncio.timeout(20):
            while not wire.connection.cycle.response_complete:
                await settle(1)
        return bytes(wire.said)

    begun = await said(INITIALIZE)
    found = re.search(rb"mcp-session-id: ([^\r]+)", begun)
    assert found is not None
    session = b"mcp-session-id: " + found[1]
    await said(b'{"jsonrpc":"2.0","method":"notifications/initialized"}', session)
    await said(CALLS[0], session)  # from here on its head leads somewhere
    try:
        yield lambda body: said(body, session)
    finally:
        close(wire)


def close(wire: Wire) -> None:
    if not wire.is_closing():
        wire.close()


def normal(answer: bytes) -> bytes:
    """Without what no two answers, and no two sessions, have in common."""
    own = re.sub(rb"(?im)^(date|x-request-id|mcp-session-id|id): [^\r\n]*\r?\n", b"", answer)
    return re.sub(rb"\r\n[0-9a-f]+\r\n", b"\r\n", own)


@requirement("http:direct:brief")
@pytest.mark.parametrize("seed", range(12))
async def test_whatever_comes_with_a_known_head_is_answered_as_ever(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    script = [each for call in rng.sample(CALLS, len(CALLS)) for each in (call, CALLS[0])]
    async with ways() as one, ways() as other, conversing(one, Connection) as short, conversing(other, Parsing) as long:
        with counted(monkeypatch) as taken:
            for body in script:
                assert normal(await short(body)) == normal(await long(body)), body
        assert taken.count(CALLS[0]) > len(CALLS) // 2, "most went the short way"


async def calling(running: Rig) -> Client:
    """A client whose next request with the same head goes the short way."""
    client = await running.connected(capabilities={"elicitation": {}})
    for _ in range(2):
        await client.tool_text("count")
    return client


def is_brief(running: Rig, client: Client) -> bool:
    """The one call of the client goes the short way, so far."""
    (call,) = running.session_of(client).calls.values()
    return isinstance(call, BriefCaller)


@requirement("http:direct:brief")
async def test_five_silent_seconds_open_a_stream_for_a_usual_request_too() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running:
        client = await calling(running)
        async with asyncio.TaskGroup() as group:
            call = group.create_task(client.events(client.tool("slow", gate="g")))
            await running.upstream.entered("g")
            await running.passing(SILENCE - 0.01)
            assert is_brief(running, client)
            await running.passing(0.01)
            assert not is_brief(running, client)
            running.upstream.open_gate("g")
        (answer,) = call.result()
        assert "result" in answer
        assert await client.tool_text("count") == "3"


@requirement("http:direct:brief")
@row(40)
async def test_a_usual_request_that_is_cancelled_is_answered_with_nothing_and_cancelled_at_the_server() -> None:
    async with rig() as running:
        client = await calling(running)
        slow = client.tool("slow", gate="g")
        async with asyncio.TaskGroup() as group:
            call = group.create_task(client.post(slow))
            await running.upstream.entered("g")
            assert is_brief(running, client)
            await client.notify("notifications/cancelled", requestId=slow["id"])
        assert call.result() == 202
        (entry,) = running.upstream.calls("slow")
        await running.upstream.until(lambda: entry.outcome == "cancelled")
        assert running.session_of(client).calls == {}


@requirement("http:direct:brief")
async def test_a_question_makes_a_usual_request_a_full_one() -> None:
    async with rig() as running:
        client = await calling(running)
        body = client.tool("ask", message="sure?")
        async with client.request("POST", body) as response:
            question = await next_message(response)
            assert question["method"] == "elicitation/create"
            assert not is_brief(running, client)
            await client.reply(question, action="accept", content={})
            (answer,) = await read_all(response)
        assert answer["id"] == body["id"]
        assert "result" in answer


@requirement("http:direct:brief")
async def test_a_second_request_with_the_id_of_a_usual_one_is_refused() -> None:
    async with rig() as running:
        client = await calling(running)
        slow = client.tool("slow", gate="g")
        async with asyncio.TaskGroup() as group:
            call = group.create_task(client.ask(slow))
            await running.upstream.entered("g")
            assert await client.post(slow) == 409
            running.upstream.open_gate("g")
        assert "result" in call.result()


@requirement("http:direct:brief")
@pytest.mark.parametrize("how", ["leaves", "ends"])
async def test_a_client_that_goes_during_a_usual_request_leaves_nothing_behind(how: str) -> None:
    async with rig() as running, asyncio.TaskGroup() as group:
        client = await calling(running)
        session = running.session_of(client)

        async def ask() -> None:
            with suppress(asyncio.IncompleteReadError):
                await client.ask(client.tool("slow", gate="g"))

        call = group.create_task(ask())
        await running.upstream.entered("g")
        assert session.is_busy
        if how == "leaves":
            call.cancel()
            await running.until(lambda: session.requests == 0)
            assert not session.is_busy
            running.upstream.open_gate("g")
            await running.until(lambda: session.calls == {})
        else:
            assert await client.delete() == 204
            (entry,) = running.upstream.calls("slow")
            await running.upstream.until(lambda: entry.outcome == "cancelled")
        await asyncio.wait((call,))
        assert (session.requests, session.calls) == (0, {})


@requirement("http:direct:brief")
async def test_another_server_under_the_same_name_is_called_by_the_next_usual_request() -> None:
    async with rig() as running:
        client = await calling(running)
        settings = running.gateway.settings
        (server,) = settings.servers
        other = ServerSettings.model_validate({**server.model_dump(exclude_unset=True), "headers": {"x-new": "1"}})
        running.gateway.reload(GatewaySettings(servers=(other,)))
        assert "lost" in json.dumps(await client.ask(client.tool("count")))
        assert await client.tool_text("count") == "1"
        assert await client.tool_text("count") == "2"


@requirement("http:direct:brief")
async def test_a_key_that_was_withdrawn_opens_nothing_for_a_usual_request() -> None:
    async with rig() as running:
        client = await calling(running)
        server = running.gateway.settings.servers
        keys = ClientSettings(name="c", key_digests=(key_digest("k" * 20),))
        running.gateway.reload(GatewaySettings(servers=server, clients=(keys,)))
        assert await client.post(client.tool("count")) == 401


@requirement("http:direct:brief")
async def test_a_usual_request_that_cannot_be_started_is_answered_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with ways() as both, conversing(both, Connection) as short:

        def fail(*_: object) -> None:
            raise RuntimeError

        with monkeypatch.context() as patch:
            patch.setattr(Server, "start", fail)
            assert b'"error":{"code":-32603' in await short(CALLS[0])
        assert b'"result"' in await short(CALLS[0])
    assert [r.message for r in caplog.records if r.name == "holdfast.http"] == ["a request failed"]


@requirement("http:direct:brief")
async def test_usual_requests_of_two_clients_on_one_connection_stay_apart() -> None:
    async with rig() as running:
        one, two = await calling(running), await running.connected()
        assert [text_of(await two.ask(two.tool("count"))) for _ in range(2)] == ["1", "2"]
        two.headers["mcp-session-id"], own = one.headers["mcp-session-id"], two.headers["mcp-session-id"]
        assert await two.tool_text("count") == "3", "its head names the other session now"
        two.headers["mcp-session-id"] = own
        assert await two.tool_text("count") == "3"
        assert await one.tool_text("count") == "4"
        assert running.gateway.servers[NAME].pool.sent == 0
