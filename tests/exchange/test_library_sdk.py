"""The official SDK's client on a kept session."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from mcp_types import CallToolResult, ElicitRequestParams, ElicitResult, LoggingMessageNotificationParams

from library_rig import NAME, library, text
from requirements import requirement

Mode = Literal["auto", "legacy", "2026-07-28"]

MODES: tuple[Mode, ...] = ("auto", "legacy", "2026-07-28")
ERAS = ("handshake", "modern", "both")


def said(result: Any) -> str:
    assert isinstance(result, CallToolResult)
    return text(result)


@requirement("library:sdk")
@pytest.mark.parametrize("mode", MODES)
async def test_clients_that_come_and_go_meet_the_session_of_their_chat(mode: Mode) -> None:
    async with library() as (pool, upstream):
        async with pool.lease(NAME, principal="ann", chat="c") as session:
            await session.call_tool("remember", {"key": "a", "value": "b"})
        for _ in range(3):
            async with Client(pool.transport(NAME, principal="ann", chat="c"), mode=mode) as client:
                assert said(await client.call_tool("recall", {"key": "a"})) == "b"
                assert len((await client.list_tools()).tools) > 5
        async with Client(pool.transport(NAME, principal="ben", chat="c"), mode=mode) as client:
            assert "nothing" in said(await client.call_tool("recall", {"key": "a"}))
        assert upstream.initializes == 2


@requirement("library:sdk")
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("mode", MODES)
async def test_a_client_that_may_choose_chooses_as_it_would_before_the_server(mode: Mode, era: str) -> None:
    spoken = "2025-11-25" if mode == "legacy" or (mode, era) == ("auto", "handshake") else "2026-07-28"
    async with library(options={"era": era}) as (pool, _):
        async with Client(pool.transport(NAME, principal="ann", chat="c"), mode=mode) as client:
            assert client.protocol_version == spoken
            if mode == "auto" or spoken == "2025-11-25":  # one that is told its revision asks for no introduction
                assert client.server_capabilities.tools is not None
            counted = [said(await client.call_tool("count")) for _ in range(2)]
        async with Client(pool.transport(NAME, principal="ann", chat="c"), mode=mode) as client:
            counted.append(said(await client.call_tool("count")))
        assert counted == ["1", "2", "3"] or era == "modern", "which has no sessions to remember in"


@requirement("library:sdk")
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("mode", MODES)
async def test_progress_and_questions_reach_the_client(mode: Mode, era: str) -> None:
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        assert params.message == "Which?"
        return ElicitResult(action="accept", content={"answer": "blue"})

    async with library(options={"era": era}) as (pool, _):
        transport = pool.transport(NAME, principal="ann", chat="c")
        async with Client(transport, mode=mode, elicitation_callback=answer) as client:
            await client.call_tool("progress", {"steps": 2}, progress_callback=hear)
            assert heard == [(1, 2, "step 1 of 2"), (2, 2, "step 2 of 2")]
            assert "blue" in said(await client.call_tool("ask", {"message": "Which?"}))


@requirement("library:sdk")
async def test_a_client_that_names_no_chat_has_a_session_of_its_own_that_ends_with_it() -> None:
    async with library() as (pool, upstream):
        async with Client(pool.transport(NAME, principal="ann")) as client:
            assert said(await client.call_tool("count")) == "1"
            assert said(await client.call_tool("count")) == "2"
        async with Client(pool.transport(NAME, principal="ann")) as client:
            assert said(await client.call_tool("count")) == "1"
        used = {entry.session for entry in upstream.calls()}
        await upstream.until(lambda: not used & set(upstream.sessions))


@requirement("library:sdk")
async def test_what_runs_when_a_client_leaves_is_cancelled_whatever_it_speaks() -> None:
    async with library() as (pool, upstream):
        for number, mode in enumerate(MODES):
            async with (
                Client(pool.transport(NAME, principal="ann", chat="c"), mode=mode) as client,
                asyncio.TaskGroup() as group,
            ):
                call = group.create_task(client.call_tool("slow", {"gate": mode}))
                await upstream.entered(mode)
                call.cancel()
            await upstream.until(lambda: upstream.calls("slow")[-1].outcome == "cancelled")
            assert len(upstream.calls("slow")) == number + 1


@requirement("library:sdk")
async def test_a_client_of_2026_07_28_hears_of_changes_and_of_the_log_that_it_asks_for() -> None:
    logs: list[LoggingMessageNotificationParams] = []

    async def log(params: LoggingMessageNotificationParams) -> None:
        logs.append(params)

    async with library() as (pool, upstream):
        transport = pool.transport(NAME, principal="ann", chat="c")
        async with Client(transport, mode="2026-07-28", logging_callback=log, log_level="warning") as client:
            await client.call_tool("log", {"message": "low", "level": "info"})
            await client.call_tool("log", {"message": "high", "level": "error"})
            assert [params.data for params in logs] == ["high"]
            async with client.listen(tools_list_changed=True) as changes:
                await upstream.pushing()
                async with pool.lease(NAME, principal="ann", chat="c") as session:
                    await session.call_tool("change_tools")
                assert type(await anext(aiter(changes))).__name__ == "ToolsListChanged"
