"""Real servers of four kinds at once, behind one `holdfast serve FILE`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from typing import Any, Final

import pytest
import yaml

from interop.programs import (
    BIN,
    EVERYTHING_STDIO,
    HOLDFAST,
    MEMORY,
    NODE,
    NOTION_STDIO,
    PATIENCE,
    Steps,
    everything,
    sdk_client,
    text_of,
)
from processes import free_port, start
from requirements import requirement

TOOLS: Final = {
    "everything": "trigger-long-running-operation",
    "remote": "echo",
    "memory": "read_graph",
    "notion": "API-post-search",
}
"""A tool of each server."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The address of the gateway, without a path."""
    folder = tmp_path_factory.mktemp("several")
    port = free_port()
    with everything() as remote:
        servers: dict[str, Any] = {
            "everything": {"command": list(EVERYTHING_STDIO)},
            "remote": {"url": remote, "scope": "user"},
            "memory": {"command": ["sh", "-c", f"MEMORY_FILE_PATH=$PWD/$$.jsonl exec {NODE} {MEMORY}"], "cwd": "."},
            "notion": {"command": list(NOTION_STDIO), "env": {"NOTION_TOKEN": "ntn_none"}, "scope": "shared"},
        }
        clients = {"host": {"key": "sesame", "trust": {"user": "x-user", "chat": "x-chat"}}}
        file = folder / "holdfast.yaml"
        file.write_text(yaml.safe_dump({"listen": f"127.0.0.1:{port}", "clients": clients, "servers": servers}))
        with start(HOLDFAST, "serve", file, environment={"PATH": f"{BIN}:/usr/bin:/bin"}) as process:
            for name in servers:
                process.wait_for_line(rf"{name} +ready in")
            yield f"http://127.0.0.1:{port}"


def headers(chat: str) -> dict[str, str]:
    return {"authorization": "Bearer sesame", "x-user": "ada", "x-chat": chat}


@requirement("interop:several:one-file-serves-them")
async def test_each_server_is_listed_at_its_own_path(gateway: str) -> None:
    async with asyncio.timeout(PATIENCE):
        for name, tool in TOOLS.items():
            async with sdk_client(f"{gateway}/mcp/{name}", headers=headers("lists")) as client:
                assert tool in {listed.name for listed in (await client.list_tools()).tools}


@requirement("interop:several:one-file-serves-them")
async def test_two_chats_use_all_of_them_at_once(gateway: str) -> None:
    async def work(chat: str, steps: int) -> None:
        seen = Steps()
        async with sdk_client(f"{gateway}/mcp/everything", headers=headers(chat)) as client:
            arguments = {"duration": 0.5, "steps": steps}
            text_of(await client.call_tool(TOOLS["everything"], arguments, progress_callback=seen))
        assert seen.seen == [(step, steps) for step in range(1, steps + 1)]

    async def speak(chat: str) -> None:
        for number in range(10):
            async with sdk_client(f"{gateway}/mcp/remote", headers=headers(chat)) as client:
                said = text_of(await client.call_tool("echo", {"message": f"{chat} {number}"}))
            assert said == f"Echo: {chat} {number}"

    async def remember(chat: str) -> None:
        entity = {"name": chat, "entityType": "chat", "observations": [f"{chat} was here"]}
        async with sdk_client(f"{gateway}/mcp/memory", headers=headers(chat)) as client:
            text_of(await client.call_tool("create_entities", {"entities": [entity]}))
        async with sdk_client(f"{gateway}/mcp/memory", headers=headers(chat)) as client:
            graph = json.loads(text_of(await client.call_tool("read_graph", {})))
        assert [found["name"] for found in graph["entities"]] == [chat]

    async with asyncio.timeout(2 * PATIENCE), asyncio.TaskGroup() as group:
        for chat, steps in (("north", 4), ("south", 5)):
            group.create_task(work(chat, steps))
            group.create_task(speak(chat))
            group.create_task(remember(chat))


@requirement("interop:several:one-url-has-all-tools")
async def test_one_client_uses_all_of_them_at_one_url(gateway: str) -> None:
    async def work(chat: str, steps: int) -> None:
        seen = Steps()
        async with sdk_client(f"{gateway}/mcp", headers=headers(chat)) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert {f"{server}__{tool}" for server, tool in TOOLS.items()} <= tools
            entity: dict[str, Any] = {"name": chat, "entityType": "chat", "observations": []}
            async with asyncio.TaskGroup() as group:
                slow = group.create_task(
                    client.call_tool(
                        f"everything__{TOOLS['everything']}",
                        {"duration": 0.5, "steps": steps},
                        progress_callback=seen,
                    )
                )
                echo = group.create_task(client.call_tool("remote__echo", {"message": chat}))
                group.create_task(client.call_tool("memory__create_entities", {"entities": [entity]}))
            assert "completed" in text_of(slow.result())
            assert text_of(echo.result()) == f"Echo: {chat}"
            graph = json.loads(text_of(await client.call_tool("memory__read_graph", {})))
        assert [found["name"] for found in graph["entities"]] == [chat]
        assert seen.seen == [(step, steps) for step in range(1, steps + 1)]

    async with asyncio.timeout(2 * PATIENCE), asyncio.TaskGroup() as group:
        group.create_task(work("east", 4))
        group.create_task(work("west", 5))
