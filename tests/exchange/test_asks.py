"""What a server asks reaches the client whose call it is, or is answered at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bare_client import Response
from holdfast.testing.clock import ManualClock
from requirements import requirement
from rig import REVISIONS, TRANSPORTS, Client, Rig, Transport, next_message, rig, text_of
from rows import row

ABLE: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {"listChanged": True}}
JSON = "application/json"


@asynccontextmanager
async def asked(client: Client, tool: str, **arguments: Any) -> AsyncGenerator[tuple[Response, Any]]:
    """The stream of a call, and the question that came on it."""
    async with client.request("POST", client.tool(tool, **arguments)) as response:
        assert response.headers["content-type"] == "text/event-stream"
        while "id" not in (question := await next_message(response)):
            pass
        yield response, question


def reply_of(answer: Any) -> Any:
    """What the server got as the answer to its question."""
    return json.loads(text_of(answer))


@row(3)
@requirement("exchange:asks:answered-by-the-caller")
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_client_is_asked_on_its_calls_own_stream(transport: Transport, revision: str) -> None:
    async with rig(transport) as running:
        client = await running.connected(revision, ABLE)
        async with asked(client, "ask", message="sure?") as (stream, question):
            assert question["method"] == "elicitation/create"
            assert question["params"]["message"] == "sure?"
            await client.reply(question, action="accept", content={"answer": "yes"})
            assert reply_of(await next_message(stream)) == {"action": "accept", "content": {"answer": "yes"}}
            assert await stream.event() is None
        async with asked(client, "sample", prompt="hi") as (stream, question):
            assert question["method"] == "sampling/createMessage"
            body = {"jsonrpc": "2.0", "id": question["id"], "error": {"code": -1, "message": "no"}}
            assert await client.post(body) == 202
            assert reply_of(await next_message(stream)) == {"code": -1, "message": "no"}
        async with asked(client, "roots") as (stream, question):
            await client.reply(question, roots=[{"uri": "file:///a"}])
            assert reply_of(await next_message(stream)) == {"roots": [{"uri": "file:///a"}]}


@requirement("exchange:asks:nobody")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_where_nobody_can_be_asked_the_server_is_answered_at_once(transport: Transport) -> None:
    async with rig(transport) as running:
        client = await running.connected()
        assert reply_of(await client.ask(client.tool("ask", message="?"))) == {"action": "cancel"}
        assert reply_of(await client.ask(client.tool("ask", message="?", mode="url"))) == {"action": "cancel"}
        assert reply_of(await client.ask(client.tool("sample", prompt="?")))["code"] == -32601
        assert reply_of(await client.ask(client.tool("roots"))) == {"roots": []}


@requirement("exchange:asks:nobody")
@pytest.mark.parametrize(
    ("elicitation", "form", "url"),
    [({}, True, False), ({"form": {}}, True, False), ({"url": {}}, False, True), (None, False, False)],
)
async def test_only_the_modes_of_elicitation_that_a_client_declared_are_put_to_it(
    elicitation: Any, *, form: bool, url: bool
) -> None:
    async with rig() as running:
        client = await running.connected(capabilities={} if elicitation is None else {"elicitation": elicitation})
        for mode, can in (("form", form), ("url", url)):
            if can:
                async with asked(client, "ask", message="?", mode=mode) as (stream, question):
                    await client.reply(question, action="decline")
                    assert reply_of(await next_message(stream)) == {"action": "decline"}
            else:
                answer = await client.ask(client.tool("ask", message="?", mode=mode))
                assert reply_of(answer) == {"action": "cancel"}


@requirement("exchange:asks:nobody")
@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_a_question_for_a_model_with_tools_is_put_only_to_who_declared_that_it_has_one(era: str) -> None:
    async with rig(options={"era": era}) as running:
        plain = await running.connected(capabilities={"sampling": {}})
        answer = text_of(await plain.ask(plain.tool("sample", prompt="?", tools=True)))
        assert "-32601" in answer or "declared no sampling" in answer
        client = await running.connected(capabilities={"sampling": {"tools": {}}})
        async with asked(client, "sample", prompt="?", tools=True) as (stream, question):
            assert question["params"]["tools"][0]["name"] == "weather"
            await client.reply(question, role="assistant", content=[], model="m")
            assert reply_of(await next_message(stream))["model"] == "m"


@requirement("exchange:asks:nobody")
async def test_a_client_without_any_stream_is_not_asked_and_with_a_get_stream_is() -> None:
    async with rig() as running:
        client = await running.connected(capabilities=ABLE)
        client.headers["accept"] = JSON
        assert reply_of(await client.ask(client.tool("ask", message="?"))) == {"action": "cancel"}
        async with client.stream() as pushed, asyncio.TaskGroup() as group:
            answer = group.create_task(client.ask(client.tool("ask", message="?")))
            question = await next_message(pushed)
            assert question["method"] == "elicitation/create"
            await client.reply(question, action="accept")
            assert reply_of(await answer) == {"action": "accept"}


@requirement("exchange:asks:roots")
async def test_a_server_that_was_told_of_no_roots_hears_when_somebody_with_roots_comes() -> None:
    def changes(running: Rig) -> int:
        return [e.method for e in running.upstream.ledger].count("notifications/roots/list_changed")

    async with rig(scope="user") as running:
        without = await running.connected()
        assert reply_of(await without.ask(without.tool("roots"))) == {"roots": []}
        having = await running.connected(capabilities=ABLE)
        assert changes(running) == 0
        await having.tool_text("count")
        await running.upstream.until(lambda: changes(running) == 1)
        await having.tool_text("count")
        assert changes(running) == 1
        await having.notify("notifications/roots/list_changed")
        await running.upstream.until(lambda: changes(running) == 2)


@requirement("exchange:asks:withdrawn")
async def test_a_question_that_the_server_takes_back_is_taken_back_from_the_client() -> None:
    async with rig() as running:
        client = await running.connected(capabilities=ABLE)
        async with asked(client, "ask", message="?") as (stream, question):
            await client.tool_text("emit", method="notifications/cancelled", params={"requestId": 1})
            withdrawn = await next_message(stream)
            assert withdrawn["method"] == "notifications/cancelled"
            assert withdrawn["params"]["requestId"] == question["id"]
            await client.reply(question, action="accept")  # too late, and harmless
            assert running.upstream.calls("ask")[0].outcome == "running"
            assert running.session_of(client).questions == 0


@requirement("exchange:asks:withdrawn")
async def test_a_question_that_nobody_answers_in_time_is_taken_back_and_answered() -> None:
    clock = ManualClock()
    async with rig(clock=clock, ask_timeout=50.0, call_timeout=10.0) as running:
        client = await running.connected(capabilities=ABLE)
        async with asked(client, "ask", message="?") as (stream, question):
            await running.passing(51)
            withdrawn = await next_message(stream)
            assert (withdrawn["method"], withdrawn["params"]["requestId"]) == (
                "notifications/cancelled",
                question["id"],
            )
            assert reply_of(await next_message(stream)) == {"action": "cancel"}


@requirement("exchange:asks:withdrawn")
async def test_a_question_to_a_client_that_ends_its_session_is_answered_for_it() -> None:
    async with rig(scope="user") as running:
        client = await running.connected(capabilities=ABLE)
        async with asked(client, "ask", message="?"):
            (session,) = running.upstream.sessions.values()
            assert len(session.asks) == 1
            assert await client.delete() == 204
            await running.upstream.until(lambda: session.asks == {})


@row(40)
@requirement("exchange:asks:resumed")
async def test_a_question_is_seen_again_by_a_client_that_lost_its_stream() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running:
        client = await running.connected(capabilities=ABLE)
        await client.tool_text("count")
        async with client.request("POST", client.tool("ask", message="?"), accept="text/event-stream") as response:
            primed = await response.event()
            assert primed is not None
            question = await next_message(response)
            await running.passing(1)
        await running.until(lambda: running.session_of(client).requests == 0)
        async with client.stream(last_event_id=primed.id) as resumed:
            assert await next_message(resumed) == question
            await client.reply(question, action="accept")
            assert reply_of(await next_message(resumed)) == {"action": "accept"}


@requirement("exchange:asks:only-the-asked-answers")
async def test_nobody_else_can_answer_a_question() -> None:
    async with rig() as running:
        client, other = await running.connected(capabilities=ABLE), await running.connected(capabilities=ABLE)
        async with asked(client, "ask", message="?") as (stream, question):
            await other.reply(question, action="accept")
            await client.reply({"id": str(question["id"])}, action="accept")
            await client.reply({"id": question["id"] + 1}, action="accept")
            (session,) = running.upstream.sessions.values()
            assert len(session.asks) == 1
            await client.reply(question, action="decline")
            assert reply_of(await next_message(stream)) == {"action": "decline"}


@row(3)
@requirement("exchange:asks:complete")
@pytest.mark.parametrize("where", ["call", "push"])
async def test_that_an_elicitation_is_complete_is_told_to_who_was_asked_and_nobody_else(where: str) -> None:
    async with rig(scope="user") as running:
        client, other = await running.connected(capabilities=ABLE), await running.connected(capabilities=ABLE)
        await other.tool_text("count")
        await running.upstream.pushing()
        async with client.stream() as mine, other.stream() as theirs:
            async with asked(client, "ask", message="?", mode="url") as (stream, question):
                await client.reply(question, action="accept")
                assert reply_of(await next_message(stream)) == {"action": "accept"}
            done = {"elicitationId": question["params"]["elicitationId"]}
            await other.tool_text("emit", method="notifications/elicitation/complete", params=done, where=where)
            message = await next_message(mine)
            assert (message["method"], message["params"]) == ("notifications/elicitation/complete", done)
            running.push(other, 1)
            assert (await next_message(theirs))["method"] == "test/event"


@row(3)
@requirement("exchange:asks:pages")
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_pages_that_a_server_wants_visited_first_are_named_as_it_names_them(
    transport: Transport, revision: str
) -> None:
    async with rig(transport) as running:
        session, named = await running.connected(revision, ABLE), "/mcp/memory/chats/named"
        for client, path in ((session, "/mcp"), (running.client(), named)):
            error = (await client.ask(client.tool("sign_in"), path))["error"]
            assert (error["code"], error["message"]) == (-32042, "Sign in first.")
            (page,) = error["data"]["elicitations"]
            assert page == {
                "mode": "url",
                "elicitationId": page["elicitationId"],
                "url": f"https://example.test/{page['elicitationId'][1:]}",
                "message": "Sign in.",
            }


@row(3)
@requirement("exchange:asks:pages")
@pytest.mark.parametrize("scope", ["user", "shared"])
@pytest.mark.parametrize("where", ["call", "push"])
async def test_that_such_a_page_is_done_is_told_to_whose_call_it_was_and_nobody_else(where: str, scope: str) -> None:
    async with rig(scope=scope) as running:
        client, other = await running.connected(capabilities=ABLE), await running.connected(capabilities=ABLE)
        await other.tool_text("count")
        await running.upstream.pushing()
        async with client.stream() as mine, other.stream() as theirs:
            error = (await client.ask(client.tool("sign_in")))["error"]
            done = {"elicitationId": error["data"]["elicitations"][0]["elicitationId"]}
            await other.tool_text("emit", method="notifications/elicitation/complete", params=done, where=where)
            message = await next_message(mine)
            assert (message["method"], message["params"]) == ("notifications/elicitation/complete", done)
            running.push(other, 1)
            assert (await next_message(theirs))["method"] == "test/event"


@requirement("exchange:asks:pushed")
async def test_a_question_of_no_call_goes_to_the_get_stream_of_the_one_client_there() -> None:
    async with rig() as running:
        client = await running.connected(capabilities=ABLE)
        await client.tool_text("count")
        await running.upstream.pushing()
        (session,) = running.upstream.sessions.values()
        assert session.push is not None
        async with asyncio.TaskGroup() as group:
            nobody = group.create_task(session.ask(session.push, "roots/list", None))
            reply = await nobody
            assert json.loads(bytes(reply.result or b"")) == {"roots": []}
            async with client.stream() as pushed:
                asking = group.create_task(session.ask(session.push, "roots/list", None))
                question = await next_message(pushed)
                await client.reply(question, roots=[{"uri": "file:///b"}])
                reply = await asking
                assert json.loads(bytes(reply.result or b"")) == {"roots": [{"uri": "file:///b"}]}
                taken_back = group.create_task(session.ask(session.push, "roots/list", None))
                question = await next_message(pushed)
                taken_back.cancel()
                withdrawn = await next_message(pushed)
                assert (withdrawn["method"], withdrawn["params"]["requestId"]) == (
                    "notifications/cancelled",
                    question["id"],
                )


@requirement("exchange:asks:pushed")
async def test_a_client_that_left_before_there_was_a_stream_is_asked_on_its_get_stream_or_not_at_all() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running:
        client = await running.connected(capabilities=ABLE)
        await client.tool_text("count")
        await running.upstream.pushing()
        (session,) = running.upstream.sessions.values()
        assert session.push is not None
        async with asyncio.TaskGroup() as group:
            leaving = group.create_task(client.ask(client.tool("slow", gate="g")))
            await running.upstream.entered("g")
            await running.passing(1)
            leaving.cancel()
            await running.until(lambda: running.session_of(client).requests == 0)
            reply = await session.ask(session.push, "roots/list", None)
            assert json.loads(bytes(reply.result or b"")) == {"roots": []}
            async with client.stream() as pushed:
                asking = group.create_task(session.ask(session.push, "roots/list", None))
                question = await next_message(pushed)
                await client.reply(question, roots=[])
                await asking
        await running.passing(10)
        running.upstream.open_gate("g")
        await running.until(lambda: running.session_of(client).calls == {})
        assert len(running.session_of(client).streams) == 1
