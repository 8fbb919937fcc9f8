"""Servers that speak only the HTTP+SSE of 2024-11-05, through the whole gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import events
from holdfast.testing.clock import ManualClock
from requirements import requirement
from rig import Client, Rig, next_message, rig, text_of

SSE: dict[str, Any] = {"transport": "sse"}


async def failing(client: Client, name: str, **arguments: Any) -> int:
    """The code of the error that a tool call ends with."""
    code: int = (await client.ask(client.tool(name, **arguments)))["error"]["code"]
    return code


@requirement("upstream:legacy-sse:found-out-once")
async def test_the_transport_is_found_out_once_for_all_sessions() -> None:
    async with rig("legacy") as running:
        for _ in range(3):
            client = await running.connected()
            await client.tool_text("count")
        assert len(running.upstream.sessions) >= 3
        assert running.upstream.probes == 2, "for the era, and for the transport"


@requirement("upstream:legacy-sse:found-out-once")
async def test_it_is_found_out_anew_after_a_failure() -> None:
    async with rig("legacy", restarts=True) as running:
        await running.connected()
        await running.upstream.stop()
        await running.upstream.start()
        client = await running.connected()
        assert await client.tool_text("count") == "1"
        assert running.upstream.probes <= 2


async def test_a_server_that_is_said_to_be_old_is_never_tried_otherwise() -> None:
    async with rig("legacy", **SSE) as running:
        client = await running.connected()
        assert await client.tool_text("count") == "1"
        assert running.upstream.probes == 0


async def test_a_server_that_is_said_to_be_newer_is_not_tried_with_the_old_transport() -> None:
    async with rig("legacy", is_learnt=False, transport="streamable") as running:
        client = running.client()
        answer = await client.ask(client.tool("count"))
        assert answer["error"]["code"] == -31001
        assert running.upstream.gets == 0


@requirement("upstream:legacy-sse:the-stream-is-the-session")
@pytest.mark.parametrize("dies", ["hangs up", "restarts"])
async def test_a_lost_stream_is_reopened_once_and_lost_memory_told_once(dies: str) -> None:
    seen: list[events.Event] = []
    async with rig("legacy", restarts=True, emit=seen.append) as running:
        client = await running.connected()
        await client.tool_text("remember", key="k", value="v")
        await lose(running, dies)
        assert await failing(client, "recall", key="k") == -31006
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(client.ask(client.tool("count"))) for _ in range(5)]
        counts = {text_of(call.result()) for call in calls}
        assert counts == {"1", "2", "3", "4", "5"}
        reopened = [event for event in seen if isinstance(event, events.SessionReady) and event.is_reopened]
        assert len(reopened) == 1


async def lose(running: Rig, dies: str) -> None:
    """End every session at the server; return when the gateway has seen it."""
    if dies == "restarts":
        await running.upstream.stop()
        await running.upstream.start()
    else:
        for session_id in list(running.upstream.sessions):
            running.upstream.hang_up(session_id)
    await running.until(lambda: not any(session.is_open for session in running.server.pool.sessions))


@requirement("upstream:legacy-sse:the-stream-is-the-session")
async def test_a_call_that_the_stream_ends_under_is_told_that_its_outcome_is_unknown() -> None:
    async with rig("legacy") as running:
        client = await running.connected()
        async with asyncio.TaskGroup() as group:
            call = group.create_task(failing(client, "slow", gate="g"))
            await running.upstream.entered("g")
            await lose(running, "hangs up")
        assert call.result() == -31002
        assert await client.tool_text("count") == "1"


async def test_a_session_that_the_server_forgot_is_noticed_by_the_refusal_of_a_message() -> None:
    async with rig("legacy") as running:
        client = await running.connected()
        await client.tool_text("remember", key="k", value="v")
        running.upstream.core.sessions.clear()  # the streams stay open
        assert await failing(client, "count") == -31006
        assert await client.tool_text("count") == "1"


async def test_questions_progress_logs_and_changes_come_on_the_one_stream() -> None:
    async with rig("legacy") as running:
        client = await running.connected(capabilities={"elicitation": {}})
        async with client.stream() as pushed:
            async with client.request("POST", client.tool("ask", message="sure?")) as asking:
                question = await next_message(asking)
                assert question["method"] == "elicitation/create"
                await client.reply(question, action="accept", content={"by": "me"})
                assert "me" in text_of(await next_message(asking))
            *messages, answer = await client.events(client.tool("log", level="error", message="m", count=2))
            assert [message["params"]["data"] for message in messages] == ["m", "m"]
            assert answer["id"] == client.next_id
            await client.tool_text("change_tools")
            assert (await next_message(pushed))["method"] == "notifications/tools/list_changed"


async def test_a_cancelled_call_is_cancelled_at_the_server() -> None:
    async with rig("legacy") as running:
        client = await running.connected()
        call = client.tool("slow", gate="g")
        async with client.request("POST", call, accept="text/event-stream"):
            await running.upstream.entered("g")
            await client.notify("notifications/cancelled", requestId=call["id"])
            await running.upstream.until(lambda: running.upstream.calls("slow")[0].outcome == "cancelled")


async def test_an_idle_session_ends_with_its_stream() -> None:
    clock = ManualClock()
    async with rig("legacy", clock=clock, idle_timeout=50) as running:
        client = await running.connected()
        await client.tool_text("count")
        await running.passing(61)
        await running.upstream.until(lambda: not running.upstream.sessions)
