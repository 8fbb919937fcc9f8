"""An agent of LangChain whose MCP sessions are kept, by the adapter `langchain-mcp-adapters`.

    HOLDFAST_SETTINGS=holdfast.yaml python examples/library_langchain.py openai:gpt-5
    alice c42 remember that my colour is blue
    alice c42 which colour is mine?

It needs the packages `langchain` and `langchain-mcp-adapters`, what LangChain wants for your model, and
`holdfast` itself. The adapter brings version 1 of the package `mcp`, which lives beside Holdfast.
"""

from __future__ import annotations

import asyncio
import os
import sys

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_mcp_adapters.tools import load_mcp_tools
from mcp import ClientSession

from holdfast import SessionPool

SERVER = "notes"


async def reply(pool: SessionPool, model: BaseChatModel | str, user: str, chat: str, text: str) -> str:
    """What the agent answers to one message; the server remembers the messages of this chat before it."""
    async with (
        pool.transport(SERVER, principal=user, chat=chat) as (read, write),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        agent = create_agent(model, await load_mcp_tools(session))
        answer = await agent.ainvoke({"messages": [{"role": "user", "content": text}]})
    said: str = answer["messages"][-1].text
    return said


async def main(model: str) -> None:
    """Answer the lines of standard input: who says it, in which chat, and what."""
    async with SessionPool.open(os.environ.get("HOLDFAST_SETTINGS", "holdfast.yaml")) as pool:
        while line := await asyncio.to_thread(sys.stdin.readline):
            match line.split(maxsplit=2):
                case [user, chat, text]:
                    sys.stdout.write(await reply(pool, model, user, chat, text) + "\n")
                case _:
                    sys.stderr.write("say: USER CHAT MESSAGE\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/library_langchain.py MODEL    (a model such as openai:gpt-5)")
    asyncio.run(main(sys.argv[1]))
