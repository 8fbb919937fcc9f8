"""The official SDK's client on a kept session."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from mcp_types import CallToolResult, ElicitRequestParams, ElicitResult

from library_rig import NAME, library, text
from requirements import requirement

MODES: tuple[Literal["auto", "legacy"], ...] = ("auto", "legacy")


def said(result: Any) -> str:
    assert isinstance(result, CallToolResult)
    return text(result)


@requirement("library:sdk")
@pytest.mark.parametrize("mode", MODES)
async def test_clients_that_come_and_go_meet_the_session_of_their_chat(mode: Literal["auto", "legacy"]) -> None:
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
@pytest.mark.parametrize("mode", MODES)
async def test_progress_and_questions_reach_the_client(mode: Literal["auto", "legacy"]) -> None:
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        assert params.message == "Which?"
        return ElicitResult(action="accept", content={"answer": "blue"})

    async with library() as (pool, _):
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
