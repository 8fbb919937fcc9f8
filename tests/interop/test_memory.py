"""@modelcontextprotocol/server-memory behind `supergateway --stateful`: one process, and one memory, per session."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Generator
from pathlib import Path

import pytest

from interop.programs import MEMORY, NODE, PATIENCE, holdfast, node, sdk_client, text_of
from processes import free_port
from requirements import requirement


@pytest.fixture
def server(tmp_path: Path) -> Generator[str]:
    """The URL of supergateway; each process of the memory server has a file of its own."""
    port = free_port()
    command = f"MEMORY_FILE_PATH={shlex.quote(str(tmp_path))}/$$.jsonl exec {shlex.join([str(NODE), str(MEMORY)])}"
    arguments = ["--stdio", command, "--outputTransport", "streamableHttp", "--stateful", "--logLevel", "none"]
    with node("supergateway/dist/index.js", *arguments, "--port", str(port), port=port):
        yield f"http://127.0.0.1:{port}/mcp"


async def call(url: str, chat: str | None, tool: str, **arguments: object) -> str:
    """One message: a new client, one call."""
    headers = {"x-chat": chat} if chat else None
    async with sdk_client(url, headers=headers) as client:
        return text_of(await client.call_tool(tool, arguments))


async def learn(url: str, chat: str | None, name: str) -> None:
    entity = {"name": name, "entityType": "harbour", "observations": [f"seen in {chat}"]}
    assert name in await call(url, chat, "create_entities", entities=[entity])


async def known(url: str, chat: str | None) -> set[str]:
    graph = json.loads(await call(url, chat, "read_graph"))
    return {entity["name"] for entity in graph["entities"]}


async def test_directly_a_new_client_finds_nothing(server: str) -> None:
    """The yardstick: without it the next test would prove nothing."""
    async with asyncio.timeout(PATIENCE):
        await learn(server, None, "Bremen")
        assert await known(server, None) == set()


@requirement("interop:memory:each-chat-its-own")
async def test_two_chats_remember_from_message_to_message_and_each_its_own(server: str, tmp_path: Path) -> None:
    with holdfast("--trust", "chat=x-chat", server) as (gateway, _):
        async with asyncio.timeout(2 * PATIENCE):
            async with asyncio.TaskGroup() as group:
                group.create_task(learn(gateway, "north", "Bremen"))
                group.create_task(learn(gateway, "south", "Genoa"))
            await learn(gateway, "north", "Rostock")
            assert await known(gateway, "north") == {"Bremen", "Rostock"}
            assert await known(gateway, "south") == {"Genoa"}
    assert len(files(tmp_path)) == 2, "one process, and so one file, for each chat"


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())
