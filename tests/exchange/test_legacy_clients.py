"""Clients of the HTTP+SSE transport of 2024-11-05, over every kind of server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hijacking import ANN, BOTH_KEYS, OTHER
from holdfast import events
from holdfast.config import ClientSettings, Trust
from holdfast.downstream.clients import PUSH_KEEP_ALIVE
from holdfast.downstream.http import STALL_TIMEOUT
from holdfast.testing.clock import ManualClock
from old_client import OldClient, opened, streaming
from requirements import requirement
from rig import REVISIONS, TRANSPORTS, Client, Transport, rig, text_of
from rows import row

HOST = ClientSettings(name="host", trust=Trust(chat="x-chat-id"))

every_transport = pytest.mark.parametrize("transport", TRANSPORTS)
STREAM: dict[str, Any] = {"accept": "text/event-stream"}


def with_token(call: dict[str, Any], token: str) -> dict[str, Any]:
    call["params"]["_meta"] = {"progressToken": token}
    return call


def params_of(client: OldClient, method: str) -> list[Any]:
    return [message["params"] for message in client.heard if message.get("method") == method]


@requirement("downstream:legacy-sse:served")
@pytest.mark.parametrize("revision", REVISIONS)
@every_transport
async def test_a_client_over_the_old_transport_gets_what_every_other_gets(transport: Transport, revision: str) -> None:
    async with rig(transport) as running, streaming(running) as client:
        hello = (await client.initialize(revision))["result"]
        assert (hello["protocolVersion"], hello["serverInfo"]["name"]) == (revision, "holdfast-test-server")
        tools = (await client.ask(client.client.call("tools/list")))["result"]["tools"]
        assert "remember" in {tool["name"] for tool in tools}
        await client.tool_text("remember", key="k", value="kept")
        assert await client.tool_text("recall", key="k") == "kept"
        answer = await client.ask(with_token(client.client.tool("progress", steps=3), "p"))
        assert text_of(answer) == "done"
        updates = params_of(client, "notifications/progress")
        assert [u["progress"] for u in updates if u["progress"] >= 1] == [1, 2, 3]
        assert {update["progressToken"] for update in updates} == {"p"}


@requirement("downstream:legacy-sse:served")
@every_transport
async def test_logs_questions_and_changes_come_on_the_stream(transport: Transport) -> None:
    async with rig(transport) as running, opened(running, elicitation={}) as client:
        await client.tool_text("log", level="error", message="m", count=2)
        told = [log["data"] for log in params_of(client, "notifications/message") if log.get("logger") != "holdfast"]
        assert told == ["m", "m"]
        call = client.client.tool("ask", message="sure?")
        assert await client.post(call) == 202
        question = await client.message()
        while question.get("method") != "elicitation/create":
            question = await client.message()
        reply = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"by": "me"}}}
        assert await client.post(reply) == 202
        assert "me" in text_of(await client.answer_to(call))
        await client.tool_text("change_tools")
        await client.ask(client.client.call("ping"))
        while not params_and_method(client, "notifications/tools/list_changed"):
            client.heard.append(await client.message())


def params_and_method(client: OldClient, method: str) -> bool:
    return any(message.get("method") == method for message in client.heard)


@requirement("downstream:legacy-sse:served")
@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/sse", "/sse/messages"),
        ("/sse/memory", "/sse/memory/messages"),
        ("/sse/memory/", "/sse/memory/messages"),
        ("/sse/memory/chats/a%20b%2Fc", "/sse/memory/chats/a%20b%2Fc/messages"),
        ("//sse//memory", None),
    ],
)
async def test_the_endpoint_is_a_path_below_the_streams_own(path: str, endpoint: str | None) -> None:
    async with rig() as running:
        if endpoint is None:
            async with running.client().request("GET", None, path, **STREAM) as answer:
                assert answer.status == 404
            return
        async with opened(running, path) as client:
            assert client.endpoint == f"{endpoint}?session={client.session_id}"
            assert len(client.session_id) == 32
            assert await client.tool_text("count") == "1"


@pytest.mark.parametrize("accept", [None, "*/*", "text/*", "text/html, */*;q=0.8"])
async def test_who_asks_for_nothing_in_particular_takes_a_stream(accept: str | None) -> None:
    async with rig() as running, running.client().request("GET", None, "/sse", accept=accept) as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")


@requirement("downstream:legacy-sse:served")
async def test_a_chat_that_the_path_or_a_header_names_outlives_the_stream() -> None:
    async with rig(clients=(HOST,)) as running:
        async with opened(running, "/sse/memory/chats/c1") as client:
            assert await client.tool_text("count") == "1"
        async with streaming(running, "/sse", x_chat_id="c1") as client:
            await client.initialize()
            assert await client.tool_text("count") == "2"


@requirement("downstream:legacy-sse:ends-with-its-stream")
async def test_the_streams_end_ends_the_session_and_cancels_what_runs() -> None:
    async with rig() as running:
        async with opened(running) as client:
            assert await client.post(client.client.tool("slow", gate="g")) == 202
            await running.upstream.entered("g")
            assert len(running.app.sessions) == 1
        await running.upstream.until(lambda: running.upstream.calls("slow")[0].outcome == "cancelled")
        await running.until(lambda: len(running.app.sessions) == 0)
        assert await client.post(client.client.call("ping")) == 404


async def test_a_cancelled_call_is_cancelled_and_gets_no_answer() -> None:
    async with rig() as running, opened(running) as client:
        call = client.client.tool("slow", gate="g")
        assert await client.post(call) == 202
        await running.upstream.entered("g")
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": call["id"]}}
        assert await client.post(note) == 202
        await running.upstream.until(lambda: running.upstream.calls("slow")[0].outcome == "cancelled")
        assert await client.tool_text("count") == "1"
        assert call["id"] not in [message.get("id") for message in client.heard]


async def test_two_answers_may_come_in_any_order() -> None:
    async with rig() as running, opened(running) as client:
        slow = client.client.tool("slow", gate="g")
        assert await client.post(slow) == 202
        await running.upstream.entered("g")
        assert await client.tool_text("count") == "1"
        running.upstream.open_gate("g")
        assert text_of(await client.answer_to(slow)) == "done"


async def test_an_array_is_answered_message_by_message() -> None:
    async with rig() as running, opened(running) as client:
        calls = [client.client.tool("count"), client.client.tool("count")]
        assert await client.post(calls) == 202
        answers = [await client.message() for _ in calls]
        assert {answer["id"] for answer in answers} == {call["id"] for call in calls}


@requirement("downstream:legacy-sse:refusals")
async def test_what_is_refused_has_a_status_and_says_why() -> None:
    async with rig() as running, streaming(running) as client:
        bare = client.client
        assert await client.post(bare.call("ping")) == 400  # not initialized
        assert await client.post(bare.call("initialize")) == 400  # no version
        await client.initialize()
        assert await client.post(bare.call("initialize", protocolVersion="2024-11-05")) == 400
        assert await client.post({"nonsense": 1}) == 400
        assert await client.post(bare.call("ping"), content_type="text/plain") == 415
        assert await client.post(bare.call("ping"), origin="https://evil.example") == 403
        assert await client.post(bare.call("ping"), host="evil.example") == 421
        slow = bare.tool("slow", gate="g")
        assert [await client.post(slow), await client.post(slow)] == [202, 409]
        running.upstream.open_gate("g")
        assert text_of(await client.answer_to(slow)) == "done"


@requirement("downstream:legacy-sse:refusals")
@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/sse/memory", {"accept": "application/json"}, 406),
        ("GET", "/sse/other", STREAM, 404),
        ("GET", "/sse/memory/messages", STREAM, 404),
        ("GET", "/sse/memory", STREAM | {"origin": "https://evil.example"}, 403),
        ("GET", "/sse/memory", STREAM | {"host": "evil.example"}, 421),
        ("DELETE", "/sse/memory", {}, 405),
        ("POST", "/sse/memory", {}, 405),
        ("POST", "/sse/memory/messages?session=", {}, 405),
        ("POST", "/sse/memory/messages?session=x", {}, 404),
    ],
)
async def test_a_stream_or_message_that_is_refused(
    method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async with rig() as running:
        client = running.client()
        body = client.call("ping") if method == "POST" else None
        async with client.request(method, body, path, **headers) as answer:
            assert answer.status == status
            assert await answer.body()
        assert len(running.app.sessions) == 0


async def test_a_first_try_with_streamable_http_is_refused_without_mcp_so_that_clients_go_on() -> None:
    async with rig() as running:
        client = running.client()
        call = client.call("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={})
        async with client.request("POST", call, "/sse/memory") as answer:
            assert (answer.status, answer.headers["content-type"]) == (405, "text/plain")


@row(4)
@requirement("downstream:legacy-sse:ids-are-pointers")
async def test_a_session_of_one_transport_is_unknown_to_the_other() -> None:
    async with rig() as running, opened(running) as client:
        other = running.client(mcp_session_id=client.session_id)
        for method in ("POST", "GET", "DELETE"):
            async with other.request(method, other.call("ping") if method == "POST" else None, **STREAM) as answer:
                assert answer.status == 404
        streamable = await running.connected()
        session_id = streamable.headers["mcp-session-id"]
        assert await other.post(other.call("ping"), f"/sse/memory/messages?session={session_id}") == 404
        assert await client.tool_text("count") == "1"


@row(4)
@requirement("downstream:legacy-sse:ids-are-pointers")
@pytest.mark.parametrize("verb", ["call", "cancel", "reply"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": "Bearer new", "x_user": "bob"}, 404),
        ({"authorization": "Bearer k2", "x_user": "ann"}, 404),
        ({"authorization": "Bearer wrong", "x_user": "ann"}, 401),
        ({"x_user": "ann"}, 401),
    ],
)
async def test_an_impostor_is_answered_as_for_an_unknown_id_and_the_owner_goes_on(
    verb: str, headers: dict[str, str], status: int
) -> None:
    async with rig(clients=(BOTH_KEYS, OTHER)) as running, streaming(running, **ANN) as owner:
        await owner.initialize(elicitation={})
        call = owner.client.tool("ask", message="sure?")
        assert await owner.post(call) == 202
        question = await owner.message()
        while question.get("method") != "elicitation/create":
            question = await owner.message()
        attempt = {
            "call": owner.client.tool("count"),
            "cancel": {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": call["id"]}},
            "reply": reply_to(question, "impostor"),
        }[verb]
        impostor = running.client(**headers, x_request_id="attempt")
        got = await answered(impostor, attempt, owner.endpoint)
        unknown = "A" * len(owner.session_id)
        assert got == await answered(impostor, attempt, f"/sse/memory/messages?session={unknown}")
        assert got[0] == status
        assert await owner.post(reply_to(question, "owner")) == 202
        assert "owner" in text_of(await owner.answer_to(call))
        assert len(running.upstream.calls()) == 1
        misused = [e.event for e in running.gateway.operations.feed.recent]
        assert sum(isinstance(event, events.SessionIdMisused) for event in misused) == (status == 404)


def reply_to(question: Any, who: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"by": who}}}


async def answered(client: Client, body: Any, path: str) -> tuple[int, bytes]:
    async with client.request("POST", body, path) as answer:
        return answer.status, await answer.body()


@row(4)
async def test_a_revoked_key_ends_the_stream() -> None:
    async with rig(clients=(BOTH_KEYS, OTHER)) as running:
        async with streaming(running, "/sse/memory", authorization="Bearer old", x_user="ann") as client:
            await client.initialize()
            rest = tuple(c.model_copy(update={"key_digests": c.key_digests[1:]}) for c in (BOTH_KEYS,))
            running.gateway.reload(running.gateway.settings.model_copy(update={"clients": (*rest, OTHER)}))
            await client.ended()
        await running.until(lambda: len(running.app.sessions) == 0)


@requirement("downstream:legacy-sse:signs-of-life")
async def test_a_silent_stream_shows_that_it_lives() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running, streaming(running) as client:
        for _ in range(2):
            await running.passing(PUSH_KEEP_ALIVE)
            assert await client.stream.chunk() == b": keep-alive\n\n"


@requirement("downstream:legacy-sse:signs-of-life")
async def test_a_session_stays_while_its_stream_is_read() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running, opened(running) as client:
        await client.tool_text("count")
        await running.passing(running.gateway.settings.client_idle_timeout * 2)
        assert len(running.app.sessions) == 1


@requirement("downstream:legacy-sse:stalled-readers")
async def test_a_reader_that_takes_nothing_gets_no_more_calls_and_is_given_up() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running, opened(running) as client:
        call = client.client.tool("echo", text="x" * 1_000_000)
        statuses: list[int] = []
        while 429 not in statuses and len(statuses) < 64:
            statuses.append(await client.post(call | {"id": f"c{len(statuses)}"}))
            await running.until_idle()
        assert set(statuses) == {202, 429}
        await running.passing(STALL_TIMEOUT)
        await running.until(lambda: len(running.app.sessions) == 0)


async def test_an_end_of_the_gateway_lets_calls_be_answered_first() -> None:
    async with rig() as running, opened(running) as client:
        slow = client.client.tool("slow", gate="g")
        assert await client.post(slow) == 202
        await running.upstream.entered("g")
        running.gateway.drain()
        running.upstream.open_gate("g")
        assert text_of(await client.answer_to(slow)) == "done"
        await client.ended()


async def test_a_server_that_is_down_is_told_and_initialize_may_be_tried_again() -> None:
    async with rig(restarts=True, is_learnt=False, start="lazy") as running:
        await running.upstream.stop()
        async with streaming(running) as client:
            info = {"name": "old", "version": "1"}
            params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": info}
            answer = await client.ask(client.client.call("initialize", **params))
            assert answer["error"]["code"] == -31001
            await running.upstream.start()
            async with asyncio.timeout(60):
                while "error" in answer:
                    answer = await client.ask(client.client.call("initialize", **params))
            assert answer["result"]["protocolVersion"] == "2024-11-05"


async def test_nothing_is_pushed_before_the_session_is_initialized() -> None:
    async with rig() as running, streaming(running) as client:
        for session in running.app.sessions:
            session.announce()
        await client.initialize()
        assert params_of(client, "notifications/tools/list_changed") == []
