"""mcp-searxng 0.10.5, which takes one connection at a time, behind `--scope shared`."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import httpx2
import pytest
from mcp.shared.exceptions import MCPError

from interop.programs import PATIENCE, holdfast, node, sdk_client
from processes import Process, free_port
from requirements import requirement

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "direct", "version": "1"}},
}


@pytest.fixture
def searxng() -> Generator[tuple[str, Process]]:
    """The server, with a search engine that is down."""
    port = free_port()
    settings = {"MCP_HTTP_PORT": str(port), "SEARXNG_URL": f"http://127.0.0.1:{free_port()}"}
    with node("mcp-searxng/dist/index.js", port=port, **settings) as process:
        yield f"http://127.0.0.1:{port}/mcp", process


async def test_directly_a_second_client_is_turned_away(searxng: tuple[str, Process]) -> None:
    """The yardstick: without it the next test would prove nothing."""
    url, _ = searxng
    headers = {"accept": "application/json, text/event-stream"}
    async with (
        asyncio.timeout(PATIENCE),
        httpx2.AsyncClient(timeout=PATIENCE, trust_env=False, headers=headers) as http,
    ):
        assert (await http.post(url, json=INITIALIZE)).status_code == 200
        second = await http.post(url, json=INITIALIZE)
    assert second.status_code == 500
    assert "Already connected" in second.text


@requirement("interop:one-connection:callers-share-it")
async def test_four_clients_at_once_are_served_over_one_connection(searxng: tuple[str, Process]) -> None:
    url, _ = searxng
    all_connected = asyncio.Barrier(4)

    async def one(gateway: str) -> str:
        async with sdk_client(gateway) as client:
            await all_connected.wait()
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert tools == {"searxng_web_search", "web_url_read"}
            with pytest.raises(MCPError) as refused:
                await client.call_tool("searxng_web_search", {"query": "anything"})
            await all_connected.wait()
            return str(refused.value)

    with holdfast("--scope", "shared", url) as (gateway, _):
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            calls = [group.create_task(one(gateway)) for _ in range(4)]
        for call in calls:
            assert "SEARXNG_URL" in call.result(), "the server's own error passes"
        async with asyncio.timeout(PATIENCE), httpx2.AsyncClient(timeout=PATIENCE, trust_env=False) as http:
            headers = {"accept": "application/json, text/event-stream"}
            third = await http.post(url, json=INITIALIZE, headers=headers)
    assert "Already connected" in third.text, "the one connection is still ours"
