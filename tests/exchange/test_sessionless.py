"""Clients without a session: a bare POST, and arrays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.config import ClientSettings, Trust
from holdfast.testing.clock import ManualClock
from requirements import requirement
from rig import INITIALIZED, Client, next_message, rig, text_of
from rows import row

HOST = ClientSettings(name="host", trust=Trust(chat="x-chat-id"))
OTHER: dict[str, Any] = {"jsonrpc": "2.0", "method": "notifications/other", "params": {}}


def in_chat(call: dict[str, Any], chat: str) -> dict[str, Any]:
    call["params"]["_meta"] = {"dev.holdfast/chat": chat}
    return call


@requirement("exchange:sessionless:private")
async def test_a_bare_call_runs_in_a_session_of_its_own_that_ends_with_it() -> None:
    async with rig() as running:
        client = running.client()
        assert [await client.tool_text("count") for _ in range(3)] == ["1", "1", "1"]
        await running.until_idle()
        assert running.upstream.sessions == {}
        assert running.upstream.deletes == 3


@requirement("exchange:sessionless:private")
async def test_lists_and_pings_open_no_session() -> None:
    async with rig() as running:
        client = running.client()
        for method in ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "ping"):
            assert "result" in await client.ask(client.call(method))
        assert await client.post(INITIALIZED) == 202
        assert running.upstream.initializes == 1


@requirement("exchange:sessionless:private")
async def test_a_bare_call_can_be_told_and_not_asked() -> None:
    async with rig() as running:
        client = running.client()
        *logs, answer = await client.events(client.tool("log", level="info", message="m", count=2))
        assert [log["params"]["data"] for log in logs if log["params"].get("logger") == "test"] == ["m", "m"]
        assert text_of(answer) == "logged"
        assert "declared no elicitation" in await client.tool_text("ask", message="?")


@requirement("exchange:sessionless:lasting-wishes")
async def test_a_client_without_a_session_changes_nothing_for_others() -> None:
    async with rig(scope="shared") as running:
        client = await running.connected()
        await client.ask(client.call("resources/subscribe", uri="memo://note"))
        stranger = running.client()
        for method, params in (
            ("resources/unsubscribe", {"uri": "memo://note"}),
            ("resources/subscribe", {"uri": "memo://note"}),
            ("logging/setLevel", {"level": "emergency"}),
        ):
            assert (await stranger.ask(stranger.call(method, **params)))["error"]["code"] == -32600
        (session,) = running.upstream.sessions.values()
        assert session.subscriptions == {"memo://note"}
        assert session.log_level == "debug"


@requirement("exchange:arrays:accepted")
async def test_an_array_without_a_session_shares_one_private_session() -> None:
    async with rig() as running:
        client = running.client()
        calls = [client.tool("count"), client.call("ping"), OTHER, client.tool("count"), client.call("tools/list")]
        answers = {answer["id"]: answer for answer in await client.ask(calls)}
        assert answers.keys() == {call["id"] for call in calls if "id" in call}
        assert sorted(text_of(answers[call["id"]]) for call in (calls[0], calls[3])) == ["1", "2"]
        assert await client.tool_text("count") == "1"


@requirement("exchange:arrays:accepted")
async def test_what_an_array_does_not_name_stays_out_of_the_chats_that_it_does() -> None:
    async with rig() as running:
        client = running.client()
        assert text_of(await client.ask(in_chat(client.tool("count"), "a"))) == "1"
        calls = [in_chat(client.tool("count"), "a"), client.tool("count"), in_chat(client.tool("count"), "b")]
        answers = {answer["id"]: text_of(answer) for answer in await client.ask(calls)}
        assert [answers[call["id"]] for call in calls] == ["2", "1", "1"]


@requirement("exchange:arrays:accepted")
@pytest.mark.parametrize("revision", ["2024-11-05", "2025-03-26"])
async def test_arrays_work_in_sessions_of_the_revisions_that_know_them(revision: str) -> None:
    async with rig() as running:
        client = await running.connected(revision)
        calls = [client.tool("count"), OTHER, client.call("ping"), client.call("no/such/method")]
        answers = {answer["id"]: answer for answer in await client.ask(calls)}
        assert text_of(answers[calls[0]["id"]]) == "1"
        assert answers[calls[2]["id"]]["result"] == {}
        assert answers[calls[3]["id"]]["error"]["code"] == -32601
        assert await client.post([INITIALIZED, OTHER]) == 202
        sent = [entry.method for entry in running.upstream.ledger if entry.kind == "notification"]
        assert sent.count("notifications/other") == 2


@requirement("exchange:arrays:accepted")
async def test_an_array_is_answered_as_a_stream_where_something_comes_before_the_results() -> None:
    async with rig() as running:
        client = await running.connected("2025-03-26")
        await client.tool_text("count")
        calls = [client.tool("count"), client.tool("slow", gate="g"), client.tool("log", level="info", message="m")]
        async with client.request("POST", calls) as response:
            assert response.headers["content-type"] == "text/event-stream"
            messages = [await next_message(response) for _ in range(3)]
            running.upstream.open_gate("g")
            messages.append(await next_message(response))
            assert await response.event() is None
        assert sorted(m["id"] for m in messages if "id" in m) == [call["id"] for call in calls]
        assert [m["params"]["data"] for m in messages if "method" in m] == ["m"]


@requirement("exchange:arrays:accepted")
async def test_the_messages_of_an_array_are_taken_in_their_order() -> None:
    async with rig() as running:
        client = await running.connected("2025-03-26")
        await client.tool_text("count")
        call = client.tool("slow", gate="g")
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": call["id"]}}
        async with client.request("POST", [call, cancel]) as response:
            assert response.status == 202
        await running.upstream.until(lambda: running.upstream.calls("slow")[0].outcome == "cancelled")


@requirement("exchange:arrays:refused")
@pytest.mark.parametrize("revision", ["2025-06-18", "2025-11-25"])
async def test_arrays_are_refused_in_sessions_of_the_revisions_without_them(revision: str) -> None:
    async with rig() as running:
        client = await running.connected(revision)
        for array in ([client.tool("count")], [OTHER], [client.call("ping"), client.call("ping")]):
            async with client.request("POST", array) as response:
                assert response.status == 400
                assert (await response.json())["error"]["code"] == -32600
        assert running.upstream.calls() == []
        assert await client.tool_text("count") == "1"


@requirement("exchange:arrays:refused")
async def test_initialize_does_not_come_in_an_array() -> None:
    async with rig() as running:
        client = running.client()
        hello = client.call("initialize", protocolVersion="2025-03-26", capabilities={}, clientInfo={})
        for array in ([hello], [hello, client.call("tools/list")], [], [1]):
            async with client.request("POST", array) as response:
                assert response.status == 400
                assert (await response.json())["error"]["code"] == -32600
        assert len(running.app.sessions) == 0


@row(40)
@requirement("exchange:leaving:without-a-session-cancels")
async def test_a_bare_call_is_cancelled_when_its_client_leaves() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running:
        async with asyncio.TaskGroup() as group:
            client = running.client()
            leaving = group.create_task(client.ask([client.tool("slow", gate="g"), client.tool("slow", gate="g")]))
            await running.upstream.entered("g", 2)
            await running.passing(1)
            leaving.cancel()
        calls = running.upstream.calls("slow")
        await running.upstream.until(lambda: {call.outcome for call in calls} == {"cancelled"})
        await running.upstream.until(lambda: running.upstream.sessions == {})


@row(40)
@requirement("exchange:leaving:with-a-session-does-not")
async def test_a_call_of_a_session_goes_on_when_its_client_leaves() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running:
        client = await running.connected()
        async with asyncio.TaskGroup() as group:
            leaving = group.create_task(client.ask(client.tool("slow", gate="g")))
            await running.upstream.entered("g")
            await running.passing(1)
            leaving.cancel()
        await running.until(lambda: running.session_of(client).requests == 0)
        running.upstream.open_gate("g")
        await running.until(lambda: running.session_of(client).calls == {})
        assert [call.outcome for call in running.upstream.calls("slow")] == ["executed"]


@requirement("exchange:leaving:without-a-session-cancels")
async def test_leaving_while_the_session_still_opens_leaves_nothing_behind() -> None:
    clock = ManualClock()
    async with rig(clock=clock, server_clock=clock) as running:
        await running.connected()
        client: Client = running.client()
        running.upstream.core.options = type(running.upstream.options)(open_delay=10.0)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(client.tool_text("count"))  # takes the spare
            await first
            leaving = group.create_task(client.tool_text("count"))
            await running.upstream.until(lambda: running.upstream.core.opening == 1)
            await running.passing(1)
            leaving.cancel()
        await running.passing(30)
        await running.until_idle()
        assert [call.tool for call in running.upstream.calls()] == ["count"]
