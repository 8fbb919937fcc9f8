"""Clients of the handshake era, and those without a session, at a server that speaks 2026-07-28 alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from bare_client import Response
from holdfast.testing.clock import ManualClock
from requirements import requirement
from rig import Client, Rig, Transport, next_message, rig, text_of

ABLE: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {"listChanged": True}}
NOTE = "memo://note"
TRANSPORTS: tuple[Transport, ...] = ("sse", "json", "stdio")
"""Those of the modern era: an answer as a stream or as a body, and a process."""
PROGRESS = {"_meta": {"progressToken": "t"}}


def modern(
    transport: Transport = "sse",
    *,
    clock: ManualClock | None = None,
    options: dict[str, Any] | None = None,
    **server: Any,
) -> AbstractAsyncContextManager[Rig]:
    """A gateway in front of a modern server."""
    restarts = bool(server.pop("restarts", False))
    chosen: dict[str, Any] = {"era": "modern"} | (options or {})
    return rig(transport, clock=clock, options=chosen, restarts=restarts, **server)


@asynccontextmanager
async def asked(client: Client, tool: str, **arguments: Any) -> AsyncGenerator[tuple[Response, Any]]:
    """The stream of a call, and the question that came on it."""
    async with client.request("POST", client.tool(tool, **arguments)) as response:
        yield response, await next_question(response)


async def next_question(response: Response) -> Any:
    while "id" not in (question := await next_message(response)):
        pass
    return question


def reply_of(answer: Any) -> Any:
    return json.loads(text_of(answer))


@requirement("modern-servers:calls")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_handshake_client_uses_a_modern_server_as_any_other(transport: Transport) -> None:
    async with modern(transport) as running:
        client = running.client()
        hello = await client.open("2025-06-18")
        assert hello["protocolVersion"] == "2025-06-18"
        assert hello["serverInfo"]["name"] == "holdfast-test-server"
        assert hello["instructions"].startswith("A server for tests")
        assert hello["capabilities"]["tools"] == {"listChanged": True}
        listed = (await client.ask(client.call("tools/list")))["result"]
        assert listed.keys() == {"tools", "_meta"}
        names = {tool["name"] for tool in listed["tools"]}
        assert "region" in names
        assert "misnamed" not in names, "its header cannot be made"
        assert "outputSchema" not in next(tool for tool in listed["tools"] if tool["name"] == "measure")
        answer = await client.ask(client.tool("echo", a=[1, "é"]))
        assert answer["result"].keys() == {"content", "isError", "_meta"}
        assert reply_of(answer)["arguments"] == {"a": [1, "é"]}
        measured = (await client.ask(client.tool("measure")))["result"]
        assert "structuredContent" not in measured
        assert json.loads(measured["content"][0]["text"]) == [1, 2, 3]
        greeting = await client.ask(client.call("prompts/get", name="greet", arguments={"name": "Ada"}))
        assert greeting["result"]["messages"][0]["content"]["text"] == "Greet Ada."
        completion = await client.ask(
            client.call(
                "completion/complete",
                ref={"type": "ref/prompt", "name": "greet"},
                argument={"name": "name", "value": "Al"},
            )
        )
        assert completion["result"]["completion"]["values"] == ["Alan", "Alonzo"]
        missing = await client.ask(client.call("resources/read", uri="memo://nothing"))
        assert missing["error"]["code"] == -32002
        assert (await client.ask(client.call("ping")))["result"] == {}
        view = running.server.view()
        assert view.protocol == "2026-07-28"


@requirement("modern-servers:calls")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_client_without_a_session_calls_a_modern_server(transport: Transport) -> None:
    async with modern(transport) as running:
        curl = running.client()
        body = curl.call("tools/call", name="progress", arguments={"steps": 2}, **PROGRESS)
        first, second, answer = await curl.events(body, accept="text/event-stream")
        assert [first["params"]["progress"], second["params"]["progress"]] == [1, 2]
        assert first["params"]["progressToken"] == "t"
        assert text_of(answer) == "done"
        told = reply_of(await curl.ask(curl.tool("whoami")))
        assert told["capabilities"] == {}, "nobody there can be asked"
        assert told["clientInfo"]["name"] == "holdfast"
        logged = await curl.events(curl.tool("log", level="warning", message="hot"), accept="text/event-stream")
        assert logged[-2]["params"]["data"] == "hot", "before it comes what is told of the session"


@requirement("modern-servers:calls")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_pages_are_followed_and_foreign_cursors_refused_by_the_server(transport: Transport) -> None:
    options = {"page-size": 5} if transport == "stdio" else {"page_size": 5}
    async with modern(transport, options=options) as running:
        client = await running.connected()
        names: list[str] = []
        cursor: dict[str, Any] = {}
        while True:
            page = (await client.ask(client.call("tools/list", **cursor)))["result"]
            names += [tool["name"] for tool in page["tools"]]
            if "nextCursor" not in page:
                break
            cursor = {"cursor": page["nextCursor"]}
        assert len(names) == len(set(names)) > 20
        assert (await client.ask(client.call("tools/list", cursor="nonsense")))["error"]["code"] == -32602


@requirement("modern-servers:envelope")
async def test_every_request_says_what_this_caller_can_be_asked() -> None:
    async with modern(era="modern") as running:
        able, unable = await running.connected("2025-11-25", ABLE), await running.connected()
        assert reply_of(await able.ask(able.tool("whoami")))["capabilities"].keys() == {
            "elicitation",
            "sampling",
            "roots",
        }
        assert reply_of(await unable.ask(unable.tool("whoami")))["capabilities"] == {}
        refused = await unable.ask(unable.tool("roots"))
        assert refused["result"]["isError"] is True
        for method, headers in running.upstream.received:
            assert method == "POST"
            assert headers["mcp-protocol-version"] == "2026-07-28"
            assert "mcp-session-id" not in headers
        assert running.upstream.initializes == 0


@requirement("modern-servers:headers")
async def test_annotated_arguments_stand_in_headers() -> None:
    async with modern() as running:
        client = await running.connected()
        answer = reply_of(await client.ask(client.tool("region", region="eu", number=7, is_urgent=True)))
        assert answer == {"mcp-param-region": "eu", "mcp-param-number": "7", "mcp-param-urgent": "true"}
        answer = reply_of(await client.ask(client.tool("region", region=" Straße ", number=None)))
        assert answer == {"mcp-param-region": "=?base64?IFN0cmHDn2Ug?="}


@requirement("modern-servers:headers")
async def test_a_tool_whose_headers_are_not_known_is_listed_and_called_once_more() -> None:
    async with modern(start="lazy", is_learnt=False) as running:
        curl = running.client()
        answer = reply_of(await curl.ask(curl.tool("region", region="eu")))
        assert answer == {"mcp-param-region": "eu"}
        assert len(running.upstream.calls("region")) == 1, "the first was refused unexecuted"


@requirement("modern-servers:rounds")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_a_modern_server_wants_to_know_is_asked_on_the_calls_stream(transport: Transport) -> None:
    async with modern(transport) as running:
        client = await running.connected("2025-11-25", ABLE)
        async with asked(client, "ask", message="sure?") as (stream, question):
            assert question["method"] == "elicitation/create"
            assert question["params"]["message"] == "sure?"
            await client.reply(question, action="accept", content={"answer": "yes"})
            assert reply_of(await next_message(stream)) == {"action": "accept", "content": {"answer": "yes"}}
            assert await stream.event() is None
        async with asked(client, "sample", prompt="hi") as (stream, question):
            assert question["method"] == "sampling/createMessage"
            await client.reply(question, role="assistant", content={"type": "text", "text": "ho"}, model="m")
            assert reply_of(await next_message(stream))["content"]["text"] == "ho"
        async with asked(client, "roots") as (stream, question):
            await client.reply(question, roots=[{"uri": "file:///a"}])
            assert reply_of(await next_message(stream)) == {"roots": [{"uri": "file:///a"}]}


@requirement("modern-servers:rounds")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_person_who_is_sent_to_a_url_is_asked_once(transport: Transport) -> None:
    async with modern(transport) as running:
        client = await running.connected("2025-11-25", ABLE)
        async with asked(client, "ask", message="sign in", mode="url") as (stream, question):
            assert question["params"]["mode"] == "url"
            assert question["params"]["url"].startswith("https://")
            await client.reply(question, action="accept")
            complete = await next_message(stream)
            assert complete["method"] == "notifications/elicitation/complete"
            assert complete["params"] == {"elicitationId": question["params"]["elicitationId"]}
            assert reply_of(await next_message(stream)) == {"action": "accept"}


@requirement("modern-servers:rounds")
async def test_who_declines_or_fails_is_answered_for() -> None:
    async with modern() as running:
        client = await running.connected("2025-11-25", ABLE)
        async with asked(client, "ask", message="sure?") as (stream, question):
            await client.reply(question, action="decline")
            assert reply_of(await next_message(stream)) == {"action": "decline"}
        error = {"code": -1, "message": "the user says no"}
        answers: dict[str, Any] = {"ask": {"action": "cancel"}, "roots": {"roots": []}}
        for tool, expected in answers.items():
            arguments = {"message": "?"} if tool == "ask" else {}
            async with asked(client, tool, **arguments) as (stream, question):
                assert await client.post({"jsonrpc": "2.0", "id": question["id"], "error": error}) == 202
                assert reply_of(await next_message(stream)) == expected
        async with asked(client, "sample", prompt="?") as (stream, question):
            assert await client.post({"jsonrpc": "2.0", "id": question["id"], "error": error}) == 202
            assert (await next_message(stream))["error"] == error, (
                "a refusal is nothing that can be given to the server"
            )


@requirement("modern-servers:rounds")
async def test_a_question_that_nobody_answers_in_time_is_cancelled() -> None:
    clock = ManualClock()
    async with modern(clock=clock, ask_timeout=60) as running:
        client = await running.connected("2025-11-25", ABLE)
        async with asked(client, "ask", message="sure?") as (stream, _):
            await running.passing(61)
            while "result" not in (answer := await next_message(stream)):
                pass
            assert reply_of(answer) == {"action": "cancel"}


@requirement("modern-servers:rounds")
async def test_a_server_may_ask_ten_times_and_no_more() -> None:
    async with modern() as running:
        client = await running.connected("2025-11-25", ABLE)
        async with asked(client, "badger") as (stream, question):
            for _ in range(9):
                await client.reply(question, roots=[])
                question = await next_question(stream)
            await client.reply(question, roots=[])
            error = (await next_message(stream))["error"]
            assert error["code"] == -31004
            assert "more than 10 times" in error["message"]
        assert len(running.upstream.calls("badger")) == 11


@requirement("modern-servers:rounds")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_server_that_only_wants_to_be_asked_again_is(transport: Transport) -> None:
    async with modern(transport) as running:
        client = await running.connected()
        assert await client.tool_text("poll", times=2) == "done after 2"


@requirement("modern-servers:cancel")
@pytest.mark.parametrize("transport", ["sse", "json"])
async def test_a_cancelled_call_is_cancelled_at_the_server(transport: Transport) -> None:
    async with modern(transport) as running:
        client = await running.connected()
        call = client.tool("progress", steps=2, gate="g")
        call["params"]["_meta"] = {"progressToken": "t"}
        async with client.request("POST", call):
            await running.upstream.entered("g")
            await client.notify("notifications/cancelled", requestId=call["id"], reason="enough")
            entry = running.upstream.calls("progress")[0]
            await running.upstream.until(lambda: entry.outcome == "cancelled")
        assert text_of(await client.ask(client.tool("echo"))), "and nothing else is lost"


@requirement("modern-servers:cancel")
async def test_a_call_is_cancelled_while_a_person_is_asked() -> None:
    async with modern() as running:
        client = await running.connected("2025-11-25", ABLE)
        call = client.tool("ask", message="sure?")
        async with client.request("POST", call) as response:
            await next_question(response)
            await client.notify("notifications/cancelled", requestId=call["id"])
        await running.until_idle()
        assert len(running.upstream.calls("ask")) == 1


@requirement("modern-servers:log")
async def test_logs_come_by_the_level_that_was_set() -> None:
    async with modern() as running:
        client = await running.connected()
        assert (await client.ask(client.call("logging/setLevel", level="error")))["result"] == {}
        assert [text_of(await client.ask(client.tool("log", level="warning", message="quiet")))] == ["below the level"]
        loud, answer = await client.events(client.tool("log", level="error", message="loud"))
        assert loud["params"]["data"] == "loud"
        assert text_of(answer) == "logged"


@requirement("modern-servers:changes")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_changes_reach_those_who_subscribed(transport: Transport) -> None:
    async with modern(transport) as running:
        client = await running.connected()
        async with client.stream() as stream:
            assert (await client.ask(client.call("resources/subscribe", uri=NOTE)))["result"] == {}
            await client.tool_text("change_resource", text="new")
            updated = await next_message(stream)
            assert updated["method"] == "notifications/resources/updated"
            assert updated["params"] == {"uri": NOTE}
            await client.tool_text("change_tools")
            assert (await next_message(stream))["method"] == "notifications/tools/list_changed"
            names = [tool["name"] for tool in (await client.ask(client.call("tools/list")))["result"]["tools"]]
            assert "extra" in names
            assert (await client.ask(client.call("resources/unsubscribe", uri=NOTE)))["result"] == {}
        if transport != "stdio":
            await running.upstream.until(lambda: not any(s.subscriptions for s in running.upstream.sessions.values()))


@requirement("modern-servers:changes")
async def test_after_a_gap_everything_may_have_changed() -> None:
    async with modern() as running:
        client = await running.connected()
        async with client.stream() as stream:
            await client.ask(client.call("resources/subscribe", uri=NOTE))
            (listening,) = [s for s in running.upstream.sessions.values() if s.subscriptions]
            running.upstream.forget_session(listening.id)
            heard = {(await next_message(stream))["method"] for _ in range(4)}
            assert heard == {
                "notifications/tools/list_changed",
                "notifications/prompts/list_changed",
                "notifications/resources/list_changed",
                "notifications/resources/updated",
            }
            (again,) = [s for s in running.upstream.sessions.values() if s.subscriptions]
            assert again.id != listening.id
            await client.tool_text("change_resource")
            assert (await next_message(stream))["params"] == {"uri": NOTE}


@requirement("modern-servers:changes")
async def test_only_changes_that_the_server_agrees_to_announce_are_promised() -> None:
    async with modern(options={"unannounced": ("toolsListChanged",)}) as running:
        capabilities = (await running.client().open())["capabilities"]
        assert capabilities["tools"] == {}
        assert capabilities["prompts"] == {"listChanged": True}
        assert capabilities["resources"] == {"listChanged": True, "subscribe": True}


@requirement("modern-servers:stateless")
@pytest.mark.parametrize("ends", ["restart", "crash"])
async def test_nothing_is_lost_when_a_modern_server_restarts(ends: str) -> None:
    async with modern(restarts=True) as running:
        client = await running.connected()
        assert await client.tool_text("remember", key="a", value="1") == "remembered"
        if ends == "restart":
            await running.upstream.stop()
            await running.upstream.start()
        else:
            await client.ask(client.tool("crash"))
        assert await client.tool_text("recall", key="a") == "1"


@requirement("modern-servers:stateless")
async def test_a_call_that_is_cut_off_says_that_its_outcome_is_unknown() -> None:
    async with modern(restarts=True) as running:
        client = await running.connected()
        error = (await client.ask(client.tool("crash", before_answer=True)))["error"]
        assert error["code"] == -31002
        assert len(running.upstream.calls("crash")) == 1
        assert text_of(await client.ask(client.tool("echo")))


@requirement("modern-servers:stateless")
async def test_a_modern_process_that_ends_takes_no_memory_with_it() -> None:
    async with modern("stdio") as running:
        client = await running.connected()
        await client.tool_text("remember", key="a", value="1")
        assert (await client.ask(client.tool("crash", before_answer=True)))["error"]["code"] == -31002
        assert await client.tool_text("recall", key="a") == "nothing is remembered as a", "told by the new process"


@requirement("modern-servers:stateless")
async def test_an_idle_modern_session_ends_without_anybody_being_told() -> None:
    clock = ManualClock()
    async with modern(clock=clock, idle_timeout=100) as running:
        curl = running.client(**{"x-chat": "c"})
        assert await curl.tool_text("remember", "/mcp/memory/chats/c1", key="a", value="1") == "remembered"
        await running.passing(1000)
        assert await curl.tool_text("recall", "/mcp/memory/chats/c1", key="a") == "1"


@requirement("modern-servers:calls")
async def test_an_unknown_method_is_the_servers_to_refuse() -> None:
    async with modern() as running:
        client = await running.connected()
        assert (await client.ask(client.call("holdfast.test/nothing")))["error"]["code"] == -32601
        assert text_of(await client.ask(client.tool("echo"))), "and the session lives"


@requirement("modern-servers:cancel")
async def test_storms_of_calls_leave_nothing_behind() -> None:
    async with modern() as running:
        client = await running.connected()
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(client.ask(client.tool("echo", n=n))) for n in range(40)]
        assert [reply_of(call.result())["arguments"]["n"] for call in calls] == list(range(40))
