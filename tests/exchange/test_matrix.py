"""Every kind of client over every transport in every revision gets the same from a server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.config import ClientSettings, Trust
from requirements import requirement
from rig import INITIALIZED, REVISIONS, TRANSPORTS, Rig, Transport, rig, text_of

HOST = ClientSettings(name="host", trust=Trust(chat="x-chat-id"))

every_transport = pytest.mark.parametrize("transport", TRANSPORTS)
every_revision = pytest.mark.parametrize("revision", REVISIONS)


def with_token(call: dict[str, Any], token: str | float) -> dict[str, Any]:
    call["params"]["_meta"] = {"progressToken": token}
    return call


async def exchange(running: Rig, revision: str, *, keeps_session: bool) -> None:
    """What every client with a session may expect, in one conversation."""
    client = running.client(x_chat_id="" if keeps_session else "c1")
    hello = await client.open(revision)
    assert hello["protocolVersion"] == revision
    assert hello["serverInfo"]["name"] == "holdfast-test-server"
    client.headers["mcp-protocol-version"] = revision
    tools = (await client.ask(client.call("tools/list")))["result"]["tools"]
    assert "remember" in {tool["name"] for tool in tools}
    await client.tool_text("remember", key="k", value="kept")
    if not keeps_session:
        assert await client.delete() == 204
        await client.open(revision)
    assert await client.tool_text("recall", key="k") == "kept"
    *updates, answer = await client.events(with_token(client.tool("progress", steps=3), "p"))
    assert [update["params"]["progress"] for update in updates] == [1, 2, 3]
    assert {update["params"]["progressToken"] for update in updates} == {"p"}
    assert text_of(answer) == "done"
    assert await client.delete() == 204


@requirement("exchange:matrix:every-client-over-every-transport")
@every_revision
@every_transport
async def test_a_client_with_a_session_keeps_its_state(transport: Transport, revision: str) -> None:
    async with asyncio.timeout(60), rig(transport, clients=(HOST,)) as running:
        await exchange(running, revision, keeps_session=True)


@requirement("exchange:matrix:every-client-over-every-transport")
@every_revision
@every_transport
async def test_a_host_that_reconnects_for_every_message_keeps_its_state(transport: Transport, revision: str) -> None:
    async with asyncio.timeout(60), rig(transport, clients=(HOST,)) as running:
        await exchange(running, revision, keeps_session=False)


@requirement("exchange:matrix:every-client-over-every-transport")
@every_revision
@every_transport
async def test_a_client_without_a_session_is_served_at_once(transport: Transport, revision: str) -> None:
    async with asyncio.timeout(60), rig(transport) as running:
        client = running.client(mcp_protocol_version=revision)
        tools = (await client.ask(client.call("tools/list")))["result"]["tools"]
        assert "remember" in {tool["name"] for tool in tools}
        *updates, answer = await client.events(with_token(client.tool("progress", steps=2), 7))
        assert [update["params"] for update in updates] == [
            {"progressToken": 7, "progress": step, "total": 2, "message": f"step {step} of 2"} for step in (1, 2)
        ]
        assert text_of(answer) == "done"
        assert await client.tool_text("count") == "1"
        assert await client.tool_text("count") == "1"


@requirement("exchange:matrix:three-curl-steps")
@every_transport
async def test_the_three_curl_steps_of_the_report_work(transport: Transport) -> None:
    async with asyncio.timeout(60), rig(transport) as running:
        client = running.client()
        hello = await client.open("2024-11-05")
        assert hello["protocolVersion"] == "2024-11-05"
        session = client.headers.pop("mcp-session-id")
        lists = client.call("tools/list")
        async with client.request("POST", [INITIALIZED, lists], accept=None, mcp_session_id=session) as response:
            assert response.status == 200
            assert response.headers["content-type"] == "application/json"
            assert "mcp-session-id" not in response.headers
            (answer,) = await response.json()
            assert answer["id"] == lists["id"]
            assert answer["result"]["tools"]
        async with client.request("POST", client.call("tools/list"), accept=None) as response:
            assert response.status == 200
            assert response.headers["content-type"] == "application/json"
            assert (await response.json())["result"] == answer["result"]
