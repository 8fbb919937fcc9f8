"""LangChain's client of many servers, which opens a client for every tool call, at a gateway.

    python langchain_gateway.py URL MESSAGES

URL is the gateway's for the server, and MESSAGES is as in chats.py.
"""

from __future__ import annotations

import asyncio
import json
import sys

from chats import call_in
from langchain_mcp_adapters.client import MultiServerMCPClient


async def reply(user: str, chat: str, text: str) -> str:
    """What the tool that a message names gives."""
    url = f"{sys.argv[1]}/chats/{user}-{chat}"
    tools = await MultiServerMCPClient({"notes": {"transport": "http", "url": url}}).get_tools()
    name, arguments = call_in(text)
    (content,) = await {tool.name: tool for tool in tools}[name].ainvoke(arguments)
    said: str = content["text"]
    return said


async def run() -> list[str]:
    return [await reply(*message) for message in json.loads(sys.argv[2])]


print(json.dumps(asyncio.run(run())))  # noqa: T201 (the test reads it)
